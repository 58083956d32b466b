"""The boxes of a region and its answers, as they are drawn."""

from __future__ import annotations

from collections.abc import Sequence

from spr_plugin.formats import Parsed
from spr_plugin.recipes.base import Mark
from spr_plugin.recipes.spr.regions import RegionQuery


def truth_marks(query: RegionQuery, truth: Sequence[Sequence[float]] | None) -> list[Mark]:
    """The annotations, and behind them what a detector added to them."""
    own = [Mark("truth", one.box.pixels(), name=one.label) for one in query.truth]
    return own + [Mark("detector", (x1, y1, x2, y2)) for x1, y1, x2, y2 in (truth or ())[len(own) :]]


def written_marks(parsed: Parsed) -> list[Mark]:
    """Each box with its phrase, which several may share."""
    return [
        Mark("written", box.pixels(), name=mention.phrase, spans=(mention.phrase_span, span))
        for mention in parsed.mentions
        for box, span in zip(mention.boxes, mention.spans)
    ]
