"""The five tasks against what their definitions say, on scenes whose pixels and depths are known."""

import dataclasses
import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from spr_plugin.data.made import make
from spr_plugin.recipes.spatial_ssrl.checks import holds
from spr_plugin.recipes.spatial_ssrl.marked import FACINGS, GAP, RANGE, Region, position_signs, sides, told
from spr_plugin.recipes.spatial_ssrl.samples import Refused, Scene
from spr_plugin.recipes.spatial_ssrl.settings import GRIDS, Asking
from spr_plugin.recipes.spatial_ssrl.tasks import MAKERS, sample

BY_CODE = Asking(distance="code")


@pytest.mark.parametrize("size", [(96, 72), (97, 51), (33, 120)])
@pytest.mark.parametrize("montage", [True, False])
def test_the_answer_holds(task, some, scene, size, montage):
    """On sizes that no grid divides, too."""
    of = scene(*size, seed=3)
    made = some(of, 30, montage=montage)
    assert len(made) >= 5
    ask = Asking(distance="code", montage=montage)
    assert all(holds(task, of, ask, one) for one in made)


def test_a_seed_makes_one_sample(task, some, scene):
    assert some(scene()) == some(scene()) and len({one.answer for one in some(scene())}) > 1


def test_patches_lie_where_pi_puts_them(samples, scene):
    """Place i shows patch π(i); the answer names for each place of the picture the shown patch."""
    of = scene(96, 96)
    whole = np.asarray(of.picture)
    for one in samples("patch_order", of, 20, grids=["1x3"]):
        (view,), order = one.views, [int(number) for number in one.answer.split("-")]
        shown = np.asarray(make(of.picture, view.steps))
        thirds = [slice(32 * place, 32 * place + 32) for place in range(3)]
        pi = [[(shown[:, i] == whole[:, p]).all() for p in thirds].index(True) for i in thirds]
        assert [pi[number] for number in order] == [0, 1, 2] != pi
        assert "1 x 3 patches" in one.question and "0 to 2" in one.question


def test_grids_and_white_patches(samples, scene):
    made = samples("patch_order", scene(), 300)
    grids = Counter("x".join(map(str, one.facts["grid"])) for one in made)
    assert grids.keys() == set(GRIDS) and min(grids.values()) > 30
    white = [one.facts["white"] is not None for one in made if one.facts["grid"] == [2, 2]]
    assert 0.3 < np.mean(white) < 0.7
    assert not any(one.facts["white"] is not None for one in made if one.facts["grid"] != [2, 2])
    assert all(("One of them is white" in one.question) == (one.facts["white"] is not None) for one in made)
    assert all(one.facts["white"] is None for one in samples("patch_order", scene(), 40, white=0.0))


def test_all_answers_come(samples, scene):
    """None is more than twice as frequent as chance has it."""
    flips = Counter(one.answer for one in samples("flipped_patch", scene(), 400))
    assert flips.keys() == {f"{patch}-{way}" for patch in range(4) for way in (0, 1)}
    for task in ("cropped_patch", "position"):
        letters = Counter(one.answer for one in samples(task, scene(), 200))
        assert letters.keys() == set("ABCD") and max(letters.values()) < 2 * sum(letters.values()) / 4
    orders = Counter(one.answer for one in samples("depth_order", scene(seed=3), 200))
    assert orders.keys() == {"-".join(order) for order in itertools.permutations("123")}


def mirrored(scene):
    """Left and right are alike, in each patch of 2 x 2 too, above and below are not."""
    whole = np.array(scene.picture.resize((24, 96)))
    half = np.concatenate([whole, whole[:, ::-1]], 1)
    return Scene(Image.fromarray(np.concatenate([half, half], 1)))


def test_what_hardly_changes_is_refused(samples, scene):
    flat = Scene(Image.new("RGB", (96, 96), "gray"))
    grain = np.random.default_rng(0).normal(128, 12, (96, 96, 3)).clip(0, 255).astype(np.uint8)
    for of in (flat, Scene(Image.fromarray(grain))):
        for task in ("patch_order", "flipped_patch", "cropped_patch"):
            with pytest.raises(Refused, match="hardly_changed"):
                MAKERS[task](of, BY_CODE, random.Random(0))
    of = mirrored(scene(96, 96))
    assert {one.answer[-1] for one in samples("flipped_patch", of)} == {"0"}
    assert {tuple(one.facts["grid"]) for one in samples("patch_order", of)} == {(3, 1), (4, 1), (1, 3)}
    # A white patch beside one that is white by itself: it must be that one.
    pixels = np.array(scene(96, 96).picture)
    pixels[:48, :48] = 255
    made = samples("patch_order", Scene(Image.fromarray(pixels)), grids=["2x2"], white=1.0)
    assert made and {int(one.answer[0]) - one.facts["white"] for one in made} == {0}


def test_a_square_in_a_flat_part_is_refused(samples, scene):
    """Turned, or cut from less around it, it looks alike."""
    pixels = np.array(scene(96, 96).picture)
    pixels[:, :70] = 90
    made = samples("cropped_patch", Scene(Image.fromarray(pixels)), 100)
    assert made and all(one.facts["square"][2] > 70 for one in made)


def test_pieces_of_a_cropped_patch(samples, scene):
    """Three of five without repeat; what would reach out of the picture is none of them."""
    of = scene(120, 96)
    kinds = Counter()
    for one in samples("cropped_patch", of, 150, montage=False):
        square, pieces = one.facts["square"], one.facts["pieces"]
        side = square[2] - square[0]
        assert side == 48 and len({str(piece) for piece in pieces}) == 4 and [square, ""] in pieces
        assert all(min(box) >= 0 and box[2] <= 120 and box[3] <= 96 for box, _ in pieces)
        kinds.update((turn, round((box[2] - box[0]) / side, 2)) for box, turn in pieces)
        assert [view.size for view in one.views] == [(120, 96), *[(48, 48)] * 4]
    assert kinds.keys() == {("", 1.0), ("left", 1.0), ("right", 1.0), ("", 0.5), ("", 1.25), ("", 1.5)}
    (one, *_) = samples("cropped_patch", of, 5, montage=True)
    assert len(one.views) == 1 and one.views[0].size[0] == 120 and "below" in one.question


# --- depth


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


def test_a_sample_whose_answer_does_not_hold_is_refused(scene, monkeypatch):
    """A slip of ours would be counted, and teach nobody."""
    made = MAKERS["flipped_patch"](scene(), BY_CODE, random.Random(0))
    assert sample("flipped_patch", scene(), BY_CODE, random.Random(0)) == made
    patch, direction = made.answer.split("-")
    slip = dataclasses.replace(made, answer=f"{patch}-{1 - int(direction)}")
    monkeypatch.setitem(MAKERS, "flipped_patch", lambda *given: slip)
    with pytest.raises(Refused, match="answer_does_not_hold"):
        sample("flipped_patch", scene(), BY_CODE, random.Random(0))
