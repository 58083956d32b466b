"""Which tokens of an answer write coordinates: their log-probs and those of its words are logged apart, since
DPO can lower the one while the other looks fine."""

from itertools import accumulate, pairwise

import torch

from spr_plugin.dpo.rows import Answers
from spr_plugin.training.host import IGNORED, Host


def coordinate_tokens(host: Host, row: dict) -> list[bool]:
    """For each token of a row's answer whether any of it writes coordinates."""
    ids = row["labels"][row["labels"] != IGNORED].tolist()
    pieces = pieces_of(host, ids)
    text = "".join(pieces)
    inside = bytearray(len(text))
    for start, end in host.box_format.coordinate_spans(text):
        inside[start:end] = b"\1" * (end - start)
    places = pairwise(accumulate(map(len, pieces), initial=0))
    return [any(inside[start:end]) for start, end in places]


def pieces_of(host: Host, ids: list[int]) -> list[str]:
    """What each token adds to a text. A token alone loses the space before it, and one behind another keeps
    it; what adds nothing that shows (white space, a part of a character, the end) is a space."""
    if not ids:
        return []
    pairs = [*dict.fromkeys(pairwise(ids))]
    texts = host.texts([ids[:1], *([before] for before, _ in pairs), *map(list, pairs)])
    first, alone, both = texts[0], texts[1 : len(pairs) + 1], texts[len(pairs) + 1 :]
    added = {pair: long[len(short) :] for pair, short, long in zip(pairs, alone, both)}
    return [piece or " " for piece in (first, *(added[pair] for pair in pairwise(ids)))]


@torch.no_grad()
def apart(answers: Answers, coordinates: torch.Tensor) -> dict[str, torch.Tensor]:
    """Log-probs ``(B,)`` of the coordinates and of the words of both answers of B pairs.

    Args:
        coordinates: bool, of each scored token of ``answers``, row by row.
    """
    told = torch.zeros_like(answers.scored).masked_scatter(answers.scored, coordinates)
    sums = {"coordinates": answers.token_log_probs * told, "words": answers.token_log_probs * ~told}
    return {
        f"logps/{side}_{part}": values
        for part, log_probs in sums.items()
        for side, values in zip(("chosen", "rejected"), log_probs.sum(1).chunk(2))
    }
