"""What ``trainer.train()`` does with ``--spr``: the host's training, then the stage on the live model.

Whatever becomes of the stage must not cost the host's training: where it fails, the model goes back to what
it was at the stage's entry, and the host's own code goes on to save it.
"""

import contextlib
import time
import traceback
import weakref
from dataclasses import dataclass

from spr_plugin import dpo
from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.files import write_json
from spr_plugin.opening import Round, find_host, open_run, refuse_impossible
from spr_plugin.pipeline import during, run_rounds
from spr_plugin.plugins import load_file
from spr_plugin.runs.layout import Folder
from spr_plugin.training import engine, entry, ranks, weights


@dataclass(frozen=True)
class Outcome:
    """What one ``trainer.train()`` came to.

    Attributes:
        result: what the host's ``train()`` gave.
        followed: whether the SPR stage was to follow this training.
        failure: why it did not to its end, in one line; the model is then the host's, and its own code goes
            on.
    """

    result: object
    followed: bool = True
    failure: str | None = None


# trainers that the stage has used → the optimizer and schedule that they were made with, if with any
_used = weakref.WeakKeyDictionary()


def train(trainer, config: SPRConfig, namespace: dict, host_train) -> Outcome:
    """The host's training (unless done before), then the SPR stage on the live model.

    Args:
        trainer: the host's Trainer.
        namespace: globals of the host's training script.
        host_train: runs the host's own ``train()``.

    Raises:
        UserError: before the host trains, for whatever can be known then. After that, only where nothing can
            be saved: one rank of several fails, or ``--spr_only`` has no training to lose.
    """
    for path in config.spr_plugin:
        load_file(path)
    refuse_impossible(trainer)
    host = find_host(trainer, namespace, config)
    if not (config.spr_only or dpo.trains_language_model(host)):
        ranks.say(
            "this train() moves nothing of the language model: the SPR stage follows the first one that does"
        )
        return Outcome(host_train(), followed=False)
    training = entry.training_of(trainer, config)
    entered = not config.spr_overwrite and entry.is_end_of(Folder.under(trainer.args.output_dir), training)
    _used[trainer] = trainer.optimizer, trainer.lr_scheduler
    first, queries = open_run(host, config)
    if entered:
        entry.load(trainer, first.folder)
        ranks.say("the host's training is done already: its weights were read from spr/entry")
    result = None if entered or config.spr_only else host_train()
    result = result or _nothing_trained(trainer)
    own_flags = entry.requires_grad(trainer.model)
    try:
        if not entered:
            with during("entry"):
                entry.save(host, config, first.folder, training)
        last = run_rounds(first, queries)
        write_exit(last, first.folder.exit)
    except BaseException as error:  # whatever it is, it must not cost the host's training
        interrupted = isinstance(error, KeyboardInterrupt)
        failure = None if interrupted else write_failure(first.folder, error)
        together = ranks.world() == 1 or (not interrupted and ranks.all_arrive("failed"))
        if together:
            entry.go_back(host, first.folder, own_flags)
        if interrupted or config.spr_only or not together:
            raise
        if not isinstance(error, UserError):
            traceback.print_exception(error)
        ranks.say(failure or "the SPR stage failed")
        ranks.say(
            "the model is as the host has trained it, and the host goes on to save it; the same command takes"
            " the stage up again from spr/entry, and with --spr_only the saved model starts one with other"
            " flags"
        )
        return Outcome(result, failure=failure)
    return Outcome(result)


def train_after(trainer, config: SPRConfig, namespace: dict, host_train) -> Outcome:
    """A ``trainer.train()`` of a process in which the stage has followed an earlier one: the host's own, as
    if the stage had never been.
    """
    ranks.say(
        "the SPR stage has followed an earlier train() of this process; this one is the host's own, and SPR"
        " does not follow it again"
    )
    if trainer in _used:
        engine.renew(trainer)
        trainer.optimizer, trainer.lr_scheduler = _used[trainer]
    return Outcome(host_train(), followed=False)


def write_exit(last: Round, path) -> None:
    """Hashes of the weights that the host is about to save."""
    trainer = last.host.trainer
    live = weights.digests(trainer.model, sorted(weights.trainable(trainer.model)))
    if ranks.rank() == 0:
        write_json(path, {"engine": type(trainer.model_wrapped).__name__, "weights": live})
    ranks.barrier()


def write_failure(folder: Folder, error: BaseException) -> str:
    """Write ``spr/failed.json``; what is said of it, in one line."""
    stage, why = getattr(error, "spr_stage", "stage"), " ".join(str(error).split()) or type(error).__name__
    record = {"stage": stage, "error": why, "rank": ranks.rank(), "time": time.strftime("%Y-%m-%d %H:%M:%S")}
    with contextlib.suppress(UserError):  # a full disk is what may have been the failure
        write_json(folder.failed, record)
    return f"the SPR stage failed ({stage}): {why}"


def _nothing_trained(trainer):
    from transformers.trainer_utils import TrainOutput

    return TrainOutput(trainer.state.global_step, 0.0, {})
