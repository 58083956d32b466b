"""Ferret's rules against the verdicts of Ferret's own files, and where they differ from the better figures
beside them.
"""

from collections import Counter

import pytest

from spr_plugin.eval_tasks import classification, ferret, metrics, phrases, rec
from tests.eval_tasks import ferret_agreement

ROWS = ferret_agreement.rows()


def document(width, height, **more):
    return {"id": "1", "image_id": "a", "width": width, "height": height, "box_format": "ferret", **more}


def ours(kind, *row) -> tuple[dict, dict]:
    """The scores of one answer, and the names of the letter-exact ones with their digits' means."""
    *row, verdict = row
    digits = [int(digit) for digit in verdict]
    if kind == "expression":
        width, height, box, answer = row
        doc = document(width, height, bbox=[float(side) for side in box])
        return rec.process_results(doc, [answer]), dict(zip(metrics.FERRET_ACCURACIES, digits))
    if kind == "phrases":
        width, height, asked, answer = row
        doc = document(
            width,
            height,
            phrases=[
                {"id": f"1_{k}", "phrase": phrase, "boxes": boxes} for k, (phrase, boxes) in enumerate(asked)
            ],
        )
        assert ferret.phrase_hits(answer, doc) == [bool(digit) for digit in digits], answer
        return phrases.process_results(doc, [answer]), {"ferret_R@1": sum(digits) / len(digits)}
    name, synonyms, answer = row
    doc = document(9, 9, name=name, synonyms=synonyms, negative="an elephant")
    return classification.process_results(doc, [answer]), {"ferret_accuracy": digits[0]}


@pytest.mark.parametrize("kind", ferret_agreement.COUNTS)
def test_every_verdict_of_ferrets_files(kind):
    rows = [row for row in ROWS if row[0] == kind]
    assert len(rows) == ferret_agreement.COUNTS[kind] and len(ROWS) == 2000
    hits, differ = Counter(), Counter()
    better = {
        "expression": ("ferret_Acc@0.9", "Acc@0.9"),
        "phrases": ("ferret_R@1", "Acc@0.5"),
        "class": ("ferret_accuracy", "strict_accuracy"),
    }[kind]
    for row in rows:
        scores, verdict = ours(*row)
        for name, expected in verdict.items():
            assert scores[name]["score"] == expected, (name, row)
            hits[name] += expected
        differ[kind] += scores[better[0]]["score"] != scores[better[1]]["score"]
    # both verdicts occur, and the rule makes a difference
    assert all(0.1 * len(rows) < count < 0.9 * len(rows) for count in hits.values()) and differ[kind] > 20


def test_the_answers_are_those_that_the_harness_makes_up():
    assert [row[:-1] for row in ROWS] == ferret_agreement.made_up()


@pytest.mark.parametrize(
    ("answer", "hits"),
    [
        ("a cat [0, 0, 500, 500], a dog [500, 500, 900, 900].", [True, True]),
        ("a cat [0, 0, 500, 500] and a dog [500, 500, 900, 900].", [True, False]),
        ("A Cat! [0, 0, 500, 500], the dog [500, 500, 900, 900].", [True, False]),
        ("a cat [0, 0, 500, 500], a dog [500, 500, 900, 900], a cup [1, 2.5].", [False, False]),
        ("a cat [0, 0, 500, 500], a dog [500, 500, 900]", [False, False]),  # Ferret's file stops here
    ],
)
def test_phrases_are_cut_at_delimiters(answer, hits):
    doc = document(
        1000,
        1000,
        phrases=[
            {"phrase": "a cat", "boxes": [[0, 0, 500, 500]]},
            {"phrase": "a dog", "boxes": [[500, 500, 900, 900]]},
        ],
    )
    assert ferret.phrase_hits(answer, doc) == hits


def test_other_families_have_no_figure_by_ferrets_rule():
    doc = {**document(100, 100, bbox=[0.0, 0.0, 50.0, 50.0]), "box_format": "llava:pad"}
    assert not any(name.startswith("ferret") for name in rec.process_results(doc, ["[0.0, 0.0, 0.5, 0.5]"]))


@pytest.mark.parametrize(
    "unit",
    ["[", "]", "[1,2,3,4]", "[1,2,3,4].", "no ", " no", "not a", " ", "\n ", "no,", "[9" * 9 + ",", "(", "1"],
)
def test_long_answers_take_no_time(unit):
    """100 kB, and what a regular expression that looks back would take minutes for."""
    import time

    answer, start = unit * (100_000 // len(unit)), time.process_time()
    ferret.read(answer, 100, 100), ferret.names(answer, "a cat", ["cat"])
    assert time.process_time() - start < 1
