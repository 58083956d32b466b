"""The tasks of depth: what is said holds on every pixel of the regions."""

import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from spr_plugin.data.made import make
from spr_plugin.recipes.spatial_ssrl.marked import FACINGS, GAP, RANGE, Region, position_signs, sides, told
from spr_plugin.recipes.spatial_ssrl.samples import Refused, Scene
from spr_plugin.recipes.spatial_ssrl.settings import Asking
from spr_plugin.recipes.spatial_ssrl.tasks import MAKERS

BY_CODE = Asking(distance="code")


def slopes(seed):
    """A depth map whose small regions often straddle a step or a slope."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:80, :100] / 100
    depth = x * rng.uniform(-1, 1) + y * rng.uniform(-1, 1) + 0.3 * np.sin(rng.uniform(5, 25) * x)
    depth += 0.4 * (x * rng.uniform(0.5, 2) > y)
    return ((depth - depth.min()) / (depth.max() - depth.min())).astype(np.float32)


def test_order_and_gap_hold_on_every_pixel():
    """By centres alone, as the original has it, some do not."""
    picture, made, slipped = Image.new("RGB", (100, 80)), 0, 0
    for seed in range(400):
        scene = Scene(picture, slopes(seed))
        with_centres = [scene.depth[y, x] for y, x in ((10, 10), (40, 50), (70, 90))]
        windows = [scene.depth[y - 2 : y + 3, x - 2 : x + 3] for y, x in ((10, 10), (40, 50), (70, 90))]
        order = np.argsort(with_centres)
        if all(np.diff(np.sort(with_centres)) > GAP):
            slipped += any(windows[a].max() + GAP >= windows[b].min() for a, b in itertools.pairwise(order))
        try:
            one = MAKERS["depth_order"](scene, BY_CODE, random.Random(seed))
        except Refused:
            continue
        made += 1
        depths = [scene.depth[y1:y2, x1:x2] for x1, y1, x2, y2 in one.facts["regions"]]
        ranked = [depths[int(number) - 1] for number in one.answer.split("-")]
        assert all(part.max() - part.min() < RANGE for part in depths)
        assert all((far.min() - near.max()) > GAP for near, far in itertools.pairwise(ranked))
    assert made > 100 and slipped > 10


@pytest.mark.parametrize("task", ["depth_order", "position"])
def test_unknown_depth_is_never_marked(samples, scene, task):
    of = scene(seed=3)
    of.depth[:, ::9] = np.nan
    of.depth[30:] = np.nan
    made = samples(task, of, 200)
    assert made
    for one in made:
        assert all(np.isfinite(of.depth[y1:y2, x1:x2]).all() for x1, y1, x2, y2 in one.facts["regions"])
    of.depth[:] = np.nan
    assert not samples(task, of)


@pytest.mark.parametrize("task", ["depth_order", "position"])
def test_marks_do_not_lie_on_each_other(samples, scene, task):
    of = scene(seed=3)
    for one in samples(task, of, 100):
        shown = np.asarray(make(of.picture, one.views[0].steps))
        for x1, y1, x2, y2 in one.facts["regions"]:
            assert (shown[y1:y2, x1:x2] == np.asarray(of.picture)[y1:y2, x1:x2]).all()


@pytest.fixture
def far_ground():
    """A ground behind all, of which most places are, and a few things before it, each at its own depth."""
    depth = np.full((96, 96), 1.0, np.float32)
    for number, (x, y) in enumerate(itertools.product((4, 36, 68), repeat=2)):
        depth[y : y + 16, x : x + 16] = 0.1 * number
    return Scene(Image.new("RGB", (96, 96)), depth)


def test_numbers_do_not_tell_the_order(samples, far_ground):
    """Whichever region is found first: a constant answer would be right as often as it is said."""
    orders = Counter(one.answer for one in samples("depth_order", far_ground, 600))
    share = np.array(list(orders.values())) / sum(orders.values())
    assert len(orders) == 6 and 0.1 < share.min() and share.max() < 0.24, orders


def test_which_of_two_is_1_does_not_tell_where_2_is(samples, far_ground):
    nearer = []
    for one in samples("position", far_ground, 600):
        first, second = (far_ground.depth[y1, x1] for x1, y1, _, _ in one.facts["regions"])
        nearer += [second < first] if first != second else []
    assert len(nearer) > 100 and 0.4 < np.mean(nearer) < 0.6


def test_sides_are_the_paper_s_rotation():
    """x̃ = cosθ·Δx + sinθ·Δz, z̃ = −sinθ·Δx + cosθ·Δz: all 16 of two axes, and those of one."""
    degrees = {"away": 0, "left": 90, "camera": 180, "right": 270}
    for facing, (x, z) in itertools.product(degrees, itertools.product((-1, 0, 1), repeat=2)):
        theta = math.radians(degrees[facing])
        right = math.cos(theta) * x + math.sin(theta) * z
        front = -math.sin(theta) * x + math.cos(theta) * z
        assert sides(facing, x, z) == (round(right), round(front))
    # Facing left in the picture, what is farther from the camera is to the right.
    assert (
        told(*sides("left", 0, 1)) == "to the right"
        and told(*sides("camera", 1, -1)) == "in front and to the left"
    )


def region(x, near, far=None, side=10):
    return Region((x, 0, x + side, side), near, near if far is None else far)


def test_a_position_is_said_where_every_pixel_agrees():
    """Thresholds: 50 pixels, 0.25 of depth."""
    here = region(0, 0.5)
    assert position_signs(here, region(59, 0.75), 50) == (1, 1)  # the nearest pixels lie 50 apart
    assert position_signs(here, region(58, 0.75), 50) is None  # some pixels 49, some more
    assert position_signs(region(59, 0.5), region(0, 0.25), 50) == (-1, -1)
    assert position_signs(here, region(40, 0.75), 50) == (0, 1)  # all below 50
    assert position_signs(here, region(41, 0.75), 50) is None
    assert position_signs(here, region(59, 0.7, 0.76), 50) is None
    assert position_signs(here, region(59, 0.6), 50) == (1, 0)
    assert position_signs(here, region(20, 0.6), 50) is None  # no side at all


def test_facings_of_text_and_code(samples, scene):
    of = scene(seed=3)
    counts = {
        way: Counter(one.facts["facing"] for one in samples("position", of, 400, facings=way))
        for way in ("text", "code")
    }
    assert counts["text"].keys() == FACINGS.keys()
    share = {way: each["away"] / sum(each.values()) for way, each in counts.items()}
    assert 0.18 < share["text"] < 0.33 and 0.05 < share["code"] < 0.15


def test_distances_of_text_and_code(samples, scene):
    """150 pixels, of which a picture of 96 has none; on one of 600 they are what tells a side."""
    small = samples("position", scene(seed=3), distance="text")
    assert not any(" and " in one.facts["options"][0] for one in small)
    wide = samples("position", scene(600, 400, seed=3), 60, distance="text")
    two = [one.facts["regions"] for one in wide if " and " in one.facts["options"][0]]
    assert two and all(max(b[0] - a[2], a[0] - b[2]) + 1 >= 150 for a, b in two)
