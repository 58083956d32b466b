"""A check knows wrong answers: every other one than a sample's is refused, and a sample whose picture is
off."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from spr_plugin.recipes.spatial_ssrl.checks import holds
from spr_plugin.recipes.spatial_ssrl.samples import View
from spr_plugin.recipes.spatial_ssrl.settings import Asking

BY_CODE = Asking(distance="code")


def others(task, one):
    """All wrong answers of the form that the sample asks for."""
    if task == "flipped_patch":
        every = [f"{patch}-{way}" for patch in range(4) for way in (0, 1)]
    elif task in ("patch_order", "depth_order"):
        every = ["-".join(order) for order in itertools.permutations(one.answer.split("-"))]
    else:
        every = list("ABCD")
    return [answer for answer in every if answer != one.answer]


@pytest.mark.parametrize("montage", [True, False])
def test_every_other_answer_is_wrong(task, some, scene, montage):
    of, ask = scene(seed=3), Asking(distance="code", montage=montage)
    for one in some(of, 12, montage=montage):
        wrong = others(task, one)
        assert len(wrong) >= 3 and holds(task, of, ask, one)
        assert not any(holds(task, of, ask, replace(one, answer=answer)) for answer in wrong)


def test_another_picture_is_not_restored(task, some, scene):
    """Nor does an order hold on other depths."""
    of, other = scene(seed=3), scene(seed=5)
    for one in some(of, 12):
        assert not (holds(task, other, BY_CODE, one) and np.array_equal(of.depth, other.depth))
        if task in ("patch_order", "flipped_patch", "cropped_patch"):
            steps = (*one.views[0].steps, ("fill", (0, 0, 1, 1), "#010203"))
            changed = replace(one, views=(View(one.views[0].size, steps), *one.views[1:]))
            assert not holds(task, of, BY_CODE, changed)
        sized = replace(one, views=(replace(one.views[0], size=(7, 7)), *one.views[1:]))
        assert not holds(task, of, BY_CODE, sized)


@pytest.mark.parametrize("task", ["depth_order", "position"])
def test_unknown_depth_in_a_region_is_no_answer(task, samples, scene):
    of = scene(seed=3)
    for one in samples(task, of, 8):
        x1, y1, *_ = one.facts["regions"][0]
        unknown = of._replace(depth=of.depth.copy())
        unknown.depth[y1, x1] = np.nan
        assert holds(task, of, BY_CODE, one) and not holds(task, unknown, BY_CODE, one)
