"""The stage in the order of what happens: row layout, reference log-probs, training with a look at held-out
regions between the steps."""

import contextlib
from pathlib import Path

from transformers import TrainerCallback

from spr_plugin.config import SPRConfig
from spr_plugin.dpo import resume
from spr_plugin.dpo.dry_step import dry_step
from spr_plugin.dpo.features import FeatureCache
from spr_plugin.dpo.pairs import Measured, PairRows, measure_lengths
from spr_plugin.dpo.plan import Slot, slot_plan
from spr_plugin.dpo.probe import Watch, refuse_collapse
from spr_plugin.dpo.reference import reference_log_probs
from spr_plugin.dpo.resume import Division
from spr_plugin.dpo.stage import Stage, choose_layout
from spr_plugin.dpo.trainer import PreferenceTrainer, arguments, hand_over
from spr_plugin.errors import UserError
from spr_plugin.files import remove
from spr_plugin.pairing import PreferencePair
from spr_plugin.progress import say
from spr_plugin.recipes.base import Query, Recipe
from spr_plugin.runs.layout import Folder
from spr_plugin.training import engine, ranks
from spr_plugin.training.host import Host
from spr_plugin.training.trainable import announce, dropout_off


def improve(
    host: Host,
    recipe: Recipe,
    pairs: list[PreferencePair],
    watched: list[Query],
    config: SPRConfig,
    folder: Folder,
    entry: str,
) -> None:
    """The whole stage on the live model, whose trainable parameters were chosen: lengths, reference
    log-probs, training.

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
    checkpoint = ranks.from_rank_0(lambda: resume.latest(directory))
    if checkpoint is not None:
        division = resume.divided(checkpoint[1], ranks.world(), sharded=bool(host.trainer.args.deepspeed))
    cache = FeatureCache(int(config.spr_feature_cache * 2**30))
    stage = Stage(
        host, config, folder, entry, cache, Watch(host, recipe, watched, config, directory), division
    )
    measured = measure_lengths(host, pairs, config, stage.log("lengths"))
    slots = slot_plan(
        [one.tokens for one in measured],
        [one.chosen_tokens for one in measured],
        epochs=config.spr_epochs,
        seed=config.spr_seed,
        **vars(division),
    )
    with dropout_off(host.trainer.model):
        choose_layout(stage, measured)
        reference = reference_log_probs(stage, measured, slots)
        train(stage, measured, slots, reference, checkpoint and checkpoint[0])


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
                say(
                    f"DPO stops at step {step}: the model stops answering ({what} on held-out regions); the"
                    " best state before is kept"
                )
            self.collapsed = control.should_training_stop = True


def train(
    stage: Stage,
    measured: list[Measured],
    slots: list[Slot],
    reference: dict[str, dict],
    checkpoint: Path | None,
) -> None:
    """Run the steps of the plan with a Trainer of the stage's own, which leaves its engine to the host's,
    also where it fails.

    Raises:
        UserError: the loop ended before the plan, and not for a collapse; what it has done is kept.
    """
    host = stage.host
    steps = len(slots) // stage.division.pairs
    if ranks.rank() == 0:
        say(
            f"DPO on {len(measured)} pairs in {steps} steps"
            + (f", going on from {checkpoint.name}" if checkpoint else "")
        )
        if checkpoint:
            resume.set_batch(checkpoint, stage.division.batch)
    ranks.barrier()
    announce(host, stage.config)
    args = arguments(host.trainer.args, stage.config, stage.division, steps, str(stage.folder.dpo))
    engine.detach_engine(host.trainer)
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
        say(
            f"the state of step {best} is kept: {stage.watch.recipe.BEST} on held-out regions was highest"
            " there (--spr_keep_best)"
        )


def clean(folder: Folder) -> None:
    """Delete what only resuming needs, once the stage's weights are safe elsewhere."""
    if ranks.rank() == 0:
        for path in [*folder.dpo.glob("checkpoint-*"), folder.dpo / "best"]:
            with contextlib.suppress(UserError):
                remove(path)
