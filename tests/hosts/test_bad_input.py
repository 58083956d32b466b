"""A user's mistake is one line that names the flag or file, before anything is trained, and nothing is
lost.
"""

import json
import shutil

import pytest
from PIL import Image

from spr_plugin.files import read_json
from spr_plugin.runs.log import Log

from .launch import ROOT, command, run, spr_flags

pytestmark = pytest.mark.slow


def refused(arguments) -> str:
    """The one line of a refused run."""
    printed = run(arguments, expect=2, timeout=120)
    (line,) = [line for line in printed.splitlines() if line.startswith("spr: error:")]
    assert "Traceback" not in printed and "'loss'" not in printed, printed[-3000:]
    return line


def with_flag(arguments: list[str], flag: str, value) -> list[str]:
    index = arguments.index(flag)
    return [*arguments[: index + 1], str(value), *arguments[index + 2 :]]


def test_annotations_that_are_no_json(world, tmp_path):
    """Other files and flags are refused alike: tests/test_opening.py, in one process."""
    (tmp_path / "wrong.json").write_text('{"images": []')
    flags = with_flag(spr_flags(world), "--spr_annotations", tmp_path / "wrong.json")
    line = refused(command(world, tmp_path / "llava-x", *flags))
    assert "--spr_annotations" in line and "wrong.json" in line and "JSON" in line


def test_projector_pre_training(world, tmp_path):
    line = refused(command(world, tmp_path / "llava-x", *spr_flags(world), "--tune_mm_mlp_adapter", "True"))
    assert "--tune_mm_mlp_adapter" in line


def test_a_flag_that_is_none(world, tmp_path):
    line = refused(command(world, tmp_path / "llava-x", *spr_flags(world), "--spr_lambada", "1"))
    assert "did you mean spr_lambda?" in line


def test_answers_in_another_box_text_are_not_rejected_one_by_one(world, tmp_path):
    """0-1 decimals read as Ferret's integers: nearly all answers are unreadable, which is no vague model."""
    flags = (
        "--spr_only --spr_regions 3 --spr_box_format ferret --spr_reject_vague --spr_prompts plain".split()
    )
    line = refused(command(world, tmp_path / "llava-x", *spr_flags(world), *flags))
    assert "of 6 answers cannot be read, more than half" in line and "--spr_box_format" in line
    assert Log(tmp_path / "llava-x" / "spr" / "scores").read()


def test_a_deepspeed_file_with_an_unknown_key(world, tmp_path):
    """Named before the model is loaded, by no traceback of zero.Init or the engine."""
    settings = json.loads((ROOT / "tests" / "deepspeed" / "zero3.json").read_text())
    (tmp_path / "zero.json").write_text(json.dumps({**settings, "gradient_cliping": 1.0}))
    arguments = with_flag(
        command(world, tmp_path / "llava-x", *spr_flags(world), zero=3), "--deepspeed", tmp_path / "zero.json"
    )
    line = refused(with_flag(arguments, "--model_name_or_path", "/nowhere"))
    assert "zero.json: unknown key gradient_cliping; did you mean gradient_clipping?" in line


def test_quantized_weights_under_zero_3(world, tmp_path):
    """As early; --bits 4 needs a GPU to come further."""
    line = refused(with_flag(command(world, tmp_path / "llava-x", *spr_flags(world), zero=3), "--bits", 4))
    assert "--bits 4 with ZeRO-3" in line


def test_a_missing_package_is_named_with_its_extra(world, tmp_path):
    """Before anything is trained, not when the adapter is due."""
    hidden = (
        "import sys, runpy; sys.modules['peft'] = None; runpy.run_module('llava.train.train',"
        " run_name='__main__')"
    )
    python, _, _, *flags = command(world, tmp_path / "llava-x", *spr_flags(world))
    line = refused([python, "-c", hidden, *flags])
    assert "--spr_tune lora" in line and "spr-plugin[dpo]" in line


def test_broken_pictures_and_boxes_are_counted_and_the_rest_goes_on(world, tmp_path):
    """A missing picture, a truncated JPEG, boxes outside and empty, a nameless category: each counted under
    its reason, and the run finishes.
    """
    images = tmp_path / "images"
    shutil.copytree(world / "images" / "spr", images / "spr")
    coco = json.loads((world / "spr.json").read_text())
    missing, truncated = coco["images"][:2]
    (images / missing["file_name"]).unlink()
    whole = images / truncated["file_name"]
    truncated["file_name"] = "spr/truncated.jpg"
    Image.open(whole).save(images / "spr" / "truncated.jpg", quality=95)
    data = (images / "spr" / "truncated.jpg").read_bytes()
    (images / "spr" / "truncated.jpg").write_bytes(data[: len(data) // 2])
    sound = [row for row in coco["annotations"] if row["image_id"] not in (missing["id"], truncated["id"])]
    sound[0]["bbox"] = [500, 500, 10, 10]
    sound[1]["bbox"][2] = 0
    sound[2]["category_id"] = 1000
    coco["categories"].append({"id": 1000, "name": " "})
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    flags = with_flag(
        with_flag(spr_flags(world), "--spr_annotations", tmp_path / "coco.json"), "--spr_image_folder", images
    )
    out = tmp_path / "llava-broken"
    run(command(world, out, *with_flag(flags, "--spr_regions", 16)))
    skipped = read_json(out / "spr" / "queries" / "counts.json")
    assert {
        reason: skipped[reason] for reason in ("missing_image", "outside", "zero_area", "no_label")
    } == dict.fromkeys(("missing_image", "outside", "zero_area", "no_label"), 1)
    regions, scores, pairs = (Log(out / "spr" / stage).read() for stage in ("queries", "scores", "pairs"))
    (unread,) = [
        id for id, record in regions.items() if record["pictures"][0]["path"].endswith("truncated.jpg")
    ]
    assert {row["reason"] for row in scores[unread]["candidates"]} == {"image_unreadable"}
    assert [record.get("skip") for record in pairs.values() if record["query"] == unread] == ["too_few_valid"]
    assert len(pairs) == len(scores) == len(regions)
    assert (out / "config.json").exists()
