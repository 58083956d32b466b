"""Pairs of views: what is shown is what the camera would see, and the answers are those of its motion."""

import random
from itertools import product

import numpy as np
import pytest

from spr_plugin.data.pictures import MadePicture, open_image
from spr_plugin.recipes.actial.motion import MOTIONS, TASKS, motion_of, seen_between
from spr_plugin.recipes.actial.pairs import Refused, Shots, is_sided, window_of

from ...examples.world import load

posed = load("posed")


def each(shots, motion, count=12):
    """Pairs of every task and side."""
    for task, side, seed in product(TASKS, ("left", "right"), range(count // 6)):
        yield task, side, shots.pair(motion, task, side, random.Random(f"{task}{side}{seed}"))


@pytest.mark.parametrize("motion", MOTIONS)
def test_answers_are_those_of_the_cameras(scene, settings, motion):
    for task, side, pair in each(Shots(scene, settings()), motion):
        one, other = pair.views
        found = motion_of(
            seen_between((one.rotation, one.centre), (other.rotation, other.centre), scene.point)
        )
        assert [*MOTIONS][found.kind] == motion
        words = {-1: "left", 0: "none", 1: "right"}
        assert pair.answers == {name: words[int(getattr(found, name))] for name in TASKS}
        assert pair.answers[task] == (side if is_sided(motion, task) else "none")


def painted(view, rotation, things):
    """The scene from where the view's camera stands, turned like this, as far as the view shows it."""
    x, y, z = view.rotation @ (posed_point() - view.centre)
    left, top = (round(posed.FOCAL * v / z + posed.SIZE / 2 - at) for v, at in zip((x, y), view.point))
    box = left, top, left + view.picture.width, top + view.picture.height
    return np.asarray(posed.render(rotation, view.centre, things).crop(box), float)


def posed_point():
    """What all cameras of the world look at."""
    return np.array([0, 0, 0.4])


@pytest.mark.parametrize("motion", ["turn", "shift"])
def test_a_made_view_is_what_the_turned_camera_sees(scene, settings, motion):
    """Against the scene, painted anew from there (its posts upright and its balls round in every view)."""
    things, far = posed.things(np.random.default_rng(0)), 0
    for _, _, pair in each(Shots(scene, settings()), motion):
        for view, other in (pair.views, pair.views[::-1]):
            picture = view.picture
            assert isinstance(picture, MadePicture) and picture.width >= posed.SIZE // 2
            shown = np.asarray(open_image(picture.source), float)
            assert shown.shape == (picture.height, picture.width, 3) and view.point
            near = np.abs(shown - painted(view, view.rotation, things)).mean()
            assert near < 13
            if motion == "turn":
                assert 1.5 * near < np.abs(shown - painted(view, other.rotation, things)).mean()
            (_, _, _, (a, b, c, d, e, f, g, h)) = picture.steps[0]
            for x, y in product((0, picture.width), (0, picture.height)):
                seen = np.array([a * x + b * y + c, d * x + e * y + f]) / (g * x + h * y + 1)
                assert (seen > -1e-3).all() and (seen < posed.SIZE + 1e-3).all()
            far += abs(a - 1) > 0.01
    assert far > 5


def test_orbits_are_so_far_apart(scene, settings):
    shots = Shots(scene, settings(least_apart=30, most_apart=50))
    for _, _, pair in each(shots, "orbit", 30):
        one, other = pair.views
        yaw = seen_between((one.rotation, one.centre), (other.rotation, other.centre), scene.point).yaw
        assert 30 <= abs(yaw) <= 50 and one.picture.id != other.picture.id
    with pytest.raises(Refused, match="no_orbit"):
        Shots(scene, settings(least_apart=179, most_apart=180)).pair("orbit", "move", "left", random.Random())


def test_a_still_pair_is_one_picture_twice(scene, settings):
    pair = Shots(scene, settings()).pair("still", "turn", "left", random.Random(1))
    assert pair.views[0] == pair.views[1] and {*pair.answers.values()} == {"none"}


def test_a_scene_s_own_turns_shifts_and_rests_are_taken(walk, settings):
    """Before any is made: a rig that moves sideways and turns on the spot."""
    shots = Shots(walk([[0, 0, 0], [1, 0, 0], [1, 0, 0], [1.01, 0, 0]], [0, 0, 15, 15], None), settings())
    for motion, names in (("shift", "01"), ("turn", "12"), ("still", "23")):
        for task, side in product(TASKS, ("left", "right")):
            pair = shots.pair(motion, task, side, random.Random(0))
            found = {view.picture.id[0] for view in pair.views}
            assert found == {*names} or (motion == "turn" and found == {"1", "3"})
            assert not any(isinstance(view.picture, MadePicture) for view in pair.views)


def test_what_cannot_be_made_is_said(walk, settings):
    def why(scene, motion):
        with pytest.raises(Refused) as refused:
            Shots(scene, settings()).pair(motion, "move", "left", random.Random(0))
        return str(refused.value)

    around = [[0, 0, 0], [2, 0, 0.5]], [0, -27]
    assert why(walk(*around, focal=None), "turn") == "no_focal_length"
    near = [[0, 0, 0], [0.7, 0, 0]], [0, -12]
    assert why(walk(*near, focal=None), "shift") == "no_focal_length"
    assert why(walk(*around), "shift") == "no_shift"
    assert why(walk(*near), "orbit") == "no_orbit"
    assert why(walk(*near, focal=900.0), "turn") == "narrow_view"
    assert why(walk([[0, 0, 0], [0, 0, 1]], [0, 0]), "orbit") == "no_orbit"


def test_windows():
    """The largest comes first, in the middle where it may."""
    same = np.eye(3)
    assert window_of([same, same], [(100, 50)] * 2) == (5, 2, 95, 47)
    right = np.array([[1, 0, 20.0], [0, 1, 0], [0, 0, 1]])
    assert window_of([same, right], [(100, 50)] * 2) == (0, 5, 80, 45)
    assert window_of([same, np.array([[1, 0, 60.0], [0, 1, 0], [0, 0, 1]])], [(100, 50)] * 2) is None
    assert window_of([-same], [(100, 50)]) is None
    assert window_of([same], [(1, 1)]) is window_of([same], [(100, 17)]) is None


def test_a_long_walk_is_thinned(walk, settings):
    steps = np.linspace(0, 3, 250)
    shots = Shots(walk([[x, 0, 0] for x in steps], [0] * 250), settings())
    assert len(shots.shots) == 84 and shots.shots[1].name == "3.png"
