"""What is shown of a region: the boxes of its answers, and what it is about."""

from __future__ import annotations

from collections.abc import Sequence

from spr_plugin.boxes import Box, size_of
from spr_plugin.formats import BoxFormat
from spr_plugin.recipes.base import Judged, Mark
from spr_plugin.recipes.spr.regions import RegionQuery
from spr_plugin.recipes.written import written_in


def drawn(form: BoxFormat | None, query: RegionQuery, judged: Judged) -> list[tuple[list[Mark], list[Mark]]]:
    """Of each answer, as it is and repaired, the region, the truth and the boxes that it writes; without a
    box format, in a run that is opened where its plugin is missing, its texts show without boxes."""
    around = [Mark("region", query.region.pixels()), *_truth(query, judged.truth)]

    def of(text: str) -> list[Mark]:
        return around + written_in(text, form, query.image)

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
