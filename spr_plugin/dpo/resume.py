"""Checkpoints of the stage: what trains, the optimizer, and where in the plan the run was.

They lie in ``OUTPUT_DIR/spr/dpo/checkpoint-STEP``, where the host's own resume does not look, and count only
once ``complete.json`` is in them.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from spr_plugin.errors import UserError
from spr_plugin.files import read_json, remove, write_json
from spr_plugin.training import ranks

MARK = "complete.json"


@dataclass(frozen=True)
class Division:
    """How the pairs of one optimizer step are divided: ``batch`` at a time, ``accumulation`` times, on
    ``world`` ranks.
    """

    batch: int
    accumulation: int
    world: int

    @property
    def pairs(self) -> int:
        return self.batch * self.accumulation * self.world


def divided(was: Division, world: int, sharded: bool) -> Division:
    """The same steps on ``world`` ranks. UserError where the optimizer is in as many parts as there were
    ranks, or the pairs do not go round.
    """
    if was.world == world:
        return was
    restart = "or start the DPO stage over with --spr_restart_dpo"
    if sharded:
        raise UserError(
            f"the DPO stage was left by {was.world} ranks, and DeepSpeed ZeRO cannot go on with {world}:"
            f" start {was.world} again, {restart}"
        )
    if was.pairs % world:
        raise UserError(
            f"the DPO stage was left with {was.pairs} pairs a step, which {world} ranks cannot share: start"
            f" {was.world} ranks again, {restart}"
        )
    share = was.pairs // world
    # The largest micro-batch not above the old one that divides the share: no more memory than before.
    batch = max(size for size in range(1, was.batch + 1) if share % size == 0)
    return Division(batch, share // batch, world)


def finish(checkpoint: Path, division: Division) -> None:
    """Mark a checkpoint that every rank has written as complete, and delete those before it."""
    ranks.barrier()
    if ranks.rank() == 0:
        write_json(checkpoint / MARK, vars(division))
        for other in checkpoint.parent.glob("checkpoint-*"):
            if other != checkpoint:
                with contextlib.suppress(UserError):  # room is no reason to stop
                    remove(other)
    ranks.barrier()


def latest(directory: Path) -> tuple[Path, Division] | None:
    """The complete checkpoint of the stage with the most steps."""
    checkpoints = {
        path: division for path in Path(directory).glob("checkpoint-*") if (division := _marked(path))
    }
    # By number: as text, checkpoint-9 comes after checkpoint-10.
    return max(checkpoints.items(), key=lambda item: int(item[0].name.rpartition("-")[2]), default=None)


def _marked(checkpoint: Path) -> Division | None:
    """How the steps of a complete checkpoint were divided; None for one that is not, or whose mark is
    damaged.
    """
    try:
        division = Division(**read_json(checkpoint / MARK))
    except (UserError, TypeError):
        return None
    # type, as True is an int too.
    whole = all(type(value) is int and value > 0 for value in vars(division).values())
    return division if whole and checkpoint.name.rpartition("-")[2].isdecimal() else None


def discard_torn(directory: Path) -> None:
    """Delete checkpoints that a death left half written."""
    # Also the Trainer's own drafts, tmp-checkpoint-STEP.
    for path in Path(directory).glob("*checkpoint-*"):
        if _marked(path) is None:
            remove(path)


def set_batch(checkpoint: Path, batch: int) -> None:
    """The Trainer believes its state file about the batch size more than its arguments."""
    path = checkpoint / "trainer_state.json"
    state = read_json(path)
    if not isinstance(state, dict):
        raise UserError(
            f"{path} is damaged: remove {checkpoint}, and the same command goes on from before it"
        )
    if state.get("train_batch_size") not in (None, batch):
        write_json(path, {**state, "train_batch_size": batch})


@contextlib.contextmanager
def without_frozen_weights(deepspeed: bool):
    """Inside, a DeepSpeed engine writes and reads what trains and no more: 13 GB of frozen weights a
    checkpoint would be nothing to resume from.
    """
    if not deepspeed:
        yield
        return
    from deepspeed import DeepSpeedEngine

    save, load = DeepSpeedEngine.save_checkpoint, DeepSpeedEngine.load_checkpoint
    DeepSpeedEngine.save_checkpoint = lambda self, *args, **kwargs: save(
        self, *args, **{**kwargs, "exclude_frozen_parameters": True}
    )
    DeepSpeedEngine.load_checkpoint = lambda self, *args, **kwargs: load(
        self, *args, **{**kwargs, "load_module_strict": False}
    )
    try:
        yield
    finally:
        DeepSpeedEngine.save_checkpoint, DeepSpeedEngine.load_checkpoint = save, load
