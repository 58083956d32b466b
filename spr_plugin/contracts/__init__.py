"""What plugins give, and the checks that they do.

A plugin is foreign code, and most of what it gives is used hours after it was asked. So each answer to a hook
is tried at once on a small made-up picture, and a scorer's, similarity model's, detector's or annotation
source's later results pass the same checks, which also turn them into plain numbers. What is wrong is one line
that names plugin, hook and method (:mod:`spr_plugin.foreign`). Our own implementations have tests instead.
"""

from __future__ import annotations

from spr_plugin.contracts.box_format import checked_format
from spr_plugin.contracts.host import checked_host
from spr_plugin.contracts.images import CheckedImages
from spr_plugin.contracts.models import (
    CheckedDetector,
    CheckedRepair,
    CheckedScorer,
    CheckedSimilarity,
    Description,
    Detection,
    Detector,
    Repair,
    Scorer,
    Similarity,
)
from spr_plugin.contracts.recipe import CheckedPairing, CheckedRecipe
from spr_plugin.plugins import BUILT_IN, answers

__all__ = ["CONTRACTS", "Description", "Detection", "Detector", "Repair", "Scorer", "Similarity", "ask", "checked"]

# How an answer is tried: (plugin, hook, answer, arguments) → the answer, or what checks its later results.
CONTRACTS = {
    "spr_host": checked_host,
    "spr_annotations": CheckedImages,
    "spr_box_format": checked_format,
    "spr_recipe": CheckedRecipe,
    "spr_scorer": CheckedScorer,
    "spr_similarity": CheckedSimilarity,
    "spr_detector": CheckedDetector,
    "spr_repair": CheckedRepair,
    "spr_pairing": CheckedPairing,
}


def ask(hook: str, **arguments):
    """What the first plugin that knows the request answers, checked; None where nobody does.

    Raises UserError for a plugin that breaks its contract.
    """
    return checked(hook, *next(answers(hook, **arguments), (None, None)), **arguments)


def checked(hook: str, plugin: str | None, answer, **arguments):
    """`answer` of `plugin` to `hook`, tried, and wrapped where later results are checked too; ours as it is."""
    if plugin is None or plugin in BUILT_IN:
        return answer
    return CONTRACTS[hook](plugin, hook, answer, arguments)
