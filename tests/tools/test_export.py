"""A run's pairs in a folder of another trainer: read back by its own code where that is installed."""

import copy
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from spr_plugin import load_run, runs
from spr_plugin.cli import commands
from spr_plugin.data.pictures import ORIENTATION, MadePicture, open_image
from spr_plugin.errors import UserError
from spr_plugin.marks import mark
from spr_plugin.report.page import write_report
from spr_plugin.runs.log import Log
from spr_plugin.tools.export import Pictures, export
from spr_plugin.tools.layouts import LAYOUTS

datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def output(finished_output, tmp_path_factory):
    return finished_output(tmp_path_factory.mktemp("export") / "out", 8)


def rows_in(folder, layout):
    path = folder / layout.file
    if path.suffix == ".parquet":
        return datasets.Dataset.from_parquet(str(path), cache_dir=str(folder.parent / "cache")).to_list()
    text = path.read_text()
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("name", LAYOUTS)
def test_all_pairs_are_there_with_their_pictures_and_a_card(output, tmp_path, name):
    layout, target = LAYOUTS[name], tmp_path / "new" / name
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    done = CliRunner().invoke(commands, ["export", str(output), "--format", name, "--to", str(target)])
    assert done.exit_code == 0 and done.output == f"6 pairs in {target}\n"
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before
    assert [path.name for path in target.parent.iterdir()] == [name]
    pairs, rows = runs.open(output).pairs, rows_in(target, layout)
    assert [row["id"] for row in rows] == [pair.id for pair in pairs]
    card, content = (target / "README.md").read_text(), (target / layout.file).read_bytes()
    assert (
        hashlib.sha256(content).hexdigest() in card and "| seed | 0 |" in card and "license: unknown" in card
    )
    assert "6 pairs on 6 pictures, from 8 questions" in card
    assert "\n| source: pictures | `images` |\n| source: annotations | `spr.json` |\n| made by |" in card
    assert "| spr_min_kept | `0.6` |" in card and str(tmp_path.parents[1]) not in card
    if name != "parquet":
        named = [row.get("image") or (row.get("images") or row["images_file_names"])[0] for row in rows]
        for one, pair in zip(named, pairs):
            assert open_image(target / one).tobytes() == open_image(pair.pictures[0]).tobytes()


def test_pictures_that_moved_are_found_below_images(finished_output, tmp_path, capsys):
    output = finished_output(tmp_path / "out", 8)
    for kind in ("queries", "pairs"):  # as on another machine, where the records are
        for path in (output / "spr" / kind).glob("rank-*.jsonl"):
            log = Log(path.parent)
            moved = [relocate(record) for record in log.read().values()]
            log.write(moved)
    words = ["export", str(output), "--format", "trl", "--to", str(tmp_path / "new")]
    first = runs.open(output).pairs[0].pictures[0]
    refused = CliRunner().invoke(commands, words)
    assert refused.exit_code and "missing_image 6" in str(refused.exception)
    assert "; name the folder of pictures with --images DIR" in str(refused.exception)
    (tmp_path / "wrong").mkdir()
    wrong = CliRunner().invoke(commands, [*words, "--images", str(tmp_path / "wrong")])
    looked = f"; the first was looked for at {tmp_path}/wrong/"
    told = f"; --images {tmp_path}/wrong is not their folder, name another"
    assert looked in str(wrong.exception) and str(wrong.exception).endswith(told)
    write_report(output, images=str(tmp_path / "wrong"))
    said = capsys.readouterr().err
    assert looked in said and f"/wrong/{os.path.basename(first)}, {first}{told}\n" in said
    images = os.path.dirname(runs.open(output).pairs[0].pictures[0]).replace("/elsewhere", "")
    for folder in (images, os.path.dirname(images)):  # the folder, and one above it
        done = CliRunner().invoke(commands, [*words, "--images", folder])
        assert done.exit_code == 0 and done.output == f"6 pairs in {tmp_path / 'new'}\n"
        shutil.rmtree(tmp_path / "new")
    shown = load_run(output, images=images).show()._repr_html_()
    assert "data:image" in shown and "not shown" not in shown
    assert "not shown" in load_run(output).show()._repr_html_()
    write_report(output, images=images)
    assert "not shown" not in (output / "spr" / "report.html").read_text()
    nowhere = CliRunner().invoke(commands, [*words, "--images", str(tmp_path / "gone")])
    assert str(nowhere.exception) == f"--images {tmp_path / 'gone'}: no such folder"


def relocate(record):
    pictures = record.get("pictures", [])
    moved = [
        f"/elsewhere{one}" if isinstance(one, str) else {**one, "path": f"/elsewhere{one['path']}"}
        for one in pictures
    ]
    return {**record, "pictures": moved} if pictures else record


def test_scores_may_be_missing_in_all_rows_that_are_written_first(output, tmp_path, monkeypatch):
    """Pairs of one's own have none."""
    from spr_plugin.tools import export as module

    monkeypatch.setattr(module, "AT_ONCE", 2)
    export(output, "trl", str(tmp_path / "trl"))
    rows = rows_in(tmp_path / "trl", LAYOUTS["trl"])
    names = [row.pop("file_names", None) or row.pop("images_file_names") for row in rows]
    rows = [{**row, "images": own, "score_chosen": None} for row, own in zip(rows, names)]
    rows[-1]["score_chosen"] = 0.5
    module.write_parquet(tmp_path / "trl" / "pairs.parquet", rows)
    read = rows_in(tmp_path / "trl", LAYOUTS["parquet"])
    assert [row["score_chosen"] for row in read] == [None] * (len(rows) - 1) + [0.5]


def test_datasets_reads_both_layouts_of_trl_alike(output, tmp_path):
    export(output, "trl", str(tmp_path / "trl"))
    export(output, "parquet", str(tmp_path / "parquet"))
    cache = {"cache_dir": str(tmp_path / "cache"), "split": "train"}
    one = datasets.load_dataset(str(tmp_path / "trl"), **cache)
    two = datasets.load_dataset("parquet", data_files=str(tmp_path / "parquet" / "pairs.parquet"), **cache)
    assert one.features == two.features and len(one) == len(two) == 6
    pair = runs.open(output).pairs[0]
    for row in (one[0], two[0]):
        assert row["images"][0].convert("RGB").tobytes() == open_image(pair.pictures[0]).tobytes()
        assert row["prompt"] == [{"role": "user", "content": pair.prompt}]
    assert one.remove_columns("images").to_list() == two.remove_columns("images").to_list()


def test_links_are_read_as_copies_are(output, tmp_path):
    export(output, "trl", str(tmp_path / "trl"), link=True)
    pictures = list((tmp_path / "trl" / "images").iterdir())
    assert len(pictures) == 6 and all(path.is_symlink() for path in pictures)
    rows = datasets.load_dataset(str(tmp_path / "trl"), cache_dir=str(tmp_path / "cache"), split="train")
    assert rows[5]["images"][0].size == (96, 96)


@pytest.mark.slow
def test_trl_trains_on_what_was_written(output, tmp_path):
    """TRL's own collator reads the rows, its trainer moves every weight that is trained."""
    trl = pytest.importorskip("trl")
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    from tests.hosts import make_vlm

    export(output, "trl", str(tmp_path / "trl"))
    rows = datasets.load_dataset(str(tmp_path / "trl"), cache_dir=str(tmp_path / "cache"), split="train")
    model, processor = make_vlm.make("qwen2_5_vl")
    batch = DataCollatorForVisionPreference(processor)([rows[0], rows[1]])
    answers = [ids[mask.bool()] for ids, mask in zip(batch["input_ids"], batch["completion_mask"])]
    texts = processor.tokenizer.batch_decode(answers, skip_special_tokens=True)
    pairs = runs.open(output).pairs[:2]
    for text, answer in zip(texts, [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]):
        assert answer in text
    arguments = trl.DPOConfig(
        str(tmp_path / "dpo"), max_steps=1, per_device_train_batch_size=2, use_cpu=True, report_to=[],
        bf16=False, learning_rate=0.1, max_length=None, save_strategy="no", logging_steps=1,
    )  # fmt: skip
    trainer = trl.DPOTrainer(
        model, copy.deepcopy(model), args=arguments, train_dataset=rows, processing_class=processor
    )
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    trainer.train()
    moved = [name for name, value in model.named_parameters() if not value.equal(before[name])]
    assert any("language_model" in name for name in moved) and any("visual" in name for name in moved)


def changed(output, tmp_path, change):
    """A copy of the run whose records of pairs are changed."""
    shutil.copytree(output, tmp_path / "out")
    log = runs.open(tmp_path / "out").folder.log("pairs")
    log.write([{**record, **change(number)} for number, record in enumerate(log.read().values())])
    return tmp_path / "out"


def test_what_cannot_be_written_is_left_out_and_counted(output, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG")
    changes = [{"pictures": ["/nowhere/a.png"]}, {"pictures": [str(broken)]}, {"chosen": "an <image> tag"}]
    log = runs.open(output).records("pairs").values()
    pairs = [number for number, record in enumerate(log) if "skip" not in record]
    given = dict(zip(pairs, changes))
    run = changed(output, tmp_path, lambda number: given.get(number, {}))
    line = export(run, "ms-swift", str(tmp_path / "new"))
    for why in ("missing_image 1", "unreadable_image 1", "<image> in its text 1"):
        assert why in line
    assert line.startswith("3 pairs in") and len(list((tmp_path / "new" / "images").iterdir())) == 3
    assert "| left out: missing_image | 1 |" in (tmp_path / "new" / "README.md").read_text()


def test_pictures_of_one_name_stay_apart_and_a_turned_one_stays_as_it_is(tmp_path):
    paths = []
    for number, colour in enumerate(("red", "blue")):
        path = tmp_path / str(number) / "a b<c>.jpg"
        path.parent.mkdir()
        picture = Image.new("RGB", (30, 20), colour)
        exif = picture.getexif()
        exif[ORIENTATION] = 6 if number else 1
        picture.save(path, exif=exif)
        paths.append(str(path))
    (tmp_path / "new" / "images").mkdir(parents=True)
    put = Pictures(tmp_path / "new", link=False)
    names = [put(path) for path in paths]
    assert names[0].startswith("images/a_b_c_-") and names[0].endswith(".jpg") and names[1].endswith(".png")
    assert put(paths[0]) == names[0] and len(list((tmp_path / "new" / "images").iterdir())) == 2
    for name, path in zip(names, paths):
        assert open_image(tmp_path / "new" / name).tobytes() == open_image(path).tobytes()


@pytest.mark.parametrize("kind", ["full", "file", "inside", "no run", "no pairs", "no pictures"])
def test_a_mistake_is_one_line_and_leaves_nothing(output, tmp_path, kind):
    target, source = tmp_path / "new", output
    if kind == "full":
        target.mkdir()
        (target / "mine.txt").write_text("")
    elif kind == "file":
        target.write_text("")
    elif kind == "inside":
        target = output / "spr" / "pairs" / "new"
    elif kind == "no run":
        source = tmp_path
    elif kind == "no pairs":
        source = changed(output, tmp_path, lambda number: {"skip": "gone"})
    else:
        source = changed(output, tmp_path, lambda number: {"pictures": ["/nowhere/a.png"]})
    before = sorted(os.listdir(tmp_path))
    words = {
        "full": "holds something already",
        "file": "is there already, and is no folder",
        "inside": "which is the run's own",
        "no run": "no SPR run here",
        "no pairs": "no preference pairs yet",
        "no pictures": "none of its 6 pairs can be written .missing_image 6",
    }
    with pytest.raises(UserError, match=words[kind]) as refused:
        export(str(source), "trl", str(target))
    assert "\n" not in str(refused.value) and sorted(os.listdir(tmp_path)) == before
    assert not (output / "spr" / "pairs" / "new").exists()


def test_an_empty_folder_is_taken(output, tmp_path):
    (tmp_path / "new").mkdir()
    export(str(output), "llava", str(tmp_path / "new"))
    assert (tmp_path / "new" / "pairs.json").exists()


@pytest.mark.parametrize("link", [False, True])
def test_a_picture_that_no_file_holds_is_written_as_it_is_shown(tmp_path, link):
    """Two that are made of one file are two."""
    Image.effect_noise((40, 30), 80).convert("RGB").save(tmp_path / "a.jpg")
    (tmp_path / "to" / "images").mkdir(parents=True)
    pictures, path = Pictures(tmp_path / "to", link), str(tmp_path / "a.jpg")
    made = [MadePicture("a", path, 40, 30, (("fill", (0, 0, 9, 9), colour),)) for colour in ("red", "blue")]
    names = [pictures(source) for source in (*made, path, made[0])]
    assert len(set(names)) == 3 and names[3] == names[0]
    assert [name[-4:] for name in names[:3]] == [".png", ".png", ".jpg"]
    for name, source in zip(names, (*made, path)):
        assert open_image(tmp_path / "to" / name).tobytes() == open_image(source).tobytes()
        assert (tmp_path / "to" / name).is_symlink() == (link and source == path)


def test_marked_pairs_are_left_out(output, tmp_path):
    """By the marks beside the run, or by those that a flag names."""
    run = tmp_path / "out"
    shutil.copytree(output, run)
    first, second, *others = [pair.id for pair in runs.open(run).pairs]
    mark(run / "spr-marks.jsonl", first, "the box is off")
    assert export(str(run), "trl", str(tmp_path / "a")) == f"5 pairs in {tmp_path / 'a'} (left out: marked 1)"
    assert [row["id"] for row in rows_in(tmp_path / "a", LAYOUTS["trl"])] == [second, *others]
    assert "| left out: marked | 1 |" in (tmp_path / "a" / "README.md").read_text()
    for id in (second, *others):
        mark(tmp_path / "mine.jsonl", id, "")
    named = ["export", str(run), "--format", "trl", "--marks", str(tmp_path / "mine.jsonl"), "--to"]
    done = CliRunner().invoke(commands, [*named, str(tmp_path / "b")])
    assert done.output == f"1 pairs in {tmp_path / 'b'} (left out: marked 5)\n"
    (run / "spr-marks.jsonl").write_text("a torn line")
    with pytest.raises(UserError, match=r"spr-marks.jsonl:1: is no mark"):
        export(str(run), "trl", str(tmp_path / "c"))


def test_a_later_round_has_the_marks_of_the_whole_run(output, tmp_path):
    run = tmp_path / "out"
    shutil.copytree(output / "spr", run / "spr")
    shutil.copytree(output / "spr", run / "spr" / "round-2")
    mark(run / "spr-marks.jsonl", runs.open(run).pairs[0].id, "")
    line = export(str(run / "spr" / "round-2"), "trl", str(tmp_path / "to"))
    assert line.startswith("5 pairs in") and "marked 1" in line


def test_marks_that_mark_nothing_of_the_run_are_told(output, tmp_path, capsys):
    marks = tmp_path / "mine.jsonl"
    for text, line in [
        ("", "is empty; no pair is left out by it"),
        ('{"pair": "x"}', "1 of its 1 pairs, such as x, are not of this run"),
    ]:
        marks.write_text(text)
        export(str(output), "llava", str(tmp_path / f"to{len(text)}"), marks=str(marks))
        assert f"--marks {marks}: {line}" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_named_by_its_flag(output, tmp_path, monkeypatch):
    """No draft's name, which nobody has typed, whenever it comes out."""
    with pytest.raises(UserError, match="^--to /proc/x: /proc cannot be written to$"):
        export(str(output), "trl", "/proc/x")

    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=f"^--to {tmp_path}/to: No space left") as refused:
        export(str(output), "trl", str(tmp_path / "to"))
    assert ".tmp" not in str(refused.value) and not os.listdir(tmp_path)


def test_pictures_that_are_gone_are_named(output, tmp_path):
    run = changed(output, tmp_path, lambda number: {"pictures": ["/nowhere/a.png"]})
    with pytest.raises(UserError, match=r"missing_image 6\); the first was looked for at /nowhere/a.png;"):
        export(run, "trl", str(tmp_path / "new"))
