"""The stage in the order of what happens: row layout, reference log-probs, training with a look at held-out
queries between the steps."""

import contextlib
from pathlib import Path

from transformers import TrainerCallback

from spr_plugin.config.dpo import DPOFlags
from spr_plugin.dpo import resume
from spr_plugin.dpo.dry_step import dry_step
from spr_plugin.dpo.features import FeatureCache
from spr_plugin.dpo.logbook import Logbook
from spr_plugin.dpo.pairs import Measured, PairRows, measure_lengths
from spr_plugin.dpo.plan import Slot, slot_plan
from spr_plugin.dpo.probe import Watch, refuse_collapse
from spr_plugin.dpo.reference import reference_log_probs
from spr_plugin.dpo.resume import Division
from spr_plugin.dpo.shown import show_answers
from spr_plugin.dpo.stage import Stage, choose_layout
from spr_plugin.dpo.trainer import PreferenceTrainer, arguments, hand_over
from spr_plugin.errors import UserError
from spr_plugin.files import remove
from spr_plugin.pairing import PreferencePair
from spr_plugin.progress import Progress, say
from spr_plugin.recipes.base import Query, Recipe
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.steps import PROBE, StepLog, probes_of
from spr_plugin.training import engine, ranks
from spr_plugin.training.cost import Cost
from spr_plugin.training.host import Host
from spr_plugin.training.trainable import announce, choose_trainable, dropout_off


def improve(
    host: Host,
    recipe: Recipe,
    pairs: list[PreferencePair],
    watched: list[Query],
    config: DPOFlags,
    folder: Folder,
    entry: str,
    before: int = 0,
) -> None:
    """The whole stage on the live model, whose trainable parameters were chosen: lengths, reference
    log-probs, training.

    Args:
        watched: queries that the pairs do not come from, to see whether the model still answers.
        folder: the round's.
        entry: hash of the weights as they are now.
        before: steps that led to them, for the log.
    """
    directory = folder.dpo
    division = Division(config.spr_batch_size, config.spr_gradient_accumulation, ranks.world())
    if ranks.rank() == 0:
        resume.discard_torn(directory)
    ranks.barrier()
    checkpoint = ranks.from_rank_0(lambda: resume.latest(directory))
    if checkpoint is not None:
        division = resume.divided(checkpoint[1], ranks.world(), sharded=bool(host.trainer.args.deepspeed))
    stage = _stage(host, recipe, watched, config, folder, entry, division)
    measured, slots = _planned(stage, pairs)
    with dropout_off(host.trainer.model):
        choose_layout(stage, measured)
        reference = reference_log_probs(stage, measured, slots)
        logbook = Logbook(StepLog(folder), before, slots, len(measured), division.pairs)
        train(stage, PairRows(host, measured, slots, reference), logbook, checkpoint and checkpoint[0])


def _stage(
    host: Host,
    recipe: Recipe,
    watched: list[Query],
    config: DPOFlags,
    folder: Folder,
    entry: str,
    division: Division,
) -> Stage:
    cache = FeatureCache(int(config.spr_feature_cache * 2**30))
    seen = probes_of(ranks.from_rank_0(StepLog(folder).read))
    watch = Watch(host, recipe, watched, config, folder.dpo, seen)
    return Stage(host, config, folder, entry, cache, watch, division)


def _planned(stage: Stage, pairs: list[PreferencePair]) -> tuple[list[Measured], list[Slot]]:
    """The pairs that fit, with their lengths, and in which step each is."""
    config = stage.config
    measured = measure_lengths(stage.host, pairs, config, stage.log("lengths"))
    slots = slot_plan(
        [one.tokens for one in measured],
        [one.chosen_tokens for one in measured],
        epochs=config.spr_epochs,
        seed=config.spr_seed,
        **vars(stage.division),
    )
    return measured, slots


def try_step(
    host: Host, recipe: Recipe, pairs: list[PreferencePair], config: DPOFlags, folder: Folder
) -> Cost:
    """The stage up to its dry step on these pairs, and no further: no weight moves. The live model keeps the
    adapter and the engine that were made for it.

    Raises:
        UserError: what the stage itself would raise by then.
    """
    choose_trainable(host, config)
    division = Division(config.spr_batch_size, config.spr_gradient_accumulation, ranks.world())
    stage = _stage(host, recipe, [], config, folder, "", division)
    measured, slots = _planned(stage, pairs)
    with dropout_off(host.trainer.model):
        choose_layout(stage, measured)
        logbook = Logbook(StepLog(folder), 0, slots, len(measured), division.pairs)
        data = PairRows(host, measured, slots, {})
        trainer, _ = _trainer(stage, data, logbook, show=False)
        only = OnlyDryStep(trainer, stage, _steps(stage, data))
        trainer.callback_handler.callbacks[:] = [only]  # what reports would begin a report
        with contextlib.suppress(DryStepDone):
            trainer.train()
    return only.cost


class DryStepDone(Exception):
    """The dry step is made: the loop is left before its first step."""


class OnlyDryStep(TrainerCallback):
    """A dry step, and no training."""

    def __init__(self, trainer, stage: Stage, steps: int):
        self.trainer, self.stage, self.steps = trainer, stage, steps
        self.cost = Cost()

    def on_train_begin(self, args, state, control, **kwargs):
        hand_over(self.trainer, self.stage.host.trainer)
        self.cost = dry_step(self.trainer, self.stage, self.steps)
        raise DryStepDone


class DuringTraining(TrainerCallback):
    """What happens between the steps: a dry step before the first, a look at held-out queries every few."""

    def __init__(self, trainer, stage: Stage, steps: int, progress: Progress):
        self.trainer, self.stage, self.steps, self.progress = trainer, stage, steps, progress
        self.collapsed = False

    def on_train_begin(self, args, state, control, **kwargs):
        hand_over(self.trainer, self.stage.host.trainer)  # the host answers by the engine that trains now
        # A run that goes on has shown before that the longest pair fits.
        if state.global_step == 0:
            dry_step(self.trainer, self.stage, self.steps)
        self.stage.watch.forget_after(state.global_step)
        if ranks.rank() == 0:
            self.trainer.logbook.log.go_on_after(state.global_step, self.steps)
        if 0 not in self.stage.watch.seen:
            self._log(0, True, control)

    def on_step_end(self, args, state, control, **kwargs):
        step = state.global_step
        self._log(step, step % self.stage.config.spr_probe_steps == 0 or step == self.steps, control)

    def _log(self, step, look, control):
        watch = self.stage.watch
        values = watch.probe(step) if look else {}
        means = self.trainer.logbook.write(step, values)
        if means:
            self.progress.to(step, f"loss {means['loss']:.4g}, margins {means['rewards/margins']:.4g}")
        if not values:
            return
        due = control.should_log  # logging these numbers must not stand for the step's own
        self.trainer.log({PROBE + name: value for name, value in values.items()})
        control.should_log = due
        if ranks.rank() == 0:
            state = self.trainer.logbook.reported(self.trainer.state)
            show_answers(
                self.trainer.callback_handler.callbacks, watch.recipe, watch.queries, watch.texts, state
            )
        if step and (what := watch.collapsed()):
            if not (self.stage.folder.dpo / "best.json").exists() or not self.stage.config.spr_keep_best:
                refuse_collapse(what, step)
            if ranks.rank() == 0:
                say(
                    f"DPO stops at step {step}: the model stops answering ({what} on held-out queries); the"
                    " best state before is kept"
                )
            self.collapsed = control.should_training_stop = True


def train(stage: Stage, data: PairRows, logbook: Logbook, checkpoint: Path | None) -> None:
    """Run the steps of the plan with a Trainer of the stage's own, which leaves its engine to the host's,
    also where it fails.

    Raises:
        UserError: the loop ended before the plan, and not for a collapse; what it has done is kept.
    """
    steps = _steps(stage, data)
    if ranks.rank() == 0:
        say(
            f"DPO on {len(data.measured)} pairs in {steps} steps"
            + (f", going on from {checkpoint.name}" if checkpoint else "")
        )
        if checkpoint:
            resume.set_batch(checkpoint, stage.division.batch)
    ranks.barrier()
    # checkpoint-STEP
    done = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    trainer, progress = _trainer(stage, data, logbook, done)
    during = DuringTraining(trainer, stage, steps, progress)
    trainer.add_callback(during)
    with resume.without_frozen_weights(bool(trainer.args.deepspeed)):
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except UserError as error:
            # Of one from a data loader's process torch makes a text of many lines, ours the last.
            raise UserError(str(error).rpartition("UserError: ")[2].strip()) from None
        finally:
            progress.close()
            hand_over(trainer, stage.host.trainer)
        if trainer.state.global_step < steps and not during.collapsed:
            trainer.refuse_early_end(steps)
    best = stage.watch.restore_best()
    if best is not None and ranks.rank() == 0:
        say(
            f"the state of step {best} is kept: {stage.watch.recipe.BEST} on held-out queries was highest"
            " there (--spr_keep_best)"
        )


def _steps(stage: Stage, data: PairRows) -> int:
    return len(data) // stage.division.pairs


def _trainer(
    stage: Stage, data: PairRows, logbook: Logbook, done: int = 0, show: bool = True
) -> tuple[PreferenceTrainer, Progress]:
    """The stage's own, in the place of the host's engine, and what shows how far it is: ``done`` steps."""
    host, config, steps = stage.host, stage.config, _steps(stage, data)
    announce(host, config)
    args = arguments(host.trainer.args, config, stage.division, steps, str(stage.folder.dpo))
    engine.detach_engine(host.trainer)
    progress = Progress("DPO", steps, done, show=show and ranks.rank() == 0, bars=not args.disable_tqdm)
    return PreferenceTrainer(stage, args, data, logbook, progress), progress


def clean(folder: Folder) -> None:
    """Delete what only resuming needs, once the stage's weights are safe elsewhere."""
    if ranks.rank() == 0:
        for path in [*folder.dpo.glob("checkpoint-*"), folder.dpo / "best"]:
            with contextlib.suppress(UserError):
                remove(path)
