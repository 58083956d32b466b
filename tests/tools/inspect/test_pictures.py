"""What of a picture a browser is given: the pixels that the run saw."""

import io
import os
import time

import numpy as np
import pytest
from PIL import Image

from spr_plugin.data.pictures import MadePicture, Picture, open_image
from spr_plugin.drawing import shrunk
from spr_plugin.errors import UserError
from spr_plugin.tools.inspect.pictures import THUMBNAIL, served, thumbnail, trouble, version


@pytest.mark.parametrize(
    "name, kind",
    [("a.png", "image/png"), ("a.jpg", "image/jpeg"), ("a.webp", "image/webp"), ("a.bmp", "image/bmp")]
    + [("a.gif", "image/gif"), ("a.tiff", "image/png"), ("a.ppm", "image/png"), ("a.jp2", "image/png")],
)
def test_what_a_browser_cannot_show_becomes_a_png(tmp_path, name, kind):
    pixels = np.full((6, 9, 3), 200, np.uint8)
    Image.fromarray(pixels).save(tmp_path / name)
    content, media_type = served(Picture("a", str(tmp_path / name), 9, 6), None)
    assert media_type == kind
    assert np.abs(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int) - 200).max() < 4


def test_a_picture_is_not_turned_since_the_run_saw_it_unturned(tmp_path):
    image, exif = Image.new("RGB", (9, 6)), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    picture = Picture("a", str(tmp_path / "a.jpg"), 9, 6)
    content, kind = served(picture, None)
    assert kind == "image/png" and Image.open(io.BytesIO(content)).getexif().get(0x0112) is None
    assert trouble(picture, None) == ""


@pytest.mark.parametrize(
    "content", [b"", b"root:x:0:0", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe"]
)
def test_what_is_no_picture_is_not_served(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UserError):
        served(Picture("a", str(tmp_path / "a.jpg"), 9, 6), None)


def test_a_picture_that_no_file_holds_is_served_as_the_model_saw_it(tmp_path):
    """From where its file is now."""
    Image.effect_noise((40, 30), 80).convert("RGB").save(tmp_path / "a.jpg")
    steps = (("page", 20, 50, "white"), ("cut", (0, 0, 20, 20), "left", (0, 30, 20, 50)))
    made = MadePicture("a", "/elsewhere/a.jpg", 20, 50, steps)
    assert "not there" in trouble(made, None) and trouble(made, str(tmp_path)) == ""
    content, kind = served(made, str(tmp_path))
    expected = open_image(MadePicture("a", str(tmp_path / "a.jpg"), 20, 50, steps))
    assert kind == "image/png" and open_image(content).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "size, small", [((1000, 500), (THUMBNAIL, THUMBNAIL // 2)), ((9, 6), (9, 6)), ((1, 3000), (1, THUMBNAIL))]
)
def test_a_list_gets_its_pictures_small_and_never_larger_than_they_are(tmp_path, size, small):
    Image.new("RGB", size, "red").save(tmp_path / "a.jpg")
    content, kind = thumbnail(Picture("a", "/gone/a.jpg", *size), str(tmp_path))
    assert kind == "image/png" and Image.open(io.BytesIO(content)).size == small
    with pytest.raises(UserError, match="not there"):
        thumbnail(Picture("a", "/gone/b.jpg", *size), str(tmp_path))


def test_a_large_photograph_s_thumbnail_is_decoded_small(tmp_path):
    """Twelve megapixels, of which a list shows fifty; its pixels are still those of the whole, made small."""
    size = (4000, 3000)
    Image.effect_noise(size, 60).save(tmp_path / "a.jpg")
    picture = Picture("a", str(tmp_path / "a.jpg"), *size)

    def best_of(make):
        spent = []
        for _ in range(3):
            begun = time.process_time()
            made = make()
            spent.append(time.process_time() - begun)
        return min(spent), made

    whole, wanted = best_of(lambda: shrunk(open_image(picture.path), THUMBNAIL))
    small, (content, _) = best_of(lambda: thumbnail(picture, None))
    assert small < whole / 2
    shown = open_image(content)
    assert shown.size == wanted.size
    assert np.abs(np.asarray(shown).astype(int) - np.asarray(wanted).astype(int)).mean() < 4


def test_a_thumbnail_is_not_turned_either(tmp_path):
    image, exif = Image.new("RGB", (900, 600)), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    content, _ = thumbnail(Picture("a", str(tmp_path / "a.jpg"), 900, 600), None)
    assert Image.open(io.BytesIO(content)).getexif().get(0x0112) is None


def test_another_file_is_another_version(tmp_path):
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (9, 6)).save(tmp_path / folder / "a.png")
    picture = Picture("a", "/gone/a.png", 9, 6)
    here, there = (version(picture, str(tmp_path / folder)) for folder in ("here", "there"))
    assert here != there and here == version(picture, str(tmp_path / "here"))
    os.utime(tmp_path / "here" / "a.png", ns=(1, 1))
    assert version(picture, str(tmp_path / "here")) != here
    with pytest.raises(UserError, match="not there"):
        version(picture, None)
