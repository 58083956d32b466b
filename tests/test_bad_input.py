"""What real pictures, labels and models get wrong, from annotation file to scored record: handled, or left
out and counted.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spr_plugin.boxes import Box, Space
from spr_plugin.config import SPRConfig
from spr_plugin.data.annotations import CocoImages
from spr_plugin.data.pictures import BadImage, open_image
from spr_plugin.errors import UserError
from spr_plugin.formats import FAMILIES, box_format, llava
from spr_plugin.judging import judge_queries
from spr_plugin.recipes.spr.prompts import prompts_for
from spr_plugin.recipes.spr.recipe import SPR
from spr_plugin.recipes.spr.refinement import refine
from spr_plugin.recipes.spr.regions import region_queries
from spr_plugin.recipes.spr.scoring import SPRScorer

CLIP = Path(__file__).parents[1] / "examples" / "tiny_world" / "clip"
FORM = llava("pad")


@pytest.fixture(scope="module")
def recipe():
    pytest.importorskip("transformers")
    from spr_plugin.hooks.clip import load

    return SPR(SPRConfig(), FORM, refine, SPRScorer(load(str(CLIP))))


def annotated(folder, name, size, boxes, labels=("thing",)):
    """The picture of a COCO file with these xywh boxes, and what was left out."""
    rows = [
        {"id": n, "image_id": 1, "category_id": n % len(labels), "bbox": list(box)}
        for n, box in enumerate(boxes)
    ]
    content = {
        "images": [{"id": 1, "file_name": name, "width": size[0], "height": size[1]}],
        "annotations": rows,
    }
    content["categories"] = [{"id": n, "name": label} for n, label in enumerate(labels)]
    (folder / "coco.json").write_text(json.dumps(content))
    skipped = Counter()
    return list(CocoImages(str(folder / "coco.json"), str(folder), skipped)), skipped


def exif_turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return {"exif": exif}


PICTURES = {
    "grey.png": (Image.new("L", (60, 40), 99), {}),
    "black and white.png": (Image.new("1", (60, 40)), {}),
    "cmyk.jpg": (Image.new("CMYK", (60, 40), (9, 99, 9, 0)), {}),
    "palette.gif": (Image.new("P", (60, 40)), {}),
    "transparent.png": (Image.new("RGBA", (60, 40), (9, 9, 9, 0)), {}),
    "turned.jpg": (Image.new("RGB", (60, 40)), exif_turned()),
    "one pixel.png": (Image.new("RGB", (1, 1)), {}),
    "one row.png": (Image.new("RGB", (500, 1)), {}),
}


def scored(images, recipe):
    [query] = region_queries(images, seed=0, more_than=0, skipped=Counter())
    text = FORM.render((annotation.label, annotation.box) for annotation in query.truth)
    [record] = judge_queries([query], [[{"id": "a", "text": text}, {"id": "b", "text": ""}]], recipe)
    return record["candidates"]


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_of_every_kind_are_scored(tmp_path, recipe, name):
    picture, settings = PICTURES[name]
    picture.save(tmp_path / name, **settings)
    images, skipped = annotated(tmp_path, name, picture.size, [(0, 0, *picture.size)])
    good, empty = scored(images, recipe)
    assert not skipped and good["score"] and empty["reason"] == "empty"
    assert all(np.isfinite(value) and -1 <= value <= 1 for value in good["terms"].values())


@pytest.mark.slow
def test_a_picture_of_fifty_megapixels(tmp_path, recipe):
    Image.new("L", (8000, 6250), 7).save(tmp_path / "large.png")
    images, _ = annotated(tmp_path, "large.png", (8000, 6250), [(4000, 3000, 3000, 3000)])
    good, _ = scored(images, recipe)
    assert good["terms"]["s_loc"] > 0.95


def test_sixteen_bits_are_left_out_since_hosts_see_them_white(tmp_path):
    Image.fromarray(np.full((40, 60), 999, dtype=np.uint16)).save(tmp_path / "deep.png")
    images, skipped = annotated(tmp_path, "deep.png", (60, 40), [(0, 0, 60, 40)])
    assert images == [] and skipped == {"more_than_8_bits": 1}
    with pytest.raises(BadImage, match="record 7: .*deep.png .*more than 8 bits"):
        open_image(str(tmp_path / "deep.png"), "7")


def test_a_decompression_bomb_is_left_out(tmp_path, monkeypatch):
    Image.new("L", (60, 40)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    images, skipped = annotated(tmp_path, "bomb.png", (60, 40), [(0, 0, 60, 40)])
    assert images == [] and skipped == {"unreadable_image": 1}


def test_a_picture_that_breaks_costs_its_scores_and_one_that_vanishes_stops(tmp_path, recipe):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    images, _ = annotated(tmp_path, "a.png", (60, 40), [(0, 0, 60, 40)])
    (tmp_path / "a.png").write_bytes(b"no picture")
    [query] = region_queries(images, seed=0, more_than=0, skipped=Counter())
    [record] = judge_queries([query], [[{"id": "a", "text": "A dog."}]], recipe)
    [row] = record["candidates"]
    assert (row["id"], row["text"], row["reason"]) == ("a", "A dog.", "image_unreadable")
    assert record["id"] == query.id
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match=f"{tmp_path}/a.png has vanished .* run the same command"):
        judge_queries([query], [[{"id": "a", "text": "A dog."}]], recipe)
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    [record] = judge_queries([query], [[{"id": "a", "text": "A dog."}]], recipe)
    assert record["candidates"][0]["reason"] != "image_unreadable"


# --- labels

HOSTILE = [
    "dog [1, 2, 3, 4]",
    "<b>bold</b>",
    "<box>(1,2),(3,4)</box>",
    '{"bbox_2d": [1, 2, 3, 4]}',
    "cup (red)",
    "a.b",
    "[[",
    "tab\tand\nline",
    "bow_(ribbons)",
    "first-aid_kit",
]


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_with_brackets_or_markup_are_read_back(tmp_path, family):
    """In the family's own text, and in the prompt that refers to the objects."""
    form = box_format(family)
    Image.new("RGB", (800, 600)).save(tmp_path / "a.png")
    boxes = [(60 * n, 50, 50, 100) for n in range(len(HOSTILE))]
    [image], skipped = annotated(tmp_path, "a.png", (800, 600), boxes, HOSTILE)
    assert skipped == {"no_label": 1} and len(image.annotations) == len(HOSTILE) - 1
    labels = [annotation.label for annotation in image.annotations]
    assert "bow" in labels and "first-aid kit" in labels and "cup red" in labels
    read = form.parse(form.render((a.label, a.box) for a in image.annotations), 800, 600)
    assert len(read.boxes) == len(labels) and not read.failures
    [query] = region_queries([image], seed=0, skipped=Counter())
    [reference] = prompts_for(query, form, ["reference"])
    parsed = form.parse(reference.text, 800, 600)
    assert not parsed.failures and len(parsed.boxes) >= len(query.truth)


@given(st.text(max_size=12))
def test_no_label_ever_breaks_its_box(name):
    from spr_plugin.data.annotations import _category

    label, box = _category(name), Box(10, 20, 30, 40, Space.pixels(100, 100))
    for family in FAMILIES:
        form = box_format(family)
        read = form.parse(form.render([(label, box)]), 100, 100)
        assert len(read.boxes) == 1 and not read.failures
