"""The tasks of pixels against what their definitions say."""

import random
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from spr_plugin.data.made import make
from spr_plugin.recipes.spatial_ssrl.samples import Refused, Scene
from spr_plugin.recipes.spatial_ssrl.settings import GRIDS, Asking
from spr_plugin.recipes.spatial_ssrl.tasks import MAKERS

BY_CODE = Asking(distance="code")


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
