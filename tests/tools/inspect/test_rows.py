"""A query's row: what each log adds to it, and how far the query is."""

import pytest

from spr_plugin.tools.inspect.indexed import IndexedRun
from spr_plugin.tools.inspect.rows import FOLDED, STATES, Row


def test_rows_say_what_the_logs_say(made_run):
    rows = {row.id: row for row in IndexedRun(made_run.output).rows()}
    scores = made_run.folder.log("scores").read()
    pairs = {record["query"]: record for record in made_run.folder.log("pairs").read().values()}
    assert rows.keys() == {query.id for query in made_run.queries}
    for query in made_run.queries:
        row, pair = rows[query.id], pairs[query.id]
        assert (row.recipe, row.round, row.picture, row.answers) == ("spr", 1, query.image.id, 3)
        assert row.categories == tuple(one.label for one in query.truth)
        areas = {"small" if one.box.area < 32**2 else "medium" for one in query.truth}
        assert set(row.sizes) == areas and len(row.sizes) == len(areas)
        assert (row.pair, row.skip) == ((pair["id"], None) if "chosen" in pair else (None, pair["skip"]))
        assert row.gap == (pair["chosen_score"] - pair["rejected_score"] if row.pair else None)
        answers = scores[query.id]["candidates"]
        words = {one[name] for one in answers for name in ("reason", "not_choosable")} | {row.skip}
        assert row.reasons == words - {None}
        both = [one[name] for one in answers for name in ("score", "repaired_score")]
        assert row.best == max(score for score in both if score is not None)


def folded(**records) -> Row:
    """A row of one record a log."""
    row = Row("q", 1)
    for log, record in records.items():
        FOLDED[log][1](row, record, None)
    return row


ASKED = {"recipe": "lab", "pictures": [{"id": 7}]}
ANSWER = {"reason": None, "not_choosable": None, "score": None, "repaired_score": None}
PAIR = {"id": "p", "chosen_score": 0.75, "rejected_score": 0.25}


@pytest.mark.parametrize(
    ("records", "state"),
    [
        (dict(queries=ASKED), "asked"),
        (dict(candidates={}), "answered"),
        (dict(candidates={}, scores={"candidates": []}), "judged"),
        (dict(scores={"candidates": []}, pairs={"skip": "no_box"}), "skipped"),
        (dict(pairs=PAIR), "pair"),
    ],
)
def test_a_query_is_as_far_as_its_last_record(records, state):
    assert folded(**records).state == state and state in STATES


def test_a_record_of_each_log_adds_its_own():
    row = folded(queries=ASKED)
    assert (row.recipe, row.picture, row.categories) == ("lab", "7", ())
    answers = [
        {**ANSWER, "score": 0.2, "repaired_score": 0.6},
        {**ANSWER, "reason": "no_box"},
        {**ANSWER, "score": 0.4, "not_choosable": "vague"},
    ]
    row = folded(candidates={}, scores={"candidates": answers}, pairs={"skip": "too_few_valid"})
    assert row.best == row.score == 0.6 and row.answers == 1 and row.gap is None
    assert row.reasons == {"no_box", "vague", "too_few_valid"} and row.skip == "too_few_valid"
    row = folded(scores={"candidates": answers}, pairs=PAIR)
    assert (row.pair, row.score, row.gap) == ("p", 0.75, 0.5) and row.skip is None


@pytest.mark.parametrize("log", ["queries", "scores", "pairs"])
def test_a_record_of_another_form_is_an_error(log):
    with pytest.raises(KeyError):
        folded(**{log: {}})
