"""Boxes through the host's rows and back, and their drawings."""

import dataclasses
from types import SimpleNamespace

import pytest
from PIL import Image

from spr_plugin.boxes import Box, Space
from spr_plugin.config import SPRConfig
from spr_plugin.data.annotations import AnnotatedImage, Annotation
from spr_plugin.drawing import COLORS
from spr_plugin.errors import UserError
from spr_plugin.formats import BracketFormat, box_format
from spr_plugin.recipes.find import find_recipe
from spr_plugin.recipes.spr.regions import region_query
from spr_plugin.tools.overlay import BOXES, SIDE, Returned, compared, overlay, some_boxes

pytestmark = pytest.mark.slow

WIDTH, HEIGHT = 96, 64


@dataclasses.dataclass(frozen=True)
class Shifted(BracketFormat):
    """Writes boxes so many pixels to the right of where they are, as after a wrong padding."""

    shift: float = 0.0

    def write_group(self, boxes):
        moved = [Box.of((b.x1 + self.shift, b.y1, b.x2 + self.shift, b.y2), b.space) for b in boxes]
        return super().write_group(moved)


class Silent(BracketFormat):
    """Writes no box at all."""

    def write_group(self, boxes):
        return "somewhere"


@pytest.fixture
def asked(tmp_path):
    """``asked(3, 1)`` → a query a picture, with so many boxes each."""

    def make(*counts):
        queries, space = [], Space.pixels(WIDTH, HEIGHT)
        for number, count in enumerate(counts):
            Image.new("RGB", (WIDTH, HEIGHT), "white").save(tmp_path / f"{number}.png")
            boxes = [Box(10 * n + 1, 5, 10 * n + 8, 45, space) for n in range(count)]
            truth = tuple(Annotation(f"{number}.{n}", f"circle {n}", box) for n, box in enumerate(boxes))
            image = AnnotatedImage(str(number), str(tmp_path / f"{number}.png"), WIDTH, HEIGHT, truth)
            queries.append(region_query(image, Box(0, 0, WIDTH, HEIGHT, space), 0))
        return queries

    return make


def recipe_of(form):
    return find_recipe(SPRConfig(spr=True), form)


def told(host, form, queries, folder) -> str:
    """What is said of a host that writes boxes so."""
    host.box_format = form
    return overlay(host, recipe_of(form), queries, folder)


def test_boxes_are_of_as_many_pictures_as_possible(asked):
    first, second = asked(3, 1)
    ids = [truth.id for _, truth in some_boxes([first, first, SimpleNamespace(), second])]
    assert ids == ["0.0", "1.0", "0.1", "0.2"]
    assert [truth.id for _, truth in some_boxes([first, second], 2)] == ["0.0", "1.0"]
    assert len(some_boxes(asked(*[2] * 10))) == BOXES
    assert some_boxes([SimpleNamespace()]) == []


def test_a_recipe_without_boxes_is_said(tmp_path):
    recipe = recipe_of(box_format("llava"))
    assert overlay(None, recipe, [], tmp_path) == "the recipe spr measures by no boxes that could be drawn"


@pytest.mark.parametrize("family", ["llava", "qwen2.5-vl", "shikra"])
def test_boxes_come_back_within_their_rounding_and_are_drawn(live_llava, asked, tmp_path, family):
    host, _ = live_llava(max_length=512)
    form = box_format(family)
    said = told(host, form, asked(2, 1), tmp_path)
    assert said.startswith(f"3 boxes come back from text of the family {family}, rounded by 0.")
    assert f"drawn in {tmp_path}/boxes-1.png to 2: look whether" in said
    assert (tmp_path / "boxes-2.png").exists() and not (tmp_path / "boxes-3.png").exists()


@pytest.mark.parametrize(("shift", "lost"), [(0.0, False), (1.0, True)])
def test_a_box_that_moves_by_more_than_its_rounding_is_refused(live_llava, asked, tmp_path, shift, lost):
    host, _ = live_llava(max_length=512)
    form = Shifted("lab", "normalized", shift=shift)
    assert form.rounding == pytest.approx(0.005)
    if not lost:
        assert "2 boxes come back" in told(host, form, asked(1, 1), tmp_path)
        return
    with pytest.raises(
        UserError, match=r"^2 of 2 boxes do not come back .*: circle 0 on 0.png .* px off; drawn"
    ):
        told(host, form, asked(1, 1), tmp_path)
    assert (tmp_path / "boxes-2.png").exists()


def test_text_without_a_box_is_refused(live_llava, asked, tmp_path):
    host, _ = live_llava(max_length=512)
    words = "^1 of 1 boxes .*: circle 0 on 0.png becomes .*, which reads as no single box; drawn in"
    with pytest.raises(UserError, match=words):
        told(host, Silent("lab", "normalized"), asked(1), tmp_path)


def test_a_drawing_shows_both_boxes_and_the_texts(asked):
    (query,) = asked(1)
    truth = query.truth[0]
    moved = Box(60, 5, 90, 45, Space.pixels(WIDTH, HEIGHT))
    picture = compared(query.image, [Returned(query.image, truth, "a text", moved)])
    assert picture.width == SIDE and picture.height > SIDE * HEIGHT // WIDTH
    factor = SIDE / WIDTH
    colour = lambda x, y: "#{:02x}{:02x}{:02x}".format(
        *picture.getpixel((round(x * factor), round(y * factor)))
    )
    assert colour(truth.box.x1, 20) == COLORS["truth"] and colour(60, 20) == COLORS["chosen"]
    alone = compared(query.image, [Returned(query.image, truth, "a text", None)])
    assert alone.size == picture.size and alone.tobytes() != picture.tobytes()


def test_how_far_a_box_has_moved(asked):
    (query,) = asked(1)
    truth, form = query.truth[0], box_format("llava")  # shares of the padded square
    x1, y1, x2, y2 = truth.box.xyxy
    one = Returned(query.image, truth, "", Box(x1 + 1, y1, x2, y2 + 3, truth.box.space))
    assert one.pixels_moved() == 3
    assert one.moved(form) == pytest.approx(3 / WIDTH)
    assert Returned(query.image, truth, "", None).moved(form) == float("inf")
