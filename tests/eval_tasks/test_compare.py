import math
import re
from math import comb

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from spr_plugin.cli import commands
from spr_plugin.errors import UserError
from spr_plugin.eval_tasks import captions, description, short_answers
from spr_plugin.eval_tasks.compare import mcnemar
from spr_plugin.report import comparison as module
from tests.eval_tasks.result_folders import BOX, changed, rec_run, write_run


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
    assert mcnemar(values) == pytest.approx(expected)


def test_the_report_of_a_run_takes_a_comparison_along(tmp_path, finished_output):
    output = finished_output(tmp_path / "out", 2)
    folders = [str(rec_run(tmp_path / name, noise)) for name, noise in (("a", 0.2), ("b", 0.08))]
    done = CliRunner().invoke(commands, ["report", str(output), "--results", *folders])
    assert done.exit_code == 0 and done.output.strip() == str(output / "spr" / "report.html")
    page = (output / "spr" / "report.html").read_text()
    compared = module.compare(*folders, tmp_path / "compared")["tasks"]["spr_refcoco_val"]
    assert "<h2>Base against SPR</h2>" in page and compared["signature"]["line"] in page
    assert all(f"<td>{100 * row['gain']:+.2f}</td>" in page for row in compared["rows"])


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
