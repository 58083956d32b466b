"""The longest pair at full batch before the first step: the memory and the time of what is to come."""

import torch

from spr_plugin.dpo.pairs import PairRows
from spr_plugin.dpo.plan import Slot
from spr_plugin.dpo.stage import Stage, inputs_of
from spr_plugin.errors import UserError
from spr_plugin.progress import say
from spr_plugin.training import ranks, weights
from spr_plugin.training.cost import Cost, measured


def dry_step(trainer, stage: Stage, steps: int) -> Cost:
    """Forward and backward of the longest pair at full batch, with weight 0: the memory and the time of what
    is to come, and no change.

    Raises:
        UserError: it does not fit; the pair is named.
    """
    data = trainer.train_dataset
    longest = max(range(len(data.measured)), key=lambda index: data.measured[index].tokens)
    one = data.measured[longest]
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
    trainer.logbook.forget()
    states = (
        8
        * sum(weights.numel(p) for p in trainer.model.parameters() if p.requires_grad)
        / (ranks.world() if trainer.args.deepspeed else 1)
    )
    hours = cost.seconds * stage.division.accumulation * steps / 3600
    if ranks.rank() == 0:
        say(
            f"dry step on the longest pair ({one.pair.id}, {one.tokens} tokens): {cost}, Adam's states take"
            f" {states / 2**30:.2f} GiB more; forecast: {len(data.measured)} pairs, {steps} steps, at most"
            f" {hours:.2f} h"
        )
    return cost
