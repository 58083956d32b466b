"""Region queries: grow a region around a random object until it holds more than four (SPR, section "region
queries").

Seeded and the same on every machine: random numbers come from `random.Random` under hashed seeds, distances
are sums and products only. Knows nothing about models or prompts.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spr_plugin.boxes import Box, Space
from spr_plugin.data.annotations import AnnotatedImage, Annotation, is_numbered
from spr_plugin.recipes.base import Query

TASK = "describe"
# The question, in which the model's own box text is filled in when it is asked.
PLAIN = "Describe the objects in the region {region} {boxes}."
IMAGE = ("id", "path", "width", "height")  # what a log holds of a picture beside its annotations
Distance = tuple[float, float, tuple[bool, int | str]]


@dataclass(frozen=True)
class RegionQuery(Query):
    """A region of one picture that is to be described.

    Attributes:
        id: hash of picture id and size, region, truth and seed.
        truth: the annotations that belong to the region.
        region: in pixels.
    """

    pictures: tuple[AnnotatedImage]
    truth: tuple[Annotation, ...]
    region: Box

    @property
    def image(self) -> AnnotatedImage:
        """The picture."""
        return self.pictures[0]

    def to_record(self) -> dict[str, Any]:
        picture: dict[str, Any] = {name: getattr(self.image, name) for name in IMAGE}
        picture["annotations"] = [_annotation_row(annotation) for annotation in self.image.annotations]
        own = {"region": list(self.region.xyxy), "truth": [annotation.id for annotation in self.truth]}
        return {"id": self.id, "task": self.task, "pictures": [picture], **own, "seed": self.seed}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> RegionQuery:
        (picture,) = record["pictures"]
        space = Space.pixels(picture["width"], picture["height"])
        annotations = tuple(
            Annotation(row["id"], row["label"], Box.of(row["xyxy"], space), row["coarse"])
            for row in picture["annotations"]
        )
        by_id = {annotation.id: annotation for annotation in annotations}
        image = AnnotatedImage(**{name: picture[name] for name in IMAGE}, annotations=annotations)
        truth = tuple(by_id[id] for id in record["truth"])
        return cls(
            record["id"],
            (image,),
            PLAIN,
            truth,
            record["task"],
            record["seed"],
            Box.of(record["region"], space),
        )


def members(image: AnnotatedImage, region: Box) -> tuple[Annotation, ...]:
    """Annotations of which at least half of the area lies inside `region` (pixels), in the picture's
    order.
    """
    return tuple(
        annotation
        for annotation in image.annotations
        if _overlap(annotation.box, region) >= annotation.box.area / 2
    )


def grow_region(image: AnnotatedImage, rng: random.Random, more_than: int = 4) -> Box | None:
    """A region (pixels) that holds more than `more_than` objects, or None where the picture has too few.

    Starts at a random object's box and merges the nearest object that is not yet a member, the region being
    the union box.
    """
    region = rng.choice(image.annotations).box if image.annotations else None
    while region is not None:
        # Anew each time: the union may hold others too.
        inside = {annotation.id for annotation in members(image, region)}
        if len(inside) > more_than:
            return region
        outside = [annotation for annotation in image.annotations if annotation.id not in inside]
        region = (
            _union(region, min(outside, key=lambda other: _distance(region, other)).box) if outside else None
        )
    return None


def region_queries(
    images: Iterable[AnnotatedImage],
    *,
    seed: int,
    regions_per_image: int = 1,
    more_than: int = 4,
    limit: int | None = None,
    select: Callable[[AnnotatedImage, Counter[str]], AnnotatedImage | None] = lambda image, skipped: image,
    skipped: Counter[str],
) -> Iterator[RegionQuery]:
    """Up to `limit` queries, `regions_per_image` from each picture.

    With a `limit` the pictures are taken in an order drawn from `seed` and the picture ids, so that a part of
    a large set is a fair sample of it, and those with ``ids`` and ``image(number)`` are read by number;
    without one in their own order. `select` gives what of a picture is used (`spr_plugin.data.selection`).
    Counted in `skipped`: ``too_few_objects`` (pictures), ``same_region``.
    """
    if limit is not None:
        images = shuffled(images, seed)
    made = 0
    for image in filter(None, (select(image, skipped) for image in images)):
        for query in _queries_of(image, seed, regions_per_image, more_than, skipped):
            if made == limit:
                return
            made += 1
            yield query


def shuffled(images: Iterable[AnnotatedImage], seed: int) -> Iterator[AnnotatedImage]:
    """In the drawn order; pictures that can be had by number are looked at no earlier than they are asked
    for.
    """

    def order(id: int | str) -> str:
        return _hash(seed, "order", id)

    if not is_numbered(images):
        return iter(sorted(images, key=lambda image: order(image.id)))
    # By the million, so that a hash is 32 bytes.
    hashes = np.fromiter((bytes.fromhex(order(id)) for id in images.ids), "S32", len(images.ids))
    return filter(None, map(images.image, map(int, np.argsort(hashes, kind="stable"))))


def _queries_of(
    image: AnnotatedImage, seed: int, count: int, more_than: int, skipped: Counter[str]
) -> Iterator[RegionQuery]:
    seen: set[Box] = set()
    for index in range(count):
        query_seed = int(_hash(seed, "region", image.id, index)[:15], 16)
        region = grow_region(image, random.Random(query_seed), more_than)
        if region is None:
            skipped["too_few_objects"] += 1
            return
        if region in seen:
            skipped["same_region"] += 1
            continue
        seen.add(region)
        yield region_query(image, region, query_seed)


def region_query(image: AnnotatedImage, region: Box, seed: int) -> RegionQuery:
    """The query for one region (pixels) of `image`."""
    truth = members(image, region)
    id = _hash(image.id, image.width, image.height, region.xyxy, [_annotation_row(a) for a in truth], seed)[
        :16
    ]
    return RegionQuery(id, (image,), PLAIN, truth, TASK, seed, region)


def _annotation_row(annotation: Annotation) -> dict[str, Any]:
    return {
        "id": annotation.id,
        "label": annotation.label,
        "xyxy": list(annotation.box.xyxy),
        "coarse": annotation.coarse,
    }


def _hash(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _distance(region: Box, other: Annotation) -> Distance:
    """Sort key: squared edge-to-edge distance, squared centre distance, annotation id (numbers before
    text).
    """
    a, b = region, other.box
    # 0 where the boxes overlap along an axis.
    gap_x = max(0.0, a.x1 - b.x2, b.x1 - a.x2)
    gap_y = max(0.0, a.y1 - b.y2, b.y1 - a.y2)
    centre_x = (a.x1 + a.x2 - b.x1 - b.x2) / 2
    centre_y = (a.y1 + a.y2 - b.y1 - b.y2) / 2
    edges, centres = gap_x * gap_x + gap_y * gap_y, centre_x * centre_x + centre_y * centre_y
    # Numbers and texts do not compare: the flag comes first, and parts them.
    return edges, centres, (isinstance(other.id, str), other.id)


def _overlap(a: Box, b: Box) -> float:
    width = min(a.x2, b.x2) - max(a.x1, b.x1)
    height = min(a.y2, b.y2) - max(a.y1, b.y1)
    return max(0.0, width) * max(0.0, height)


def _union(a: Box, b: Box) -> Box:
    return Box(min(a.x1, b.x1), min(a.y1, b.y1), max(a.x2, b.x2), max(a.y2, b.y2), a.space)
