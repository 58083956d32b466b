"""What is shown of a region: the boxes of its answers, and what it is about."""

from __future__ import annotations

from collections.abc import Sequence

from spr_plugin.boxes import Box, size_of
from spr_plugin.formats import BoxFormat, Parsed
from spr_plugin.recipes.base import Judged, Mark
from spr_plugin.recipes.spr.regions import RegionQuery


def drawn(form: BoxFormat | None, query: RegionQuery, judged: Judged) -> list[tuple[list[Mark], list[Mark]]]:
    """Of each answer, as it is and repaired, the region, the truth and the boxes that it writes; without a
    box format, in a run that is opened where its plugin is missing, its texts show without boxes."""
    around = [Mark("region", query.region.pixels()), *_truth(query, judged.truth)]

    def of(text: str) -> list[Mark]:
        size = query.image.width, query.image.height
        return around + (_written(form.parse(text, *size)) if form else [])

    return [(of(one.text), of(one.repaired)) for one in judged.answers]


def facets_of(query: RegionQuery) -> dict[str, list[str]]:
    """What the region's objects are called, and how large they are."""
    return {
        "category": [annotation.label for annotation in query.truth],
        "size": [size_of(annotation.box) for annotation in query.truth],
    }


def _truth(query: RegionQuery, truth: Sequence[Sequence[float]] | None) -> list[Mark]:
    """The annotations, and behind them what a detector added to them."""
    own = [Mark("truth", one.box.pixels(), name=one.label) for one in query.truth]
    added = (Box.of(corners, query.region.space) for corners in (truth or ())[len(own) :])
    return own + [Mark("detector", box.pixels()) for box in added]


def _written(parsed: Parsed) -> list[Mark]:
    """Each box with its phrase, which several may share."""
    return [
        Mark("written", box.pixels(), name=mention.phrase, spans=(mention.phrase_span, span))
        for mention in parsed.mentions
        for box, span in zip(mention.boxes, mention.spans)
    ]
