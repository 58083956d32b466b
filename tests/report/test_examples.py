"""Which pairs a report shows, and what of their pictures."""

import base64
import io
import random
from dataclasses import replace

import pytest
from PIL import Image

from spr_plugin import runs
from spr_plugin.drawing import overlay
from spr_plugin.recipes.base import Mark
from spr_plugin.report import examples
from spr_plugin.report.examples import (
    EACH,
    LONGEST,
    Pictures,
    Shown,
    clipped,
    examples_of,
    some_pairs,
    some_skipped,
)


@pytest.fixture(scope="module")
def run(finished_output, tmp_path_factory):
    return runs.open(finished_output(tmp_path_factory.mktemp("examples"), 16))


def pixels(uri: str) -> Image.Image:
    head, _, data = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize(
    "size, small", [((720, 360), (360, 180)), ((36, 18), (360, 180)), ((1, 2000), (1, 360))]
)
def test_a_picture_s_longest_side_is_the_page_s(size, small):
    assert pixels(examples.data_uri(Image.new("RGB", size))).size == small


@pytest.mark.parametrize("count", [0, 1, 5, 6, 7, 12, 13, 18, 19, 100])
def test_best_worst_and_some_by_chance(run, count):
    gaps = random.Random(3).sample(range(count), count)
    pair = replace(run.pairs[0], rejected_score=0.0)
    pairs = [replace(pair, id=str(n), chosen_score=float(gap)) for n, gap in enumerate(gaps)]
    shown = some_pairs(pairs, 0)
    assert len({pair.id for _, pair in shown}) == len(shown) == min(count, 3 * EACH)
    by_why = {}
    for why, pair in shown:
        by_why.setdefault(why, []).append(pair.chosen_score)
    ranked = sorted(map(float, gaps), reverse=True)
    assert by_why.get("largest gap", []) == ranked[:EACH]
    assert by_why.get("smallest gap", []) == (ranked[EACH:][-EACH:][::-1])
    assert shown == some_pairs(pairs[::-1], 0)
    if count == 100:
        assert shown != some_pairs(pairs, 1)


def test_every_reason_is_shown_before_one_is_shown_twice():
    skips = {f"q{n}": "few" if n < 90 else "gap" if n < 98 else "gone" for n in range(99)}
    shown = some_skipped(skips, 0)
    assert [reason for _, reason in shown[:3]] == ["few", "gap", "gone"] and len(shown) == EACH
    assert len({id for id, _ in shown}) == EACH and all(skips[id] == reason for id, reason in shown)
    assert some_skipped({}, 0) == [] and len(some_skipped({"a": "x"}, 0)) == 1


def test_a_thin_box_lies_on_a_thick_one():
    """The truth is to be seen where an answer's box is as large; corners may come in any order."""
    marks = [Mark("region", (0, 0, 9, 9)), Mark("truth", (1, 2, 3, 4)), Mark("written", (3, 4, 1, 2), 1)]
    assert overlay(marks, "chosen") == [
        {"kind": "chosen", "picture": 1, "x": 1, "y": 2, "width": 2, "height": 2},
        {"kind": "region", "picture": 0, "x": 0, "y": 0, "width": 9, "height": 9},
        {"kind": "truth", "picture": 0, "x": 1, "y": 2, "width": 2, "height": 2},
    ]


def shown_of(run, pictures=None):
    skips = {record["query"]: record["skip"] for record in run.records("pairs").values() if "skip" in record}
    shown = Shown(run.recipe, pictures or Pictures())
    return list(
        examples_of(shown, run.queries, run.records("scores"), run.pairs, skips, run.recipe.question, 0)
    )


def test_both_sides_of_a_pair_have_the_boxes_of_their_own_texts(run):
    shown = {one["id"]: one for one in shown_of(run)}
    for pair in run.pairs:
        example, query = shown[pair.id], run.queries[pair.query]
        for side, text in zip(example["sides"], (pair.chosen, pair.rejected)):
            written = [mark for mark in side["marks"] if mark["kind"] == side["name"]]
            boxes = run.box_format.parse(text, query.image.width, query.image.height).boxes
            corners, wanted = [mark["x"] for mark in written], [box.pixels()[0] for box in boxes]
            assert side["text"] == text and corners == pytest.approx(wanted, abs=0.01)
            assert sum(mark["kind"] == "truth" for mark in side["marks"]) == len(query.truth)
        assert [side["score"] for side in example["sides"]] == [
            f"{pair.chosen_score:.3f}",
            f"{pair.rejected_score:.3f}",
        ]
        assert example["sizes"] == [(query.image.width, query.image.height)]


def test_a_region_without_a_pair_shows_why(run):
    skipped = [one for one in shown_of(run) if one["id"] in run.queries]
    assert len(skipped) == 4 and {one["why"] for one in skipped} == {"no_box"}
    for one in skipped:
        assert [(side["name"], side["why"]) for side in one["sides"]] == [
            ("best, repaired", "no_box"),
            ("worst", None),
        ]
        assert [side["score"] is None for side in one["sides"]] == [True, False]
        assert one["prompt"].startswith("Describe the objects")


def test_a_skipped_region_whose_scores_are_gone_still_shows(run):
    query = next(iter(run.queries.values()))
    shown, skips = Shown(run.recipe, Pictures()), {query.id: "gone", "x": "y"}
    (one,) = examples_of(shown, {query.id: query}, {}, [], skips, run.recipe.question, 0)
    assert one["sides"] == [] and one["pictures"][0]["uri"]


def test_a_page_s_pictures_have_a_limit(run):
    few = [one["pictures"][0]["uri"] for one in shown_of(run, Pictures(30_000))]
    assert few[0] and not few[-1] and sum(len(uri) for uri in few if uri) < 60_000


def test_a_picture_that_is_gone_says_where_it_was_looked_for(tmp_path):
    gone = Pictures()(str(tmp_path / "a.png"), "a")
    assert gone["uri"] is None and f"{tmp_path}/a.png: No such file" in gone["why"]


def test_a_long_text_is_cut():
    whole = "a" * LONGEST
    assert clipped(whole) == whole and clipped(whole + "b" * 10) == whole + " … (10 more characters)"
    assert clipped("abc", 2) == "ab … (1 more characters)"
