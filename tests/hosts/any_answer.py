"""A scorer for hosts with random weights, who never write a box: every answer with words is valid, and the longest wins."""

import numpy as np

from spr_plugin.hookspecs import hookimpl


class AnyAnswer:
    def truth(self, queries, picture, texts, box_format):
        return [np.array([annotation.box.pixels() for annotation in query.truth]) for query in queries]

    def score(self, queries, picture, texts, box_format, truths):
        return [[{"terms": {"letters": len(text)}, "total": float(len(text)), "valid": bool(text.strip()), "reason": None} for text in said] for said in texts]


@hookimpl
def spr_scorer(config, device):
    return AnyAnswer() if config.spr_scorer == "any" else None
