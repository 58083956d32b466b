"""A user's own boxes on their own pictures, through the model's box text and back: what it would be taught
and what would be read of it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from PIL import Image, ImageDraw

from spr_plugin.boxes import Box
from spr_plugin.data.annotations import AnnotatedImage, Annotation
from spr_plugin.data.pictures import open_image
from spr_plugin.drawing import COLORS, drawn
from spr_plugin.errors import UserError
from spr_plugin.formats import BoxFormat
from spr_plugin.recipes.base import Query, Recipe
from spr_plugin.recipes.spr.regions import RegionQuery
from spr_plugin.tools.checks import PICTURE
from spr_plugin.training.host import IGNORED, Host

BOXES = 8
SIDE, LINE = 768, 14  # of a drawn picture, and of a line of text below it, in pixels
HAIR = 1e-6  # of a coordinate: algebra, not rounding


@dataclass(frozen=True)
class Returned:
    """One box and what came of it.

    Attributes:
        text: as the host's tokenizer gives back what the model would be taught.
        back: the box that is read of it; None where that is not exactly one.
    """

    picture: AnnotatedImage
    truth: Annotation
    text: str
    back: Box | None

    def moved(self, form: BoxFormat) -> float:
        """How far a coordinate has moved, the one that moved most, in units of the family's space."""
        if self.back is None:
            return float("inf")
        space = form.space(self.picture.width, self.picture.height)
        both = zip(self.truth.box.to(space).xyxy, self.back.to(space).xyxy)
        return max(abs(was - now) for was, now in both)

    def pixels_moved(self) -> float:
        """The same in pixels of the picture."""
        assert self.back is not None, "asked of boxes that came back"
        return max(abs(was - now) for was, now in zip(self.truth.box.pixels(), self.back.pixels()))


def some_boxes(queries: Iterable[Query], count: int = BOXES) -> list[tuple[RegionQuery, Annotation]]:
    """Up to `count` boxes of the queries' truths, of as many pictures as possible; none of a recipe whose
    truths are no boxes.
    """
    one_each: dict[str, RegionQuery] = {}
    for query in queries:
        if isinstance(query, RegionQuery):
            one_each.setdefault(query.image.path, query)
    rows = ([(query, truth) for truth in query.truth] for query in list(one_each.values())[:count])
    return [one for turn in zip_longest(*rows) for one in turn if one is not None][:count]


def there_and_back(host: Host, recipe: Recipe, query: RegionQuery, truth: Annotation) -> Returned:
    """A box as the host's row of it is read again."""
    form, picture = host.box_format, query.image
    row = host.row([picture.path], recipe.question(query), form.render([(truth.label, truth.box)]))
    (text,) = host.texts([row["labels"][row["labels"] != IGNORED].tolist()])
    boxes = form.parse(text, picture.width, picture.height).boxes
    return Returned(picture, truth, text, boxes[0] if len(boxes) == 1 else None)


def overlay(host: Host, recipe: Recipe, queries: Iterable[Query], folder: Path) -> str:
    """Draw some boxes and what comes back of them as ``folder/boxes-N.png``, one a picture; what was found.

    Raises:
        UserError: a box does not come back, or moves by more than the family's rounding.
    """
    chosen = some_boxes(queries)
    if not chosen:
        return f"the recipe {recipe.name} measures by no boxes that could be drawn"
    returned = [there_and_back(host, recipe, *box) for box in chosen]
    pictures = list({one.picture.path: one.picture for one in returned}.values())
    for number, picture in enumerate(pictures, 1):
        own = [one for one in returned if one.picture is picture]
        compared(picture, own).save(folder / PICTURE.format(number))
    where = (
        f"drawn in {folder / PICTURE.format(1)} to {len(pictures)}: look whether they lie on their objects"
    )
    wrong = [one for one in returned if _is_lost(one, host.box_format)]
    if wrong:
        lost = f"{len(wrong)} of {len(returned)} boxes do not come back as they were"
        raise UserError(f"{lost}: {_what_came_back(wrong[0])}; {where}")
    most = max(one.pixels_moved() for one in returned)
    form = f"text of the family {host.box_format.family}, rounded by {most:.1f} px at most"
    return f"{len(returned)} boxes come back from {form}; {where}"


def _is_lost(one: Returned, form: BoxFormat) -> bool:
    if one.back is None or form.rounding is None:
        return one.back is None  # a plugin's format need not say how it rounds
    return one.moved(form) > form.rounding + HAIR


def _what_came_back(one: Returned) -> str:
    name, text = Path(one.picture.path).name, one.text[:80]
    if one.back is None:
        return f"{one.truth.label} on {name} becomes {text!r}, which reads as no single box"
    return f"{one.truth.label} on {name} becomes {text!r}, {one.pixels_moved():.1f} px off"


def compared(picture: AnnotatedImage, returned: Sequence[Returned]) -> Image.Image:
    """The picture with each box in the report's colour of truth and what came back inside it, and the texts
    below.
    """
    boxes = [(COLORS["truth"], one.truth.box.pixels(), 6) for one in returned]
    boxes += [(COLORS["chosen"], one.back.pixels(), 2) for one in returned if one.back]
    above = drawn(open_image(picture.path, picture.id), boxes, SIDE)
    texts = [f"{one.truth.label}: {one.text}" for one in returned]
    lines = ["blue: yours; green: read from the text", *texts]
    whole = Image.new("RGB", (above.width, above.height + LINE * len(lines) + 4), "white")
    whole.paste(above, (0, 0))
    draw = ImageDraw.Draw(whole)
    for number, line in enumerate(lines):
        # Pillow's own font has Latin letters alone.
        readable = " ".join(line.split()).encode("latin-1", "replace").decode("latin-1")
        draw.text((4, above.height + 2 + LINE * number), readable, fill="black")
    return whole
