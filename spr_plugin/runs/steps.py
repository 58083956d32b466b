"""What the steps of a DPO stage said, ``spr/dpo/log.jsonl``: one record an optimizer step, in their order.

A record is plain numbers: ``step`` of the stage, ``global_step`` (behind the host's own), ``epoch``, ``time``
(seconds since 1970), means over the step's pairs, and under ``probe/`` what a look at held-out queries saw
after it. Step 0 is the look before the first one.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path

from spr_plugin.files import disk_errors, read_errors, regular, write_lines
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.log import Record, line_of, note_begin, record_of

PROBE = "probe/"


class StepLog:
    """The log of one round's stage; one process appends."""

    def __init__(self, folder: Folder):
        self.path: Path = folder.dpo / "log.jsonl"

    def read(self) -> list[Record]:
        """The records in the order of their steps; what is torn or damaged is left out."""
        records = {}
        is_there = self.path.exists()
        with (
            read_errors(self.path),
            open(self.path, "rb", opener=regular) if is_there else io.BytesIO() as lines,
        ):
            for line in lines:
                try:
                    record = record_of(line)
                except ValueError:
                    continue
                if isinstance(record.get("step"), int):
                    records[record["step"]] = record
        return [records[step] for step in sorted(records)]

    def go_on_after(self, step: int, steps: int) -> None:
        """Forget what came after ``step``, from which a run of ``steps`` goes on: those are taken again."""
        kept = [record for record in self.read() if record["step"] <= step]
        note_begin(self.path.parent, steps, step)
        write_lines(self.path, (line_of(record).decode() for record in kept))

    def append(self, record: Mapping[str, float]) -> None:
        """Write one more; a number that is none (JSON has no NaN) becomes null."""
        plain = {name: value if math.isfinite(value) else None for name, value in record.items()}
        with disk_errors(self.path), open(self.path, "ab") as file:
            file.write(line_of(plain))


def last_step(folder: Folder) -> int:
    """The last step that the round's stage has taken; 0 where it has taken none."""
    return max((record["step"] for record in StepLog(folder).read()), default=0)


def told(records: list[Record], pairs: int) -> str:
    """What a stage on so many pairs came to, in a line: first and last values, of the looks at held-out
    queries too."""
    shown = (
        "loss",
        "rewards/margins",
        "rewards/accuracies",
        "logps/chosen_coordinates",
        "logps/chosen_words",
    )
    names = [*shown, *sorted({name for record in records for name in record if name.startswith(PROBE)})]
    courses = []
    for name in names:
        values = [record[name] for record in records if record.get(name) is not None]
        if values:
            courses.append(f"{name} {values[0]:.3g} → {values[-1]:.3g}")
    steps = max((record["step"] for record in records), default=0)
    return f"{pairs} pairs, {steps} steps ({', '.join(courses)})"


def probes_of(records: list[Record]) -> dict[int, dict[str, float]]:
    """Step → what was seen after it, by the recipe's names."""
    seen = {
        record["step"]: {
            name.removeprefix(PROBE): value for name, value in record.items() if name.startswith(PROBE)
        }
        for record in records
    }
    return {step: values for step, values in seen.items() if values}
