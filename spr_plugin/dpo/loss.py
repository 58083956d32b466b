"""Preference losses by TRL's names, and what one batch of them says.

With policy π, reference π_ref and Δ = log π(y|x) − log π_ref(y|x) of chosen w and rejected l, δ = Δ_w − Δ_l,
label smoothing ε:

    sigmoid  −log σ(βδ)                                     DPO, the SPR paper's
    hinge    max(0, 1 − βδ)                                 SLiC
    ipo      (Δ_w/|y_w| − Δ_l/|y_l| − 1/2β)²                IPO, by length as its authors advise
    robust   (−(1 − ε) log σ(βδ) + ε log σ(−βδ)) / (1 − 2ε  robust DPO
    sft      −log π(y_w|x) / mean |y_w| of the step         cross-entropy on chosen

All are of log-probs as ``--spr_token_weight`` has tokens count: log π(y|x) = Σ w_t log π(y_t|…), |y| = Σ w_t.

Their mean over the pairs of an optimizer step is the loss; that of sft is −Σ log π(y_w|x) / Σ |y_w|: a mean
over the step's tokens, however its pairs are divided among micro-batches and ranks.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from spr_plugin.dpo.rows import Answers


@dataclass(frozen=True)
class Deltas:
    """What every loss is made of: for B pairs the log-ratios ``(B,)``, log-probs and token counts of both
    answers, both weighted, and the mean token count of the chosen answers of the step that they are part of.
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    chosen_log_probs: torch.Tensor
    rejected_log_probs: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor
    mean_chosen_tokens: torch.Tensor

    @property
    def mean_margin(self) -> torch.Tensor:
        """Δ_w/|y_w| − Δ_l/|y_l|."""
        return _mean(self.chosen, self.chosen_tokens) - _mean(self.rejected, self.rejected_tokens)


def _mean(total: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """``total`` over its tokens; 0 where none weighs anything."""
    return total / tokens.clamp(min=torch.finfo(torch.float32).tiny)


def deltas(answers: Answers, reference: torch.Tensor, mean_chosen_tokens: torch.Tensor) -> Deltas:
    """``answers`` of B pairs against ``reference`` log-probs ``(2B,)``; ``mean_chosen_tokens`` ``(B,)`` as in
    :class:`spr_plugin.dpo.plan.Slot`.
    """
    ratios = answers.sums - reference
    both = ratios.chunk(2), answers.sums.chunk(2), answers.tokens.chunk(2)
    return Deltas(*(side for pair in both for side in pair), mean_chosen_tokens)  # type: ignore[call-arg]


def sigmoid(d: Deltas, beta: float, smoothing: float):
    return -F.logsigmoid(beta * (d.chosen - d.rejected))


def hinge(d: Deltas, beta: float, smoothing: float):
    return torch.relu(1 - beta * (d.chosen - d.rejected))


def ipo(d: Deltas, beta: float, smoothing: float):
    return (d.mean_margin - 1 / (2 * beta)) ** 2


def robust(d: Deltas, beta: float, smoothing: float):
    margin = beta * (d.chosen - d.rejected)
    return (-(1 - smoothing) * F.logsigmoid(margin) + smoothing * F.logsigmoid(-margin)) / (1 - 2 * smoothing)


def sft(d: Deltas, beta: float, smoothing: float):
    return -_mean(d.chosen_log_probs, d.mean_chosen_tokens)


LOSSES = {loss.__name__: loss for loss in (sigmoid, hinge, ipo, robust, sft)}


def preference_losses(
    d: Deltas, types: list[str], weights: list[float], beta: float, smoothing: float
) -> torch.Tensor:
    """The weighted sum of losses, ``(B,)``."""
    return sum(weight * LOSSES[name](d, beta, smoothing) for name, weight in zip(types, weights, strict=True))


@torch.no_grad()
def metrics(d: Deltas, beta: float) -> dict[str, torch.Tensor]:
    """TRL's names → ``(B,)`` values, and ``kl``: KL(π_ref ‖ π) an answer, estimated (k3, Schulman) on the
    rejected answers, which the reference itself wrote; they are its worst, so that this is a sign of drift
    more than a measure of it.
    """
    return {
        "rewards/chosen": beta * d.chosen,
        "rewards/rejected": beta * d.rejected,
        "rewards/margins": beta * (d.chosen - d.rejected),
        "rewards/accuracies": (d.chosen > d.rejected).float(),
        "logps/chosen": d.chosen_log_probs,
        "logps/rejected": d.rejected_log_probs,
        "kl": torch.expm1(d.rejected) - d.rejected,
    }
