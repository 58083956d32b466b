"""The tiny world's detector, on scenes that its training never saw."""

import numpy as np
import pytest
from PIL import Image

from spr_plugin.boxes import iou_matrix
from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError

from .world import WORLD, load

pytest.importorskip("torch")
scenes, plugin = load("scenes"), load("detector")


@pytest.fixture(scope="module")
def detector():
    return plugin.spr_detector(SPRConfig(spr_detector=str(WORLD / "detector")), "cpu")


def test_it_finds_most_objects_and_little_else(detector):
    found = true = claimed = 0
    for scene in scenes.scenes("val", 60):
        picture = Image.fromarray(scenes.render(scene)[0])
        names = sorted({f"a {thing.name}" for thing in scene.things})
        rows = detector.detect(picture, [*names, "a zebra"])
        boxes = [box.pixels() for _, box, _ in rows]
        overlaps = iou_matrix([thing.box for thing in scene.things], boxes)
        same = np.array([[phrase == f"a {thing.name}" for phrase, _, _ in rows] for thing in scene.things])
        hits = (overlaps >= 0.5) & same
        found, true, claimed = found + hits.any(1).sum(), true + len(scene.things), claimed + len(rows)
    print(f"recall {found / true:.3f}, precision at most {found / claimed:.3f}")
    assert found >= 0.85 * true and found >= 0.85 * claimed


def test_a_picture_of_another_size_gets_boxes_in_its_own_pixels(detector):
    scene = next(scenes.scenes("val", 1))
    picture = Image.fromarray(scenes.render(scene)[0])
    name = scene.things[0].name
    small, large = (detector.detect(shown, [name]) for shown in (picture, picture.resize((192, 288))))
    assert [box.space.width for _, box, _ in large] == [192] * len(large) and len(large) >= len(small) > 0


def test_an_unknown_phrase_or_folder_finds_nothing(detector):
    assert detector.detect(Image.new("RGB", (96, 96)), ["a zebra", ""]) == []
    assert plugin.spr_detector(SPRConfig(spr_detector="IDEA/grounding-dino"), "cpu") is None


def test_a_folder_without_weights_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(plugin, "__file__", str(tmp_path / "detector.py"))
    with pytest.raises(UserError, match="no model.safetensors"):
        plugin.spr_detector(SPRConfig(spr_detector=str(tmp_path / "detector")), "cpu")
