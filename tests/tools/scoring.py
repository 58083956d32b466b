"""Responses to score, and a recipe that judges at no cost."""

import json
from pathlib import Path

from spr_plugin.config import SPRConfig
from spr_plugin.formats import qwen3_vl
from spr_plugin.recipes.base import Judged, JudgedAnswer
from spr_plugin.recipes.spr.recipe import SPR

TINY = Path(__file__).parents[2] / "examples" / "tiny_world"
FORM = qwen3_vl()


def responses_of(queries):
    """Four answers to each region: all true boxes, the first object alone, a word without a box, broken
    JSON.
    """
    rows = []
    for query in queries:
        truth = [(annotation.label, annotation.box) for annotation in query.truth]
        texts = [FORM.render(truth), FORM.render(truth[:1]), "Some things.", '[{"bbox_2d": [1, 2']
        name = "/".join(query.image.path.split("/")[-2:])
        rows += [
            {"id": f"{query.id}-{i}", "image": name, "region": query.region.xyxy, "text": text}
            for i, text in enumerate(texts)
        ]
    return rows


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


class Silent(SPR):
    """Judges at no cost, for what the file's own handling costs."""

    def __init__(self):
        super().__init__(SPRConfig(), FORM)

    def judge(self, pictures, queries, texts, pooled=True):
        terms = dict.fromkeys(("s_crop", "s_local", "s_sem", "s_loc"), 0.1)
        return [
            Judged(
                [], tuple(JudgedAnswer(text, terms, 0.1, None, text, terms, 0.1, None, None) for text in row)
            )
            for row in texts
        ]
