"""The tiny world's detector, on scenes that its training never saw."""

import numpy as np
import pytest
from PIL import Image

from spr_plugin.boxes import Box, Space
from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError

from .world import WORLD, load

pytest.importorskip("torch")
plugin = load("detector")
painting = plugin.painting


@pytest.fixture(scope="module")
def detector():
    return plugin.spr_detector(SPRConfig(spr_detector=str(WORLD / "detector")), "cpu")


def test_it_finds_most_objects_and_little_else(detector):
    asked = [(scene, painting.render(scene)[0]) for scene in painting.scenes("val", 60)]
    shares = {
        name: np.mean([hit for hit, _ in hits])
        for name, hits in plugin.detection_hits(detector, asked).items()
    }
    print(shares)
    assert shares["found"] >= 0.85 and shares["right"] >= 0.85


def test_it_is_measured_by_name_and_place():
    """Of two objects one is found, by the first of two boxes."""

    class Fixed:
        def detect(self, picture, phrases):
            space = Space.pixels(painting.SIZE, painting.SIZE)
            return [("red ring", Box(10, 10, 20, 20, space), 1), ("red ring", Box(50, 50, 60, 60, space), 1)]

    things = (
        painting.Thing("red", "ring", (10, 10, 20, 18)),
        painting.Thing("blue", "ring", (50, 50, 60, 60)),
    )
    shown = [(painting.Scene(0, things), np.zeros((painting.SIZE, painting.SIZE, 3), np.uint8))]
    hits = plugin.detection_hits(Fixed(), shown)
    assert hits == {"found": [(1.0, 0), (0.0, 0)], "right": [(1.0, 0), (0.0, 0)]}


def test_a_picture_of_another_size_gets_boxes_in_its_own_pixels(detector):
    scene = next(painting.scenes("val", 1))
    picture = Image.fromarray(painting.render(scene)[0])
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
