"""Preference losses by TRL's names, and what one batch of them says.

With policy π, reference π_ref and Δ = log π(y|x) − log π_ref(y|x) of chosen w and rejected l, δ = Δ_w − Δ_l,
label smoothing ε:

    sigmoid  −log σ(βδ)                                     DPO, the SPR paper's
    hinge    max(0, 1 − βδ)                                 SLiC
    ipo      (Δ_w/|y_w| − Δ_l/|y_l| − 1/2β)²                IPO, by length as its authors advise
    robust   (−(1 − ε) log σ(βδ) + ε log σ(−βδ)) / (1 − 2ε) robust DPO
    sigmoid_norm  −log σ(β(Δ_w/|y_w| − Δ_l/|y_l|))          DPO by length
    bco_pair −log σ(βΔ_w) − log σ(−βΔ_l)                    BCO
    nca_pair −log σ(βΔ_w) − ½ log σ(−βΔ_w) − ½ log σ(−βΔ_l) NCA
    apo_zero 1 − σ(βΔ_w) + σ(βΔ_l)                          APO
    sft      −log π(y_w|x) / mean |y_w| of the step         cross-entropy on chosen

and two that TRL does not have:

    dpop     −log σ(β(δ − λ max(0, −Δ_w)))                  Smaug (arXiv 2402.13228): chosen must not fall
    kl_words KL(π_ref ‖ π) a token of words (`word_drift`)  GRPO's estimate (arXiv 2402.03300, equation 4)

MPO (InternVL, arXiv 2411.10442) is sigmoid, bco_pair and sft at the weights 0.8, 0.2 and 1.

All are of log-probs as ``--spr_token_weight`` has tokens count: log π(y|x) = Σ w_t log π(y_t|…), |y| = Σ w_t.

Their mean over the pairs of an optimizer step is the loss; that of sft is −Σ log π(y_w|x) / Σ |y_w|: a mean
over the step's tokens, however its pairs are divided among micro-batches and ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from spr_plugin.dpo.rows import Answers


@dataclass(frozen=True)
class Deltas:
    """What every loss is made of: for B pairs the log-ratios ``(B,)``, log-probs and token counts of both
    answers, both weighted, and the mean token count of the chosen answers of the step that they are part of;
    where a loss is made of it :func:`word_drift`.
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    chosen_log_probs: torch.Tensor
    rejected_log_probs: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor
    mean_chosen_tokens: torch.Tensor
    word_drift: torch.Tensor | None = None

    @property
    def mean_margin(self) -> torch.Tensor:
        """Δ_w/|y_w| − Δ_l/|y_l|."""
        return _mean(self.chosen, self.chosen_tokens) - _mean(self.rejected, self.rejected_tokens)


def _mean(total: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """``total`` over its tokens; 0 where none weighs anything."""
    return total / tokens.clamp(min=torch.finfo(torch.float32).tiny)


def deltas(
    answers: Answers,
    reference: torch.Tensor,
    mean_chosen_tokens: torch.Tensor,
    drift: torch.Tensor | None = None,
) -> Deltas:
    """``answers`` of B pairs against ``reference`` log-probs ``(2B,)``; ``mean_chosen_tokens`` ``(B,)`` as in
    :class:`spr_plugin.dpo.plan.Slot`.
    """
    # Rows are [chosen …, rejected …]: a chunk of two is the two sides.
    ratios = answers.sums - reference
    both = ratios.chunk(2), answers.sums.chunk(2), answers.tokens.chunk(2)
    return Deltas(*(side for pair in both for side in pair), mean_chosen_tokens, drift)  # type: ignore[call-arg]


class LossSettings(NamedTuple):
    """Of the losses: β, ε of robust, λ of dpop."""

    beta: float
    smoothing: float = 0.0
    penalty: float = 50.0


def sigmoid(d: Deltas, s: LossSettings):
    return -F.logsigmoid(s.beta * (d.chosen - d.rejected))


def hinge(d: Deltas, s: LossSettings):
    return torch.relu(1 - s.beta * (d.chosen - d.rejected))


def ipo(d: Deltas, s: LossSettings):
    return (d.mean_margin - 1 / (2 * s.beta)) ** 2


def robust(d: Deltas, s: LossSettings):
    margin = s.beta * (d.chosen - d.rejected)
    right, wrong = -F.logsigmoid(margin), -F.logsigmoid(-margin)
    return ((1 - s.smoothing) * right - s.smoothing * wrong) / (1 - 2 * s.smoothing)


def sigmoid_norm(d: Deltas, s: LossSettings):
    return -F.logsigmoid(s.beta * d.mean_margin)


def bco_pair(d: Deltas, s: LossSettings):
    return -F.logsigmoid(s.beta * d.chosen) - F.logsigmoid(-s.beta * d.rejected)


def nca_pair(d: Deltas, s: LossSettings):
    both = F.logsigmoid(-s.beta * d.chosen) + F.logsigmoid(-s.beta * d.rejected)
    return -F.logsigmoid(s.beta * d.chosen) - 0.5 * both


def apo_zero(d: Deltas, s: LossSettings):
    return 1 - torch.sigmoid(s.beta * d.chosen) + torch.sigmoid(s.beta * d.rejected)


def dpop(d: Deltas, s: LossSettings):
    # max(0, −Δ_w)
    fallen = torch.relu(-d.chosen)
    return -F.logsigmoid(s.beta * (d.chosen - d.rejected - s.penalty * fallen))


def sft(d: Deltas, s: LossSettings):
    return -_mean(d.chosen_log_probs, d.mean_chosen_tokens)


def kl_words(d: Deltas, s: LossSettings):
    return d.word_drift


LOSSES = {
    loss.__name__: loss
    for loss in (
        *(sigmoid, hinge, ipo, robust, sigmoid_norm, bco_pair, nca_pair, apo_zero),
        *(dpop, sft, kl_words),
    )
}


def preference_losses(
    d: Deltas, types: Sequence[str], weights: Sequence[float], settings: LossSettings
) -> torch.Tensor:
    """The weighted sum of losses, ``(B,)``."""
    return sum(weight * LOSSES[name](d, settings) for name, weight in zip(types, weights, strict=True))


def word_drift(
    answers: Answers, coordinates: torch.Tensor, reference: torch.Tensor | None = None
) -> torch.Tensor:
    """How far words have moved from the entry, ``(B,)``: KL(π_ref ‖ π) a token, estimated (k3, Schulman:
    π/π_ref − 1 − log π/π_ref) on the words of both answers, which the entry itself wrote, and their mean. Of
    a pair without any coordinate it is 0: all that such a pair could teach are words.

    Args:
        coordinates: bool, of each scored token of ``answers``, row by row.
        reference: their log-probs by the entry; None for those of now, from which nothing has moved.
    """
    entry = answers.token_log_probs.detach() if reference is None else answers.spread(reference)
    told = answers.spread(coordinates)
    beside = told.any(1).view(2, -1).any(0)
    words = answers.scored & ~told & beside.repeat(2)[:, None]
    # 0 where no word is, and expm1(0) − 0 = 0: those tokens add nothing.
    moved = (answers.token_log_probs - entry) * words
    # (2B, T) → (2, B) → (B,): an answer's tokens, then both answers of a pair.
    drift, counts = (part.sum(1).view(2, -1).sum(0) for part in (torch.expm1(moved) - moved, words))
    return drift / counts.clamp(min=1)


@torch.no_grad()
def metrics(d: Deltas, beta: float) -> dict[str, torch.Tensor]:
    """TRL's names → ``(B,)`` values, and ``kl``: log π_ref − log π of the rejected answers, whose mean over
    what the reference writes is KL(π_ref ‖ π) in nats an answer. They are its worst, so that this is a sign
    of drift more than a measure of it. An estimate that is never negative, as k3, holds e to the power of an
    answer's whole change, and one answer drowns all others.
    """
    return {
        "rewards/chosen": beta * d.chosen,
        "rewards/rejected": beta * d.rejected,
        "rewards/margins": beta * (d.chosen - d.rejected),
        "rewards/accuracies": (d.chosen > d.rejected).float(),
        "logps/chosen": d.chosen_log_probs,
        "logps/rejected": d.rejected_log_probs,
        "kl": -d.rejected,
    } | ({} if d.word_drift is None else {"kl_words": d.word_drift})
