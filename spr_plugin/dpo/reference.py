"""The reference: log-probs of the model as it enters the stage, by the policy's own path, once."""

from spr_plugin.dpo.pairs import Measured, PairRows
from spr_plugin.dpo.plan import Slot
from spr_plugin.dpo.rows import Answers
from spr_plugin.dpo.stage import Stage, inputs_of, precision
from spr_plugin.ids import digest
from spr_plugin.progress import progress
from spr_plugin.training import ranks
from spr_plugin.training.engine import generating


def reference_log_probs(stage: Stage, measured: list[Measured], slots: list[Slot]) -> dict[str, dict]:
    """Pair id → ``{"chosen", "rejected"}`` log-probs of the model as it is now; what the log holds for these
    weights is not computed again.

    The batches are those of the training to come, on the ranks that will train on them: the same rows give
    the same numbers to the last bit, and the pictures' features stay where they will be used.
    """
    log, size = stage.log("reference"), stage.division.batch
    each = "kl_words" in stage.config.losses()[0]  # it asks what every token had
    layout = [stage.entry, str(precision(stage)), stage.joined, *stage.token_weights.key, *["tokens"] * each]
    keys = {one.pair.id: digest([one.pair.id, one.text, *layout]) for one in measured}
    wanted = {keys[measured[slot.pair].pair.id] for slot in slots}
    logged = ranks.from_rank_0(lambda: log.resume(wanted))
    # Every epoch goes through the same pairs: the first batch that holds a pair decides its log-probs.
    batches, placed = [], set()
    for start in range(0, len(slots), size):
        batch = slots[start : start + size]
        if first := {keys[measured[slot.pair].pair.id] for slot in batch} - placed:
            batches.append((batch, first))
            placed |= first
    missing = [(batch, left) for batch, first in batches if (left := first - logged)]
    if missing:
        with generating(stage.host) as in_step:
            turns = ranks.rounds(missing)
            for (batch, left), mine in progress(turns, len(turns), "reference", show=ranks.rank() == 0):
                data = PairRows(stage.host, measured, batch, {})
                inputs = inputs_of(stage, [data[i] for i in range(len(batch))])
                answers = stage.answers(stage.host.trainer.model, inputs, collective=in_step)
                # In step, ranks without a batch left repeat one: what is not theirs is not logged.
                if mine:
                    ids = [measured[slot.pair].pair.id for slot in batch]
                    records = {
                        keys[id]: {"id": keys[id], "pair": id, **one}
                        for id, one in zip(ids, _records(answers, each))
                    }
                    log.append(*(records[key] for key in records if key in left))
        ranks.barrier()
    there = log.read()
    return {id: there[key] for id, key in keys.items() if key in there}


def _records(answers: Answers, each: bool) -> list[dict]:
    """The log-probs of B pairs: of their answers and, of `each` of their tokens too."""
    sums = answers.sums.tolist()
    # Rows are [chosen …, rejected …]: the second half belongs to the first.
    made = [{"chosen": c, "rejected": r} for c, r in zip(sums, sums[len(sums) // 2 :])]
    if each:
        tokens = [own[scored].tolist() for own, scored in zip(answers.token_log_probs, answers.scored)]
        made = [one | {"tokens": both} for one, *both in zip(made, tokens, tokens[len(made) :])]
    return made
