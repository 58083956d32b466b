"""DPO on the host's model, by a Trainer of the stage's own.

    L = − E [ log σ( β log π(y_w|x)/π_ref(y_w|x) − β log π(y_l|x)/π_ref(y_l|x) ) ]        (SPR paper, stage 4)

The reference is the model as it enters the stage: its log-probs are computed once per pair, before anything
moves, by the same forward and row layout as the policy's. In order: ``rehearsal`` (before anything trains),
``pairs`` (lengths, rows), ``token_kinds`` (words and coordinates), ``plan`` (which pair in which step),
``stage`` (what the steps share), ``rows``, ``head`` (log-probs), ``features`` (pictures, once),
``reference``, ``dry_step``, ``loss``, ``trainer`` (transformers' loop on them), ``phase`` (all in their
order), ``probe`` (is the model still answering), ``logbook`` and ``shown`` (what is logged and reported of
it), ``resume`` (after a death).
"""

from spr_plugin.dpo.phase import clean, improve, try_step
from spr_plugin.dpo.probe import held_out
from spr_plugin.dpo.trainer import check_settings, check_workers
from spr_plugin.training.trainable import (
    check_trainable,
    choose_trainable,
    merge_adapter,
    trains_language_model,
)

__all__ = [
    "check_settings",
    "check_trainable",
    "check_workers",
    "choose_trainable",
    "clean",
    "held_out",
    "improve",
    "merge_adapter",
    "trains_language_model",
    "try_step",
]
