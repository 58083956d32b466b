import json
import math
import random
import re
from functools import cache
from math import comb

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

pytest.importorskip("datasets")

from spr_plugin.cli import commands
from spr_plugin.errors import UserError
from spr_plugin.eval_tasks import captions, description, phrases, rec, saved_results, short_answers
from spr_plugin.eval_tasks import compare as module

BOX = [20.0, 20.0, 60.0, 60.0]


def write_run(folder, records, task="spr_refcoco_val", stamp="20300101_000000"):
    """A samples file as lmms-eval writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stamp}_samples_{task}.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in records)
    )
    return folder


def rec_run(folder, noise, picture=None, count=300, **more):
    """Answers whose box is off by up to `noise` of its side, the same documents in each run."""
    return write_run(folder, rec_records(noise, picture, count), **more)


@cache
def rec_records(noise, picture, count):
    records = []
    for number in range(count):
        rng = random.Random(f"{number} {noise}")
        shift = rng.uniform(-noise, noise) * 40
        doc = {
            "id": str(number),
            "image_id": str(number // 3),
            "image": picture,
            "width": 100,
            "height": 100,
            "bbox": BOX,
            "box_format": "llava:square",
        }
        x1, y1, x2, y2 = BOX[0] + shift, BOX[1], BOX[2] + shift, BOX[3]
        answer = (
            f"[{x1 / 100:.4f}, {y1 / 100}, {x2 / 100:.4f}, {y2 / 100}]" if rng.random() > 0.02 else "nothing"
        )
        logged = {"input": f"Where is number {number}?", "filtered_resps": answer}
        records.append({"doc_id": number, **logged, **rec.process_results(doc, [answer])})
    return records


def test_gains_are_paired_and_the_signature_is_found(tmp_path):
    compared = module.compare(rec_run(tmp_path / "a", 0.20), rec_run(tmp_path / "b", 0.08))
    rows = {row["figure"]: row for row in compared["tasks"]["spr_refcoco_val"]["rows"]}
    assert rows["Acc@0.5"]["n"] == 300
    for row in rows.values():
        assert row["gain"] == pytest.approx(row["b"] - row["a"]) and row["low"] <= row["gain"] <= row["high"]
    assert rows["Acc@0.9"]["low"] > 0.1 and rows["Acc@0.9"]["p"] < 1e-6 and rows["mIoU"]["p"] is None
    signature = compared["tasks"]["spr_refcoco_val"]["signature"]
    assert signature["verdict"] == "grows" and signature["low"] > 0
    back = module.compare(tmp_path / "b", tmp_path / "a", tmp_path / "out")
    assert back["tasks"]["spr_refcoco_val"]["signature"]["verdict"] == "shrinks"


def test_nothing_that_is_read_is_written_to(tmp_path):
    """A link of an output's name to a samples file is replaced, not followed; a file is no folder for the
    results.
    """
    a, b = rec_run(tmp_path / "a", 0.20, count=30), rec_run(tmp_path / "b", 0.08, count=30)
    samples = {file: file.read_bytes() for folder in (a, b) for file in folder.glob("*.jsonl")}
    for name, file in zip(("compare.json", "compare.md"), samples):
        (b / name).symlink_to(file)
    module.compare(a, b)
    assert {file: file.read_bytes() for file in samples} == samples and not (b / "compare.json").is_symlink()
    with pytest.raises(UserError, match="--out .*samples.*: is there already, and is no folder"):
        module.compare(a, b, next(iter(samples)))


def test_a_run_against_itself_shows_nothing(tmp_path):
    compared = module.compare(rec_run(tmp_path / "a", 0.1), rec_run(tmp_path / "b", 0.1))
    part = compared["tasks"]["spr_refcoco_val"]
    assert all(
        row["gain"] == row["low"] == row["high"] == 0 and row["p"] in (None, 1.0) for row in part["rows"]
    )
    assert (
        part["signature"]["verdict"].startswith("neither")
        and part["flips"]["won"] == part["flips"]["lost"] == 0
    )


@pytest.mark.parametrize("won, lost", [(10, 3), (3, 10), (0, 5), (0, 0), (50, 50)])
def test_mcnemar_is_the_exact_binomial_test(won, lost):
    values = np.array([[0, 1]] * won + [[1, 0]] * lost + [[1, 1]] * 7, dtype=float)
    n, least = won + lost, min(won, lost)
    expected = min(1.0, 2 * sum(comb(n, k) for k in range(least + 1)) / 2**n) if won != lost else 1.0
    assert module.mcnemar(values) == pytest.approx(expected)


def test_pages_are_written(tmp_path):
    Image.new("RGB", (100, 100), (9, 9, 9)).save(tmp_path / "a.png")
    picture = str(tmp_path / "a.png")
    a, b = rec_run(tmp_path / "a", 0.9, picture), rec_run(tmp_path / "b", 0.1, picture)
    told = {"config": {"model": "spr_llava", "model_args": "pretrained=spr<b>"}, "date": "20261130"}
    for samples in b.glob("*_samples_*"):
        stamp, _, _ = samples.name.partition("_samples_")
        (b / f"{stamp}_results.json").write_text(json.dumps(told))
    done = CliRunner().invoke(commands, ["compare", str(a), str(b), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0 and "Signature: the gain" in done.output and "| Acc@0.5 |" in done.output
    page = (tmp_path / "out/compare.html").read_text()
    assert (
        page.count("data:image/jpeg;base64,") == module.SHOWN_FLIPS
        and "<svg" in page
        and "http" not in re.sub(r'xmlns="[^"]*"', "", page)
    )
    compared = json.loads((tmp_path / "out/compare.json").read_text())
    made = {"model": "spr_llava", "model_args": "pretrained=spr<b>", "date": "20261130"}
    assert compared["made"] == {"a": {}, "b": made} and "pretrained=spr&lt;b&gt;</code>" in page
    flips = compared["tasks"]["spr_refcoco_val"]["flips"]
    (hits,) = [row for row in compared["tasks"]["spr_refcoco_val"]["rows"] if row["figure"] == "Acc@0.5"]
    a_hits, b_hits = hits["a"], hits["b"]
    assert (flips["won"] - flips["lost"]) / 300 == pytest.approx(b_hits - a_hits)
    assert (tmp_path / "out/compare.md").read_text() in done.output + "\n"
    for flip in flips["shown"]:
        assert flip["question"] == f"Where is number {flip['id']}?" and flip["question"] in page
        assert all(f"<code>{flip[answer]}</code>" in page for answer in ("answer_a", "answer_b"))


@pytest.mark.parametrize(
    "record, spoken",
    [
        ({"input": "What?", "filtered_resps": "A cat."}, ("What?", "A cat.")),
        ({"input": "What?", "filtered_resps": ["A cat."]}, ("What?", "A cat.")),
        ({"input": None, "filtered_resps": []}, (None, None)),
        ({"input": {"a": 1}, "filtered_resps": [["A cat."]]}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_what_was_asked_and_said_is_read_as_far_as_it_was_logged(record, spoken):
    assert saved_results.spoken(record) == spoken


def test_the_report_of_a_run_takes_a_comparison_along(tmp_path, finished_output):
    output = finished_output(tmp_path / "out", 2)
    folders = [str(rec_run(tmp_path / name, noise)) for name, noise in (("a", 0.2), ("b", 0.08))]
    done = CliRunner().invoke(commands, ["report", str(output), "--results", *folders])
    assert done.exit_code == 0 and done.output.strip() == str(output / "spr" / "report.html")
    page = (output / "spr" / "report.html").read_text()
    compared = module.compare(*folders, tmp_path / "compared")["tasks"]["spr_refcoco_val"]
    assert "<h2>Base against SPR</h2>" in page and compared["signature"]["line"] in page
    assert all(f"<td>{100 * row['gain']:+.2f}</td>" in page for row in compared["rows"])


def test_what_a_model_said_is_text_on_the_page(tmp_path):
    a, b = rec_run(tmp_path / "a", 0.9, count=30), rec_run(tmp_path / "b", 0.1, count=30)
    file = next(b.glob("*.jsonl"))
    records = [json.loads(line) for line in file.read_text().splitlines()]
    for record in records:
        record["filtered_resps"] = "<script>alert(1)</script>" * 10_000
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    module.compare(a, b)
    page = (b / "compare.html").read_text()
    assert "<script" not in page and "&lt;script" in page and len(page) < 500_000


def test_missing_pictures_leave_a_page(tmp_path):
    a, b = rec_run(tmp_path / "a", 0.9, "gone.png"), rec_run(tmp_path / "b", 0.1, "gone.png")
    module.compare(a, b)
    page = (tmp_path / "b/compare.html").read_text()
    assert "base64" not in page and "Dashed" not in page


def test_box_tasks_are_summed_up_too(tmp_path):
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    for name, noise in (("a", 0.3), ("b", 0.1)):
        rec_run(tmp_path / name, noise, str(tmp_path / "a.png"))
        rec_run(tmp_path / name, noise + 0.1, str(tmp_path / "a.png"), count=100, task="spr_refcoco+_val")
    tasks = module.compare(tmp_path / "a", tmp_path / "b")["tasks"]
    assert tasks[module.ALL]["rows"][0]["n"] == 400 and len(tasks) == 3
    page = (tmp_path / "b/compare.html").read_text()
    assert page.count("became right") == 3 and page.count("Dashed") == 2  # the sum shows no picture


def test_the_files_that_were_read_are_named(tmp_path):
    rec_run(tmp_path / "a", 0.5, count=9, stamp="20300101_000000")
    a, b = (
        rec_run(tmp_path / "a", 0.1, count=9, stamp="20300102_000000"),
        rec_run(tmp_path / "b", 0.1, count=9),
    )
    compared = module.compare(a, b)
    newest = str(tmp_path / "a/20300102_000000_samples_spr_refcoco_val.jsonl")
    assert compared["files"]["a"] == [newest] and len(compared["files"]["b"]) == 1
    for name in ("compare.md", "compare.html"):
        page = (tmp_path / "b" / name).read_text()
        assert (
            newest in page
            and compared["files"]["b"][0] in page
            and "20300101_000000_samples" not in page.replace(compared["files"]["b"][0], "")
        )


def changed(tmp_path, name, change):
    """The samples of nine documents, after `change` of the list of records."""
    folder = rec_run(tmp_path / name, 0.1, count=9)
    file = next(folder.glob("*.jsonl"))
    records = [json.loads(line) for line in file.read_text().splitlines()]
    change(records)
    file.write_text(
        "".join((record if isinstance(record, str) else json.dumps(record)) + "\n" for record in records)
    )
    return folder


def other_truth(records):
    records[3]["details"]["items"][0]["truth"] = [1.0, 2.0, 3.0, 4.0]


def other_question(records):
    records[3]["details"]["asked"] = "another"


def more_items(records):
    records[3]["details"]["items"] *= 3


def other_item(records):
    records[3]["details"]["items"][0]["id"] = "x"


def twice(records):
    records.append(records[3])


def without_id(records):
    del records[3]["details"]["id"]


def without_items(records):
    del records[3]["details"]["items"]


def without_details(records):
    del records[3]["details"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_truth, "ask other things in document 3, or know another truth"),
        (other_question, "ask other things in document 3, or know another truth"),
        (more_items, "ask other things in document 3"),
        (other_item, "ask other things in document 3"),
        (twice, "line 10: document 3 stands there twice"),
        (without_id, "line 4: no record of a task of ours"),
        (without_items, "is no record of a task of ours, with an image and items"),
        (without_details, "line 4: no record of a task of ours"),
        (lambda records: records.insert(0, []), "line 1: no record of a task of ours"),
        (lambda records: records.insert(3, []), "line 4: no record of a task of ours"),
        (lambda records: records.insert(3, "null"), "line 4: no record of a task of ours"),
        (lambda records: records.append('{"doc_id": 9, '), "line 10: not JSON"),
    ],
)
def test_samples_that_are_no_pair_are_one_line(tmp_path, change, words):
    a = changed(tmp_path, "a", lambda records: None)
    for folders in ((a, changed(tmp_path, "b", change)), (changed(tmp_path, "c", change), a)):
        done = CliRunner().invoke(commands, ["compare", *map(str, folders)])
        with pytest.raises(UserError, match=re.escape(words)):
            module.compare(*folders)
        assert done.exit_code and not isinstance(done.exception, (KeyError, TypeError, AttributeError))


def test_a_flip_names_the_phrase_that_was_asked_among_several(tmp_path):
    doc = {"id": "1", "image_id": "1", "width": 100, "height": 100, "box_format": "llava:square"}
    doc["phrases"] = [{"id": str(n), "phrase": f"a cat {n}", "boxes": [BOX]} for n in range(3)]
    x1, y1, x2, y2 = (value / 100 for value in BOX)
    right, wrong = (f"a cat {{}} [{x1}, {y1}, {x}, {y}]" for x, y in ((x2, y2), (1.0, 1.0)))
    first = ", ".join(right.format(number) for number in range(3))
    second = ", ".join((wrong if number == 1 else right).format(number) for number in range(3))
    a, b = (
        write_run(tmp_path / name, [phrases.process_results(doc, [answer])], "spr_flickr30k_val")
        for name, answer in (("a", first), ("b", second))
    )
    (flip,) = module.compare(a, b)["tasks"]["spr_flickr30k_val"]["flips"]["shown"]
    assert flip["phrase"] == "a cat 1"
    assert "Phrase: <b>a cat 1</b>" in (b / "compare.html").read_text()


def test_blank_lines_are_no_records(tmp_path):
    plain = rec_run(tmp_path / "a", 0.1, count=9)
    spaced = changed(tmp_path, "b", lambda records: records.extend(["", "  "]) or records.insert(4, ""))
    assert module.compare(plain, spaced)["tasks"]["spr_refcoco_val"]["rows"][0]["n"] == 9


def test_truths_of_tasks_without_boxes_are_compared_too(tmp_path):
    doc = {
        "id": "1",
        "image_id": "1",
        "image": "a.png",
        "question": "Is there a cat?",
        "answer": "No.",
        "box_format": "llava",
    }
    a, b = (
        write_run(
            tmp_path / name,
            [short_answers.process_results({**doc, **change}, ["No."])],
            "spr_tiny_world_presence",
        )
        for name, change in (("a", {}), ("b", {"answer": "Yes."}))
    )
    with pytest.raises(UserError, match="ask other things in document 1"):
        module.compare(a, b)
    # where the picture lies and how the model writes boxes is no matter
    other = {**doc, "image": "b/a.png", "box_format": "ferret"}
    c = write_run(tmp_path / "c", [short_answers.process_results(other, ["No."])], "spr_tiny_world_presence")
    assert module.compare(a, c)["tasks"]


def test_a_folder_with_the_runs_of_two_models_is_refused(tmp_path):
    rec_run(tmp_path / "both/base", 0.1, count=9)
    rec_run(tmp_path / "both/spr", 0.1, count=9, stamp="20300102_000000")
    write_run(tmp_path / "both/pope", [{"doc_id": 0}], "pope")  # not ours
    with pytest.raises(
        UserError, match="both holds 2 runs .*both/base, .*both/spr.*: name the folder of one"
    ):
        module.compare(tmp_path / "both", rec_run(tmp_path / "b", 0.1, count=9))
    assert module.compare(tmp_path / "both/base", tmp_path / "both/spr")["tasks"]


def test_the_newest_samples_count(tmp_path):
    rec_run(tmp_path / "a", 0.5, stamp="20300101_000000")
    rec_run(tmp_path / "a", 0.1, stamp="20300102_000000")
    compared = module.compare(tmp_path / "a", rec_run(tmp_path / "b", 0.1))
    assert compared["tasks"]["spr_refcoco_val"]["rows"][0]["gain"] == 0


def test_ratios_whose_samples_differ(tmp_path):
    """Precision of descriptions: A writes two boxes of which one is right, B one right box."""
    objects = [{"label": "cat", "bbox": BOX}]
    docs = [
        {
            "id": str(n),
            "image_id": str(n),
            "image": None,
            "width": 100,
            "height": 100,
            "objects": objects,
            "box_format": "llava:square",
        }
        for n in range(40)
    ]
    right, wrong = "a cat [0.2, 0.2, 0.6, 0.6]", " and a dog [0.8, 0.8, 0.9, 0.9]"
    a = write_run(
        tmp_path / "a",
        [description.process_results(doc, [right + wrong]) for doc in docs],
        "spr_grounded_description_val",
    )
    b = write_run(
        tmp_path / "b",
        [description.process_results(doc, [right]) for doc in docs],
        "spr_grounded_description_val",
    )
    rows = {
        row["figure"]: row for row in module.compare(a, b)["tasks"]["spr_grounded_description_val"]["rows"]
    }
    assert (rows["precision"]["a"], rows["precision"]["b"]) == (0.5, 1.0) and rows["recall"]["gain"] == 0


def test_captions_by_answer(tmp_path):
    docs = [
        {"id": str(n), "image_id": str(n), "references": [f"a red cat {n}", f"cat number {n}"]}
        for n in range(20)
    ]
    a = write_run(
        tmp_path / "a", [captions.process_results(doc, ["a dog"]) for doc in docs], "spr_region_caption_vg"
    )
    b = write_run(
        tmp_path / "b",
        [captions.process_results(doc, [doc["references"][0]]) for doc in docs],
        "spr_region_caption_vg",
    )
    rows = {row["figure"]: row for row in module.compare(a, b)["tasks"]["spr_region_caption_vg"]["rows"]}
    assert (
        rows["ROUGE-L"]["b"] == pytest.approx(1)
        and rows["CIDEr / 100"]["low"] > 0
        and math.isfinite(rows["CIDEr / 100"]["high"])
    )


def test_what_cannot_be_compared_is_one_line(tmp_path):
    a = rec_run(tmp_path / "a", 0.1)
    for other, words in [
        (tmp_path / "gone", "no such folder"),
        (write_run(tmp_path / "empty", [{"doc_id": 0}], "pope"), "holds no samples of spr tasks"),
        (rec_run(tmp_path / "few", 0.1, count=7), "differ in 293 documents, such as 10"),
        (
            rec_run(tmp_path / "else", 0.1, task="spr_refcocog_val"),
            "different tasks; only one of them has spr_refcoco_val, spr_refcocog_val",
        ),
    ]:
        with pytest.raises(UserError, match=words):
            module.compare(a, other)
    cut = write_run(tmp_path / "cut", [])
    (cut / "20300101_000000_samples_spr_refcoco_val.jsonl").write_text('{"doc_id": 0, "Acc')
    with pytest.raises(UserError, match="line 1: not JSON"):
        module.compare(a, cut)


def of_model(folder, model_args, stamp, model="llava"):
    """The results file that lmms-eval leaves beside the samples of one run."""
    config = {"model": model, "model_args": model_args, "batch_size": 1}
    (folder / f"{stamp}_results.json").write_text(
        json.dumps({"results": {}, "config": config, "model_source": model})
    )
    return folder


@pytest.mark.parametrize(
    "second",
    [
        {
            "model_args": "pretrained=/runs/spr/checkpoint,conv_template=v1"
        },  # lmms-eval's folder is "checkpoint"
        {
            "model_args": {
                "pretrained": "/runs/base/checkpoint",
                "conv_template": "v1",
                "peft": "/runs/adapter",
            }
        },
        {"model_args": "pretrained=/runs/base/checkpoint,conv_template=v1", "model": "llava_hf"},
    ],
)
@pytest.mark.parametrize("task", ["spr_refcoco_val", "spr_refcoco_testA"])
def test_two_models_in_lmms_eval_s_folder_of_one_are_refused(tmp_path, second, task):
    """Of one task the newer would be taken, of two tasks each from another model."""
    first, later = "20300101_000000", "20300102_000000"
    a = of_model(
        rec_run(tmp_path / "a", 0.5, count=9, stamp=first),
        "pretrained=/runs/base/checkpoint,conv_template=v1",
        first,
    )
    of_model(rec_run(a, 0.1, count=9, stamp=later, task=task), stamp=later, **second)
    with pytest.raises(
        UserError, match=f"{a} holds the samples of 2 models: .*{first}_results.json.*{later}_results.json"
    ) as caught:
        module.compare(a, rec_run(tmp_path / "b", 0.1, count=9))
    assert "--output_path" in str(caught.value) and "\n" not in str(caught.value)


def test_one_model_measured_again_is_one(tmp_path):
    """Whatever the order of its arguments; runs without samples of ours count for nothing."""
    for stamp, args in (
        ("20300101_000000", "pretrained=/a,conv=v1"),
        ("20300102_000000", "conv=v1,pretrained=/a"),
    ):
        a = of_model(rec_run(tmp_path / "a", 0.1, count=9, stamp=stamp), args, stamp)
    of_model(write_run(a, [{"doc_id": 0}], "pope", "20300103_000000"), "pretrained=/other", "20300103_000000")
    assert module.compare(a, rec_run(tmp_path / "b", 0.1, count=9))["tasks"]


@pytest.mark.parametrize(
    "change",
    [
        {"iou": None}, {"iou": math.nan}, {"iou": "0.5"}, {"iou": 10**400}, {"iou": 7}, {"reason": ...}, {"reason": 3},  # noqa: E501
        {"iou": ...}, {"truth": None}, {"truth": [1, 2, math.inf, 4]}, {"predicted": ...}, {"predicted": [1, 2]},  # noqa: E501
    ],
)  # fmt: skip
def test_an_item_that_is_no_judged_box_is_refused_by_its_id(tmp_path, change):
    def broken(records):
        item = records[3]["details"]["items"][0]
        item |= {name: value for name, value in change.items() if value is not ...}
        for name in (name for name, value in change.items() if value is ...):
            del item[name]

    a = changed(tmp_path, "a", lambda records: None)
    other = changed(tmp_path, "b", broken)
    for folders in ((a, other), (other, a)):
        with pytest.raises(UserError, match=f"document 3 of {other} has an item 3 without a sound iou"):
            module.compare(*folders)


@pytest.mark.parametrize(
    "payload",
    [
        {"n": 1},
        {"score": None, "n": 1},
        {"score": math.nan, "n": 1},
        {"score": 1.0},
        {"score": 1.0, "n": None},
        None,
    ],
)
def test_a_metric_without_a_score_is_refused_by_document(tmp_path, payload):
    doc = {
        "image_id": "1",
        "image": "a.png",
        "question": "Is there a cat?",
        "answer": "No.",
        "box_format": "llava",
    }
    records = [short_answers.process_results({"id": str(number), **doc}, ["No."]) for number in range(3)]
    a = write_run(tmp_path / "a", records, "spr_tiny_world_presence")
    records[1] = {**records[1], "accuracy": payload}
    b = write_run(tmp_path / "b", records, "spr_tiny_world_presence")
    for folders in ((a, b), (b, a)):
        with pytest.raises(UserError, match=f"document 1 of {b} has no sound score and n of accuracy"):
            module.compare(*folders)


@pytest.mark.parametrize(
    "change",
    [{"said": None}, {"references": []}, {"references": "a cat"}, {"references": [3]}, {"said": ...}],
)
def test_a_caption_that_is_none_is_refused_by_document(tmp_path, change):
    docs = [{"id": str(n), "image_id": str(n), "references": [f"a red cat {n}"]} for n in range(3)]
    records = [captions.process_results(doc, ["a dog"]) for doc in docs]
    a = write_run(tmp_path / "a", records, "spr_region_caption_vg")
    for record in records:
        details = dict(
            next(value for value in record.values() if isinstance(value, dict) and "said" in value)
        )
        record["details"] = details
    details = records[1]["details"]
    details |= {name: value for name, value in change.items() if value is not ...}
    details.pop("said") if change.get("said") is ... else None
    b = write_run(tmp_path / "b", records, "spr_region_caption_vg")
    with pytest.raises(UserError, match=f"document 1 of {b} is no record of a task of ours"):
        module.compare(a, b)
