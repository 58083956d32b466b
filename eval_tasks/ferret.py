"""Ferret's own three rules to the letter, their quirks included (apple/ml-ferret, ``ferret/eval``): what its
published figures rest on.

A published number and a figure of ours stand side by side only where the rule is the same. The other figures
of each task are made by better rules; these are for that comparison. A test holds them against the verdicts
that Ferret's files gave on 2,000 made-up answers (``make agreement``).

How an answer is read (both box tasks): from left to right, ``[…]`` is a box of whole numbers in thousandths
of the picture, made pixels and cut to whole ones. What stands before it, back to the last delimiter (``. , ;
! ?``) behind the box before, is its phrase: so of ``a [..] and b [..]`` the second has none. One bracket that
holds anything else makes the whole answer empty.

    expression   the first box's IoU with the truth, in single precision
    phrase       the first box whose phrase has the same words; a phrase that is asked twice has the first
                 one's truth both times
    class        white space + "not…", then white space + "no…", are deleted up to the next comma or dot each;
                 then the name or a synonym is a part of what is left, in this case. ``bow_(weapon)`` is two
                 synonyms

Where Ferret's files stop with an error (a bracket of fewer than four numbers), the answer counts as empty
here.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

_BRACKET = re.compile(r"[\[\]]")
_DELIMITER = re.compile(r"[.,;!?]")
_SPACED = re.compile(r"['\",.;!?|:]")  # punctuation that parts words; any other is dropped
_DROPPED = re.compile(r"[^\w\s]")
# The ends are optional, so that a match that has none is not looked for again from each of its words.
_NOT = re.compile(r"(?<!\s)\s+not[^,.]*([,.])?")
_NO = re.compile(r"(?<!\s)\s+no[^,.]*([,.])?")
NOTHING = (0, 0, 0, 0)


def speaks(box_format: str) -> bool:
    """Whether a document's box format is Ferret's: the rules read nothing else."""
    return box_format.partition(":")[0] == "ferret"


def read(answer: str, width: int, height: int) -> list[tuple[str, tuple[int, ...]]]:
    """(phrase, box in whole pixels) of each bracket."""
    try:
        return _read(answer, width / 1000, height / 1000)
    except (ValueError, IndexError, OverflowError):
        return []


def _read(answer: str, scale_x: float, scale_y: float) -> list[tuple[str, tuple[int, ...]]]:
    boxes, begin, phrase = [], 0, ""
    for bracket in _BRACKET.finditer(answer):
        piece = answer[begin : bracket.start()].strip()
        begin = bracket.end()
        if bracket.group() == "[":
            phrase = piece
            continue
        numbers = [int(part) for part in piece.split(",")]
        boxes.append(
            (phrase, tuple(int(numbers[k] * scale) for k, scale in enumerate((scale_x, scale_y) * 2)))
        )
        delimiter = _DELIMITER.search(answer, begin)
        begin = delimiter.end() if delimiter else len(answer) + 1
    return boxes


def expression_iou(answer: str, doc: Mapping) -> np.float32:
    """IoU of the first box of an answer with the document's ``bbox``; that of a box without area where there
    is none.
    """
    boxes = [box for _, box in read(answer, doc["width"], doc["height"])]
    return _iou(np.array(boxes[0] if boxes else NOTHING, np.float32), np.array(doc["bbox"], np.float32))


def phrase_hits(answer: str, doc: Mapping) -> list[bool]:
    """For each of the document's phrases, whether the first box that is written of it has IoU ≥ 0.5 with the
    box around its truths.
    """
    written = [(_words(phrase), box) for phrase, box in read(answer, doc["width"], doc["height"])]
    truths: dict[str, np.ndarray] = {}
    hits = []
    for phrase in doc["phrases"]:
        corners = np.array(phrase["boxes"], dtype=float)
        around = np.concatenate([corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)])
        truth = truths.setdefault(phrase["phrase"], around)
        wanted = _words(phrase["phrase"])
        box = next((box for words, box in written if words == wanted), NOTHING)
        hits.append(bool(_iou(np.array(box, dtype=float), truth) >= 0.5))
    return hits


def names(answer: str, name: str, synonyms: Sequence[str]) -> bool:
    """Whether an answer names a class, whose own name LVIS lists among its synonyms; a document's do
    without.
    """
    left = _without(_without(answer, _NOT), _NO)
    wanted = [name.replace("_", " ").strip()]
    for synonym in (name, *synonyms):
        before, bracket, inside = synonym.partition("(")
        parts = [before, inside.replace(")", "")] if bracket else [synonym]
        wanted += [part.replace("_", " ").strip() for part in parts]
    return any(each in left for each in wanted)


def _without(text: str, denied: re.Pattern) -> str:
    """`text` without what is denied, where it ends with a comma or dot."""
    return denied.sub(lambda match: "" if match[1] else match[0], text)


def _words(phrase: str) -> list[str]:
    return _DROPPED.sub("", _SPACED.sub(" ", phrase.lower())).split()


def _iou(a: np.ndarray, b: np.ndarray) -> np.floating:
    """IoU of two boxes in their own precision, an inverted one's area as the formula gives it."""
    width, height = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    common = width * height
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        return common / (areas - common)
