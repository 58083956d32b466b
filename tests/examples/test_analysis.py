"""Evidence behind the main result: each figure agrees with numbers by hand or with a slow reference. The real
thing is in test_reproduce.py.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from spr_plugin.boxes import Box, Space
from spr_plugin.data.annotations import AnnotatedImage, Annotation
from spr_plugin.formats import box_format
from spr_plugin.pairing import PreferencePair
from spr_plugin.recipes.spr.regions import region_query

from .world import load

pytest.importorskip("datasets")  # the oldest environment has no lmms-eval and what it needs

ROOT = Path(__file__).parents[2]
run = load("reproduce/run")
analysis, tables = run.analysis, run.tables
painting, scenes = analysis.painting, run.world_data.scenes

FORM = box_format("llava", "pad")


# --- flips


def test_what_makes_an_object_hard_is_read_from_its_scene():
    thing = painting.Thing
    below, target = thing("red", "ring", (0, 0, 20, 20)), thing("red", "ring", (10, 0, 20, 10))
    corner, apart = thing("blue", "ring", (15, 5, 30, 20)), thing("red", "cross", (50, 50, 60, 60))
    scene = painting.Scene(0, (below, target, corner, apart))
    assert analysis.hard_parts(scene, [10, 0, 20, 10]) == {"area": 100, "distractors": 1, "covered": 0.25}
    assert analysis.hard_parts(scene, [50, 50, 60, 60]) == {"area": 100, "distractors": 0, "covered": 0}
    assert analysis.hard_parts(scene, [0, 0, 20, 20])["covered"] == (100 + 75) / 400


def test_the_asked_object_is_found_in_the_scene_that_was_drawn(tmp_path):
    scenes.write_evaluation(tmp_path, "test", 10, 2, 90)
    found = analysis.asked_about(tmp_path, "test", 10, 90)
    rows = [json.loads(line) for file in (tmp_path / "refcoco").iterdir() for line in file.open()]
    assert set(found) == {Path(row["image"]).stem for row in rows} and len(found) == 10
    assert sum(map(len, found.values())) == len(rows) > 10  # several about a picture
    shown = list(painting.scenes("test", 10, 90))
    for row in rows:
        picture, place = Path(row["image"]).stem, int(row["id"].split("-")[1])
        scene, facts, (x1, y1, x2, y2) = shown[int(picture)], found[picture][place], row["bbox"]
        assert facts["area"] == (x2 - x1) * (y2 - y1)
        assert (
            facts["distractors"]
            == sum(thing.name == " ".join(row["expression"].split()[-2:]) for thing in scene.things) - 1
        )


def test_sizes_are_thirds():
    facts = [{"area": area, "distractors": 1, "covered": area % 2} for area in range(1, 100)]
    labels = [one["size"] for one in analysis.parts(facts)]
    assert (
        sorted(map(labels.count, set(labels))) == [33, 33, 33]
        and labels[0] == "1st third by area (up to 34 px²)"
        and labels[-1] == "3rd third by area"
    )
    assert [one["covered"] for one in analysis.parts(facts)][:2] == ["covered in part", "not covered"]


def test_flips_are_counted_by_part_and_threshold():
    rng = np.random.default_rng(0)
    overlaps = rng.random((90, 2)).round(2)
    facts = [
        {"area": rng.random(), "distractors": int(rng.integers(3)), "covered": rng.random() * rng.integers(2)}
        for _ in overlaps
    ]
    hard = analysis.parts(facts)
    rows = {
        (row["part"], row["figure"]): row
        for row in analysis.flips(overlaps, [str(k) for k in range(90)], hard)
    }
    for threshold in (0.5, 0.6, 0.7, 0.8, 0.9):
        for part in {label for one in hard for label in one.values()} | {"all"}:
            inside = [pair for pair, one in zip(overlaps, hard) if part in {*one.values(), "all"}]
            row = rows[part, f"Acc@{threshold}"]
            assert row["won"] == sum(a < threshold <= b for a, b in inside) and row["lost"] == sum(
                b < threshold <= a for a, b in inside
            )
            assert row["n"] == len(inside) and row["gain"] == pytest.approx(
                (row["won"] - row["lost"]) / len(inside)
            )
            assert row["low"] <= row["gain"] <= row["high"] and 0 <= row["p"] <= 1


# --- worth


def query(*objects):
    """A region that is the whole picture of 100 x 100 px; objects are (name, xyxy)."""
    space = Space.pixels(100, 100)
    image = AnnotatedImage(
        "1",
        "1.png",
        100,
        100,
        tuple(Annotation(place, name, Box(*box, space)) for place, (name, box) in enumerate(objects)),
    )
    return region_query(image, Box(0, 0, 100, 100, space), 0)


RINGS = query(("red ring", (0, 0, 20, 20)), ("red ring", (50, 0, 70, 20)), ("blue square", (0, 50, 40, 90)))


@pytest.mark.parametrize(
    "text, iou, recall, boxes",
    [
        (
            (
                "a red ring [0.0, 0.0, 0.2, 0.2], a red ring [0.5, 0.0, 0.7, 0.2] and a blue square [0.0,"
                " 0.5, 0.4, 0.9]."
            ),
            1,
            1,
            3,
        ),
        ("a red ring [0.5, 0.0, 0.7, 0.1].", 0.5, 1 / 3, 1),  # the nearer of two alike; half of it
        ("a blue square [0.0, 0.0, 0.2, 0.2].", 0, 0, 1),  # where a red ring is
        ("a green ring [0.0, 0.0, 0.2, 0.2] and a red ring [0.0, 0.0, 0.2, 0.2].", 0.5, 1 / 3, 2),
        ("a red ring and a blue square.", 0, 0, 0),
    ],
)
def test_an_answer_is_worth_the_boxes_of_what_it_names(text, iou, recall, boxes):
    assert analysis.worth(text, RINGS, FORM) == {
        "IoU": pytest.approx(iou),
        "recall": pytest.approx(recall),
        "boxes": boxes,
    }


# --- correlations

values = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3)), min_size=4, max_size=30)


def ranks_by_hand(one):
    return [
        sum(other < value for other in one) + (sum(other == value for other in one) + 1) / 2 for value in one
    ]


@settings(max_examples=25)
@given(values)
def test_correlation_agrees_with_scipy_and_with_a_slow_reference(rows):
    x, y, groups = np.array(rows, dtype=float).T
    whole = analysis.correlation("all", x, y, np.arange(len(x)), np.zeros(len(x)))
    if len(set(x)) > 1 < len(set(y)):
        (row,) = whole
        assert (
            row["value"] == pytest.approx(spearmanr(x, y).statistic)
            and row["low"] <= row["high"]
            and row["n"] == len(x)
        )
    else:
        assert whole == []
    a, b = [], []
    for group in set(groups):
        for values, centred in ((x, a), (y, b)):
            ranks = ranks_by_hand(values[groups == group].tolist())
            centred += [rank - sum(ranks) / len(ranks) for rank in ranks]
    within = analysis.correlation("within", x, y, groups, groups)
    if any(a) and any(b):
        assert within[0]["value"] == pytest.approx(
            sum(p * q for p, q in zip(a, b)) / (sum(p * p for p in a) * sum(q * q for q in b)) ** 0.5
        )
    else:
        assert within == []


def test_a_score_that_orders_regions_but_not_their_answers_is_seen_as_such():
    """Over all answers s_sem goes with IoU, within each region against it; s_loc is the other way round."""
    regions = [
        [
            {"s_sem": 10 * r - a, "s_loc": a - 10 * r, "S": 1.0, "IoU": r + a / 10, "recall": r + a / 10}
            for a in range(3)
        ]
        for r in range(30)
    ]
    rows = {row["figure"]: row for row in analysis.score_rows(regions)}
    assert (
        rows["s_sem with IoU, all answers"]["value"] > 0.9
        and rows["s_sem with IoU, within a region"]["value"] == -1
    )
    assert (
        rows["s_loc with recall, all answers"]["value"] < -0.9
        and rows["s_loc with recall, within a region"]["value"] == 1
    )
    assert not any(figure.startswith("S with") for figure in rows)  # it is constant


# --- pairs


def test_a_pair_is_asked_of_the_truth_before_and_after_refinement():
    rough, refined, poor = (
        f"a red ring [{numbers}]."
        for numbers in ("0.0, 0.0, 0.2, 0.16", "0.0, 0.0, 0.2, 0.2", "0.0, 0.0, 0.2, 0.12")
    )
    record = {"candidates": [{"id": "b", "text": rough}, {"id": "w", "text": poor}]}
    pair = PreferencePair("p", RINGS.id, "?", ("1.png",), refined, poor, 0.75, 0.5, "b", "w")
    found = analysis.pair_worth(pair, record, RINGS, FORM)
    assert found["gap"] == 0.25
    assert [
        found[side]["IoU"] for side in ("chosen before refinement", "chosen", "rejected")
    ] == pytest.approx([0.8, 1.0, 0.6])


def test_pairs_are_counted_by_which_side_is_really_better():
    def worth(value):
        return {"IoU": value, "recall": 0.5, "boxes": 2}

    gaps = [(0.1, 0.5, 0.9, 0.4), (0.2, 0.3, 0.9, 0.4), (0.3, 0.4, 0.9, 0.4), (0.4, 0.9, 0.9, 0.1)]
    pairs = [
        {
            "gap": gap,
            "chosen": worth(after),
            "chosen before refinement": worth(before),
            "rejected": worth(worst),
        }
        for gap, before, after, worst in gaps
    ]
    rows = {row["figure"]: row["value"] for row in analysis.pair_rows(pairs)}
    assert rows["IoU of chosen before refinement"] == pytest.approx(0.525) and rows[
        "IoU of chosen"
    ] == pytest.approx(0.9)
    assert rows["IoU of rejected"] == pytest.approx(0.325) and rows["boxes of rejected"] == 2
    assert (
        rows["IoU is higher in chosen before refinement"] == 0.5
        and rows["IoU is equal in chosen before refinement"] == 0.25
    )
    assert rows["IoU is higher in chosen"] == 1 and rows["recall is equal in chosen"] == 1
    assert rows["gap of S with gap of IoU, chosen before refinement"] == pytest.approx(
        spearmanr([1, 2, 3, 4], [0.1, -0.1, 0.0, 0.8]).statistic
    )
    assert "gap of S with gap of recall, chosen" not in rows  # all recalls are alike


# --- log-probs


def test_tokens_of_the_tiny_tokenizer_are_coordinates_words_and_the_rest():
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(ROOT / "examples/tiny_world/llava", use_fast=False)
    tokens = tokenizer.tokenize(
        "a red ring [0.0, 0.28, 1.0, 0.4] and an orange cross [0.1, 0.2, 0.3, 0.4]."
    ) + ["</s>"]
    kinds = {
        name: [token.strip("▁") for token in tokens if analysis.kind(token) == name]
        for name in analysis.KINDS
    }
    assert kinds["coordinates"] == ["0.0", "0.28", "1.0", "0.4", "0.1", "0.2", "0.3", "0.4"]
    assert kinds["words"] == ["a", "red", "ring", "and", "an", "orange", "cross"]
    assert sorted(kinds["other"]) == sorted(["[", "]"] * 2 + [","] * 6 + [".", "</s>"])


def test_changes_are_a_token_s_not_an_answer_s():
    words, numbers = [("words", -1.0), ("words", -2.0)], [("coordinates", -3.0)]
    base = [[words + numbers, words], [words, numbers * 3]]
    spr = [
        [[("words", -1.5), ("words", -2.0), ("coordinates", -1.0)], words],
        [words, [("coordinates", -4.0)] * 3],
    ]
    rows = {row["figure"]: (row["value"], row["n"]) for row in analysis.log_prob_rows(base, spr)}
    assert rows["words of chosen, base"] == (-1.5, 4) and rows["words of chosen, change"] == (-0.125, 4)
    assert rows["coordinates of chosen, change"] == (2.0, 1) and rows["coordinates of rejected, change"] == (
        -1.0,
        3,
    )
    assert rows["words of rejected, change"] == (0.0, 2) and not any(
        figure.startswith("other") for figure in rows
    )


# --- what the tables print of it


def looked_into(seed, won, lost):
    flips = [
        {
            "part": "all",
            "figure": f"Acc@{t}",
            "a": 0.4,
            "b": 0.42,
            "gain": 0.02,
            "low": -0.01,
            "high": 0.05,
            "n": 50,
            "won": won,
            "lost": lost,
        }
        for t in run.figures.metrics.THRESHOLDS
    ]
    row = {"figure": "S with IoU, all answers", "value": 0.25 + seed, "low": 0.125, "high": 0.375, "n": 9}
    return {
        "variant": "main",
        "seed": seed,
        "flips": flips,
        "scores": [row],
        "pairs": [row],
        "log_probs": [row] if seed else [],
    }


def test_tables_add_flips_up_and_show_each_seed(tmp_path):
    for seed in (0, 2):
        run.write_json(
            tmp_path / "results" / run.figures.WHY / f"main-{seed}.json", looked_into(seed, 7 + seed, 3)
        )
    text = tables.write(tmp_path / "results", tmp_path)
    assert "Seeds that were looked into: 0, 2; missing: 1." in text
    assert "| all | 100 | +16 −6 | +16 −6 | +16 −6 | +16 −6 | +16 −6 |" in text
    assert "| all | +2.0 (-1.0 … +5.0) | +2.0 (-1.0 … +5.0) |" in text
    assert "| S with IoU, all answers | 0.250 (0.125 … 0.375) | 2.250 (0.125 … 0.375) |" in text
    assert "| S with IoU, all answers |  | 2.250 (0.125 … 0.375) |" in text


def test_without_an_analysis_there_is_no_such_section(tmp_path):
    (tmp_path / "results").mkdir()
    assert "## Why" not in tables.write(tmp_path / "results", tmp_path)
