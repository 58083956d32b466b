"""Which tokens of an answer write coordinates, and which say what the pair's other answer does not: by them
tokens weigh apart in the loss, and are logged apart, since DPO can lower the one while the other looks fine.

Both are read in the text, and a token is of a kind where *any* of its characters is. So a number is one thing
however many tokens write it, and a token that writes a bracket along with a word's end or a comma (``],``) is
one of coordinates.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from itertools import accumulate, pairwise

import torch

from spr_plugin.dpo.rows import Answers
from spr_plugin.formats import BoxFormat
from spr_plugin.formats.attempts import Span
from spr_plugin.training.host import IGNORED, Host, Row

# What two answers are compared by: a number, a word, or a character that is neither.
UNIT = re.compile(r"\d+(?:\.\d+)?|[^\W\d]+|[^\w\s]")


@dataclass(frozen=True)
class TokenWeights:
    """What a token's log-prob is multiplied with: the product of what it writes (words or coordinates) and of
    whether the other answer says the same (unchanged) or not (changed; the gamma of RLHF-V's DDPO, arXiv
    2312.00849, which divides by the weights' sum too: --spr_loss_type sigmoid_norm).
    """

    words: float = 1.0
    coordinates: float = 1.0
    changed: float = 1.0
    unchanged: float = 1.0

    @property
    def even(self) -> bool:
        """Whether all tokens weigh 1."""
        return self == TokenWeights()

    @property
    def key(self) -> list[dict]:
        """What a log adds to the key of what depends on them: nothing where they are even."""
        return [] if self.even else [asdict(self)]

    def of(self, coordinates: Iterable[bool], changed: Iterable[bool]) -> list[float]:
        """The weights of tokens of these kinds."""
        return [
            (self.coordinates if told else self.words) * (self.changed if other else self.unchanged)
            for told, other in zip(coordinates, changed, strict=True)
        ]


EVEN = TokenWeights()


def answer_pieces(host: Host, row: Row) -> list[str]:
    """What each token of a row's answer adds to its text."""
    return pieces_of(host, row["labels"][row["labels"] != IGNORED].tolist())


def pieces_of(host: Host, ids: list[int]) -> list[str]:
    """What each token adds to a text. A token alone loses the space before it, and one behind another keeps
    it; what adds nothing that shows (white space, a part of a character, the end) is a space."""
    if not ids:
        return []
    # A pair of tokens is decoded once, however often it stands in the answer.
    pairs = [*dict.fromkeys(pairwise(ids))]
    texts = host.texts([ids[:1], *([before] for before, _ in pairs), *map(list, pairs)])
    first, alone, both = texts[0], texts[1 : len(pairs) + 1], texts[len(pairs) + 1 :]
    # What the second token adds is what the text of both is longer by than that of the first.
    added = {pair: long[len(short) :] for pair, short, long in zip(pairs, alone, both)}
    return [piece or " " for piece in (first, *(added[pair] for pair in pairwise(ids)))]


def coordinate_tokens(form: BoxFormat, pieces: Sequence[str]) -> list[bool]:
    """For each token of an answer whether any of it writes coordinates."""
    return touching(pieces, form.coordinate_spans("".join(pieces)))


def changed_tokens(pieces: Sequence[Sequence[str]]) -> list[list[bool]]:
    """For each token of two answers whether any of it says what the other answer does not say there."""
    spans = changed_spans(*("".join(own) for own in pieces))
    return [touching(own, changed) for own, changed in zip(pieces, spans)]


def changed_spans(first: str, second: str) -> tuple[list[Span], list[Span]]:
    """Where each of two texts has numbers, words and marks that the other one has not, by their longest
    common runs; white space is not looked at.
    """
    # Spans and words of a text run in step: a range of units is a range of both.
    units = [[unit.span() for unit in UNIT.finditer(text)] for text in (first, second)]
    words = [[text[slice(*span)] for span in own] for text, own in zip((first, second), units)]
    changed: tuple[list[Span], list[Span]] = ([], [])
    # autojunk would leave what is frequent in a long text, such as its commas, out of the matching.
    for kind, *ends in SequenceMatcher(None, words[0], words[1], autojunk=False).get_opcodes():
        if kind != "equal":
            for own, spans, (start, end) in zip(units, changed, (ends[:2], ends[2:])):
                spans += own[start:end]
    return changed


def touching(pieces: Sequence[str], spans: Iterable[Span]) -> list[bool]:
    """For each piece of a text whether any of its characters lies in one of the spans."""
    # Running sums of the lengths are the pieces' bounds in the whole text.
    extents = [*pairwise(accumulate(map(len, pieces), initial=0))]
    inside = bytearray(extents[-1][1] if extents else 0)
    for start, end in spans:
        # A byte a character: any piece is asked by a slice, at C's speed.
        inside[start:end] = b"\1" * (end - start)
    return [any(inside[start:end]) for start, end in extents]


def token_weights(
    form: BoxFormat, pieces: Sequence[Sequence[str]], weights: TokenWeights
) -> list[list[float]]:
    """The weight of each token of a pair's two answers."""
    told = [coordinate_tokens(form, own) for own in pieces]
    return [weights.of(*kinds) for kinds in zip(told, changed_tokens(pieces))]


@torch.no_grad()
def apart(answers: Answers, coordinates: torch.Tensor) -> dict[str, torch.Tensor]:
    """Log-probs ``(B,)`` of the coordinates and of the words of both answers of B pairs.

    Args:
        coordinates: bool, of each scored token of ``answers``, row by row.
    """
    told = answers.spread(coordinates)
    sums = {"coordinates": answers.token_log_probs * told, "words": answers.token_log_probs * ~told}
    return {
        f"logps/{side}_{part}": values
        for part, log_probs in sums.items()
        for side, values in zip(("chosen", "rejected"), log_probs.sum(1).chunk(2))
    }
