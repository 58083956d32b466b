"""What lmms-eval saved, and which of it is no record of a run."""

import json
import math

import pytest

from spr_plugin.errors import UserError
from spr_plugin.eval_tasks import captions, saved_results, short_answers
from spr_plugin.report import comparison as module
from tests.eval_tasks.result_folders import changed, rec_run, write_run


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


def test_blank_lines_are_no_records(tmp_path):
    plain = rec_run(tmp_path / "a", 0.1, count=9)
    spaced = changed(tmp_path, "b", lambda records: records.extend(["", "  "]) or records.insert(4, ""))
    assert module.compare(plain, spaced)["tasks"]["spr_refcoco_val"]["rows"][0]["n"] == 9


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
