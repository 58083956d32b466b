"""Pictures that no file holds: the same pixels wherever they are asked for, a record that gives them back."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

from spr_plugin.data.made import MARKED, TURNS, make, steps_of
from spr_plugin.data.pictures import (
    BadImage,
    MadePicture,
    Picture,
    open_image,
    picture_of,
    read_all,
    source_of,
)
from spr_plugin.errors import UserError

TOP, BOTTOM = (0, 0, 60, 20), (0, 20, 60, 40)
SWAPPED = (("page", 60, 40, "white"), ("cut", TOP, "", BOTTOM), ("cut", BOTTOM, "mirrored", TOP))


@pytest.fixture
def file(tmp_path):
    """A picture of 60 x 40 pixels, no two alike."""
    pixels = np.arange(60 * 40 * 3, dtype=np.uint32).reshape(40, 60, 3) * 7919 % 251
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


def pixels(image):
    return np.asarray(image)


def test_cuts_are_moved_and_turned(file):
    whole, made = pixels(open_image(file)), pixels(open_image(MadePicture("a", file, 60, 40, SWAPPED)))
    assert (made[20:] == whole[:20]).all() and (made[:20] == whole[20:, ::-1]).all()


BACK = {"": "", "left": "right", "right": "left", "mirrored": "mirrored", "upside down": "upside down"}


@pytest.mark.parametrize("turn, back", BACK.items())
def test_every_turn_has_one_that_undoes_it(file, turn, back):
    square = (10, 5, 30, 25)
    once = make(open_image(file), [("cut", square, turn, square)])
    twice = make(once, [("cut", square, back, square)])
    assert (pixels(twice) == pixels(open_image(file))).all()
    assert (pixels(once) == pixels(twice)).all() == (turn == "") and TURNS.keys() == BACK.keys()


def test_a_mark_leaves_its_box_as_it_is(file):
    """At every edge of the picture, too."""
    picture = open_image(file)
    for box in ((20, 15, 26, 21), (0, 0, 6, 6), (54, 34, 60, 40), (0, 34, 6, 40)):
        marked = make(picture, [("mark", box, "2")])
        x1, y1, x2, y2 = box
        assert (pixels(marked)[y1:y2, x1:x2] == pixels(picture)[y1:y2, x1:x2]).all()
        assert (pixels(marked) == (255, 0, 255)).all(-1).sum() >= 12 and MARKED == "#ff00ff"
        assert (pixels(marked) != pixels(picture)).any(-1).sum() > 35  # and a plate


def test_a_record_gives_it_back(file):
    made = MadePicture("a", file, 60, 40, SWAPPED)
    again = picture_of(json.loads(json.dumps(asdict(made))))
    assert again == made and hash(again) == hash(made) and made.source == made
    assert source_of(json.loads(json.dumps(asdict(made)))) == made and source_of("b.png") == "b.png"
    plain = Picture("a", file, 60, 40)
    assert picture_of(asdict(plain)) == plain and plain.source == file
    assert replace(made, steps=SWAPPED[:2]) != made


def test_what_is_no_step_is_refused():
    with pytest.raises(ValueError, match="no step erase"):
        steps_of([["fill", [0, 0, 1, 1], "white"], ["erase", [0, 0, 1, 1]]])


def test_a_file_that_broke_or_vanished_is_named_by_its_path(file, tmp_path):
    made = MadePicture("a", file, 60, 40, SWAPPED)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(BadImage, match=r"record a: cannot read .*a\.png \(none of JPEG"):
        open_image(made, "a")
    assert read_all([made]) is None
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match=r"record a: .*a\.png has vanished"):
        read_all([made])


def test_a_picture_seen_from_another_side(file):
    """Numbers that move, enlarge and slant; what the file does not hold is black."""
    whole = pixels(open_image(file))

    def seen(*numbers, size=(60, 40)):
        made = MadePicture("a", file, *size, (("seen", *size, numbers),))
        assert picture_of(json.loads(json.dumps(asdict(made)))) == made
        return pixels(open_image(made))

    assert (seen(1, 0, 0, 0, 1, 0, 0, 0) == whole).all()
    assert (seen(1, 0, 7, 0, 1, 3, 0, 0, size=(50, 30)) == whole[3:33, 7:57]).all()
    assert not seen(1, 0, -10, 0, 1, 0, 0, 0)[:, :10].any()
    assert (seen(-1, 0, 60, 0, 1, 0, 0, 0) == whole[:, ::-1]).all()
    slanted = seen(1, 0, 0, 0, 1, 0, 0.01, 0)
    assert (slanted[:, 0] != whole[:, 0]).any() and not (slanted == whole).all()
