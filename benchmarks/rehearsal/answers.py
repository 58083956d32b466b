"""A plugin for models of random weights, which write no box: what was really sampled is replaced by the
region's objects with boxes that are a little off, so that scores, repair, pairs and DPO have what they have
of a trained model.
"""

import random

from spr_plugin.boxes import Box
from spr_plugin.hookspecs import hookimpl
from spr_plugin.recipes.spr.recipe import SPR

OFF = 0.12  # of a side, at most, each edge alone


class Rehearsed(SPR):
    """SPR with those answers. Two samples differ as their seeds do: the sampled text draws the boxes."""

    name = "rehearsed"

    def restated(self, raw, prompt, query):
        rng = random.Random(f"{query.id} {raw}")
        return self.form.render([(one.label, moved(one.box, rng)) for one in query.truth])


def moved(box: Box, rng: random.Random) -> Box:
    """`box` with each of its edges elsewhere, still on the picture."""
    x1, y1, x2, y2 = box.xyxy
    across, down = ([rng.uniform(-OFF, OFF) * side for _ in "12"] for side in (box.width, box.height))
    return Box(x1 + across[0], y1 + down[0], x2 + across[1], y2 + down[1], box.space).clip()


@hookimpl
def spr_recipe(name, config, box_format):
    return Rehearsed(config, box_format) if name == Rehearsed.name else None
