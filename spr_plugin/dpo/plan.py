"""Which pairs go into which step on which rank: worked out from lengths, seed and sizes alone, so that every
run makes the same plan.
"""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Slot:
    """One pair in one rank's micro-batch.

    Attributes:
        pair: its index.
        weight: what its loss is multiplied with, so that the mean over ranks and accumulation steps of the
            micro-batches' sums is the mean over the real pairs of the optimizer step. 0 for a pair that only
            fills the batch up.
        mean_chosen_tokens: of the optimizer step's real pairs: the mean length of their chosen answers. Known
            before the step runs, on every rank, so that a mean over the step's tokens needs no word between
            them.
    """

    pair: int
    weight: float
    mean_chosen_tokens: float


def slot_plan(
    lengths: list[int],
    chosen_tokens: list[float],
    *,
    epochs: float,
    batch: int,
    accumulation: int,
    world: int,
    seed: int,
    window: int = 16,
) -> list[Slot]:
    """Slots in the order optimizer step, accumulation step, rank, place in the micro-batch, over all epochs.

    Each epoch is shuffled; within ``window`` steps pairs are sorted by length before they are cut into steps,
    so that the rows of a batch, and those of ranks that wait for each other, are about equally long. One
    global batch holds the same pairs however it is divided into ``batch``, ``accumulation`` and ``world``.

    Args:
        lengths: of each pair's row, in tokens.
        chosen_tokens: of each pair's chosen answer, as the loss counts them.
    """
    rng = random.Random(seed)
    count, step = len(lengths), batch * accumulation * world
    total = max(1, round(epochs * count))
    order = []
    # Whole epochs, of which the last is cut: a fraction of one is a random part of the pairs.
    while len(order) < total:
        epoch = list(range(count))
        rng.shuffle(epoch)
        order += epoch
    steps = []
    for start in range(0, total, step * window):
        # Negated, longest first: a step that is not full is then one of the shortest.
        near = sorted(order[:total][start : start + step * window], key=lambda pair: (-lengths[pair], pair))
        cut = [near[i : i + step] for i in range(0, len(near), step)]
        # Only the last window can end in a step that is not full; it stays the last.
        last = [cut.pop()] if len(cut[-1]) < step else []
        rng.shuffle(cut)
        steps += cut + last
    slots = []
    for pairs in steps:
        mean = sum(chosen_tokens[pair] for pair in pairs) / len(pairs)
        # Trainer and DDP divide by accumulation and ranks: the weight takes that back, and divides by pairs.
        slots += [Slot(pair, accumulation * world / len(pairs), mean) for pair in pairs]
        # Every rank needs as many rows as the others, or collectives would wait for ever.
        slots += [Slot(pairs[-1], 0.0, mean)] * (step - len(pairs))
    return slots
