"""What the steps of the stage say: each one's means over all ranks' pairs for ``spr/dpo/log.jsonl``, whatever
the host reports to, and the means since the last report for that."""

import copy
import time
from collections.abc import Mapping

import torch

from spr_plugin.dpo.plan import Slot
from spr_plugin.runs.steps import PROBE, StepLog
from spr_plugin.training import ranks


class Logbook:
    """The log of one round's stage.

    Args:
        before: steps that the host, and rounds before this one, have taken.
        slots, pairs: of the plan, and how many pairs it goes through; ``a_step`` slots are one step.
    """

    def __init__(self, log: StepLog, before: int, slots: list[Slot], pairs: int, a_step: int):
        self.log, self.before, self.pairs, self.a_step = log, before, pairs, a_step
        self.real = sum(slot.weight > 0 for slot in slots)  # what fills up the last step is of no epoch
        self.names: list[str] = []
        self.heard: list[torch.Tensor] = []  # sums and count of each micro-batch of this step
        self.unreported: list[list[float]] = []  # the same of each step, over all ranks

    def hear(self, values: Mapping[str, torch.Tensor], real: torch.Tensor) -> None:
        """Values ``(B,)`` of a micro-batch, of whose pairs the ``real`` ones count."""
        self.names = list(values)
        sums = [(value * real).sum().float() for value in values.values()]
        self.heard.append(torch.stack([*sums, real.sum().float()]))

    def forget(self) -> None:
        """What was heard was no step."""
        self.heard.clear()

    def write(self, step: int, probed: Mapping[str, float]) -> dict[str, float]:
        """Log a step that was taken, and what was seen after it; its means. All ranks call this."""
        means = {}
        if self.heard:
            totals = ranks.total(torch.stack(self.heard).sum(0)).tolist()
            self.heard.clear()
            self.unreported.append(totals)
            means = self._means([totals])
        if ranks.rank() == 0 and (means or probed):
            position = {"step": step, "global_step": self.before + step, "epoch": self.epoch(step)}
            seen = {PROBE + name: value for name, value in probed.items()}
            self.log.append({**position, "time": time.time(), **means, **seen})
        return means

    def report(self) -> dict[str, float]:
        """The means over all pairs since the last report."""
        means = self._means(self.unreported) if self.unreported else {}
        self.unreported.clear()
        return means

    def _means(self, steps: list[list[float]]) -> dict[str, float]:
        # Records → a column a number, the last of which counts.
        *sums, count = (sum(column) for column in zip(*steps))
        return {name: total / count for name, total in zip(self.names, sums)}

    def epoch(self, step: int) -> float:
        """How often the pairs were gone through."""
        return min(step * self.a_step, self.real) / self.pairs

    def reported(self, state):
        """A trainer's state as those see it who report: steps go on behind the host's, epochs are the
        pairs'."""
        shown = copy.copy(state)
        shown.global_step, shown.epoch = self.before + state.global_step, self.epoch(state.global_step)
        return shown
