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
    capitalised,
    inflected,
    is_upper,
    numbered_anew,
    prose_of,
)
from spr_plugin.formats.parsed import Parsed

_ARTICLE = re.compile(rf"\W*(?:the|{INDEFINITE}|\d+)\b", re.IGNORECASE)
# What may be said again before another name, behind a bullet or number.
_REPEATED_LEAD = re.compile(
    r"\W*(?:\d{1,3}[.)]\s+)?(?:(?:there (?:is|are)(?: also)?|i (?:can )?see)\s)?", re.IGNORECASE
)
_TWO = " and "


def put_in(text: str, parsed: Parsed, index: int, phrase: str, write: Callable[[str], str]) -> str | None:
    """`text` with a new item before the mention of that index, or behind the last one; None where that is not
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
    behind = index == len(boxed)
    sentence, number = boxed[index - behind]
    near = sentence.items[number].span
    item = write(phrase if not _ARTICLE.match(text, *near) else with_article(phrase))
    lines = [one for one in sentences if any(own.stays for own in one.items)]
    if len(lines) > 1 and all(len(one.items) == 1 for one in lines):
        made = _among_sentences(prose, lines, index, item)
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


def _in_list(prose: Prose, sentence: Sentence, index: int, item: str) -> str | None:
    """The text with `item` at that index of a sentence's list."""
    if not prose.is_list(sentence):
        return None
    text, spans = prose.text, [one.span for one in sentence.items]
    names, lead = [text[slice(*span)] for span in spans], text[slice(*sentence.lead)]
    links = [text[before[1] : after[0]] for before, after in pairwise(spans)]
    if not links:  # of one item, as it would be said
        links = [_TWO if lead.strip() or sentence.stop < sentence.end else ", "]
    else:
        last = links[-1]
        between = links[0] if len(links) > 1 else ", " if last.strip(" ,").isalpha() else last
        links = (
            [*links[:-1], between, last] if index == len(names) else _with(links, max(index - 1, 0), between)
        )
    if not any(map(str.isalpha, lead)) and is_upper(names[0]):
        upper = all(map(is_upper, names)) and len(names) > 1
        if index == 0 and not upper:
            if not _ARTICLE.match(names[0]) and len(names) == 1:
                return None  # a name, perhaps
            names[0] = _lowered(names[0])
        item = capitalised(item) if upper or index == 0 else item
    names = _with(names, index, item)
    joined = "".join(link + one for link, one in zip(["", *links], names))
    return text[: sentence.lead[0]] + inflected(lead, joined, len(names)) + joined + text[sentence.stop :]


def _with(parts: list[str], index: int, new: str) -> list[str]:
    return [*parts[:index], new, *parts[index:]]


def _lowered(text: str) -> str:
    index = next((index for index, one in enumerate(text) if one.isalpha()), 0)
    return text[:index] + text[index].lower() + text[index + 1 :]


def _among_sentences(prose: Prose, lines: list[Sentence], index: int, item: str) -> str | None:
    """The text with a sentence or line of `item` alone before that of this index, or behind the last one,
    worded as its neighbour.

    Args:
        lines: the sentences with a box, of one item each.
    """
    text, near = prose.text, lines[min(index, len(lines) - 1)]
    lead = text[slice(*near.lead)]
    if not _REPEATED_LEAD.fullmatch(lead) or not prose.is_list(near):
        return None
    if not any(map(str.isalpha, lead)) and is_upper(text[slice(*near.items[0].span)]):
        item = capitalised(item)
    made = inflected(lead, item, 1) + item + text[near.stop : near.end].rstrip()
    first = text[: lines[0].end]
    gap = first[len(first.rstrip()) :]
    if index < len(lines):
        return text[: near.lead[0]] + made + gap + text[near.lead[0] :]
    end = len(text[: near.end].rstrip())
    return text[:end] + gap + made + text[end:]
