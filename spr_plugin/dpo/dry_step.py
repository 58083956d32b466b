"""The longest pair at full batch before the first step: the memory and the time of what is to come."""

import torch

from spr_plugin import forecast
from spr_plugin.dpo.pairs import Measured, PairRows
from spr_plugin.dpo.plan import Slot
from spr_plugin.dpo.stage import Stage, inputs_of
from spr_plugin.errors import UserError
from spr_plugin.forecast import Plan, Shape
from spr_plugin.progress import say
from spr_plugin.training import ranks
from spr_plugin.training.cost import Cost, measured
from spr_plugin.training.shapes import plan_of, shape_of


def dry_step(trainer, stage: Stage, steps: int) -> Cost:
    """Forward and backward of the longest pair at full batch, with weight 0: the memory and the time of what
    is to come, and no change.

    Raises:
        UserError: it does not fit; the pair is named.
    """
    data = trainer.train_dataset
    longest = max(range(len(data.measured)), key=lambda index: data.measured[index].tokens)
    one = data.measured[longest]
    # Weight 0: gradients of zero, in tensors of their full size.
    slots = [Slot(longest, 0.0, one.chosen_tokens)] * stage.division.batch
    inputs = inputs_of(
        stage, [PairRows(stage.host, data.measured, slots, data.reference)[i] for i in range(len(slots))]
    )
    model = trainer.model_wrapped
    try:
        with measured() as cost:
            model.train()
            with trainer.compute_loss_context_manager():
                loss = trainer.compute_loss(model, inputs)
            if trainer.args.deepspeed:
                # Gradients of zero are added up, no step is taken.
                model.set_gradient_accumulation_boundary(False)
                model.backward(loss)
            else:
                trainer.accelerator.backward(loss)
                model.zero_grad()
    except torch.cuda.OutOfMemoryError:
        raise UserError(
            f"the longest pair ({one.pair.id}, {one.tokens} tokens) does not fit into memory at"
            f" --spr_batch_size {stage.division.batch}: lower it, raise --spr_gradient_accumulation for it,"
            " or add --gradient_checkpointing True"
        ) from None
    # The dry step's numbers are of no step.
    trainer.logbook.forget()
    hours = cost.seconds * stage.division.accumulation * steps / 3600
    if ranks.rank() == 0:
        say(
            f"dry step on the longest pair ({one.pair.id}, {one.tokens} tokens): {cost}; forecast:"
            f" {len(data.measured)} pairs, {steps} steps, at most {hours:.2f} h; {_told(stage, one)}"
        )
    return cost


def _told(stage: Stage, longest: Measured) -> str:
    """What the stage holds by its shapes, in a line; a model that cannot be read so loses nothing else."""
    try:
        shape, plan = _foreseen(stage, longest)
        stages, states = forecast.memory(shape, plan), forecast.states(shape, plan)
    except (AttributeError, ArithmeticError, TypeError, ValueError) as error:  # its configuration is foreign
        return f"no forecast of memory ({type(error).__name__}: {error})"
    training, answering, adam = (size / 2**30 for size in (stages["dpo"], stages["probe"], states))
    return (
        f"by the model's shapes {training:.2f} GiB, {adam:.2f} of them Adam's states, and"
        f" {answering:.2f} GiB in a look at held-out queries"
    )


def _foreseen(stage: Stage, longest: Measured) -> tuple[Shape, Plan]:
    """The stage in numbers; what it holds is counted as if each of its pairs had the longest one's size."""
    host, config, pair = stage.host, stage.config, longest.pair
    shape = shape_of(host)
    rows = [host.row(pair.pictures, pair.prompt, text) for text in (pair.chosen, pair.rejected)]
    answered = {"prompts": config.spr_sample_batch, "samples": 1, "new_tokens": config.spr_max_new_tokens}
    kept = {"pictures": len(stage.cache.kept), "cache": stage.cache.budget}
    watched = min(len(stage.watch.queries), config.spr_sample_batch)
    of_flags = {"pairs": stage.division.batch, "probes": watched, "joined": stage.joined, **answered, **kept}
    return shape, plan_of(host, shape, rows, **of_flags)
