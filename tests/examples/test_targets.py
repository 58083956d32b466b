"""What was asked of the default: each rule at its edge, p values by hand, and the rows of each target."""

import numpy as np
import pytest

from spr_plugin.files import read_json
from spr_plugin.formats import box_format
from spr_plugin.pairing import PreferencePair

from .world import load

pytest.importorskip("datasets")  # the oldest environment has no lmms-eval and what it needs

from .test_analysis import RINGS
from .test_reproduce import unit

run = load("reproduce/run")
figures, paired, plan = run.figures, run.paired, run.plan
tables, result_files = run.tables, run.result_files
targets = tables.targets
TASKS = tuple(targets.HEADLINES)


# --- the rules


@pytest.mark.parametrize(
    "name, gain, low, high, met",
    [
        ("rec_0.9", 0.08, 0.0651, 0.1, True),
        ("rec_0.9", 0.079999, 0.07, 0.1, False),
        ("rec_0.9", 0.09, 0.065, 0.1, False),  # an end at the margin is too low
        ("rec_0.5", 0.01, -0.0049, 0.02, True),
        ("rec_0.5_small", -0.01, -0.0399, 0.02, True),
        ("rec_0.5_small", -0.01, -0.04, 0.02, False),
        ("description_recall", 0.0, -0.0149, 0.01, True),
        ("description_miou", 0.0099, 0.0, 0.02, False),
        ("description_precision", 0.05, 0.0201, 0.1, True),
        ("description_precision", 0.05, 0.02, 0.1, False),
        ("phrases_0.5", -0.0001, -0.01, 0.01, False),
        ("color", -0.02, -0.05, 0.0, True),  # zero is in the interval
        ("presence", -0.02, -0.05, -0.0001, False),
        ("round2_0.9", 0.0, -0.01, 0.01, False),  # more is asked
        ("round2_0.9", 0.0001, -0.0149, 0.01, True),
        ("round2_0.5", 0.0, -0.0149, 0.01, True),
        ("bare_names", 0.0, 0.0, 0.0, True),
        ("bare_names", 0.001, 0.0, 0.003, False),
    ],
)
def test_a_target_at_its_edge(name, gain, low, high, met):
    row = {"gain": gain, "low": low, "high": high}
    asked = targets.TARGETS[name].asked
    assert targets.TARGETS[name].of(row) == {"asked": asked, **row, "met": met}


def test_what_was_not_measured_is_neither_met_nor_missed():
    found = targets.judged({"main": {"rec": {}}, "bare_names": None})
    assert list(found) == list(targets.TITLES) == list(targets.ASKED)
    assert {(one["gain"], one["low"], one["high"], one["met"]) for one in found.values()} == {(None,) * 4}
    assert [tables.words.met(one) for one in found.values()] == ["not measured"] * len(found)
    assert {tables.words.reached(one) for one in found.values()} == {""}


# --- DPO over SFT


def test_p_values_are_adjusted_step_by_step():
    values = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005, "e": 0.5}
    assert targets.holm(values) == pytest.approx({"a": 0.04, "b": 0.09, "c": 0.09, "d": 0.025, "e": 0.5})
    assert list(targets.holm(values)) == list(values)
    assert targets.holm(dict.fromkeys("abc", 0.4)) == dict.fromkeys("abc", 1.0)


def of_sft(**changed):
    """Rows of SFT against DPO: no difference but where it is named."""
    return {
        task: {"gain": gain, "p": p}
        for task, (gain, p) in (dict.fromkeys(TASKS, (0.0, 1.0)) | changed).items()
    }


@pytest.mark.parametrize(
    "rows, above, below, met",
    [
        (of_sft(), [], [], False),
        (of_sft(rec=(-0.04, 0.01)), ["rec"], [], True),
        (of_sft(rec=(-0.04, 0.0101)), [], [], False),  # one of five
        (of_sft(rec=(-0.04, 0.0001), phrases=(0.05, 0.0125)), ["rec"], ["phrases"], False),
        (of_sft(rec=(-0.04, 0.0001), phrases=(0.05, 0.013)), ["rec"], [], True),
        (of_sft(color=(0.04, 0.0001)), [], ["color"], False),
    ],
)
def test_dpo_is_above_sft_on_a_task_and_below_on_none(rows, above, below, met):
    found = targets.over_sft(rows)
    assert (found["above"], found["below"], found["met"]) == (above, below, met)
    assert set(found["p"]) == set(TASKS) and found["asked"] == 0.05
    said = tables.words.reached(found)
    assert f"above on {', '.join(above) or 'none'}, below on {', '.join(below) or 'none'} (p rec " in said


def test_four_tasks_of_five_say_nothing():
    assert targets.over_sft({**of_sft(rec=(-0.04, 0.0001)), "color": None})["met"] is None


def test_p_is_twice_the_smaller_share_beyond_zero():
    columns = {
        0.02: [-1.0] + [1.0] * 99,
        0.04: [-1.0] * 98 + [0.0, 1.0],
        0.01: [1.0] * 100,  # no less than one resample
        1.0: [0.0] * 100,  # zeros lie on both sides
        2 / 98: [np.nan, np.nan, -1.0] + [1.0] * 97,
    }
    found = paired.p_values(np.column_stack(list(columns.values())))
    assert found.tolist() == pytest.approx(list(columns))


def test_p_and_interval_are_of_the_same_differences():
    rng = np.random.default_rng(0)
    base = {str(place): [value] for place, value in enumerate(rng.random(60))}
    for shift in (0.0, 0.01, 0.02, 0.05):
        other = {place: [value + rng.normal(shift, 0.06)] for place, (value,) in base.items()}
        row = paired.gains([unit("base", rec=base)], [unit("main", rec=other)], "rec")["mIoU"]
        assert (row["p"] < 0.05) == (paired.sign(row) != 0) and 1e-4 <= row["p"] <= 1


# --- the smallest third


def asked_of(areas, base, *others):
    """Rows of IoUs of one picture by the area of their boxes, which the base alone keeps."""
    first = unit("base", rec={"p": base})
    if areas:
        first["samples"][plan.REC]["areas"] = {"p": areas}
    return paired.gains([first], [unit("main", seed, {"p": one}) for seed, one in enumerate(others)], "rec")


def test_the_smallest_third_is_of_the_boxes_that_were_asked():
    areas, base = [9, 1, 8, 2, 7, 6], [0.95, 0.4, 0.95, 0.6, 0.95, 0.95]
    rows = asked_of(areas, base, [0.1, 0.55, 0.1, 0.65, 0.1, 0.1], [0.1, 0.4, 0.1, 0.65, 0.1, 0.1])
    small = rows[f"Acc@0.5{targets.SMALLEST}"]
    assert (small["a"], small["b"], small["gain"]) == (0.5, 0.75, 0.25) and small["by_seed"] == [1.0, 0.5]
    assert rows[f"Acc@0.9{targets.SMALLEST}"]["gain"] == 0 and rows["Acc@0.5"]["gain"] < 0


def test_the_largest_third_too_and_one_word_for_one_quantity():
    rows = asked_of([9, 1, 8, 2, 7, 6], [0.4, 0.4, 0.4, 0.6, 0.95, 0.95], [0.6, 0.4, 0.6, 0.4, 0.95, 0.95])
    large = rows[f"Acc@0.5{targets.LARGEST}"]
    assert (large["a"], large["b"]) == (0, 1) and rows[f"Acc@0.5{targets.SMALLEST}"]["gain"] == -0.5


def test_equal_areas_are_in_one_third():
    rows = asked_of([4, 4, 4, 5, 6, 7], [0.4] * 6, [0.6, 0.6, 0.6, 0.4, 0.4, 0.4])
    assert rows[f"Acc@0.5{targets.SMALLEST}"]["b"] == 1


def test_without_areas_there_is_no_third():
    assert not any(name.endswith(targets.SMALLEST) for name in asked_of(None, [0.4], [0.6]))


# --- names without a box


def test_chosen_answers_with_a_bare_name_are_counted_as_items_are_read():
    def chosen(text):
        return PreferencePair(text, RINGS.id, "?", ("1.png",), text, "-", 0.7, 0.5, "b", "w")

    texts = (
        "a red ring [0.0, 0.0, 0.2, 0.2] and a blue square.",
        "a red ring [0.0, 0.0, 0.2, 0.2] and a blue square [0.0, 0.5, 0.4, 0.9].",
        "a red ring, a red ring and a blue square [0.0, 0.5, 0.4, 0.9].",  # two names, one answer
    )
    form = box_format("llava", "pad")
    assert result_files.with_bare_name([chosen(text) for text in texts], {RINGS.id: RINGS}, form) == 2


def test_their_share_is_over_all_pairs_of_all_seeds():
    def stage(bare, pairs):
        return {"stage": {"counts": {"preference pairs": pairs}, targets.BARE: bare}}

    found = targets.bare_names({0: stage(0, 300), 1: stage(3, 100)})
    assert found == {"gain": 0.0075, "low": 0.0, "high": 0.03, "by_seed": [0.0, 0.03]}
    old = {"stage": {"counts": {"preference pairs": 300}}}
    assert targets.bare_names({0: stage(0, 300), 1: old}) is None is targets.bare_names({})


@pytest.mark.slow
def test_a_run_says_how_many_chosen_answers_hold_one(finished_output, tmp_path):
    """Of a run whose answers name nothing without a box."""
    found = result_files.evidence(finished_output(tmp_path / "out") / "spr")
    assert found[targets.BARE] == 0 < found["counts"]["preference pairs"]


# --- from results to the page


def test_the_page_says_what_is_met_and_what_was_not_measured(tmp_path):
    pictures = [str(place) for place in range(30)]
    results = tmp_path / "results"
    for name, iou, more in (("base", 0.4, {"areas": {p: [1.0] for p in pictures}}), ("main", 0.95, {})):
        rec = {"figures": ["IoU"], "pictures": {p: [iou] for p in pictures}, **more}
        stage = {"stage": {"counts": {"preference pairs": 9}, targets.BARE: 0}} if name == "main" else {}
        result_files.write_result(
            results / f"{name}.json", {"variant": name, **stage}, {plan.REC: rec, **others()}
        )
    text = tables.write(results, tmp_path)
    found = read_json(tmp_path / "reproduction.json")["targets"]
    whole = {"gain": 1.0, "low": 1.0, "high": 1.0, "met": True}
    assert found["rec_0.9"] == {"asked": 0.08, **whole} and found["rec_0.5_small"] == {
        "asked": -0.01,
        **whole,
    }
    assert found["bare_names"]["met"] and found["round2_0.9"]["met"] is found["dpo_over_sft"]["met"] is None
    assert "| referring expressions, IoU 0.9 | at least +8.0 | +100.0 (+100.0 … +100.0) | met |" in text
    assert (
        "| descriptions, mean IoU over all objects | at least +1.0 | +0.0 (+0.0 … +0.0) | not met |" in text
    )
    assert "| a second round over the first, IoU 0.9 | above +0.0 |  | not measured |" in text


def others():
    """Samples of a task whose figure stays."""
    return {"spr_tiny_world_description": {"figures": ["mIoU"], "pictures": {"p": [[1, 2]]}}}


def test_settings_are_tried_by_all_targets_of_one_round(tmp_path):
    """What a variant of plan.METHOD reaches stands in one row, beside those that ran and no others."""
    results = tmp_path / "results" / plan.PLANS["method"].folder
    pictures = {str(place): 0.4 for place in range(30)}
    for name, iou, bare in (("base", 0.4, None), ("whole", 0.95, 0), ("DPOP", 0.4, 3)):
        rec = {"figures": ["IoU"], "pictures": {picture: [iou] for picture in pictures}}
        stage = {} if bare is None else {"stage": {"counts": {"preference pairs": 9}, targets.BARE: bare}}
        result_files.write_result(
            results / f"{name}.json", {"variant": name, **stage}, {plan.REC: rec, **others()}
        )
    text = tables.write(tmp_path / "results", tmp_path)
    found = read_json(tmp_path / "reproduction.json")["method"]
    assert list(found) == ["whole", "DPOP"] and found["whole"]["pairs"] == 9
    assert {name for name, one in found["whole"]["targets"].items() if one["met"]} == {
        "rec_0.9",
        "rec_0.5",
        "bare_names",
    }
    heads = "| | seeds | pairs | `rec_0.9` | `rec_0.5` | `description_miou` | `bare_names` | met |"
    assert heads in text and "| whole | 0 | 9 | **+100.0** | **+100.0** | +0.0 | **+0.0** | 3 |" in text
    assert "| DPOP | 0 | 9 | +0.0 | +0.0 | +0.0 | +33.3 | 0 |" in text
