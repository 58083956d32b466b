"""Posed scenes of the three layouts, and what is wrong with a file, a scene or a picture of it."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from spr_plugin.data.poses import POSES, Scenes, is_rotation, looked_at, rotation_of
from spr_plugin.errors import UserError

from ..examples.world import load

posed = load("posed")
LAYOUTS = ("own", "text", "binary")


@pytest.fixture
def folder(posed_world, tmp_path):
    """``folder(layout)`` → a copy of a small world."""

    def copy(layout="own"):
        target = tmp_path / layout
        shutil.copytree(posed_world(scenes=4, views=5, layout=layout), target)
        return target

    return copy


def read(folder, file=None):
    """All scenes that can be used by name, and what was left out."""
    skipped = Counter()
    scenes = Scenes(str(folder), file, skipped)
    found = {name: scenes.scene(name) for name in scenes.names}
    return {name: scene for name, scene in found.items() if scene}, skipped


def changed(folder, change, file=POSES):
    """The folder, whose poses.json is as `change` leaves it."""
    table = json.loads((folder / POSES).read_text())
    change(table)
    (folder / file).write_text(json.dumps(table))
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_layouts_say_the_same(folder, layout):
    """What was written: each camera looks at one point, from the place and with the turn that it has."""
    scenes, skipped = read(folder(layout))
    assert len(scenes) == 4 and not skipped
    own, _ = read(folder("own")) if layout != "own" else (scenes, None)
    for name, scene in scenes.items():
        assert np.allclose(scene.point, [0, 0, 0.4], atol=1e-6)
        assert [shot.name for shot in scene.shots] == [f"{name}/images/{n:03d}.png" for n in range(5)]
        for shot, same in zip(scene.shots, own[name].shots):
            assert np.allclose(shot.rotation, same.rotation, atol=1e-9) and is_rotation(shot.rotation)
            assert np.allclose(shot.centre, same.centre, atol=1e-9) and shot.size == (96, 96)
            assert shot.lens == pytest.approx((84, 84, 48, 48, 96, 96))


def test_a_larger_picture_has_a_longer_lens(folder):
    """Of COLMAP's camera; a focal length of one's own is in pixels of the picture that is there."""
    where = folder("binary")
    path = where / "0" / "00000" / "images" / "002.png"
    Image.open(path).resize((192, 192)).save(path)
    scenes, _ = read(where)
    assert scenes["0/00000"].shots[2].lens == pytest.approx((168, 168, 96, 96, 192, 192))
    Image.open(path).resize((192, 96)).save(path)
    scenes, skipped = read(where)
    assert skipped == {"picture_of_another_shape": 1} and len(scenes["0/00000"].shots) == 4


def test_a_folder_that_is_one_scene(folder):
    """A reconstruction may lie in the pictures' folder itself, with names that hold blanks."""
    where = folder("text") / "0" / "00000"
    images = where / "sparse" / "0" / "images.txt"
    images.write_text(images.read_text().replace(" 003.png", " a b.png"))
    (where / "images" / "003.png").rename(where / "images" / "a b.png")
    scenes, skipped = read(where)
    assert list(scenes) == ["."] and not skipped
    assert [shot.name for shot in scenes["."].shots][-1] == "images/a b.png"


REFLECTED = [[-1, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    "row, why",
    [
        ({"rotation": REFLECTED}, "no_rotation"),
        ({"rotation": [[1, 0, 0], [0, 1, 0], [0, 0.01, 1]]}, "no_rotation"),
        ({"rotation": [[2, 0, 0], [0, 2, 0], [0, 0, 2]]}, "no_rotation"),
        ({"rotation": [[0, 0, 0]] * 3}, "no_rotation"),
        ({"rotation": [[1, 0, 0], [0, 1, 0]]}, "no_pose"),
        ({"rotation": [[1, 0, 0], [0, 1], [0, 0, 1]]}, "no_pose"),
        ({"rotation": None}, "no_pose"),
        ({"rotation": [[1e999, 0, 0], [0, 1, 0], [0, 0, 1]]}, "no_pose"),
        ({"centre": [0, 1]}, "no_pose"),
        ({"centre": "here"}, "no_pose"),
        ({"focal": -3}, "no_pose"),
        ({"focal": "long"}, "no_pose"),
    ],
)
def test_a_pose_that_is_none_is_counted(folder, row, why):
    def change(table):
        table["1/00001"]["pictures"]["1/00001/images/002.png"].update(row)

    scenes, skipped = read(changed(folder(), change))
    assert skipped == {why: 1} and len(scenes) == 4 and len(scenes["1/00001"].shots) == 4


def test_a_quaternion_of_another_length_is_no_rotation(folder):
    where = folder("text")
    images = where / "0" / "00000" / "sparse" / "0" / "images.txt"
    lines = images.read_text().splitlines()
    number, w, *rest = lines[1].split()
    lines[1] = " ".join([number, str(float(w) + 0.2), *rest])
    lines[3] = lines[3].replace(" 1 001.png", " 7 001.png")  # a camera that nobody describes
    images.write_text("\n".join(lines) + "\n")
    scenes, skipped = read(where)
    assert skipped == {"no_rotation": 1, "no_pose": 1} and len(scenes["0/00000"].shots) == 3


def test_missing_pictures_and_scenes_of_one(folder):
    where = folder()
    for number in range(4):
        (where / "2" / "00002" / "images" / f"{number:03d}.png").unlink()
    (where / "0" / "00000" / "images" / "001.png").write_text("no picture")
    scenes, skipped = read(where)
    assert skipped == {"missing_image": 4, "one_picture": 1, "unreadable_image": 1}
    assert "2/00002" not in scenes and len(scenes["0/00000"].shots) == 4


@pytest.mark.parametrize("cut", [0, 3, 60, 200, -1])
def test_a_reconstruction_that_was_cut_short(folder, cut):
    """One scene of many: counted."""
    where = folder("binary")
    file = where / "0" / "00000" / "sparse" / "0" / "images.bin"
    file.write_bytes(file.read_bytes()[:cut])
    scenes, skipped = read(where)
    assert skipped == {"bad_model": 1} and len(scenes) == 3


def test_what_a_scene_is_about(folder):
    """Given, it counts; cameras that look the same way, or apart, are about nothing that anybody knows."""

    def beside(table):
        for name in list(table)[:3]:
            for number, row in enumerate(table[name]["pictures"].values()):
                row.update(rotation=np.eye(3).tolist(), centre=[number, 0, 0])
        first, _, third, last = table.values()
        first["object"], third["object"] = [0, 0, 5], [0, "a", 5]
        for row in last["pictures"].values():  # each turned round
            row["rotation"] = (np.diag([-1, 1, -1]) @ np.array(row["rotation"])).tolist()

    scenes, skipped = read(changed(folder(), beside))
    assert skipped == {"no_object": 3} and [scene.point.tolist() for scene in scenes.values()] == [[0, 0, 5]]


def test_a_file_that_is_wrong_as_a_whole_is_one_line(folder, tmp_path):
    where = folder()
    for content, words in (
        ("[]", "is no table of scenes"),
        ('{"a": {"pictures": []}}', "is no table of scenes"),
        ("{}", "is no table of scenes"),
        ("{", "not JSON"),
    ):
        (where / POSES).write_text(content)
        with pytest.raises(UserError, match=rf"^{where / POSES}: {words}"):
            read(where)
        with pytest.raises(UserError, match=rf"^--spr_annotations {where / POSES}: {words}"):
            read(tmp_path, str(where / POSES))
    with pytest.raises(UserError, match="--spr_annotations /nowhere.json"):
        read(where, "/nowhere.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds neither poses.json nor a reconstruction of COLMAP's"):
        read(tmp_path / "empty")


def test_a_table_elsewhere_counts(folder, tmp_path):
    where = folder()
    other = changed(where, lambda table: table.pop("0/00000"), "other.json")
    assert len(read(other, str(where / "other.json"))[0]) == 3 and len(read(where)[0]) == 4


def test_quaternions_are_those_of_scipy():
    for turn in Rotation.random(50, np.random.default_rng(3)):
        x, y, z, w = turn.as_quat()
        assert np.allclose(rotation_of([w, x, y, z]), turn.as_matrix())
        assert np.allclose(rotation_of(posed.quaternion_of(turn.as_matrix())), turn.as_matrix())


def test_the_point_that_cameras_look_at(folder):
    scenes, _ = read(folder())
    scene = scenes["0/00000"]
    assert np.allclose(looked_at(scene.shots[:2]), [0, 0, 0.4], atol=1e-6)
    assert looked_at([scene.shots[0]] * 2) is None
