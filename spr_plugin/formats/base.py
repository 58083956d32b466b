"""The contract of a family's box text, and edits that keep a sentence well-formed.

Knows nothing about models or files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby

from spr_plugin.boxes import Box, Space, pair_iou
from spr_plugin.formats.additions import put_in, without_article
from spr_plugin.formats.attempts import Span
from spr_plugin.formats.items import Cut, cut
from spr_plugin.formats.parsed import Edit, Mention, Parsed, apply, bare, outside

ANY_PICTURE = (1000, 1000)  # width and height in pixels


class BoxFormat(ABC):
    """How one model family writes boxes.

    Attributes:
        family: the name that ``--spr_box_format`` and a checkpoint's ``spr_box`` use.
        space_name: name of the family's coordinate space.
        aspect: how the picture reaches the model ("pad", "square" …) where the space depends on it, else
            None.
    """

    family: str
    space_name: str
    aspect: str | None = None

    @property
    def rounding(self) -> float | None:
        """The most that writing moves a coordinate of a box on the picture, in units of `space`; None where
        that is not known.
        """
        return None

    @abstractmethod
    def space(self, width: int, height: int) -> Space:
        """The family's coordinate space on a picture of `width` x `height` pixels."""

    def write(self, box: Box) -> str:
        """The text of one box of any space, rounded as the family's training data is and kept inside the
        family's range.
        """
        return self.write_group([box])

    @abstractmethod
    def parse(self, text: str, width: int, height: int) -> Parsed:
        """Read all boxes of `text`, which speaks of a picture of `width` x `height` pixels. Never raises. Any
        other attempt at coordinates is a failure; `Reading.parsed` looks for them.
        """

    @abstractmethod
    def write_group(self, boxes: Sequence[Box]) -> str:
        """The text of one or several boxes of one phrase, in one pair of brackets or tags; one alone, unless
        the family groups them.
        """

    def rewrite(
        self, text: str, parsed: Parsed, changes: Mapping[int, Box | None], drop_failures: bool = False
    ) -> str:
        """`text` with some coordinates changed and every other character kept.

        `changes` maps an index in ``parsed.boxes`` to the new box, or to None to remove its coordinates; the
        sentence stays well-formed (no double space, no space before punctuation). Boxes without an entry keep
        their text. With `drop_failures` the coordinates that could not be read are removed too; a list that
        is written anew loses its own anyway.
        """
        edits: list[Edit] = []
        first = 0
        spoiled = parsed.spoiled_lists if drop_failures else frozenset()
        for mention in parsed.mentions:
            own = {
                index: changes[first + index]
                for index in range(len(mention.boxes))
                if first + index in changes
            }
            first += len(mention.boxes)
            if own or not spoiled.isdisjoint(mention.brackets):
                edits.append(self._rewritten(text, mention, own, spoiled))
        if drop_failures:
            edits += [(span, None) for span in outside(parsed)]
        return apply(text, edits)

    def words(self, text: str, parsed: Parsed) -> str:
        """`text` without any coordinates, readable or not; the words stay and the sentence stays
        well-formed.
        """
        return apply(
            text, [bare(mention) for mention in parsed.mentions] + [(span, None) for span in outside(parsed)]
        )

    def coordinate_spans(self, text: str) -> list[Span]:
        """(start, end) of all that `text` writes as coordinates, readable or not, whatever its picture: what
        lies outside one is an attempt all the same.
        """
        parsed = self.parse(text, *ANY_PICTURE)
        spans = {span for mention in parsed.mentions for span in mention.brackets}
        return sorted(spans.union(parsed.failed_spans))

    def without_items(self, text: str, parsed: Parsed, gone: Collection[int]) -> Cut:
        """`text` without the mentions of the indices `gone`, words and all, and without coordinates that
        cannot be read and names that never had a box; what stays, stays as it is written.
        """
        return cut(text, parsed, gone)

    def with_item(self, text: str, parsed: Parsed, index: int, phrase: str, box: Box) -> str | None:
        """`text` with `phrase` and `box` named before the mention of that index, or behind the last one,
        worded as its neighbours are; None where that is not clean.
        """
        size = box.space.width, box.space.height
        alone = self.parse(self.render([(phrase, box)]), *size).mentions
        if len(alone) != 1 or alone[0].phrase not in (phrase, without_article(phrase)):
            return None  # the name would be read as several
        if pair_iou(alone[0].boxes[0].pixels(), box.pixels()) < 0.5:
            return None  # too small for the family's numbers
        made, own = self._with_item(text, parsed, index, phrase, box), alone[0]
        if made is None:
            return None
        read, boxes = self.parse(made, *size), [mention.boxes for mention in parsed.mentions]
        clean = [mention.boxes for mention in read.mentions] == [*boxes[:index], own.boxes, *boxes[index:]]
        clean = clean and read.mentions[index].phrase.lower().endswith(own.phrase.lower()) and not read.failed
        return made if clean else None

    def _with_item(self, text: str, parsed: Parsed, index: int, phrase: str, box: Box) -> str | None:
        return put_in(text, parsed, index, phrase, lambda name: self.render([(name, box)]))

    @abstractmethod
    def render(self, mentions: Iterable[tuple[str, Box]]) -> str:
        """Phrases with their boxes as the family writes them, joined by commas; "" for a phrase gives the
        bare box.
        """

    def _rewritten(
        self, text: str, mention: Mention, changes: Mapping[int, Box | None], spoiled: Iterable[Span] = ()
    ) -> Edit:
        """The edit that makes `changes` (index in the mention → box or None), and writes the `spoiled`
        brackets anew.
        """
        kept: list[str] = []
        end = 0
        for span, group in groupby(range(len(mention.boxes)), key=mention.brackets.__getitem__):
            own = list(group)
            boxes = [box for index in own if (box := changes.get(index, mention.boxes[index])) is not None]
            if boxes:
                anew = span in spoiled or any(index in changes for index in own)
                new = self.write_group(boxes) if anew else text[slice(*span)]
                kept.append((text[end : span[0]] if kept else "") + new)
            end = span[1]
        return (mention.span, "".join(kept)) if kept else bare(mention)

    def describe(self) -> dict[str, str | None]:
        """What a checkpoint's ``config.json`` keeps under ``spr_box``: family, space and aspect."""
        return {"family": self.family, "space": self.space_name, "aspect": self.aspect}


# --- reading
