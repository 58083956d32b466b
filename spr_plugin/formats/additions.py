"""Where an item can be put into a text: a sentence's list, or among lines and sentences of one item each.

What is put in is written as its neighbours are: with or without an article, with their "There is", bullet or
number. No grammar, as in :mod:`spr_plugin.formats.items`: what its closed lists do not know is not clean.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

from spr_plugin.formats.items import (
    INDEFINITE,
    Prose,
    Sentence,
    agreed,
    capitalised,
    is_upper,
    numbered_anew,
    prose_of,
)
from spr_plugin.formats.parsed import Parsed

_ARTICLE = re.compile(rf"\W*(?:the|{INDEFINITE}|\d+)\b", re.IGNORECASE)
# What may be said again before another name, behind a bullet or number.
_LEAD = re.compile(
    r"\W*(?:\d{1,3}[.)]\s+)?(?:(?:there (?:is|are)(?: also)?|i (?:can )?see)\s)?", re.IGNORECASE
)
_TWO = " and "


def put_in(text: str, parsed: Parsed, place: int, phrase: str, write: Callable[[str], str]) -> str | None:
    """`text` with a new item before the mention of that place, or behind the last one; None where that is not
    clean.

    Args:
        phrase: its name, without an article.
        write: a name → the name with its box.
    """
    prose = prose_of(text, parsed)
    sentences = prose.sentences()
    boxed = [(one, number) for one in sentences for number, item in enumerate(one.items) if item.stays]
    if not boxed or len(boxed) != len(parsed.mentions) or any(one.counts for one in sentences):
        return None
    behind = place == len(boxed)
    sentence, number = boxed[place - behind]
    near = sentence.items[number].span
    item = write(phrase if not _ARTICLE.match(text, *near) else with_article(phrase))
    lines = [one for one in sentences if any(own.stays for own in one.items)]
    if len(lines) > 1 and all(len(one.items) == 1 for one in lines):
        made = _among_sentences(prose, lines, place, item)
    else:
        made = _in_list(prose, sentence, number + behind, item)
    return made and numbered_anew(text, made)


def with_article(name: str) -> str:
    """ "red circle" → "a red circle"; a name that brings its own determiner keeps it."""
    if not name or _ARTICLE.match(name):
        return name
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def without_article(name: str) -> str:
    """ "the red circle" → "red circle"; one further in stays."""
    article = _ARTICLE.match(name)
    return name[article.end() if article else 0 :].strip()


def _in_list(prose: Prose, sentence: Sentence, place: int, item: str) -> str | None:
    """The text with `item` at that place of a sentence's list."""
    if not prose.is_list(sentence):
        return None
    text, spans = prose.text, [one.span for one in sentence.items]
    said, lead = [text[slice(*span)] for span in spans], text[slice(*sentence.lead)]
    links = [text[before[1] : after[0]] for before, after in pairwise(spans)]
    if not links:  # of one item, as it would be said
        links = [_TWO if lead.strip() or sentence.stop < sentence.end else ", "]
    else:
        last = links[-1]
        between = links[0] if len(links) > 1 else ", " if last.strip(" ,").isalpha() else last
        links = (
            [*links[:-1], between, last] if place == len(said) else _with(links, max(place - 1, 0), between)
        )
    if not any(map(str.isalpha, lead)) and is_upper(said[0]):
        upper = all(map(is_upper, said)) and len(said) > 1
        if place == 0 and not upper:
            if not _ARTICLE.match(said[0]) and len(said) == 1:
                return None  # a name, perhaps
            said[0] = _lowered(said[0])
        item = capitalised(item) if upper or place == 0 else item
    said = _with(said, place, item)
    names = "".join(link + one for link, one in zip(["", *links], said))
    return text[: sentence.lead[0]] + agreed(lead, names, len(said)) + names + text[sentence.stop :]


def _with(parts: list[str], place: int, new: str) -> list[str]:
    return [*parts[:place], new, *parts[place:]]


def _lowered(text: str) -> str:
    place = next((place for place, one in enumerate(text) if one.isalpha()), 0)
    return text[:place] + text[place].lower() + text[place + 1 :]


def _among_sentences(prose: Prose, lines: list[Sentence], place: int, item: str) -> str | None:
    """The text with a sentence or line of `item` alone before that of this place, or behind the last one,
    worded as its neighbour.

    Args:
        lines: the sentences with a box, of one item each.
    """
    text, near = prose.text, lines[min(place, len(lines) - 1)]
    lead = text[slice(*near.lead)]
    if not _LEAD.fullmatch(lead) or not prose.is_list(near):
        return None
    if not any(map(str.isalpha, lead)) and is_upper(text[slice(*near.items[0].span)]):
        item = capitalised(item)
    made = agreed(lead, item, 1) + item + text[near.stop : near.end].rstrip()
    first = text[: lines[0].end]
    gap = first[len(first.rstrip()) :]
    if place < len(lines):
        return text[: near.lead[0]] + made + gap + text[near.lead[0] :]
    end = len(text[: near.end].rstrip())
    return text[:end] + gap + made + text[end:]
