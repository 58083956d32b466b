"""Several recipes in one command: each query goes its own recipe's way."""

import json
from pathlib import Path

import pytest

from spr_plugin.config import SPRConfig
from spr_plugin.dpo.probe import held_out
from spr_plugin.errors import UserError
from spr_plugin.formats import box_format
from spr_plugin.hookspecs import hookimpl
from spr_plugin.judging import judge_queries
from spr_plugin.plugins import manager
from spr_plugin.queries import log_queries, logged_queries
from spr_plugin.recipes.base import Source
from spr_plugin.recipes.find import dealt, find_recipe
from spr_plugin.recipes.spatial_ssrl.answers import written
from spr_plugin.runs.layout import Folder
from spr_plugin.sampling.plan import undecided

FORM = box_format("llava", "pad")
CLIP = Path(__file__).parents[2] / "examples" / "tiny_world" / "clip"
RECIPES = ["spr", "spatial_ssrl", "spatial_thinker"]


@pytest.fixture(scope="module")
def world(tiny_world):
    """A tiny world with its scene graphs."""
    return tiny_world(sft=2, spr=12, geometry=True)


@pytest.fixture
def asked(world, tmp_path):
    """``asked(recipes, …flags)`` → (the recipe, its queries)."""
    section = {
        "spatial_thinker": {"annotations": f"{world}/graphs/spr.json"},
        "spr": {"more_than": 1},
        "spatial_ssrl": {"resample": 2},
    }
    (tmp_path / "recipes.yaml").write_text(json.dumps(section))

    def ask(recipes, **flags):
        named = dict(spr_recipe_config=str(tmp_path / "recipes.yaml"), spr_annotations=f"{world}/spr.json")
        own = dict(spr_regions=12, spr_clip=str(CLIP)) | named | flags
        recipe = find_recipe(SPRConfig(spr=True, spr_recipe=recipes, **own), FORM)
        return recipe, list(recipe.queries(Source(image_folder=str(world / "images"))))

    return ask


def test_they_share_the_queries_and_ids_are_those_of_each_alone(asked):
    recipe, queries = asked(["spr=2", "spatial_ssrl", "spatial_thinker"])
    count = {name: [one for one in queries if recipe.of(one).name == name] for name in RECIPES}
    assert {name: len(ones) for name, ones in count.items()} == {
        "spr": 6,
        "spatial_ssrl": 3,
        "spatial_thinker": 3,
    }
    for name in RECIPES:
        alone, own = asked(name, spr_regions=len(count[name]))
        assert [one.own for one in count[name]] == own and recipe.of(count[name][0]).name == alone.name
        assert [recipe.question(one) for one in count[name]] == [alone.question(one) for one in own]
        assert [recipe.prompts(one) for one in count[name]] == [alone.prompts(one) for one in own]
        assert [recipe.worked(one) for one in count[name]] == [alone.worked(one) for one in own]
        assert [recipe.facets(one) for one in count[name]] == [alone.facets(one) for one in own]


@pytest.mark.parametrize(
    ("regions", "shares", "dealt_out"),
    [(10, [1, 1], [5, 5]), (10, [1, 1, 1], [3, 4, 3]), (7, [0.7, 0.2], [5, 2]), (3, [1, 1, 1], [1, 1, 1])],
)
def test_portions_are_whole_and_none_is_lost(regions, shares, dealt_out):
    names = RECIPES[: len(shares)]
    assert list(dealt(regions, dict(zip(names, shares))).values()) == dealt_out


@pytest.mark.parametrize(
    ("recipes", "words"),
    [
        (["spr", "spr"], "--spr_recipe spr spr: must be NAME or NAME=SHARE"),
        (["spr", "spatial_ssrl=-1"], "shares 0 or more"),
        (["spr=0"], "not all of them 0"),
        (["spr", "spatial_ssrl=0"], "--spr_recipe spatial_ssrl would make none of --spr_regions 12"),
        (["spr", "other"], "--spr_recipe other: no plugin has it"),
    ],
)
def test_what_makes_no_sense_is_one_line(asked, recipes, words):
    with pytest.raises(UserError, match=words):
        asked(recipes)


def test_one_that_finds_nothing_is_named(asked, world, tmp_path):
    """The pictures' folder holds none: those of the first lie elsewhere."""
    recipe, _ = asked(["spr", "spatial_ssrl"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no picture|gives no usable region"):
        recipe.queries(Source(image_folder=str(tmp_path / "empty")))


def test_records_come_back_to_their_recipe(asked, tmp_path):
    recipe, queries = asked(RECIPES)
    folder = Folder(tmp_path / "spr")
    log_queries(folder, recipe, queries, {})
    back = {one.id: one for one in logged_queries(folder, recipe)}
    assert [recipe.question(back[one.id]) for one in queries] == [recipe.question(one) for one in queries]
    assert [back[one.id].to_record() for one in queries] == [one.to_record() for one in queries]
    names = {id: record["recipe"] for id, record in folder.log("queries").read().items()}
    assert names == {one.id: one.recipe for one in queries}


def test_answers_are_judged_and_measured_as_each_alone_does(asked):
    """Also where two recipes ask about the same picture."""
    recipe, queries = asked(["spr", "spatial_thinker"], spr_regions=24)
    ready = recipe.on("cpu")
    own, graphs = ([one for one in queries if (one.recipe == "spr") == which] for which in (True, False))
    one, graph = next((a, b) for a in own for b in graphs if a.sources == b.sources)
    texts = [[recipe.worked(query), "no box", ""] for query in (one, graph)]
    candidates = [[{"id": f"{n}{text[:3]}", "text": text} for text in row] for n, row in enumerate(texts)]
    for query, row, record in zip((one, graph), candidates, judge_queries([one, graph], candidates, ready)):
        (alone,) = judge_queries([query.own], [row], ready.of(query))
        assert record == alone and record["recipe"] == query.recipe
    values = recipe.measure([texts[0][0], texts[1][0]], [one, graph])
    own = [recipe.of(query).measure([row[0]], [query.own]) for query, row in zip((one, graph), texts)]
    named = [{f"{query.recipe}/{k}": v for k, v in each.items()} for query, each in zip((one, graph), own)]
    best = (own[0]["s_loc"] + own[1]["reward"]) / 2
    assert values == {**named[0], **named[1], "best": best} and recipe.BEST == "best"
    assert set(recipe.WATCHED) <= values.keys()


def test_each_is_asked_again_as_often_as_it_wants(asked):
    """Spatial-SSRL's undecided twice, SPR's never."""
    recipe, queries = asked(["spr", "spatial_ssrl"])
    candidates = [{"query": query.id, "index": n, "text": "x"} for query in queries for n in range(6)]
    for turn, again in ((1, 6), (2, 6), (3, 0)):
        found = undecided(queries, recipe, candidates, 2, turn)
        assert len(found) == again and {one.recipe for one in found} <= {"spatial_ssrl"}
    right = next(one for one in queries if one.recipe == "spatial_ssrl")
    said = [written("So.", right.truth["answer"]), written("So.", "none")]
    decided = [{"query": right.id, "index": n, "text": text} for n, text in enumerate(said)]
    assert undecided([right], recipe, decided, 2, 1) == []


def test_all_are_watched_and_too_few_answers_tell_no_collapse(asked):
    recipe, queries = asked(["spr=3", "spatial_ssrl"], spr_regions=40, spr_regions_per_image=4)
    watched = held_out(queries, 16, recipe)
    assert [one.recipe for one in watched].count("spr") == 3 and len(watched) == 4
    assert recipe.watched(watched) == {}
    assert recipe.watched(queries[:30]).keys() == {"spr/parsable", "spr/boxes", "spr/s_loc"}
    assert recipe.watched(queries).keys() == recipe.WATCHED.keys()
    assert recipe.watched(queries[:2] + queries[-4:]).keys() == {"spatial_ssrl/format"}


def test_words_of_two_are_explained_by_each(asked):
    recipe, _ = asked(RECIPES)
    said = recipe.MEANINGS
    assert said["s_loc"] == recipe.recipes["spr"].MEANINGS["s_loc"]
    assert "spatial_ssrl: 0.9" in said["S"] and "spatial_thinker: 0.1" in said["S"]
    assert "s_loc (spr), exact (spatial_ssrl), reward (spatial_thinker)" in said["best"]


def test_each_tells_of_its_own_records_which_are_gone_through_anew(asked):
    """SPR's most answers can be read, whatever the other's are; records are held by nobody."""
    recipe, _ = asked(["spr", "spatial_ssrl"])
    right = {"reason": None, "not_choosable": None, "repaired_terms": {"added": 1.0, "missed": 2.0}}
    wrong = {**right, "reason": "unparsable"}
    records = {
        "a": {"recipe": "spr", "candidates": [right, right]},
        "b": {"recipe": "spatial_ssrl", "candidates": [wrong] * 9},
    }
    assert recipe.summary(records.values()) == [
        "2 missed objects added to repaired answers, 4 are missed still"
    ]
    records["a"]["candidates"] = [wrong]
    with pytest.raises(UserError, match="^1 of 1 answers cannot be read"):
        recipe.summary(records.values())


def test_two_that_give_one_id_are_refused(asked):
    class Copy:
        @hookimpl
        def spr_recipe(self, name, config):
            if name != "copy":
                return None
            made = find_recipe(config.but_for({"spr_recipe": ["spatial_ssrl"]}), None)
            made.name = "copy"
            return made

    manager().register(Copy(), "copy")
    try:
        with pytest.raises(UserError, match="--spr_recipe spatial_ssrl copy: two of them give a query"):
            asked(["spatial_ssrl", "copy"])
    finally:
        manager().unregister(name="copy")
