"""The five tasks against what their definitions say, on scenes whose pixels and depths are known."""

import dataclasses
import itertools
import random
from collections import Counter

import pytest

from spr_plugin.recipes.spatial_ssrl.checks import holds
from spr_plugin.recipes.spatial_ssrl.samples import Refused
from spr_plugin.recipes.spatial_ssrl.settings import Asking
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


def test_all_answers_come(samples, scene):
    """None is more than twice as frequent as chance has it."""
    flips = Counter(one.answer for one in samples("flipped_patch", scene(), 400))
    assert flips.keys() == {f"{patch}-{way}" for patch in range(4) for way in (0, 1)}
    for task in ("cropped_patch", "position"):
        letters = Counter(one.answer for one in samples(task, scene(), 200))
        assert letters.keys() == set("ABCD") and max(letters.values()) < 2 * sum(letters.values()) / 4
    orders = Counter(one.answer for one in samples("depth_order", scene(seed=3), 200))
    assert orders.keys() == {"-".join(order) for order in itertools.permutations("123")}


def test_a_sample_whose_answer_does_not_hold_is_refused(scene, monkeypatch):
    """A slip of ours would be counted, and teach nobody."""
    made = MAKERS["flipped_patch"](scene(), BY_CODE, random.Random(0))
    assert sample("flipped_patch", scene(), BY_CODE, random.Random(0)) == made
    patch, direction = made.answer.split("-")
    slip = dataclasses.replace(made, answer=f"{patch}-{1 - int(direction)}")
    monkeypatch.setitem(MAKERS, "flipped_patch", lambda *given: slip)
    with pytest.raises(Refused, match="answer_does_not_hold"):
        sample("flipped_patch", scene(), BY_CODE, random.Random(0))
