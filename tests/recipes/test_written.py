"""What a text writes, with its phrase and both places: of every kind of family."""

import pytest

from spr_plugin.boxes import Box, Space
from spr_plugin.data.pictures import Picture
from spr_plugin.formats import FAMILIES, box_format
from spr_plugin.recipes.written import written_in

PICTURE = Picture("a", "a.png", 100, 80)
SPACE = Space.pixels(100, 80)
OBJECTS = [("red cup", Box(10, 20, 30, 40, SPACE)), ("dog", Box(50, 8, 90, 72, SPACE))]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_box_says_what_it_is_called_and_where_that_stands(family):
    form = box_format(family)
    text = form.render(OBJECTS)
    marks = written_in(text, form, PICTURE)
    assert [(mark.kind, mark.name) for mark in marks] == [("written", name) for name, _ in OBJECTS]
    for mark, (name, box) in zip(marks, OBJECTS):
        assert mark.xyxy == pytest.approx(box.xyxy, abs=4)  # of a grid of 32, or of a picture resized
        named, numbers = (text[slice(*span)] for span in mark.spans)
        assert named.count(name) == 1 and any(map(str.isdigit, numbers))


def test_nothing_is_drawn_where_nobody_knows_the_format():
    assert written_in(box_format("llava").render(OBJECTS), None, PICTURE) == []
