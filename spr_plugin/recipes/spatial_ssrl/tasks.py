"""The five tasks: a picture, perhaps with its depth, and a random generator → a sample, or why there is none.

    patch_order      shuffled patches: in which order do they restore the picture?
    flipped_patch    which patch is mirrored, and how?
    cropped_patch    which of four pieces is the one that was cut out?
    depth_order      three marked regions from near to far
    position         from one marked region, facing somewhere: where is the other?

A sample counts once its answer, applied, restores the picture, or holds on every pixel of the regions that it
speaks of.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from spr_plugin.recipes.spatial_ssrl.checks import holds
from spr_plugin.recipes.spatial_ssrl.marked import depth_order, position
from spr_plugin.recipes.spatial_ssrl.patches import cropped_patch, flipped_patch, patch_order
from spr_plugin.recipes.spatial_ssrl.samples import Refused, Sample, Scene
from spr_plugin.recipes.spatial_ssrl.settings import Asking

MAKERS: dict[str, Callable[[Scene, Asking, random.Random], Sample]] = {
    one.__name__: one for one in (patch_order, flipped_patch, cropped_patch, depth_order, position)
}


def sample(task: str, scene: Scene, ask: Asking, rng: random.Random) -> Sample:
    """A sample of a task, whose answer holds. Refused says why there is none."""
    made = MAKERS[task](scene, ask, rng)
    if not holds(task, scene, ask, made):
        raise Refused("answer_does_not_hold")
    return made
