"""The parts of the report that are plain functions; the whole page is read in tests/photos."""

import base64
import io

import pytest
from PIL import Image

from spr_plugin.drawing import COLORS, OTHER, legend_of
from spr_plugin.report import page


def pixels(uri: str) -> Image.Image:
    head, _, data = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize(
    "size, small", [((720, 360), (360, 180)), ((36, 18), (360, 180)), ((1, 2000), (1, 360))]
)
def test_a_picture_s_longest_side_is_the_page_s(size, small):
    assert pixels(page.data_uri(Image.new("RGB", size), [])).size == small


@pytest.mark.parametrize("corners", [(80, 40, 640, 320), (640, 320, 80, 40)])
def test_a_box_is_drawn_where_it_lies_whatever_its_corners_order(corners):
    """On white; JPEG moves colours a little."""
    drawn = pixels(page.data_uri(Image.new("RGB", (720, 360), "white"), [("#0000ff", corners, 3)]))
    for x, y in ((180, 20), (180, 160), (40, 90), (320, 90)):  # halfway along each side, in the small picture
        red, green, blue = drawn.getpixel((x, y))
        assert blue - max(red, green) > 80, (x, y)
    assert min(drawn.getpixel((180, 90))) > 240 and min(drawn.getpixel((10, 10))) > 240


@pytest.mark.parametrize("length, count", [(0, 24), (5, 24), (24, 24), (47, 24), (48, 24), (100, 24)])
def test_what_is_shown_is_spread_over_all(length, count):
    shown = page._spread(list(range(length)), count)
    assert len(shown) == min(length, count) and shown == sorted(set(shown))
    assert length < 2 * count or shown[-1] > length / 2


def test_the_legend_names_what_the_recipe_drew_and_no_more():
    """A recipe other than SPR marks no region; one of its own kinds is named by it."""
    facts = {"counts": {}, "terms": [{"means": {}}], "pairs": [], "config": {}, "colors": COLORS}
    drawn = {"spr": {"region", "truth", "written"}, "scene": {"object", "written"}, "none": set()}
    pages = {
        name: page.template().render(**facts, legend=legend_of(kinds)).split("Preference pairs")[1]
        for name, kinds in drawn.items()
    }
    assert {name for name, text in pages.items() if ">region<" in text} == {"spr"}
    assert f'"color: {COLORS["truth"]}">truth<' in pages["spr"] and ">truth<" not in pages["scene"]
    assert f'"color: {OTHER}">object<' in pages["scene"]
    assert all(">written<" not in text and ">chosen<" in text for text in pages.values())


def test_means_are_over_the_texts_that_have_the_term():
    assert page._means([{"a": 1.0, "S": 0.0}, {"a": 0.0, "b": 0.25, "S": 1.0}]) == {
        "n": 2,
        "means": {"a": "0.500", "S": "0.500", "b": "0.250"},
    }
    assert page._means([]) == {"n": 0, "means": {}}


def test_a_text_without_a_score_has_no_terms():
    row = {"score": 0.5, "terms": {"loc": 1.0}, "repaired_score": None, "repaired_terms": {}}
    assert page._scored(row) == {"loc": 1.0, "S": 0.5} and page._scored(row, "repaired_") is None
