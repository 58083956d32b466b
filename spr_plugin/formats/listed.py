"""Families that answer with a JSON list of boxes with labels: Qwen2.5-VL, Qwen3-VL."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from spr_plugin.boxes import Box, Space
from spr_plugin.formats.attempts import Span, attempts, without
from spr_plugin.formats.base import BoxFormat
from spr_plugin.formats.entries import FENCE, cuts, entries_in, is_value, label_near, object_around, with_key
from spr_plugin.formats.items import Cut
from spr_plugin.formats.parsed import Edit, Mention, Parsed, apply, outside
from spr_plugin.formats.reading import Reading, checked
from spr_plugin.loading import parse_json

_BOX = re.compile(r'"bbox_2d"\s*:\s*(\[[^\[\]]*\])')
_PLAIN = re.compile(r"\[\s*(\d{1,9})\s*,\s*(\d{1,9})\s*,\s*(\d{1,9})\s*,\s*(\d{1,9})\s*\]")
_LIST = re.compile(r"\[(?:[\s,]*\[[^\[\]]*\]){2,}[\s,]*\]")
_MEMBER = re.compile(r"\[[^\[\]]*\]")
_LIMITS = re.compile(r"(\d{1,18})-(\d{1,18})")


@dataclass(frozen=True)
class ListedFormat(BoxFormat):
    """``{"bbox_2d": [x1, y1, x2, y2], "label": "a dog"}`` in a JSON list, usually in a Markdown fence.

    Coordinates that go take their entry along. A list cut off by the text's end is read up to there. A
    bracket in a sentence is read too, as Qwen2.5-VL's answers and our prompts hold some.

    Attributes:
        bins: steps of the grid, or None for pixels of the picture as the processor resized it.
        factor, min_pixels, max_pixels: the processor's resizing, for pixels.
        aspect: "min_pixels-max_pixels" where they are not the published processor's.
    """

    family: str
    space_name: str
    bins: int | None = None
    factor: int = 28
    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280
    aspect: str | None = None

    @property
    def rounding(self) -> float:
        return 0.5

    def space(self, width: int, height: int) -> Space:
        if self.bins:
            return Space.grid(width, height, self.bins)
        return Space.resized(
            width, height, *resized(width, height, self.factor, self.min_pixels, self.max_pixels)
        )

    def limits(self, space: Space) -> tuple[float, float]:
        """The largest x and y that the family writes."""
        return round(space.width / space.scale[0]), round(space.height / space.scale[1])

    def write_group(self, boxes: Sequence[Box]) -> str:
        rows = []
        for box in boxes:
            space = self.space(box.space.width, box.space.height)
            # (x, y) twice: of x1, y1, x2, y2.
            ends = self.limits(space) * 2
            rows.append([min(max(round(value), 0), end) for value, end in zip(box.to(space).xyxy, ends)])
        return str(rows if len(rows) > 1 else rows[0])

    def entry(self, phrase: str, box: Box) -> str:
        """An object of the list."""
        return f'{{"bbox_2d": {self.write(box)}, "label": {json.dumps(phrase, ensure_ascii=False)}}}'

    def render(self, mentions: Iterable[tuple[str, Box]]) -> str:
        rows = ["\t" + self.entry(phrase, box) for phrase, box in mentions]
        return f"{FENCE}json\n[\n" + ",\n".join(rows) + f"\n]\n{FENCE}"

    def parse(self, text: str, width: int, height: int) -> Parsed:
        reading, space = Reading(text), self.space(width, height)
        entries, tail = entries_in(text)
        for span in entries:
            if not is_value(text, span[0]):  # of another object's key: no entry, and fails with that object
                self._read_entry(text, span, space, reading)
        # Or the text ends within the key itself.
        begun = '"bbox_2d"' in text[tail:] or '"bbox_2d"'.startswith(text[tail + 1 :].strip())
        if tail >= 0 and (reading.entries or begun):
            reading.fail("truncated", (tail, len(text)), label_near(text, (tail, len(text))))
        self._read_prose(text, space, reading)
        return reading.parsed()

    def _read_entry(self, text: str, span: Span, space: Space, reading: Reading) -> None:
        """Add the mention of one JSON object, or why it is none; objects that speak of no box are prose."""
        numbers, written = _BOX.search(text, *span), text[slice(*span)]
        try:
            entry = parse_json(written)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or numbers is None:
            if '"bbox_2d"' in written:
                reading.fail("malformed", span, label_near(text, span))
            return
        values, label = entry.pop("bbox_2d"), entry.get("label", "")
        proper = (
            isinstance(values, list) and len(values) == 4 and all(type(v) in (int, float) for v in values)
        )
        proper = proper and isinstance(label, str) and written.count('"bbox_2d"') == 1
        # A second box, in the label or under another key, would stay in the text.
        proper = proper and not attempts(
            label if len(entry) < 2 else "\n".join(f"{key}: {value}" for key, value in entry.items())
        )
        box = checked(values, self.limits(space), space) if proper else "malformed"
        if isinstance(box, str):
            reading.fail(box, span, label_near(text, span))
        else:
            own = numbers.span(1)
            reading.entries.append(Mention(label, (box,), own, span, (own,), (own,), span))

    def _read_prose(self, text: str, space: Space, reading: Reading) -> None:
        """Boxes that stand in a sentence as they do in an entry; any other attempt fails with the object
        around it, which is nested, has other keys or quotes, or is broken.
        """
        for boxes in _LIST.finditer(without(text, reading.taken())):
            spans = [member.span() for member in _MEMBER.finditer(text, *boxes.span())]
            members = [(_PLAIN.fullmatch(text, *span), span) for span in spans]
            if any(numbers for numbers, _ in members) and not is_value(text, boxes.start()):
                reading.add(
                    [
                        (self._plain(numbers, space) if numbers else "malformed", own)
                        for numbers, own in members
                    ],
                    boxes.span(),
                )
        # What was read, and the text's two ends: every attempt lies between two of them.
        known = [(0, 0), *reading.taken(), (len(text), len(text))]
        for attempt in reading.unread():
            after = bisect_right(known, attempt.span)
            low, high = known[after - 1][1], known[after][0]
            if attempt.span[0] < low:
                continue  # lies in the object of the one before
            span = object_around(text, low, attempt.span, high)
            alone = span == attempt.span and not is_value(text, span[0])
            numbers = _PLAIN.fullmatch(text, *span) if alone else None
            if numbers:
                reading.add([(self._plain(numbers, space), span)], span)
            else:
                span = span if span != attempt.span else with_key(text, span)
                reading.fail("truncated" if attempt.cut else "malformed", span, label_near(text, span))
            # Read up to here now.
            known[after - 1] = (known[after - 1][0], span[1])

    def _plain(self, numbers: re.Match[str], space: Space) -> Box | str:
        return checked([float(value) for value in numbers.groups()], self.limits(space), space)

    def rewrite(
        self, text: str, parsed: Parsed, changes: Mapping[int, Box | None], drop_failures: bool = False
    ) -> str:
        edits: list[Edit] = []
        entries: list[Span] = []
        gone: set[Span] = set()
        # `changes` numbers the boxes of all mentions: `first` is the number of this one's first.
        spoiled, first = parsed.spoiled_lists if drop_failures else frozenset(), 0
        for mention in parsed.mentions:
            own = {
                index: changes[first + index]
                for index in range(len(mention.boxes))
                if first + index in changes
            }
            first += len(mention.boxes)
            in_list = text[mention.whole[0]] == "{"
            if in_list:
                entries.append(mention.whole)
            if in_list and None in own.values():
                gone.add(mention.whole)
            elif own or not spoiled.isdisjoint(mention.brackets):
                edits.append(self._rewritten(text, mention, own, spoiled))
        for span in outside(parsed):
            in_list = text[span[0]] == "{"
            if in_list:
                entries.append(span)
            if in_list and drop_failures:
                gone.add(span)
            elif drop_failures:
                edits.append((span, None))
        return apply(text, edits + cuts(text, sorted(entries), gone))

    def without_items(self, text: str, parsed: Parsed, gone: Collection[int]) -> Cut:
        """Entries go from their list, those that give a label and no box too. In a text with entries a box
        of a sentence cannot go.
        """
        own = {mention.whole: index in gone for index, mention in enumerate(parsed.mentions)}
        own |= dict.fromkeys(outside(parsed), True)
        entries = {span: goes for span, goes in own.items() if text[span[0]] == "{"}
        bare = [
            span
            for span in entries_in(text)[0]
            if '"label"' in text[slice(*span)] and span not in own and not is_value(text, span[0])
        ]
        if not entries and not bare:
            return super().without_items(text, parsed, gone)
        entries |= dict.fromkeys(bare, True)
        if any(goes for span, goes in own.items() if span not in entries):
            return Cut(None, len(bare))
        lost = {span for span, goes in entries.items() if goes}
        return Cut(apply(text, cuts(text, sorted(entries), lost)), len(bare))

    def _with_item(self, text: str, parsed: Parsed, index: int, phrase: str, box: Box) -> str | None:
        """An entry among the others, parted from them as they are."""
        entries = [mention.whole for mention in parsed.mentions]
        if not entries or not all(text[start] == "{" for start, _ in entries):
            return None
        if len(entries) > 1:
            between = text[entries[0][1] : entries[1][0]]
        else:
            between = ",\n\t" if "\n" in text[: entries[0][0]] else ", "
        entry = self.entry(phrase, box)
        start = entries[index][0] if index < len(entries) else entries[-1][1]
        return text[:start] + (entry + between if index < len(entries) else between + entry) + text[start:]

    def words(self, text: str, parsed: Parsed) -> str:
        """The labels, joined; a text without entries is read as any other."""
        if not any(
            text[start] == "{"
            for start, _ in [*(mention.whole for mention in parsed.mentions), *parsed.failed_spans]
        ):
            return super().words(text, parsed)
        return ", ".join(mention.phrase for mention in parsed.mentions if mention.phrase)


def resized(width: int, height: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """(width, height) of a picture as Qwen2-VL's image processor resizes it: multiples of `factor`, within
    the two numbers of pixels.
    """
    new_width, new_height = (max(factor, round(side / factor) * factor) for side in (width, height))
    if new_width * new_height > max_pixels:
        # The root, since both sides shrink; rounded down, so that the picture does not go over it again.
        shrink = (width * height / max_pixels) ** 0.5
        new_width, new_height = (
            max(factor, int(side / shrink / factor) * factor) for side in (width, height)
        )
    elif new_width * new_height < min_pixels:
        grow = (min_pixels / (width * height)) ** 0.5
        # rounded up: -(-a // b) is a / b, or the next whole number
        new_width, new_height = (-int(-side * grow // factor) * factor for side in (width, height))
    return new_width, new_height


def qwen2_5_vl(aspect: str | None = None) -> BoxFormat:
    """Qwen2.5-VL: pixels of the resized picture. `aspect` "200704-1605632" names the processor's smallest and
    largest number of pixels.

    Any other aspect ("pad") speaks of LLaVA's preparation and means nothing here.
    """
    limits = _LIMITS.fullmatch(aspect or "")
    if not limits:
        return ListedFormat("qwen2.5-vl", "resized")
    return ListedFormat(
        "qwen2.5-vl", "resized", min_pixels=int(limits[1]), max_pixels=int(limits[2]), aspect=aspect
    )


def qwen3_vl() -> BoxFormat:
    """Qwen3-VL: 0-1000 of the picture."""
    return ListedFormat("qwen3-vl", "grid1000", bins=1000)
