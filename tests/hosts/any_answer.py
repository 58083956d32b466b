"""A recipe for hosts with random weights, who never write a box: SPR's regions, where every answer with words
is valid, and the longest wins.
"""

from spr_plugin.hookspecs import hookimpl
from spr_plugin.recipes.base import Judged, JudgedAnswer
from spr_plugin.recipes.spr.recipe import SPR
from spr_plugin.recipes.spr.refinement import refine


class AnyAnswer(SPR):
    name = "any"

    def on(self, device):
        return self

    def judge(self, pictures, queries, texts, pooled=True):
        return [
            Judged([], tuple(self.judged(text, query) for text in row)) for query, row in zip(queries, texts)
        ]

    def judged(self, text, query):
        boxes = [annotation.box.pixels() for annotation in query.truth]
        repaired, *_ = refine(text, boxes, self.box_format, query.image.width, query.image.height)
        if not text.strip() or not repaired.strip():
            return JudgedAnswer(text, {}, None, "empty", repaired, {}, None, "empty", "empty")
        before, after = ({"letters": len(said)} for said in (text, repaired))
        return JudgedAnswer(
            text, before, float(len(text)), None, repaired, after, float(len(repaired)), None, None
        )


@hookimpl
def spr_recipe(name, config, box_format):
    return AnyAnswer(config, box_format) if name == "any" else None
