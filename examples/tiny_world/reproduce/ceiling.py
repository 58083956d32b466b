"""The most that pairs can teach, as a plugin: chosen is the whole truth of a region in the model's own words
and order, from left to right; rejected is what SPR rejects.

--spr_plugin examples/tiny_world/reproduce/ceiling.py
"""

import sys
from dataclasses import replace
from pathlib import Path

from spr_plugin.hookspecs import hookimpl
from spr_plugin.recipes.spr.recipe import SPR

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the world's modules are scripts, no package
import painting
import wording


class Ceiling(SPR):
    """SPR, but whatever an answer says, repaired it says all."""

    def judge(self, pictures, queries, texts, pooled=True):
        """The whole truth is judged as one more answer to its query, and stands for each of them repaired."""
        more = [[*row, whole(query)] for query, row in zip(queries, texts)]
        return [
            replace(one, answers=tuple(repaired_as(answer, one.answers[-1]) for answer in one.answers[:-1]))
            for one in super().judge(pictures, queries, more, pooled)
        ]


def whole(query) -> str:
    """All objects of a region as the tiny model was taught to name them."""
    things = [painting.Thing(*one.label.split(" ", 1), one.box.pixels()) for one in query.truth]
    size = query.image.width, query.image.height
    return wording.grounded_text(wording.left_to_right(things), 0, None, *size)


def repaired_as(answer, truth):
    """A judged answer with `truth`, which is one too, for what it is repaired; one that has no score keeps
    none.
    """
    if answer.reason:
        return answer
    return replace(
        answer,
        repaired=truth.text,
        repaired_terms={**truth.terms, "kept": 1.0},
        repaired_score=truth.score,
        not_choosable=truth.reason,
    )


@hookimpl
def spr_recipe(name, config, box_format):
    return Ceiling(config, box_format) if name == Ceiling.name else None
