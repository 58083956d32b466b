"""Pictures by the names that responses give, and why one cannot be used."""

import json
import os

import pytest
from PIL import Image

from spr_plugin.errors import UserError
from spr_plugin.tools.named_pictures import Pictures, state_of


@pytest.fixture
def annotated(tmp_path, monkeypatch):
    """``annotated(changes of pictures, changes of objects)`` → what finds them; by default one picture, which
    is there, with one object."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (640, 400)).save("images/a.png")

    def write(images=({},), rows=({},)) -> Pictures:
        picture, box = {"file_name": "a.png", "width": 640, "height": 400}, [10, 10, 90, 90]
        objects = [
            {"id": n, "image_id": 1, "category_id": 1, "bbox": box, **row} for n, row in enumerate(rows)
        ]
        pictures = [{"id": n, **picture, **image} for n, image in enumerate(images, 1)]
        coco = {"images": pictures, "annotations": objects, "categories": [{"id": 1, "name": "cat"}]}
        (tmp_path / "coco.json").write_text(json.dumps(coco))
        return Pictures("coco.json", "images")

    return write


def response(name="a.png") -> dict:
    return {"id": "r0", "image": name}


def refused(pictures, name) -> str:
    with pytest.raises(UserError) as caught:
        pictures.of(response(name))
    assert str(caught.value).startswith(f"response r0: {name} ")
    return str(caught.value)


@pytest.mark.parametrize(
    ("image", "row", "words"),
    [
        ({"width": 400, "height": 640}, {}, "size_mismatch 1"),
        ({"id": 1}, {"image_id": "1"}, "no_objects 1: 1 annotations have an image_id that no picture has"),
        ({"file_name": "spr/b.png"}, {}, "missing_image 1: there is no images/spr/b.png"),
        ({}, {"iscrowd": 1}, "crowd 1, no_objects 1"),
        ({}, {"bbox": [700, 10, 50, 50]}, "outside 1, no_objects 1"),
    ],
)
def test_why_a_picture_cannot_be_used_is_said(annotated, image, row, words):
    said = refused(annotated([image], [row]), image.get("file_name", "a.png"))
    assert f"of --annotations coco.json cannot be used ({words}" in said


@pytest.mark.parametrize("there", ["a.png", "cam1/a.png"])
def test_no_other_picture_of_that_name_is_taken(annotated, tmp_path, there):
    (tmp_path / "images/cam1").mkdir()
    Image.new("RGB", (640, 400)).save("images/cam1/a.png")
    pictures = annotated([{"file_name": there}, {"file_name": "cam2/a.png"}], [{}, {"image_id": 2}])
    assert "cannot be used (missing_image 1" in refused(pictures, "cam2/a.png")
    assert refused(pictures, "cam3/a.png").endswith("is not in --annotations coco.json")


@pytest.mark.parametrize("name", ["a.png", "./a.png", "../images/a.png", "b/../a.png"])
def test_other_spellings_of_a_path_are_the_same_picture(annotated, name):
    assert annotated().of(response(name)).path.endswith("a.png")


def test_the_objects_of_all_records_of_a_picture_count(annotated):
    pictures = annotated([{}, {}], [{}, {"image_id": 2, "bbox": [300, 10, 90, 90]}])
    assert len(pictures.of(response()).annotations) == 2


def test_what_was_left_out_of_a_picture_counts_once(annotated):
    pictures = annotated(rows=[{}, {"iscrowd": 1}, {"image_id": 9}])
    assert pictures.skipped == {"unknown_image": 1} and pictures.used == {}
    first = pictures.of(response())
    pictures._read.cache_clear()
    assert pictures.of(response("./a.png")) == first
    assert pictures.skipped == {"unknown_image": 1, "crowd": 1} and pictures.used == {first.path: first.id}


def test_a_state_is_of_names_sizes_and_times(tmp_path):
    for name in "ab":
        (tmp_path / name).write_bytes(b"1")
        os.utime(tmp_path / name, (1, 1))
    paths = [str(tmp_path / name) for name in "ab"]
    known = state_of(paths, str(tmp_path))
    assert state_of(paths[::-1], str(tmp_path)) == known != state_of(paths[:1], str(tmp_path))
    os.utime(paths[0], (2, 2))
    assert (later := state_of(paths, str(tmp_path))) != known
    (tmp_path / "a").write_bytes(b"12")
    os.utime(paths[0], (2, 2))
    assert state_of(paths, str(tmp_path)) not in (known, later)
    (tmp_path / "a").write_bytes(b"1")
    os.utime(paths[0], (1, 1))
    tmp_path.rename(moved := tmp_path.with_name("moved"))
    assert state_of([str(moved / name) for name in "ab"], str(moved)) == known
