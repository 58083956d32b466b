"""Whether what an answer calls a box and what the truth calls it are one thing.

By their head nouns first ("the red cups on the table" and "coffee cup": cup), whatever articles, adjectives
and number; else by a model's similarity of the two texts. What has no name agrees with everything: IoU alone
decides then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from spr_plugin.formats.items import FINITE, INDEFINITE, PLACES, SHOWING

Agreement = NDArray[np.bool_]  # (m, n): whether the m-th name of one side and the n-th of the other agree
# Texts beside texts → their (len, len) similarities.
Likeness = Callable[[Sequence[str], Sequence[str]], NDArray[np.float64]]

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_DETERMINER = re.compile(rf"(?:the|other|his|her|its|their|my|{INDEFINITE})\Z")
_VERB = re.compile(rf"(?:{FINITE}|{SHOWING}|be|being)\Z")
_PLACE = re.compile(rf"(?:{PLACES}|for|wearing|holding|made|covered|filled)\Z")
IRREGULAR = {
    "people": "person",
    "children": "child",
    "feet": "foot",
    "teeth": "tooth",
    "geese": "goose",
    "mice": "mouse",
}


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORD.findall(text.lower())


def head_noun(name: str) -> str:
    """The noun of a name, in lower case, as it is written: of the last clause and the last of several joined
    names, before "on", "of", "with" … "" where there is none.
    """
    words = words_of(name.partition("(")[0] or name)
    # From the end: the last clause counts.
    for index in range(len(words) - 2, -1, -1):
        word, follows = words[index : index + 2]
        begins = _DETERMINER.match(follows)
        # "is a …", "is holding …", "and a …"; "display" alone is a noun
        verb = _VERB.match(word) and (begins or follows.endswith("ing"))
        if verb or (begins and word in ("and", "or")):
            words = words[index + 1 :]
            break
    nouns: list[str] = []
    for word, follows in zip(words, [*words[1:], ""]):
        # "holding a cup": a participle ends the name as a preposition does.
        part = word.endswith("ing") and _DETERMINER.match(follows)
        if _PLACE.match(word) or part:
            if nouns:
                break
        elif not _DETERMINER.match(word):
            nouns.append(word)
    return nouns[-1] if nouns else ""


def same_noun(first: str, second: str) -> bool:
    """Whether two nouns are one, whatever their number."""
    return bool(_singulars(first) & _singulars(second))


def _singulars(word: str) -> set[str]:
    """All that `word` could be one or several of."""
    forms = {word, IRREGULAR.get(word, word)}
    if word.endswith("men"):
        forms.add(word[:-3] + "man")
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        forms.add(word[:-1])
        if word.endswith("es"):
            forms.add(word[:-2])
        if word.endswith("ies"):
            forms.add(word[:-3] + "y")
        if word.endswith("ves"):
            forms |= {word[:-3] + "f", word[:-3] + "fe"}
    return forms


def agreement(
    written: Sequence[str], true: Sequence[str], likeness: Likeness | None = None, threshold: float = 1.0
) -> Agreement:
    """(len(written), len(true)) bool: which names agree.

    Args:
        written, true: names; "" for what has none.
        likeness: asked for names whose nouns differ, once for all of them.
        threshold: from which likeness on two names agree.
    """
    # Each name once: answers repeat them, and a model is slow.
    rows, columns = sorted({*written}), sorted({*true})
    nouns = [[head_noun(name) for name in names] for names in (rows, columns)]
    agree = np.array(
        [[not one or not other or same_noun(one, other) for other in nouns[1]] for one in nouns[0]],
        dtype=bool,
    ).reshape(len(rows), len(columns))
    if likeness is not None and not agree.all():
        # Rows and columns in which nouns left a pair open: the model is asked about these alone.
        apart = [np.flatnonzero(~agree.all(axis=axis)).tolist() for axis in (1, 0)]
        asked = [[names[index] for index in indices] for names, indices in zip((rows, columns), apart)]
        # The block of these rows and columns; what agrees already stays so.
        agree[np.ix_(*apart)] |= likeness(asked[0], asked[1]) >= threshold
    indices = [{name: index for index, name in enumerate(names)} for names in (rows, columns)]
    # Back to the names as they were given, repeats and all.
    return agree[np.ix_([indices[0][name] for name in written], [indices[1][name] for name in true])]
