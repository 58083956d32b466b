"""Stage 4: DPO on the host's model, by a Trainer of the stage's own.

    L = − E [ log σ( β log π(y_w|x)/π_ref(y_w|x) − β log π(y_l|x)/π_ref(y_l|x) ) ]        (SPR paper, stage 4)

The reference is the model as it enters the stage: its log-probs are computed once per pair, before anything
moves, by the same forward
and row layout as the policy's. In the order of what happens: ``trainable`` (what moves), ``pairs`` (lengths,
rows, reference), ``plan`` (which pair in which step), ``rows`` and ``head`` (log-probs), ``features``
(pictures, once), ``loss``, ``trainer`` (transformers' loop on them), ``phase`` (the stage in its order),
``probe`` (is the model still answering), ``resume`` (after a death).
"""

from spr_plugin.dpo.phase import clean, improve
from spr_plugin.dpo.probe import held_out
from spr_plugin.dpo.trainer import check_workers
from spr_plugin.training.trainable import (
    check_trainable,
    choose_trainable,
    merge_adapter,
    projector,
    remove_adapter,
    trains_language_model,
)

__all__ = [
    "check_trainable",
    "check_workers",
    "choose_trainable",
    "clean",
    "held_out",
    "improve",
    "merge_adapter",
    "projector",
    "remove_adapter",
    "trains_language_model",
]
