"""Preference pairs as the stage sees them: their lengths, their rows, and the reference's log-probs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from spr_plugin.config.dpo import DPOFlags
from spr_plugin.data.pictures import BadImage
from spr_plugin.dpo.features import picture_keys
from spr_plugin.dpo.plan import Slot
from spr_plugin.dpo.token_kinds import EVEN, TokenWeights, answer_pieces, coordinate_tokens, token_weights
from spr_plugin.errors import UserError
from spr_plugin.ids import digest
from spr_plugin.pairing import PreferencePair
from spr_plugin.progress import progress, say
from spr_plugin.runs.log import Log
from spr_plugin.training import ranks
from spr_plugin.training.host import IGNORED, Host, Row

SIDES = ("chosen", "rejected")
WHOLE = Slot(0, weight=1.0, mean_chosen_tokens=1.0)  # of a pair that is in no step


@dataclass(frozen=True)
class Measured:
    """A pair with what its rows are like.

    Attributes:
        tokens: of the joined row: the host's tokens of chosen, and those of rejected that it does not share.
            Pictures count as one.
        chosen_tokens: of the chosen answer, as the loss counts them: the sum of their weights.
        text: hash of what the tokenizer and the template made of it.
    """

    pair: PreferencePair
    tokens: int
    chosen_tokens: float
    text: str


def pair_rows(host: Host, pair: PreferencePair) -> list[dict]:
    """The host's rows of chosen and rejected. UserError where the picture cannot be read."""
    try:
        return [host.row(pair.pictures, pair.prompt, getattr(pair, side)) for side in SIDES]
    except (OSError, BadImage) as error:
        why = getattr(error, "why", error)
        files = ", ".join(dict.fromkeys(one if isinstance(one, str) else one.path for one in pair.pictures))
        what = f"pair {pair.id}: {files} cannot be read any more ({why})"
        raise UserError(f"{what}; put it back and run the same command") from None


def unshared(rows: list[dict]) -> list[int]:
    """For the two rows of a pair: how many of their last tokens come after the prompt that they share."""
    ids, asked = (
        [row["input_ids"].tolist() for row in rows],
        # A running product stays 1 until the first label that counts: its sum is the length of the prompt.
        [int((row["labels"] == IGNORED).int().cumprod(0).sum()) for row in rows],
    )
    shared = 0
    # Compared, not taken for granted: a template may write a prompt otherwise before another answer.
    while shared < min(asked) and ids[0][shared] == ids[1][shared]:
        shared += 1
    return [len(row) - shared for row in ids]


def answer_tokens(row: Row) -> int:
    """How many tokens of a row are its answer's."""
    return int((row["labels"] != IGNORED).sum())


def maximum_of(host: Host) -> tuple[str, int | None]:
    """What the host's command calls the length above which a row is cut, and its value if it is a flag."""
    args = host.trainer.args
    for name in ("model_max_length", "max_length"):  # LLaVA's, TRL's
        if isinstance(getattr(args, name, None), int):
            return f"--{name}", getattr(args, name)
    return "the maximum length of tokenizer and model", None


def measure_lengths(host: Host, pairs: list[PreferencePair], config: DPOFlags, log: Log) -> list[Measured]:
    """The pairs whose answers the host trains on whole, with their sizes; the rest are named and counted.

    Raises:
        UserError: a picture is missing; more than ``--spr_max_too_long`` of the pairs are too long; none is
            left.
    """
    flag, most = maximum_of(host)
    weights = TokenWeights(**config.token_weights())
    # A length holds for the host's maximum, template, tokenizer and weights: all are part of a record's key.
    way = [most, _sample_of(host, pairs, weights), *weights.key]
    keys = {pair.id: digest([pair.id, way]) for pair in pairs}
    logged = ranks.from_rank_0(lambda: log.resume({*keys.values()}))
    wanted = [pair for pair in pairs if keys[pair.id] not in logged]
    mine = wanted[ranks.rank() :: ranks.world()]
    broken = []
    for pair in progress(mine, len(mine), "measuring pairs", show=ranks.rank() == 0):
        try:
            record = _measured(host, pair, weights)
        except UserError as error:
            broken.append(str(error))
            continue
        if record["fits"]:  # what does not is measured again: the host's maximum may have been raised by then
            log.append({"id": keys[pair.id], "pair": pair.id, **record})
    if broken := [line for lines in ranks.from_all(broken) for line in lines]:
        raise UserError(f"{broken[0]} ({len(broken)} such pairs)")
    records = log.read()
    too_long = [pair for pair in pairs if keys[pair.id] not in records]
    if too_long:
        named = ", ".join(pair.id for pair in too_long[:3]) + (" …" if len(too_long) > 3 else "")
        text = f"{len(too_long)} of {len(pairs)} pairs are longer than the host's {flag} ({named})"
        if len(too_long) > config.spr_max_too_long * len(pairs):
            raise UserError(f"{text}: raise it, or allow it with --spr_max_too_long")
        if ranks.rank() == 0:
            say(f"{text}; they are left out")
    known = {pair: records[keys[pair.id]] for pair in pairs if keys[pair.id] in records}
    known = _with_weight(known, config)
    return [Measured(pair, one["tokens"], one["chosen_tokens"], one["text"]) for pair, one in known.items()]


def _with_weight(records: dict[PreferencePair, dict], config: DPOFlags) -> dict[PreferencePair, dict]:
    """Those of which a token weighs something; the rest are counted. UserError where none does."""
    left = {pair: one for pair, one in records.items() if not one.get("weightless")}
    if len(left) < len(records):
        named = f"--spr_token_weight {' '.join(config.spr_token_weight)}"
        text = f"by {named} no token counts in {len(records) - len(left)} of {len(records)} pairs"
        if not left:
            raise UserError(f"{text}: nothing is left to train on; take other weights")
        if ranks.rank() == 0:
            say(f"{text}; they are left out")
    return left


def _sample_of(host: Host, pairs: list[PreferencePair], weights: TokenWeights) -> dict | None:
    """What the host makes of one pair, which stands for how it makes rows: its template, its tokenizer."""
    try:
        return _measured(host, pairs[0], weights) if pairs else None
    except UserError:  # said with the others
        return None


def _measured(host: Host, pair: PreferencePair, weights: TokenWeights) -> dict:
    if not (pair.chosen.strip() and pair.rejected.strip()):
        raise UserError(f"pair {pair.id}: an answer is empty")
    rows = pair_rows(host, pair)
    text = [row["input_ids"].tolist() for row in rows]
    if text[0] == text[1]:
        raise UserError(f"pair {pair.id}: chosen and rejected are the same tokens")
    fits = all(host.fits(row) for row in rows)
    # As the joined row lies: all of chosen, and of rejected what is not shared.
    tokens = len(text[0]) + unshared(rows)[1]
    if weights.even:
        weighed: list[list[float]] = [[1] * answer_tokens(row) for row in rows]
    else:
        weighed = token_weights(host.box_format, [answer_pieces(host, row) for row in rows], weights)
    record = {"fits": fits, "tokens": tokens, "chosen_tokens": sum(weighed[0]), "text": digest(text)}
    return record if any(map(any, weighed)) else {**record, "weightless": True}


class PairRows(torch.utils.data.Dataset):
    """Slot of the plan → the two host rows of its pair with their reference log-probs."""

    def __init__(self, host: Host, measured: list[Measured], slots: list[Slot], reference: dict[str, dict]):
        self.host, self.measured, self.slots, self.reference = host, measured, slots, reference

    def __len__(self):
        return len(self.slots)

    def __getitem__(self, index):
        slot = self.slots[index]
        pair = self.measured[slot.pair].pair
        known = self.reference.get(pair.id, {"chosen": 0.0, "rejected": 0.0})
        rows, sums = pair_rows(self.host, pair), [known[side] for side in SIDES]
        return item_of(pair.id, rows, slot, sums, known.get("tokens"))


def batch_of(host: Host, pairs: list[PreferencePair]) -> dict:
    """These pairs collated, for their log-probs alone."""
    return collate(host, [item_of(pair.id, pair_rows(host, pair)) for pair in pairs])


def item_of(
    id: str,
    rows: list[Row],
    slot: Slot = WHOLE,
    reference: Sequence[float] = (0.0, 0.0),
    reference_tokens: Sequence[Sequence[float]] | None = None,
) -> dict:
    """What :func:`collate` takes of a pair; without slot and reference for what no loss is made of."""
    return {
        "id": id,
        "rows": rows,
        "weight": slot.weight,
        "mean_chosen_tokens": slot.mean_chosen_tokens,
        "reference": list(reference),
        "reference_tokens": reference_tokens,
    }


def collate(host: Host, items: list[dict], weights: TokenWeights = EVEN) -> dict:
    """B pairs → a host batch of ``[chosen …, rejected …]`` rows, and in the same order what
    :mod:`spr_plugin.dpo.rows` and the loss need.
    """
    form, pieces = host.box_format, [[answer_pieces(host, row) for row in item["rows"]] for item in items]
    told = [[coordinate_tokens(form, own) for own in both] for both in pieces]
    weighed = [None if weights.even else token_weights(form, both, weights) for both in pieces]
    # All chosen rows, then all rejected ones: rows and losses take the two halves.
    batch = host.batch([item["rows"][side] for side in (0, 1) for item in items])
    both = [unshared(item["rows"]) for item in items]
    return {
        "batch": batch,
        "unshared": [pair[side] for side in (0, 1) for pair in both],
        "pictures": picture_keys(host, batch),
        "coordinates": torch.tensor(_of_tokens(told)),
        # Numbers, not tensors: under DeepSpeed the Trainer hands a step its tensors in half precision.
        "token_weights": _of_tokens(weighed),
        "reference": [item["reference"][side] for side in (0, 1) for item in items],
        "reference_tokens": _of_tokens([item["reference_tokens"] for item in items]),
        "weight": [item["weight"] for item in items],
        "mean_chosen_tokens": [item["mean_chosen_tokens"] for item in items],
        "ids": [item["id"] for item in items],
    }


def _of_tokens(values: Sequence[Sequence[Sequence[float]] | None]) -> list[float] | None:
    """A number a token of chosen and rejected of B pairs, one behind the other, chosen first; None where one
    has none.
    """
    # Chosen of all pairs, then rejected: the order of the batch's rows.
    both = [one for one in values if one is not None]
    return (
        [number for side in (0, 1) for one in both for number in one[side]]
        if len(both) == len(values)
        else None
    )
