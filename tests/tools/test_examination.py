"""What `spr doctor` asks of a loaded model, in this process: a real, tiny one, its processor and Trainer."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image

from spr_plugin import forecast
from spr_plugin.config import SPRConfig
from spr_plugin.files import read_json
from spr_plugin.plugins import manager
from spr_plugin.runs.layout import LAYOUT
from spr_plugin.tools.examination import LOOKS, examination
from tests.hosts import make_vlm
from tests.hosts.launch import TINY

# Each loads a model and is asked about it as a training is: a second or two.
pytestmark = pytest.mark.slow
NAMES = [look.name for look in LOOKS]
# A format that writes boxes a little to the right of where they are, as after a wrong padding.
SHIFTED = """
import dataclasses
from spr_plugin.boxes import Box
from spr_plugin.formats import BracketFormat
from spr_plugin.hookspecs import hookimpl

@dataclasses.dataclass(frozen=True)
class Shifted(BracketFormat):
    def write_group(self, boxes):
        moved = [Box.of((box.x1 + SHIFT, box.y1, box.x2 + SHIFT, box.y2), box.space) for box in boxes]
        return super().write_group(moved)

@hookimpl
def spr_box_format(family, aspect):
    return Shifted("lab", "normalized") if family == "lab" else None
"""


@pytest.fixture
def look(tmp_path):
    """``look(family, **flags)`` → the checks of a training of that model, by name; ``look.out`` and
    ``look.doctor`` are its folders.
    """
    for number in range(6):
        Image.new("RGB", (96, 64), (40 * number, 90, 90)).save(tmp_path / f"{number}.png")
    rows = [
        {"id": 4 * n + i, "image_id": n, "category_id": 1, "bbox": [20 * i + n, 5, 15, 20]}
        for n in range(6)
        for i in range(4)
    ]
    images = [{"id": n, "file_name": f"{n}.png", "width": 96, "height": 64} for n in range(6)]
    coco = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "circle"}]}
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    out, doctor = tmp_path / "out", tmp_path / "doctor"
    out.mkdir()
    (out / "config.json").write_text("{}")

    def go(family="internvl", change=lambda trainer: None, **flags):
        model, processor = make_vlm.make(family)
        arguments = transformers.TrainingArguments(
            str(out), use_cpu=True, report_to=[], remove_unused_columns=False
        )
        go.trainer = transformers.Trainer(
            model.eval(), arguments, train_dataset=[0], processing_class=processor
        )
        change(go.trainer)
        given = dict(
            spr_annotations=str(tmp_path / "coco.json"),
            spr_image_folder=str(tmp_path),
            spr_more_than=2,
            spr_clip=str(TINY / "clip"),
            spr_max_new_tokens=8,
            spr_samples=1,
            spr_doctor=str(doctor),
        )
        checks = examination(go.trainer, SPRConfig(spr=True, **given | flags), {})
        assert [vars(check) for check in checks] == read_json(doctor / "checks.json")["checks"]
        assert all(check.ok or (check.detail and check.fix) for check in checks)
        return {check.name: check for check in checks}

    go.out, go.doctor, go.coco = out, doctor, tmp_path / "coco.json"
    return go


def tree(folder: Path) -> dict:
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def refused(checks: dict) -> list[str]:
    return [name for name, check in checks.items() if not check.ok]


@pytest.mark.parametrize("family", ["internvl", "qwen2_5_vl"])
def test_everything_is_looked_at_and_nothing_trains(look, family):
    before = tree(look.out)
    checks = look(family)
    assert list(checks) == NAMES and not refused(checks), checks
    assert tree(look.out) == before
    with torch.random.fork_rng():
        fresh = dict(make_vlm.make(family)[0].named_parameters())
    lived = {
        name.replace(".base_layer", ""): value
        for name, value in look.trainer.model.named_parameters()
        if "lora_" not in name
    }
    assert lived.keys() == fresh.keys()
    assert all(torch.equal(value, lived[name]) for name, value in fresh.items())
    left = sorted(path.name for path in look.doctor.iterdir())
    assert left == [*(f"boxes-{number}.png" for number in range(1, 7)), "checks.json"]
    with Image.open(look.doctor / "boxes-1.png") as drawn:
        colours = {colour for _, colour in drawn.convert("RGB").getcolors(1 << 24)}
    assert {(0x1F, 0x77, 0xFF), (0x12, 0xA1, 0x50)} <= colours
    assert "6 queries on 6 pictures" in checks["data"].detail
    assert "s, peak" in checks["trial"].detail and "6 answers to 2 queries" in checks["trial"].detail
    assert all(stage in checks["forecast"].detail for stage in forecast.STAGES)
    assert "6 queries at most" in checks["forecast"].detail and "h (forecast)" in checks["forecast"].detail


@pytest.mark.parametrize("shift, lost", [(0.0, False), (1.0, True), (5.0, True)])
def test_boxes_that_move_by_more_than_their_rounding(look, tmp_path, shift, lost):
    """0.005 of a picture 96 pixels wide are half a pixel."""
    file = tmp_path / "lab.py"
    file.write_text(SHIFTED.replace("SHIFT", str(shift), 2))
    try:
        checks = look(spr_plugin=[str(file)], spr_box_format="lab")
    finally:
        manager().unregister(name=str(file))
    assert ("boxes" in refused(checks)) == lost, checks["boxes"]
    if lost:
        assert "8 of 8 boxes" in checks["boxes"].detail and "px off" in checks["boxes"].detail
        assert (look.doctor / "boxes-1.png").exists()


def freeze_language_model(trainer):
    for name, parameter in trainer.model.named_parameters():
        parameter.requires_grad_("projector" in name)


@pytest.mark.parametrize(
    "flags, first, words, later",
    [
        ({"change": freeze_language_model}, "host", "language model", []),
        ({"spr_plugin": ["nowhere.py"]}, "host", "nowhere.py: no such file", []),
        ({"spr_pairing": ["lab"]}, "settings", "--spr_pairing lab", []),
        ({"spr_clip": "nowhere"}, "settings", "--spr_clip nowhere", []),
        ({"spr_more_than": 9}, "data", "too_few_objects", ["output_dir"]),
        ({"spr_image_folder": "/nowhere"}, "data", "/nowhere", ["output_dir"]),
    ],
)
def test_what_fails_is_said_and_what_needs_it_is_not_asked(look, flags, first, words, later):
    checks = look(**flags)
    assert refused(checks) == [first] and words in checks[first].detail
    assert list(checks)[-1] == first and set(later) <= checks.keys()


def test_answers_that_are_too_long(look):
    """Some answers fit, and the trial is made with those."""
    rows = json.loads(look.coco.read_text())
    rows["annotations"][0]["bbox"] = [0, 0, 20, 64]  # so that one region holds more than the others
    look.coco.write_text(json.dumps(rows))
    whole = look()["lengths"].detail
    longest = int(whole.split(" to ")[1].split()[0])

    def shorten(trainer):
        trainer.processing_class.tokenizer.model_max_length = longest - 1

    checks = look(change=shorten)
    assert refused(checks) == ["lengths"]
    assert "1 do not fit" in checks["lengths"].detail and "--spr_max_too_long" in checks["lengths"].detail


def test_the_folder_of_another_training(look):
    """It is named, and all else is looked at too."""
    other = look.out / "spr" / "entry"
    other.mkdir(parents=True)
    (other / "index.json").write_text("{}")
    (look.out / "spr" / "training.json").write_text('{"trained": true, "learning_rate": 1}')
    (look.out / "spr" / "manifest.json").write_text(json.dumps({"layout": LAYOUT, "config": {}}))
    before = tree(look.out)
    checks = look()
    assert refused(checks) == ["output_dir"] and "another training" in checks["output_dir"].detail
    assert list(checks) == NAMES and tree(look.out) == before


def test_a_folder_that_no_run_of_ours_made(look):
    """Neither its data nor what needs them is asked; once said is enough."""
    (look.out / "spr").mkdir()
    (look.out / "spr" / "entry").write_text("mine")
    checks = look()
    assert refused(checks) == ["output_dir"] and "manifest.json" in checks["output_dir"].detail
    assert list(checks) == ["host", "settings", "output_dir"]


def test_what_to_do_is_the_flag_s_where_a_flag_is_wrong(look):
    """Not to write a host: there is one."""
    check = look(spr_box_format="qwen2")["host"]
    assert not check.ok and check.detail.startswith("--spr_box_format qwen2: no such family; built in are ")
    assert check.fix.startswith("change what the line names; only a script that no host knows needs one")
