"""Pictures that many rows show are transformed once, by whatever name the host asks for it."""

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessor

from spr_plugin.hooks.transformed import TransformedOnce

PICTURE = Image.fromarray(np.arange(40 * 30 * 3, dtype=np.uint8).reshape(30, 40, 3))


@pytest.fixture
def processor():
    return CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})


@pytest.mark.parametrize("way", ["__call__", "preprocess"])
def test_later_calls_hold_the_tensors_of_the_first(processor, way):
    transform = getattr(TransformedOnce(processor), way)
    first = transform(PICTURE, return_tensors="pt")
    pixels = first.pop("pixel_values")  # what a host takes out of its own is there the next time
    again = transform(PICTURE, return_tensors="pt")
    assert again["pixel_values"] is pixels
    assert (pixels == processor(PICTURE, return_tensors="pt")["pixel_values"]).all()


def test_another_question_s_pictures_are_transformed_anew(processor):
    white = Image.new("RGB", (40, 30), "white")
    made = [TransformedOnce(processor)(picture, return_tensors="pt") for picture in (PICTURE, white)]
    assert not (made[0]["pixel_values"] == made[1]["pixel_values"]).all()


def test_its_settings_are_the_processor_s(processor):
    assert TransformedOnce(processor).crop_size == processor.crop_size
