"""``spr score`` on the tiny world: the figures of the pipeline's own scorer, one line each, and one line for
each mistake.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from spr_plugin.cli import commands
from spr_plugin.config import SPRConfig
from spr_plugin.data.pictures import open_image
from spr_plugin.errors import UserError
from spr_plugin.hooks.clip import load
from spr_plugin.pairing import best_over_worst
from spr_plugin.recipes.spr.recipe import SPR
from spr_plugin.recipes.spr.refinement import refine
from spr_plugin.recipes.spr.scoring import SPRScorer
from spr_plugin.tools.score_file import Scoring
from tests.paper import PAPER
from tests.tools.scoring import FORM, TINY, Silent, responses_of, write


@pytest.fixture(scope="module")
def recipe():
    return SPR(SPRConfig(**PAPER), FORM, refine, SPRScorer(load(str(TINY / "clip"))))


def run(world, recipe, tmp_path, rows, pairing=best_over_worst, **more):
    out = tmp_path / "out.jsonl"
    counts = Scoring(
        write(tmp_path / "in.jsonl", rows),
        str(world / "spr.json"),
        str(world / "images"),
        FORM,
        str(out),
        **more,
    ).run(recipe, pairing)
    return counts, [json.loads(line) for line in out.read_text().splitlines()]


def test_scores_and_pairs(world, recipe, queries, tmp_path):
    rows = responses_of(queries)
    counts, scored = run(world, recipe, tmp_path, rows, pairs=str(tmp_path / "pairs.jsonl"))
    assert [row["id"] for row in scored] == [row["id"] for row in rows]
    for query, first in zip(queries, range(0, len(rows), 4)):
        full, one, vague, broken = scored[first : first + 4]
        picture = open_image(query.image.path, query.image.id)
        texts = [[row["text"] for row in rows[first : first + 4]]]
        [judged] = recipe.judge([picture], [query], texts)
        expected = judged.answers[0]
        assert {key: full[key] for key in expected.terms} == pytest.approx(expected.terms, abs=1e-5)
        assert full["score"] == pytest.approx(expected.score, abs=1e-5) and len(full["boxes"]) == len(
            query.truth
        )
        assert full["s_loc"] > 0.95 > one["s_loc"] and json.loads(
            one["refined"].split("json")[1].split("```")[0]
        )
        assert (
            (vague["reason"], broken["reason"]) == ("no_box", "unparsable")
            and vague["score"] is None
            and broken["s_loc"] is None
        )
    pairs = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert counts == {
        "responses": len(rows),
        **({"pairs": len(pairs)} if pairs else {}),
        **{k: v for k, v in counts.items() if k.startswith("no pair")},
    }
    assert sum(counts.values()) == len(rows) + len(queries)


@pytest.mark.parametrize("word", ["", "tired"])
def test_whatever_word_a_pairing_gives_is_a_reason(world, recipe, queries, tmp_path, word):
    rows, pairs = responses_of(queries[:1]), tmp_path / "pairs.jsonl"
    counts, _ = run(world, recipe, tmp_path, rows, lambda query, answers: word, pairs=str(pairs))
    assert counts == {"responses": len(rows), f"no pair: {word}": 1} and pairs.read_text() == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": "spr/nobody.png"}, "spr/nobody.png is not in --annotations"),
        (
            {"region": [0, 0, 1]},
            r"in.jsonl:3: the region of response .* is no \[x1, y1, x2, y2\] in pixels: \[0, 0, 1\]",
        ),
        ({"region": [0, 0, 2, "9"]}, "is no .x1, y1, x2, y2. in pixels"),
        ({"text": None}, "text is missing"),
        ({"region": [0, 0, 2, 2]}, "holds no annotated object"),
        ({"region": [0, 0, 2, -(10**400)]}, "the region of response .* is no .*-inf"),
        ({"id": 10**400}, "id is missing or of the wrong kind"),
        ({"id": "1\nspr: error: \x1b[2J", "region": [0, 0, 2, 2]}, r"^response 1\\nspr: error: \\x1b\[2J: "),
        ({"image": "a\nspr: error: b", "region": [0, 0, 2, 2]}, r"a\\nspr: error: b is not in --annotations"),
        ({"image": "\0"}, "is not in --annotations"),
    ],
)
def test_a_wrong_response_is_named(world, recipe, queries, tmp_path, change, words):
    rows = responses_of(queries[:1])
    rows[2].update(change)
    with pytest.raises(UserError, match=words) as refused:
        run(world, recipe, tmp_path, rows)
    assert len(str(refused.value).splitlines()) == 1


def test_half_a_character_and_a_separator_in_an_answer(world, recipe, queries, tmp_path):
    rows = responses_of(queries[:1])
    rows[0]["text"] = "a \ud83d cat\u2028" + rows[0]["text"]
    text = "\ufeff" + "".join(
        json.dumps(row, ensure_ascii=index != 0).replace("\ud83d", r"\ud83d") + "\r\n\r\n"
        for index, row in enumerate(rows)
    )
    (tmp_path / "in.jsonl").write_bytes(text.encode())
    out = tmp_path / "out.jsonl"
    counts = Scoring(
        str(tmp_path / "in.jsonl"), str(world / "spr.json"), str(world / "images"), FORM, str(out)
    ).run(recipe, best_over_worst)
    texts = [json.loads(line)["text"] for line in out.read_text(encoding="utf-8").split("\n") if line]
    assert counts["responses"] == len(rows) == len(texts) and texts[0].startswith("a \ufffd cat\u2028")


@pytest.mark.parametrize("corners", [[40, 40, 10, 10], [900, 900, 990, 990]])
def test_a_region_that_is_none_is_named_before_anything_is_scored(world, queries, tmp_path, corners):
    rows = responses_of(queries)
    rows[-1].update(region=corners)
    with pytest.raises(
        UserError, match=f"response {rows[-1]['id']}: the region .* holds no annotated object"
    ):
        run(world, None, tmp_path, rows)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_lines(world, queries, tmp_path):
    """Ten times the regions, the same peak to within the 8 bytes for each and some slack."""
    import tracemalloc

    def peak(regions):
        query = queries[0]
        name, (x1, y1, x2, y2) = "/".join(query.image.path.split("/")[-2:]), query.region.xyxy
        rows = [
            {"id": i, "image": name, "region": [x1 - i / 1e6, y1, x2, y2], "text": "a thing"}
            for i in range(regions)
        ]
        tracemalloc.start()
        try:
            run_file = write(tmp_path / "in.jsonl", rows)
            del rows
            tracemalloc.reset_peak()
            base = tracemalloc.get_traced_memory()[0]
            Scoring(
                run_file, str(world / "spr.json"), str(world / "images"), FORM, str(tmp_path / "out.jsonl")
            ).run(Silent(), best_over_worst)
            return tracemalloc.get_traced_memory()[1] - base
        finally:
            tracemalloc.stop()

    few, many = peak(200), peak(2000)
    assert many < few + 2000 * 8 * 8 + 50_000


@pytest.mark.slow
def test_the_command(world, queries, tmp_path):
    rows = responses_of(queries[:1])
    flags = (
        f"--annotations {world}/spr.json --images {world}/images --box-format qwen3-vl --clip {TINY}/clip"
        f" --out {tmp_path}/out.jsonl"
    )
    command = [
        sys.executable,
        "-m",
        "spr_plugin",
        "score",
        "--responses",
        write(tmp_path / "in.jsonl", rows),
        *flags.split(),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "responses 4" in done.stderr and len((tmp_path / "out.jsonl").read_text().splitlines()) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


# --- the command, in this process: what it refuses, it refuses before a model loads ("nowhere" is none)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder with a wide picture, its annotations and a response; the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (640, 400)).save("images/a.png")
    annotated(tmp_path)
    responses(tmp_path, {})
    return tmp_path


def annotated(folder, images=({},), rows=({},)):
    content = {
        "images": [
            {"id": n, "file_name": "a.png", "width": 640, "height": 400, **image}
            for n, image in enumerate(images, 1)
        ],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": 1, "bbox": [10, 10, 90, 90], **row}
            for n, row in enumerate(rows)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (folder / "coco.json").write_text(json.dumps(content))


def responses(folder, *changes):
    rows = [
        {
            "id": f"r{n}",
            "image": "a.png",
            "region": [0, 0, 640, 400],
            "text": "A cat [0.1, 0.2, 0.3, 0.4]",
            **change,
        }
        for n, change in enumerate(changes)
    ]
    write(folder / "in.jsonl", rows)


def command(*more, out="out.jsonl"):
    flags = (
        "--annotations coco.json --images images --responses in.jsonl --box-format llava --clip nowhere"
        f" --out {out}"
    )
    commands(["score", *flags.split(), *map(str, more)], standalone_mode=False)
    return [json.loads(line) for line in Path(out).read_text().splitlines()]


def refused(*more):
    with pytest.raises(UserError) as caught:
        command(*more)
    assert "--spr_" not in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_without_a_scorer_s_model_the_checks_come_first(small):
    assert "--clip nowhere" in refused()
    assert not Path("out.jsonl").exists()


def test_what_was_left_out_of_the_used_pictures_is_said_once(small, capsys):
    annotated(small, rows=[{}, {"iscrowd": 1}, {"image_id": 9}])
    responses(small, {}, {"region": [0, 0, 320, 400]})
    refused()
    assert "--annotations coco.json: left out unknown_image 1, crowd 1\n" in capsys.readouterr().err


def test_the_method_s_flags_are_the_run_s(small):
    """A true box behind a wrong name, one far off, and two answers without a box; the objects are rings."""
    annotated(small, rows=[{"bbox": [0, 0, 320, 200]}, {"bbox": [320, 200, 320, 200]}])
    coco = Path("coco.json")
    coco.write_text(coco.read_text().replace('"cat"', '"ring"'))
    good, other, far = "[0.0, 0.0, 0.5, 0.5]", "[0.5, 0.5, 1.0, 1.0]", "[0.0, 0.8, 0.1, 0.9]"
    texts = (
        f"a circle {good} and a ring {other}",
        f"a ring {good}, a ring {good}",
        "Some rings.",
        f"a ring {far[:-1]}",
    )
    responses(small, *({"text": text} for text in texts))
    clip = "--clip", f"{TINY}/clip", "--aspect", "square"
    papers = "--repair coordinates --no-reject-vague"
    plain = command(*clip, *papers.split())
    assert [row["not_choosable"] for row in plain] == [None, "too_few_boxes_kept", "no_box", "unparsable"]
    assert [row["s_loc"] for row in plain] == [1.0, 0.5, None, None]
    flags = "--match name --match-threshold 1 --count-duplicates --min-kept 0.5"
    found = command(*clip, *flags.split(), "--pairs", "pairs.jsonl", out="other.jsonl")
    own = "--repair item --reject-vague"
    assert command(*clip, *flags.split(), *own.split(), out="same.jsonl") == found
    assert [row["not_choosable"] for row in found] == [None, None, "no_box", "unparsable"]
    assert [row["refined"] for row in found[:2]] == [f"a ring {other}", f"a ring {good}"]
    assert [row["s_loc"] for row in found] == [0.5, pytest.approx(1 / 3), 0.0, 0.0]
    assert [row["reason"] for row in found] == [None] * 4 and None not in [row["score"] for row in found]
    [pair] = map(json.loads, Path("pairs.jsonl").read_text().splitlines())
    assert pair["rejected"] == min(found, key=lambda row: row["score"])["text"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--match", "names"], "--match names: choose from iou, name"),
        (["--match-threshold", "2"], "--match-threshold 2"),
        (["--repair", "items", "--clip", f"{TINY}/clip"], "--repair items: .*coordinates, item and none"),
        (["--box-format", "nobody"], "--box-format nobody: no such family.*--plugin FILE"),
        (["--scorer", "nobody"], "--scorer nobody: no plugin has it"),
        (["--plugin", "gone.py"], "--plugin gone.py: no such file"),
        (["--lambda", "2"], "--lambda 2"),
        (["--detector", "gone", "--clip", f"{TINY}/clip"], "--detector gone"),
        (["--device", "cuda"], "--device cuda: "),
        (["--device", "nothing"], "--device nothing: "),
        (["--images", "gone"], "--images gone: no such folder"),
        (["--annotations", "gone.json"], "--annotations gone.json"),
    ],
)
def test_an_error_names_the_command_s_own_flags(small, flags, words):
    assert re.search(words, refused(*flags))


def test_no_clip_is_one_line(small):
    with pytest.raises(UserError, match="^--clip: "):
        commands(
            [
                *"score --annotations coco.json --images images --responses in.jsonl".split(),
                *"--box-format llava --out o.jsonl".split(),
            ],
            standalone_mode=False,
        )


@pytest.mark.timeout(20)
def test_a_pipe_is_refused(small):
    """It can be read once: the check would leave nothing to score."""
    os.mkfifo("pipe")
    assert "--responses pipe: is no file" in refused("--responses", "pipe")


PLUGIN = """
from spr_plugin.data.annotations import AnnotatedImage, Annotation
from spr_plugin.boxes import Box, Space
from spr_plugin.hookspecs import hookimpl

class Half:
    def score(self, picture, descriptions):
        return [({"half": 0.5}, 0.5) for _ in descriptions]

@hookimpl
def spr_scorer(config, device):
    return Half() if config.spr_scorer == "half" else None

@hookimpl
def spr_annotations(source, image_folder, skipped):
    if source.endswith(".mine"):
        box = Box(10, 10, 100, 100, Space.pixels(640, 400))
        return [AnnotatedImage("7", f"{image_folder}/a.png", 640, 400, (Annotation(1, "cat", box),))]
"""


@pytest.fixture
def plugin(small):
    from spr_plugin import plugins

    Path("half.py").write_text(PLUGIN)
    yield ["--plugin", "half.py", "--scorer", "half"]
    plugins.manager().unregister(name=str((small / "half.py").resolve()))


def test_a_plugin_s_scorer_and_annotations_are_used(small, plugin):
    assert [row["half"] for row in command(*plugin)] == [0.5]
    Path("some.mine").write_text("")
    [row] = command(*plugin, "--annotations", "some.mine")
    assert row["half"] == 0.5
    responses(small, {"image": "b.png"})
    assert "b.png is not in --annotations some.mine" in refused(*plugin, "--annotations", "some.mine")


def test_an_absolute_file_name_is_a_name(small, plugin):
    name = str(small / "images/a.png")
    annotated(small, [{"file_name": name}])
    responses(small, {"image": name})
    assert len(command(*plugin)) == 1
    Image.new("RGB", (640, 400)).save("b.png")
    annotated(small, [{"file_name": str(small / "b.png")}])
    responses(small, {"image": str(small / "b.png")})
    assert (
        "lies outside the pictures' folder images" in (said := refused(*plugin)) and "--allow-outside" in said
    )
    assert len(command(*plugin, "--allow-outside")) == 1


def test_boxes_are_exported_as_far_as_they_lie_on_the_picture(small, plugin):
    """y = 0.875 of the padded 640 x 640 square is 440 on a picture of 400; 0.95 … 1.0 lies below it."""
    responses(small, {"text": "A cat [0.5, 0.5, 0.6, 0.875] and a dog [0.5, 0.95, 0.6, 1.0]."})
    [row] = command(*plugin)
    assert row["boxes"] == [[320, 200, 384, 400]]


@pytest.mark.parametrize("flag", ["--out", "--pairs"])
@pytest.mark.parametrize(
    "target",
    [
        "in.jsonl",
        "coco.json",
        "images/a.png",
        "half.py",
        "link",
        "hard",
        "./images/../in.jsonl",
        "model/config.json",
    ],
)
def test_an_output_is_no_input(small, plugin, flag, target):
    os.symlink("in.jsonl", "link")
    os.link("coco.json", "hard")
    (small / "model").mkdir()
    Path("model/config.json").write_text("{}")
    contents = lambda: {
        path: path.read_bytes() for path in small.rglob("*") if path.is_file() and path.suffix != ".pyc"
    }
    before = contents()
    words = refused(*plugin, "--clip", "model", flag, target)
    assert words.startswith(f"{flag} {target}: is read as ") and "would be lost" in words
    assert contents() == before


@pytest.mark.parametrize("pairs", ["out.jsonl", "./out.jsonl", "images/../out.jsonl", "link"])
@pytest.mark.parametrize("there", [True, False])
def test_scores_and_pairs_go_to_two_files(small, pairs, there):
    os.symlink("out.jsonl", "link")
    if there:
        Path("out.jsonl").write_text("")
    assert f"--pairs {pairs}: --out names the same file" in refused("--pairs", pairs)


@pytest.mark.parametrize(
    ("out", "words"), [("images", "is no file"), ("in.jsonl/out", "in.jsonl is no folder")]
)
def test_an_output_that_cannot_be_written_is_refused_first(small, out, words):
    assert re.search(rf"--out {out}: .*{words}", refused("--out", out))


@pytest.mark.parametrize("made", ["file", "link", "gone"])
def test_what_takes_the_place_of_the_run_s_folder_is_refused_first(small, made):
    """Before the responses are read: they may be millions."""
    Path("in.jsonl").write_text("no JSON")
    Path("mine").write_text("mine")
    (
        Path("out.jsonl.run").write_text("mine")
        if made == "file"
        else os.symlink({"link": "mine"}.get(made, made), "out.jsonl.run")
    )
    assert "--out out.jsonl.run: is there already, and is no folder" in refused()


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("flag", ["--pairs", "--responses"])
@pytest.mark.parametrize(
    "target", ["out.jsonl.run/other.jsonl", "./images/../out.jsonl.run/scores/o", "link/o"]
)
def test_nothing_else_lies_in_the_run_s_own_folder(small, there, flag, target):
    """It is deleted when all is scored, and with it what was to be kept."""
    os.symlink("out.jsonl.run", "link")
    if there:
        Path("out.jsonl.run").mkdir()
    Path("in.jsonl").write_text("no JSON")
    assert f"{flag} {target}: lies in out.jsonl.run, which this command makes and deletes" in refused(
        flag, target
    )


def test_a_folder_of_another_s_run_is_refused_before_anything_is_read(small):
    Path("in.jsonl").write_text("no JSON")
    Path("out.jsonl.run").mkdir()
    Path("out.jsonl.run/manifest.json").write_text('{"name": "another tool"}')
    assert "was written by no run of ours" in refused()


@pytest.mark.parametrize(
    "aspect, words",
    [
        ("sqare", "--aspect sqare: "),
        ("PAD", "--aspect PAD: "),
        ("1-2-3", "--aspect 1-2-3: "),
        ("", "--aspect : "),
    ],
)
@pytest.mark.parametrize("family", ["llava", "ferret", "qwen2.5-vl"])
def test_an_aspect_that_nobody_knows_is_refused(small, aspect, words, family):
    """LLaVA's boxes were read as 0-1 of the picture for any word but pad."""
    assert words in refused("--aspect", aspect, "--box-format", family)


@pytest.mark.parametrize("aspect", ["pad", "square", "anyres", "anyres_max_9"])
def test_llava_s_own_aspects_are_known(small, plugin, aspect):
    assert len(command(*plugin, "--aspect", aspect)) == 1


def test_an_output_s_folder_is_made(small, plugin):
    assert len(command(*plugin, out="new/deep/out.jsonl")) == 1 and os.listdir("new/deep") == ["out.jsonl"]
