"""What of a sentence goes with a box that goes: an item of a list as a whole, or the whole sentence.

An item is what stands between two separators ("," "and" ";") where a new name begins, with its words before
and behind the box. In ``There is a dog [..] on a mat, a tree and a cat [..].`` there are three, one of them a
name without a box. Where items of a sentence that is no such list would have to part ("A man [..] holds a cup
[..]"), nothing can be cut. No grammar: closed lists of words, and what they do not know is not clean.

Entries of a JSON list are :mod:`spr_plugin.formats.listed`'s.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from spr_plugin.formats.attempts import Span, without
from spr_plugin.formats.parsed import Parsed, outside
from spr_plugin.formats.tokens import READ

INDEFINITE = "an?|some|one|two|three|four|five|six|seven|eight|nine|ten|several|many|another"
NUMBERS = r"two|three|four|five|six|seven|eight|nine|ten|both|\d+"
PLACES = (
    "with|without|in|on|at|by|of|from|to|near|next|beside|behind|below|above|under|over|around|along|across"
)
PLACES += "|inside|within|between|among|against|beneath|toward|towards|facing|through"
FINITE = "is|are|was|were|has|have|had|which|who|whom|whose|that|while|where"
ANAPHORS = "it|its|they|their|them|he|his|she|her|this|that|these|those|both|each|all"
SHOWING = "is|are|was|were|sees?|shows?|contains?|includes?|has|have|features?|depicts?|displays?"
_OPENING = r"[\"'*_`(]{0,3}"  # marks of emphasis before a name
_NAME = re.compile(rf"{_OPENING}(?:[{READ}<]|(?:the|other|{INDEFINITE}|\d+)\b)", re.IGNORECASE)
_INDEFINITE = re.compile(rf"{_OPENING}(?:<|(?:{INDEFINITE})\b)", re.IGNORECASE)
_BETWEEN_ITEMS = re.compile(
    r"[,;&]\s*(?:(?:and|or|as well as)\b\s*)?|\b(?:and|or|as well as)\b\s*", re.IGNORECASE
)
# After a separator these go on with the name before it.
_GOES_ON = re.compile(
    rf"(?:(?:{PLACES}|{FINITE}|{ANAPHORS}|etc|too|respectively|as)\b"
    rf"|\w+ing\s(?:the|{INDEFINITE}|{PLACES})\b|\w+ed\s(?:{PLACES})\b)",
    re.IGNORECASE,
)
_PLACE = re.compile(rf"(?:{PLACES})\b", re.IGNORECASE)
_FINITE = re.compile(rf"\b(?:{FINITE})\b", re.IGNORECASE)
_SHARED = re.compile(r"\b(?:between|both|either|neither)\b", re.IGNORECASE)
_NUMBER = re.compile(rf"\b(?:{NUMBERS})\b", re.IGNORECASE)
_MARKER = re.compile(r"\s*(?:[-*•+]\s+|\d{1,3}[.)]\s+)?")
# What a sentence says before its first name: "On the left there is", "Objects:", "A picture of".
_LEAD = re.compile(
    rf"(?:[^{READ}:]*:\s*)?(?:(?:{PLACES})\b[^{READ},]*,\s*)?"
    rf"(?:[^{READ},]*\b(?:(?:{SHOWING})(?: also)?|(?:picture|image|photo|view) of) "
    rf"(?=<|{READ}|(?:the|{INDEFINITE}|\d+)\b))?",
    re.IGNORECASE,
)
# Words of two letters at most before a full stop are taken for abbreviations, and "it" goes on.
_END = re.compile(
    rf"(?:(?<=[^\W\d_]{{3}})(?<!\bMrs)|(?<=[{READ})\]\"'*]))[.!?]+[)\"'*]*(?=\s|$)(?!\s(?:{ANAPHORS})\b)"
    rf"|\n(?!(?:{ANAPHORS})\b)",
    re.IGNORECASE,
)
_BE = re.compile(r"\b(is|are|was|were) \Z", re.IGNORECASE)
_SINGULAR, _PLURAL = {"are": "is", "were": "was"}, {"is": "are", "was": "were"}
_ONE = re.compile(r"\W*(?:an?|one|another)\b", re.IGNORECASE)
_SEVERAL = re.compile(rf"\W*(?:{NUMBERS}|several|some|many)\b", re.IGNORECASE)
_COMMA_BEFORE_WORD = re.compile(r"\A\s*,\s*(?=\w)")
_FIRST_LETTER = re.compile(r"(?:<[^<>]*>)?[^\w<]*(\w)")
_NUMBERED = re.compile(r"^([ \t]*)(\d{1,3})([.)]\s)", re.MULTILINE)


class Cut(NamedTuple):
    """What is left of a text, None where that is not clean, and how many names in it never had a box."""

    text: str | None
    bare: int


@dataclass(frozen=True)
class _Mark:
    """A place in the text with coordinates, and whether they go."""

    span: Span
    goes: bool


@dataclass(frozen=True)
class Item:
    """Where an item lies, whether it has a box that stays and one that goes, and whether it is a name without
    any.
    """

    span: Span
    stays: bool
    goes: bool
    bare: bool


def cut(text: str, parsed: Parsed, gone: Collection[int]) -> Cut:
    """`text` without the items of the mentions of the indices `gone`, of coordinates that cannot be read,
    and of names that never had a box.
    """
    prose = prose_of(text, parsed, gone)
    sentences = prose.sentences()
    bare = sum(item.bare for sentence in sentences for item in sentence.items)
    pieces = [prose.left_of(sentence) for sentence in sentences]
    if None in pieces:
        return Cut(None, bare)
    left = "".join(map(str, pieces))
    if left == text:
        return Cut(text, bare)
    # "Two objects:" would be wrong without one of them.
    if any(sentence.counts for sentence in sentences):
        return Cut(None if any(mark.goes for mark in prose.marks) else text, bare)
    return Cut(numbered_anew(text, left.rstrip()), bare)


def prose_of(text: str, parsed: Parsed, gone: Collection[int] = ()) -> Prose:
    """`text` with its marks: the mentions, of which those in `gone` go, and what cannot be read, which
    goes.
    """
    marks = [_Mark(mention.whole, index in gone) for index, mention in enumerate(parsed.mentions)]
    marks = sorted([*marks, *(_Mark(span, True) for span in outside(parsed))], key=lambda mark: mark.span)
    # A tagged phrase that follows another one's box is an item, whatever stands between them.
    tagged = {mention.whole[0] for mention in parsed.mentions if mention.whole != mention.span}
    return Prose(text, without(text, [mark.span for mark in marks]), marks, tagged)


@dataclass(frozen=True)
class Sentence:
    """A sentence or line: what it says before its first item, its items, and where its last punctuation and
    the next sentence begin.
    """

    lead: Span
    items: list[Item]
    stop: int
    end: int
    counts: bool


@dataclass(frozen=True)
class Prose:
    """A text, the same with `READ` in the place of all that goes with a box, and where that is."""

    text: str
    shape: str
    marks: Sequence[_Mark]
    tagged: Collection[int]

    def sentences(self) -> list[Sentence]:
        sentences, start = [], 0
        for end in [*_END.finditer(self.shape), None]:
            stop = end.start() if end else len(self.shape)
            after = end.end() if end else stop
            while after < len(self.shape) and self.shape[after].isspace():
                after += 1
            if after > start:
                sentences.append(self._sentence(start, stop, after))
                start = after
        return sentences

    def _sentence(self, start: int, stop: int, end: int) -> Sentence:
        bullet = _MARKER.match(self.shape, start, stop)
        marker = bullet.end() if bullet else start
        opening = _LEAD.match(self.shape, marker, stop)
        lead = opening.end() if opening else marker
        spans = self._spans(lead, stop) if lead < stop else []
        items = [self._item(span, first=not number) for number, span in enumerate(spans)]
        return Sentence((start, lead), items, stop, end, bool(_NUMBER.search(self.shape, marker, lead)))

    def _spans(self, low: int, high: int) -> list[Span]:
        """Of the items of shape[low:high]."""
        parts = [match.span() for match in _BETWEEN_ITEMS.finditer(self.shape, low, high)]
        parts += [(at, at) for at in self.tagged if low < at < high]
        starts, ends, boxed, seen = [low], [], False, low
        for begin, end in sorted(parts):
            # From where the last search ended: no stretch is looked through twice.
            boxed = boxed or self.shape.find(READ, seen, begin) >= 0
            seen = begin
            if begin == end and not self._follows_box(begin):
                continue
            if (boxed or _NAME.match(self.shape, end, high)) and not _GOES_ON.match(self.shape, end, high):
                starts.append(end)
                ends.append(begin)
                boxed, seen = False, end
        spans = [
            (start, start + len(self.shape[start:end].rstrip())) for start, end in zip(starts, [*ends, high])
        ]
        return [span for span in spans if span[0] < span[1]]  # "a dog [..] and." ends in an empty one

    def _follows_box(self, end: int) -> bool:
        while end and self.shape[end - 1].isspace():
            end -= 1
        return self.shape[end - 1 : end] == READ

    def _item(self, span: Span, first: bool) -> Item:
        # The marks that begin within the span.
        low, high = (bisect_left(self.marks, edge, key=lambda mark: mark.span[0]) for edge in span)
        own = [mark.goes for mark in self.marks[low:high]]
        named = not first or _INDEFINITE.match(self.shape, *span)
        return Item(span, not all(own), any(own), bool(not own and named))

    def left_of(self, sentence: Sentence) -> str | None:
        """What is left of a sentence, "" where nothing is, None where its items cannot part."""
        items, whole = sentence.items, self.text[sentence.lead[0] : sentence.end]
        if not any(item.goes or item.bare for item in items):
            return whole
        if not any(item.stays for item in items):
            return ""
        if self.is_list(sentence):
            return self._joined(sentence, [index for index, item in enumerate(items) if item.stays])
        # What never had a box weighs, and stays where it cannot be told apart.
        return None if any(item.goes for item in items) else whole

    def is_list(self, sentence: Sentence) -> bool:
        """Whether any of a sentence's items can go."""
        (_, low), first = sentence.lead, sentence.items[0]
        begins = not _GOES_ON.match(self.shape, *first.span) and not _SHARED.search(
            self.shape, low, sentence.stop
        )
        return begins and all(self._is_clean(item) for item in sentence.items)

    def _is_clean(self, item: Item) -> bool:
        """Whether an item is one name with its boxes and at most a place behind them."""
        shape = self.shape[slice(*item.span)]
        tail = shape.partition(READ)[2].replace(READ, " ").strip(" \t)]\"'*_`")
        placed = not tail or (_PLACE.match(tail) and not _FINITE.search(tail))
        return bool(placed) and not (item.stays and item.goes) and shape.count("(") == shape.count(")")

    def _joined(self, sentence: Sentence, kept: Sequence[int]) -> str:
        """The items that are kept, the last two of them joined as the list's last two were."""
        spans = [item.span for item in sentence.items]
        links = ["", *(self.text[before[1] : after[0]] for before, after in pairwise(spans))]
        if len(kept) == 2 < len(spans):  # "a, b, and c" is "a and b" without c
            links[-1] = _COMMA_BEFORE_WORD.sub(" ", links[-1])
        # In this order: a single one that is kept has no link at all.
        links[kept[-1]], links[kept[0]] = links[-1], ""
        names = "".join(links[index] + self.text[slice(*spans[index])] for index in kept)
        lead = self.text[slice(*sentence.lead)]
        before = self.text[sentence.lead[0] : spans[0][1]]
        if not any(map(str.isalpha, lead)) and is_upper(before):
            names = capitalised(names)
        return inflected(lead, names, len(kept)) + names + self.text[sentence.stop : sentence.end]


def is_upper(text: str) -> bool:
    first = _FIRST_LETTER.match(text.lstrip())
    return first is not None and first[1].isupper()


def capitalised(text: str) -> str:
    first = _FIRST_LETTER.match(text)
    return text[: first.start(1)] + first[1].upper() + text[first.end(1) :] if first else text


def inflected(lead: str, names: str, count: int) -> str:
    """`lead` with its "is" or "are" as the names behind it want it."""
    verb = _BE.search(lead)
    if not verb:
        return lead
    one = count == 1 and _ONE.match(names)
    wanted = _SINGULAR if one else _PLURAL if _SEVERAL.match(names) else {}
    return f"{lead[: verb.start()]}{wanted.get(verb[1].lower(), verb[1])} "


def numbered_anew(before: str, text: str) -> str:
    """`text` with its numbered lines counted again, where `before` counted them from 1."""
    numbers = [int(match[2]) for match in _NUMBERED.finditer(before)]
    if text == before or len(numbers) < 2 or numbers != list(range(1, len(numbers) + 1)):
        return text
    count = itertools.count(1)
    return _NUMBERED.sub(lambda match: f"{match[1]}{next(count)}{match[3]}", text)
