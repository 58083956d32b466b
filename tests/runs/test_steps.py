"""The log of a stage's steps, and what is told of it."""

import json

from spr_plugin.runs.layout import Folder
from spr_plugin.runs.log import BEGUN
from spr_plugin.runs.steps import StepLog, last_step, probes_of, told


def test_the_log_of_steps_is_cut_back_and_holds_each_step_once(tmp_path):
    folder = Folder(tmp_path)
    steps = StepLog(folder)
    assert steps.read() == [] and last_step(folder) == 0
    steps.go_on_after(0, 5)
    for step in range(4):
        steps.append(
            {"step": step, "loss": 1 / (step + 1), "probe/s_loc": float("nan") if step == 3 else 0.5}
        )
    with open(steps.path, "ab") as file:
        file.write(b'{"step": 4, "loss": 0.1')
    assert [record["step"] for record in steps.read()] == [0, 1, 2, 3] and last_step(folder) == 3
    assert probes_of(steps.read())[3] == {"s_loc": None}
    steps.go_on_after(2, 5)
    steps.append({"step": 3, "loss": 7.0})
    assert [record["loss"] for record in steps.read()] == [1.0, 0.5, 1 / 3, 7.0]
    assert [json.loads(line)["step"] for line in steps.path.read_text().splitlines()] == [0, 1, 2, 3]
    assert json.loads((folder.dpo / BEGUN).read_text())["held"] == 2


def test_a_number_that_is_none_is_null(tmp_path):
    steps = StepLog(Folder(tmp_path))
    steps.go_on_after(0, 1)
    steps.append({"step": 1, "loss": float("nan"), "kl": float("inf"), "time": 2.5})
    assert json.loads(steps.path.read_text())["loss"] is None
    assert steps.read() == [{"step": 1, "loss": None, "kl": None, "time": 2.5}]


def test_the_last_record_of_a_step_counts_and_they_come_in_order(tmp_path):
    steps = StepLog(Folder(tmp_path))
    steps.go_on_after(0, 3)
    for record in (
        {"step": 2, "loss": 1.0},
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": 3.0},
        {"loss": 4.0},
    ):
        steps.append(record)
    assert [(one["step"], one["loss"]) for one in steps.read()] == [(1, 2.0), (2, 3.0)]


ROWS = [
    {"step": 0, "probe/s_loc": 0.5, "probe/boxes": None},
    {"step": 1, "loss": 0.6931, "rewards/margins": None, "epoch": 0.5},
    {"step": 2, "loss": 0.25, "rewards/margins": 1.5, "probe/s_loc": 0.75},
]


def test_a_stage_in_a_line_is_first_and_last_values():
    assert told(ROWS, 7) == (
        "7 pairs, 2 steps (loss 0.693 → 0.25, rewards/margins 1.5 → 1.5, probe/s_loc 0.5 → 0.75)"
    )
    assert told([], 7) == "7 pairs, 0 steps ()"


def test_looks_are_told_by_the_recipe_s_names():
    assert probes_of(ROWS) == {0: {"s_loc": 0.5, "boxes": None}, 2: {"s_loc": 0.75}}
