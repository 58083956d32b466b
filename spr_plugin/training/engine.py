"""The live model between two trainings: DeepSpeed's engine let go of or held, and the model made ready to
answer.

Under ZeRO-3 the model answers whole where it fits: gathered once, each rank for itself. Where no device has
the room, an engine's hooks gather it layer by layer at every forward, and all ranks call its modules in step,
so that none waits for one that is done.
"""

import contextlib

import torch

from spr_plugin.progress import say
from spr_plugin.training import ranks, weights
from spr_plugin.training.host import Host

# of the gathered weights, for the keys, values and activations of a batch; a batch that is too much is halved
MARGIN = 0.25


def detach_engine(trainer) -> None:
    """Let go of the wrapper, optimizer and schedule of the training before; a DeepSpeed engine also takes its
    hooks off the model.
    """
    engine = getattr(trainer, "deepspeed", None)
    if engine is not None and hasattr(engine, "destroy"):
        engine.destroy()
    trainer.deepspeed = None
    trainer.model_wrapped = trainer.model
    trainer.optimizer = trainer.lr_scheduler = None


def renew(trainer) -> None:
    """The trainer as it was made: without engine or optimizer, with an Accelerator for its own arguments.
    DeepSpeed's batch sizes and optimizer settings are bound to that, and accelerate keeps them for the
    process.
    """
    from accelerate.state import AcceleratorState

    detach_engine(trainer)
    AcceleratorState._reset_state()
    trainer.create_accelerator_and_postprocess()


def attach_engine(trainer) -> None:
    """Where no training left an engine, what a save or a forward of the host needs in its place.

    Parts of ZeRO-3 would be saved as empty tensors: an engine as transformers makes one to evaluate. Whole
    weights need none, but the
    Trainer would ask it for its settings: it saves and evaluates as without DeepSpeed.
    """
    if getattr(trainer, "deepspeed", None) is not None:
        return
    if not weights.sharded(trainer.model):
        trainer.is_deepspeed_enabled = False
        return
    from transformers.integrations.deepspeed import deepspeed_init

    deepspeed_init(trainer, num_training_steps=0, inference=True)
    trainer.deepspeed = trainer.model_wrapped = trainer.accelerator.prepare(trainer.model)


def to_device(trainer) -> None:
    """Where the host's training was skipped, DeepSpeed has not moved the model yet; ZeRO-3 parts stay where
    they are.
    """
    if not weights.sharded(trainer.model):
        trainer.model.to(trainer.args.device)


@contextlib.contextmanager
def generating(host: Host):
    """The live model ready to answer: in eval mode, under the training's autocast, without gradients.

    Yields whether ranks must call its modules in step, which is so where ZeRO-3's parts stay apart: an engine
    in training holds them, or they do not fit on a device together.
    """
    trainer, model = host.trainer, host.trainer.model
    was_training = model.training
    in_step = weights.sharded(model) and (
        getattr(trainer, "deepspeed", None) is not None or _too_large(trainer)
    )
    model.eval()
    whole = _layer_by_layer(trainer) if in_step else weights.gathered(model.parameters())
    try:
        # Training's autocast is around the model's own forward, which answering does not always go through.
        with torch.no_grad(), whole, trainer.accelerator.autocast():
            yield in_step
    finally:
        model.train(was_training)


@contextlib.contextmanager
def _layer_by_layer(trainer):
    """Inside, an engine's hooks gather each module's weights for its turn: the training's, or those of an
    engine made for this.
    """
    made = getattr(trainer, "deepspeed", None) is None
    attach_engine(trainer)
    weights.forget_order(trainer.deepspeed)
    weights.show_own_types(trainer.model)
    try:
        yield
    finally:
        if made:
            detach_engine(trainer)


def _too_large(trainer) -> bool:
    """Whether some rank's device lacks the room for the whole model; one line gives the figures."""
    free = ranks.from_all(free_bytes(trainer.args.device))
    needed = weights.whole_bytes(trainer.model)
    if None in free or fits(needed, min(free)):
        return False
    if ranks.rank() == 0:
        say(
            f"ZeRO-3: the whole model takes {needed / 2**30:.1f} GiB, and a device has"
            f" {min(free) / 2**30:.1f} GiB free; the ranks answer in step, layer by layer, which takes"
            " several times as long"
        )
    return True


def fits(needed: int, free: int, margin: float = MARGIN) -> bool:
    """Whether weights of ``needed`` bytes can be gathered where ``free`` bytes are, with a share ``margin``
    of them left over for the answering.
    """
    return needed * (1 + margin) <= free


def free_bytes(device: torch.device) -> int | None:
    """What a GPU has left, torch's unused cache included. None elsewhere: how much of a machine's memory is
    ours to take is not known.
    """
    if device.type != "cuda":
        return None
    return (
        torch.cuda.mem_get_info(device)[0]
        + torch.cuda.memory_reserved(device)
        - torch.cuda.memory_allocated(device)
    )
