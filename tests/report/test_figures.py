"""What became of a run's queries, in numbers: against counts of the records themselves."""

from collections import Counter
from dataclasses import replace

import pytest

from spr_plugin import runs
from spr_plugin.pairing import best_over_worst, find_pairing
from spr_plugin.recipes.base import Query, Recipe
from spr_plugin.report import figures, page

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


@pytest.fixture(scope="module")
def run(finished_output, tmp_path_factory):
    return runs.open(finished_output(tmp_path_factory.mktemp("figures"), 16))


def rows_of(run):
    return [row for record in run.records("scores").values() for row in record["candidates"]]


def test_everything_that_is_left_out_is_counted(run):
    lengths = [{"id": "x", "pair": run.pairs[0].id}, {"id": "y", "pair": "of another run"}]
    scores, pairs = run.records("scores").values(), run.records("pairs").values()
    steps = {
        step["name"]: step for step in figures.funnel(run.skipped, len(run.queries), scores, pairs, lengths)
    }
    assert steps["queries"] == {"name": "queries", "count": 16, "left_out": {"too_few_objects": 2}}
    assert steps["preference pairs"]["count"] == len(run.pairs) == 12
    assert steps["preference pairs"]["left_out"] == {"no_box": 4}
    assert steps["with a score"]["left_out"] == {}
    assert steps["may be chosen, repaired"]["left_out"] == {"no_box": 16, "unparsable": 4}
    for before, after in (("candidates", "with a score"), ("with a score", "may be chosen, repaired")):
        assert steps[before]["count"] == steps[after]["count"] + sum(steps[after]["left_out"].values())
    assert steps["candidates"]["count"] == len(rows_of(run)) and steps["may be chosen, repaired"]["count"] > 0
    assert steps["in the DPO stage"]["count"] == 1
    assert steps["in the DPO stage"]["left_out"] == {"held out or too long": 11}
    marked = {run.pairs[0].id, run.pairs[1].id, "of another run"}
    last = figures.funnel(run.skipped, 16, [], pairs, lengths[1:] + [{"pair": run.pairs[2].id}], marked)[-1]
    assert last["count"] == 1 and last["left_out"] == {"marked": 2, "held out or too long": 9}


def test_nothing_is_counted_of_nothing():
    assert [step["count"] for step in figures.funnel({}, 0, [], [], [])] == [0] * 5
    groups = figures.scores_by_group([], [])
    assert [row["n"] for row in figures.mean_terms(groups)] == [0] * 4 and figures.distributions(groups) == []
    assert figures.curves([]) == []


def test_terms_are_means_over_the_texts_that_have_them(run):
    groups = figures.scores_by_group(run.records("scores").values(), run.pairs)
    means = {row["group"]: row for row in figures.mean_terms(groups)}
    scored = [row["score"] for row in rows_of(run) if row["score"] is not None]
    assert means["all candidates"]["n"] == len(scored)
    assert means["all candidates"]["means"]["S"] == f"{sum(scored) / len(scored):.3f}"
    for side in ("chosen", "rejected"):
        mine = [getattr(pair, f"{side}_score") for pair in run.pairs]
        assert means[side]["n"] == 12 and means[side]["means"]["S"] == f"{sum(mine) / 12:.3f}"
    assert "kept" in means["chosen"]["means"] and "kept" not in means["rejected"]["means"]
    titles = [chart.title for chart in figures.distributions(groups)]
    assert titles[0] == "S" and {"s_loc", "s_sem", "kept"} <= set(titles)


def test_the_run_s_own_lambda_changes_no_pair(run, monkeypatch):
    monkeypatch.setattr(figures, "LAMBDAS", (0.0,))
    pairing = find_pairing(run.flags)
    given = run.recipe, pairing, run.queries, run.records("scores"), run.pairs
    none, own = figures.under_lambdas(*given, 0.8)
    assert own == {"lam": 0.8, "own": True, "queries": 16, "same": 12, "other": 0, "lost": 0, "new": 0}
    assert none["same"] + none["other"] + none["lost"] == 12 and not none["own"]


def test_the_run_s_own_lambda_is_one_of_the_table_s(run):
    given = run.recipe, best_over_worst, run.queries, run.records("scores"), run.pairs
    found = {row["lam"]: row["own"] for row in figures.under_lambdas(*given, 0.8)}
    assert found == {0.0: False, 0.25: False, 0.5: False, 0.75: False, 0.8: True, 1.0: False}
    assert [row["lam"] for row in figures.under_lambdas(*given, 0.5) if row["own"]] == [0.5]
    (own,) = [row for row in page.summary(run)["lambdas"] if row["own"]]
    assert own["lam"] == run.config["spr_lambda"] == 0.8 and own["same"] == len(run.pairs)


def test_where_no_answer_has_a_score_no_lambda_would_change_anything(run):
    """A recipe without λ is not known by them."""
    bare = {
        id: {
            **record,
            "candidates": [{**row, "score": None, "repaired_score": None} for row in record["candidates"]],
        }
        for id, record in run.records("scores").items()
    }
    for scores in ({}, bare):
        assert figures.under_lambdas(run.recipe, best_over_worst, run.queries, scores, []) == []


def test_another_lambda_is_another_pair_where_the_terms_disagree(run):
    """Of two answers one has the better words and one the better boxes."""
    id = next(iter(run.queries))
    row = {**rows_of(run)[0], "not_choosable": None, "not_rejectable": None}
    rows = []
    for name, s_sem, s_loc in (("words", 0.9, 0.1), ("boxes", 0.1, 0.9)):
        terms = {"s_sem": s_sem, "s_loc": s_loc}
        score = 0.8 * s_sem + 0.2 * s_loc
        texts = {"id": name, "text": f"{name} as written", "repaired": name}
        rows.append(
            {**row, **texts, "terms": terms, "repaired_terms": terms, "score": score, "repaired_score": score}
        )
    scores = {id: {"id": id, "candidates": rows}}
    made = [replace(run.pairs[0], query=id, chosen_candidate="words", rejected_candidate="boxes")]
    found = figures.under_lambdas(run.recipe, best_over_worst, run.queries, scores, made)
    assert [(row["lam"], row["same"], row["other"], row["lost"]) for row in found] == [
        (0.0, 0, 1, 0),
        (0.25, 0, 1, 0),
        (0.5, 0, 0, 1),  # both are equal
        (0.75, 1, 0, 0),
        (1.0, 1, 0, 0),
    ]
    found = figures.under_lambdas(run.recipe, best_over_worst, run.queries, scores, [])
    assert [row["new"] for row in found] == [1, 1, 0, 1, 1]
    other = {id: {"id": id, "candidates": [{**one, "terms": {"mine": 1.0}} for one in rows]}}
    assert figures.under_lambdas(run.recipe, best_over_worst, run.queries, other, made) == []


def test_a_large_run_is_weighed_by_a_part_of_it(run, monkeypatch):
    monkeypatch.setattr(figures, "MOST_REWEIGHED", 5)
    scores = run.records("scores")
    found = figures.under_lambdas(run.recipe, best_over_worst, run.queries, scores, run.pairs)
    assert {row["queries"] for row in found} == {4}  # every fourth of sixteen
    assert all(row["same"] + row["other"] + row["lost"] + row["new"] <= 4 for row in found)


class Names(Recipe):
    """A recipe without λ, whose queries are of several kinds."""

    name, BEST, WATCHED = "names", "n", {}

    def queries(self, source):
        return []

    prompts = judge = measure = queries

    def facets(self, query):
        return {"kind": query.truth}


def test_a_recipe_without_lambda_has_no_such_table(run):
    scores = run.records("scores")
    assert figures.under_lambdas(Names(), best_over_worst, run.queries, scores, run.pairs) == []


def test_facets_are_counted_by_region(run):
    queries = {str(n): Query(str(n), (), "?", ["a", "a", "b"] if n else ["b"], "t", 0) for n in range(3)}
    pairs = [replace(run.pairs[0], query="1", chosen_score=0.9, rejected_score=0.4)]
    found = figures.facets(Names(), queries, pairs)["kind"]
    assert found == {
        "rows": [
            {"value": "b", "queries": 3, "pairs": 1, "gap": 0.5},
            {"value": "a", "queries": 2, "pairs": 1, "gap": 0.5},
        ],
        "others": 0,
    }
    many = {str(n): Query(str(n), (), "?", [f"v{n}"], "t", 0) for n in range(50)}
    assert figures.facets(Names(), many, [])["kind"]["others"] == 30


def test_spr_s_facets_are_category_and_size(run):
    found = figures.facets(run.recipe, run.queries, run.pairs)
    labels = Counter(label for query in run.queries.values() for label in {one.label for one in query.truth})
    assert found["category"]["rows"][0]["queries"] == max(labels.values())
    assert {row["value"] for row in found["size"]["rows"]} <= {"small", "medium", "large"}


def test_curves_share_a_chart_for_both_sides(run):
    charts = {chart.title: [one.name for one in chart.series] for chart in figures.curves(run.steps)}
    assert charts == {"loss": ["loss"], "rewards/…": ["chosen", "rejected"], "probe/s_loc": ["probe/s_loc"]}
    odd = [{"step": 1, "loss": None, "text": "x"}, {"step": 2, "loss": 0.5}]
    assert [len(chart.series[0].line) for chart in figures.curves(odd)] == [1]
