"""The stage in the order of what happens: row layout, reference log-probs, training with a look at held-out
regions between the steps."""

import contextlib
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import TrainerCallback

from spr_plugin.config import SPRConfig
from spr_plugin.dpo import resume, rows
from spr_plugin.dpo.features import FeatureCache, cached_features
from spr_plugin.dpo.pairs import Measured, PairRows, collate, measure
from spr_plugin.dpo.plan import Slot, batch_plan
from spr_plugin.dpo.probe import Watch, refuse_collapse
from spr_plugin.dpo.resume import Division
from spr_plugin.dpo.trainable import announce, dropout_off
from spr_plugin.dpo.trainer import PreferenceTrainer, arguments, hand_over
from spr_plugin.errors import UserError
from spr_plugin.files import remove
from spr_plugin.ids import digest
from spr_plugin.pairing import PreferencePair
from spr_plugin.progress import progress, say
from spr_plugin.recipes.base import Query, Recipe
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.log import Log
from spr_plugin.training import engine, ranks, weights
from spr_plugin.training.engine import generating
from spr_plugin.training.host import Host


@dataclass
class Stage:
    """What the steps of one DPO stage share.

    Attributes:
        folder: the round's; checkpoints of the stage lie in ``OUTPUT_DIR/spr/dpo``, where the host's own resume does not look.
        entry: hash of the weights at the stage's entry.
        division: how a step's pairs are divided among ranks.
        joined: whether the two rows of a pair share their prompt (:mod:`spr_plugin.dpo.rows`).
    """

    host: Host
    config: SPRConfig
    folder: Folder
    entry: str
    cache: FeatureCache
    watch: Watch
    division: Division
    joined: bool = False
    seen: list = field(default_factory=list)  # metrics since the last log

    def answers(self, model, inputs: dict, joined: bool | None = None, collective: bool = False) -> rows.Answers:
        joined = self.joined if joined is None else joined
        with cached_features(self.host, self.cache, inputs["pictures"], collective):
            return rows.answers(self.host, model, inputs["batch"], inputs["tails"], joined)

    def log(self, name: str) -> Log:
        return self.folder.log(name, ranks.rank())


def improve(
    host: Host,
    recipe: Recipe,
    pairs: list[PreferencePair],
    watched: list[Query],
    config: SPRConfig,
    folder: Folder,
    entry: str,
) -> None:
    """The whole stage on the live model, whose trainable parameters were chosen: lengths, reference log-probs, training.

    Args:
        watched: queries that the pairs do not come from, to see whether the model still answers.
        folder: the round's.
        entry: hash of the weights as they are now.
    """
    directory = folder.dpo
    division = Division(config.spr_batch_size, config.spr_gradient_accumulation, ranks.world())
    if ranks.rank() == 0:
        resume.discard_torn(directory)
    ranks.barrier()
    checkpoint = ranks.agreed(lambda: resume.latest(directory))
    if checkpoint is not None:
        division = resume.divided(checkpoint[1], ranks.world(), sharded=bool(host.trainer.args.deepspeed))
    cache = FeatureCache(int(config.spr_feature_cache * 2**30))
    stage = Stage(host, config, folder, entry, cache, Watch(host, recipe, watched, config, directory), division)
    measured = measure(host, pairs, config, stage.log("lengths"))
    slots = batch_plan([one.tokens for one in measured], epochs=config.spr_epochs, seed=config.spr_seed, **vars(division))
    with dropout_off(host.trainer.model):
        choose_layout(stage, measured)
        reference = reference_log_probs(stage, measured, slots)
        train(stage, measured, slots, reference, checkpoint and checkpoint[0])


# --- rows and reference -------------------------------------------------------------------------------------------------------

# mean difference of a token's log-prob, two layouts
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 5e-3}


def choose_layout(stage: Stage, measured: list[Measured]) -> None:
    """Joined rows where the attention takes them and the first pair proves them equal; one line says which and why."""
    backbone, _ = stage.host.language_model()
    why = rows.no_joining(backbone.config)
    proof = ""
    if why is None:
        inputs = _inputs(stage, [PairRows(stage.host, measured[:1], [Slot(0, 1.0)], {})[0]])
        with generating(stage.host) as in_step:
            own, joined = (stage.answers(stage.host.trainer.model, inputs, joined, in_step) for joined in (False, True))
        difference = (own.token_log_probs - joined.token_log_probs).abs().sum().item() / own.scored.sum().item()
        allowed = TOLERANCE[_precision(stage)]
        bad = ranks.any_of(not difference <= allowed)
        proof = f"the first pair's log-probs differ by {difference:.1e} a token from two rows, allowed {allowed:.0e}"
        why = proof if bad else None
    stage.joined = why is None
    if ranks.rank() == 0:
        kind = getattr(backbone.config, "_attn_implementation", "eager")
        say(f"DPO rows: chosen and rejected share their prompt and picture ({kind}; {proof})" if stage.joined else f"DPO rows: two a pair: {why}")


def _precision(stage: Stage) -> torch.dtype:
    args = stage.host.trainer.args
    if args.bf16 or args.fp16:
        return torch.bfloat16 if args.bf16 else torch.float16
    return next(p.dtype for p in stage.host.language_model()[1].parameters())


def _inputs(stage: Stage, items: list[dict]) -> dict:
    return stage.host.on_device(collate(stage.host, items))


def reference_log_probs(stage: Stage, measured: list[Measured], slots: list[Slot]) -> dict[str, dict]:
    """Pair id → ``{"chosen", "rejected"}`` log-probs of the model as it is now; what the log holds for these weights is not computed again.

    The batches are those of the training to come, on the ranks that will train on them: the same rows give the same numbers to the
    last bit, and the pictures' features stay where they will be used.
    """
    log, size = stage.log("reference"), stage.division.batch
    layout = [stage.entry, str(_precision(stage)), stage.joined]
    keys = {one.pair.id: digest([one.pair.id, one.text, *layout]) for one in measured}
    held = ranks.agreed(log.held)
    # Every epoch goes through the same pairs: the first appearance of each decides its batch.
    batches, placed = [], set()
    for start in range(0, len(slots), size):
        batch = slots[start : start + size]
        if not {slot.pair for slot in batch} <= placed:
            batches.append(batch)
            placed |= {slot.pair for slot in batch}
    missing = [batch for batch in batches if not {keys[measured[slot.pair].pair.id] for slot in batch} <= held]
    if missing:
        with generating(stage.host) as in_step:
            turns = ranks.rounds(missing)
            for batch, mine in progress(turns, len(turns), "reference", show=ranks.rank() == 0):
                data = PairRows(stage.host, measured, batch, {})
                inputs = _inputs(stage, [data[i] for i in range(len(batch))])
                sums = stage.answers(stage.host.trainer.model, inputs, collective=in_step).sums.tolist()
                if mine:
                    ids = [measured[slot.pair].pair.id for slot in batch]
                    records = {keys[id]: {"id": keys[id], "pair": id, "chosen": c, "rejected": r} for id, c, r in zip(ids, sums, sums[len(ids) :])}
                    log.append(*(record for key, record in records.items() if key not in held))
        ranks.barrier()
    there = log.read()
    return {id: there[key] for id, key in keys.items() if key in there}


# --- the training phase -------------------------------------------------------------------------------------------------------


class DuringTraining(TrainerCallback):
    """What happens between the steps: a dry step before the first, a look at held-out regions every few."""

    def __init__(self, trainer, stage: Stage, steps: int):
        self.trainer, self.stage, self.steps = trainer, stage, steps
        self.collapsed = False

    def on_train_begin(self, args, state, control, **kwargs):
        hand_over(self.trainer, self.stage.host.trainer)  # the host answers by the engine that trains now
        if state.global_step == 0:
            dry_step(self.trainer, self.stage, self.steps)
        self.stage.watch.forget_after(state.global_step)
        if 0 not in self.stage.watch.seen:
            self._look(0, control)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.stage.config.spr_probe_steps == 0 or state.global_step == self.steps:
            self._look(state.global_step, control)

    def _look(self, step, control):
        watch = self.stage.watch
        values = watch.probe(step)
        if not values:
            return
        due = control.should_log  # logging these numbers must not stand for the step's own
        self.trainer.log(values)
        control.should_log = due
        if step and (what := watch.collapsed()):
            if not (self.stage.folder.dpo / "best.json").exists() or not self.stage.config.spr_keep_best:
                refuse_collapse(what, step)
            if ranks.rank() == 0:
                say(f"DPO stops at step {step}: the model stops answering ({what} on held-out regions); the best state before is kept")
            self.collapsed = control.should_training_stop = True


def dry_step(trainer, stage: Stage, steps: int) -> None:
    """Forward and backward of the longest pair at full batch, with weight 0: the memory and the time of what is to come, and no change.

    Raises:
        UserError: it does not fit; the pair is named.
    """
    data = trainer.train_dataset
    longest = max(range(len(data.measured)), key=lambda index: data.measured[index].tokens)
    one = data.measured[longest]
    slots = [Slot(longest, 0.0)] * stage.division.batch
    inputs = _inputs(stage, [PairRows(stage.host, data.measured, slots, data.reference)[i] for i in range(len(slots))])
    model, cuda = trainer.model_wrapped, torch.cuda.is_available()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    try:
        model.train()
        with trainer.compute_loss_context_manager():
            loss = trainer.compute_loss(model, inputs)
        if trainer.args.deepspeed:
            model.set_gradient_accumulation_boundary(False)  # gradients of zero are added up, no step is taken
            model.backward(loss)
        else:
            trainer.accelerator.backward(loss)
            model.zero_grad()
        seconds = time.perf_counter() - start
    except torch.cuda.OutOfMemoryError:
        raise UserError(
            f"the longest pair ({one.pair.id}, {one.tokens} tokens) does not fit into memory at --spr_batch_size {stage.division.batch}: lower it, "
            "raise --spr_gradient_accumulation for it, or add --gradient_checkpointing True"
        ) from None
    stage.seen.clear()
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    states = 8 * sum(weights.numel(p) for p in trainer.model.parameters() if p.requires_grad) / (ranks.world() if trainer.args.deepspeed else 1)
    hours = seconds * stage.division.accumulation * steps / 3600
    if ranks.rank() == 0:
        say(
            f"dry step on the longest pair ({one.pair.id}, {one.tokens} tokens): {seconds:.2f} s, peak {peak / 2**30:.2f} GiB"
            f"{'' if cuda else ' of the process'}, Adam's states take {states / 2**30:.2f} GiB more; forecast: {len(data.measured)} pairs, "
            f"{steps} steps, at most {hours:.2f} h"
        )


def train(stage: Stage, measured: list[Measured], slots: list[Slot], reference: dict[str, dict], checkpoint: Path | None) -> None:
    """Run the steps of the plan with a Trainer of the stage's own, which leaves its engine to the host's, also
    where it fails.

    Raises:
        UserError: the loop ended before the plan, and not for a collapse; what it has done is kept.
    """
    host = stage.host
    steps = len(slots) // stage.division.pairs
    if ranks.rank() == 0:
        say(f"DPO on {len(measured)} pairs in {steps} steps" + (f", going on from {checkpoint.name}" if checkpoint else ""))
        if checkpoint:
            resume.set_batch(checkpoint, stage.division.batch)
    ranks.barrier()
    announce(host, stage.config)
    args = arguments(host.trainer.args, stage.config, stage.division, steps, str(stage.folder.dpo))
    engine.release(host.trainer)
    trainer = PreferenceTrainer(stage, args, PairRows(host, measured, slots, reference))
    during = DuringTraining(trainer, stage, steps)
    trainer.add_callback(during)
    with resume.without_frozen_weights(bool(args.deepspeed)):
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except UserError as error:
            # Of one from a data loader's process torch makes a text of many lines, ours the last.
            raise UserError(str(error).rpartition("UserError: ")[2].strip()) from None
        finally:
            hand_over(trainer, host.trainer)
        if trainer.state.global_step < steps and not during.collapsed:
            trainer.refuse_early_end(steps)
    best = stage.watch.restore_best()
    if best is not None and ranks.rank() == 0:
        say(f"the state of step {best} is kept: {stage.watch.recipe.BEST} on held-out regions was highest there (--spr_keep_best)")


def clean(folder: Folder) -> None:
    """Delete what only resuming needs, once the stage's weights are safe elsewhere."""
    if ranks.rank() == 0:
        for path in [*folder.dpo.glob("checkpoint-*"), folder.dpo / "best"]:
            with contextlib.suppress(UserError):
                remove(path)
