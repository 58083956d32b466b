"""The prompt variants that draw diverse candidates of one region, and the way back from a crop's coordinates.

All candidates answer the *plain* prompt, which is the one that a preference pair keeps. Knows nothing about
models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from spr_plugin.boxes import Box, Space
from spr_plugin.data.annotations import Annotation
from spr_plugin.formats import BoxFormat, family_of
from spr_plugin.recipes.base import Prompt
from spr_plugin.recipes.spr.regions import PLAIN, RegionQuery

CROP = "Describe the objects in the image {boxes}."
REFERENCE = "The region {region} contains {references}. Describe the objects in the region {boxes}."
DETERMINERS = ("a", "an", "the", "some", "one", "two", "three", "several")


def prompts_for(query: RegionQuery, box_format: BoxFormat, kinds: Sequence[str]) -> list[Prompt]:
    """One prompt for each of `kinds`, in their order, in the words and box text of `box_format`: "plain"
    (whole picture, region box), "crop" (the region as the picture) or "reference" (plain, with the annotated
    objects). ValueError for another kind.
    """
    family = family_of(box_format.family)
    words = {"region": box_format.write(query.region), "boxes": family.boxes}
    made = {
        "plain": Prompt("plain", plain_question(query.region, box_format)),
        "crop": Prompt("crop", family.before + CROP.format(**words), crop_corners(query.region)),
        "reference": Prompt(
            "reference",
            family.before + REFERENCE.format(**words, references=_references(query.truth, box_format)),
        ),
    }
    if unknown := set(kinds) - set(made):
        raise ValueError(f"no prompt variant {', '.join(sorted(unknown))}; known are {', '.join(made)}")
    return [made[kind] for kind in kinds]


def plain_question(region: Box, box_format: BoxFormat) -> str:
    """The text of the plain prompt about a region, in the family's words and box text."""
    family = family_of(box_format.family)
    return family.before + PLAIN.format(region=box_format.write(region), boxes=family.boxes)


def crop_corners(region: Box) -> tuple[int, int, int, int]:
    """`region` rounded outwards to whole pixels, on the picture, at least one pixel wide and high."""
    x1, y1, x2, y2 = region.pixels()
    left, right = _whole(x1, x2, region.space.width)
    top, bottom = _whole(y1, y2, region.space.height)
    return left, top, right, bottom


def restate(text: str, prompt: Prompt, query: RegionQuery, box_format: BoxFormat) -> str:
    """An answer to `prompt` in coordinates of the whole picture.

    A crop's answer speaks of the crop as a picture of its own (padded on its own, where the family pads): its
    boxes are read there, moved to where the crop lies and written anew. Text that could not be read stays as
    it is, unless it would be a box of the whole picture. Other kinds are unchanged.
    """
    if prompt.crop is None:
        return text
    left, top, right, bottom = prompt.crop
    whole = Space.crop(query.image.width, query.image.height, prompt.crop)
    parsed = box_format.parse(text, right - left, bottom - top)
    # The numbers stay; their space, which was the crop's, becomes a part of the picture's.
    moved = dict(enumerate(Box(*box.xyxy, box.space.within(whole)) for box in parsed.boxes))
    restated = box_format.rewrite(text, parsed, moved)
    if len(box_format.parse(restated, query.image.width, query.image.height).boxes) == len(moved):
        return restated
    return box_format.rewrite(text, parsed, moved, drop_failures=True)


def _whole(low: float, high: float, size: int) -> tuple[int, int]:
    # One pixel at least, also of a region at the very edge.
    first = min(max(math.floor(low), 0), size - 1)
    return first, max(min(math.ceil(high), size), first + 1)


def _references(truth: Sequence[Annotation], box_format: BoxFormat) -> str:
    return box_format.render((_with_article(annotation.label), annotation.box) for annotation in truth)


def _with_article(label: str) -> str:
    """ "red circle" → "a red circle"; a label that brings its own determiner keeps it."""
    if label.split()[0].lower() in DETERMINERS:
        return label
    return f"{'an' if label[0].lower() in 'aeiou' else 'a'} {label}"
