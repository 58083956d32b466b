"""The batch plan: every prompt once, pictures together, and what a death leaves of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin.boxes import Box, Space
from spr_plugin.config import SPRConfig
from spr_plugin.data.annotations import AnnotatedImage, Annotation
from spr_plugin.formats import box_format
from spr_plugin.recipes.find import find_recipe
from spr_plugin.recipes.spr.regions import region_query
from spr_plugin.runs.log import Log
from spr_plugin.sampling.plan import (
    add_turn,
    batch_plan,
    candidate,
    candidate_id,
    halves,
    indices,
    left_to_do,
    seed_of,
    undecided,
)

FORM = box_format("llava", "pad")


def query(image: int, seed: int, objects: int):
    space = Space.pixels(64, 64)
    annotations = tuple(Annotation(i, "red circle", Box(i, i, i + 9, i + 9, space)) for i in range(objects))
    picture = AnnotatedImage(str(image), f"{image}.png", 64, 64, annotations)
    return region_query(picture, Box(0, 0, 40 + seed, 40, space), seed)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("a cat \ud83d", "a cat \ufffd"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("a \ud83d\ude00 [0.1, 0.1, 0.2, 0.2]", "a \U0001f600 [0.1, 0.1, 0.2, 0.2]"),
    ],
)
def test_an_answer_cut_in_the_middle_of_a_character_is_logged(tmp_path, said, kept):
    asked = query(1, 2, 3)
    recipe = find_recipe(SPRConfig(), FORM)
    for number, prompt in enumerate(recipe.prompts(asked)):
        record = candidate((asked, prompt), 0, said, recipe)
        Log(tmp_path / str(number)).append(record)
        assert Log(tmp_path / str(number)).read()[record["id"]] == record and record["raw"] == kept


def test_the_likeliest_answer_is_the_first_to_the_plain_prompt():
    """Without that prompt there is none."""
    asked = query(1, 2, 3)
    for prompts, likeliest in ((["plain", "crop"], [("plain", 0)]), (["crop", "reference"], [])):
        config = SPRConfig(spr=True, spr_prompts=prompts)
        made = [(one, index) for one in find_recipe(config, FORM).prompts(asked) for index in (0, 1)]
        drawn = {(one.kind, index): seed_of((asked, one), index, config) for one, index in made}
        assert [key for key, seed in drawn.items() if seed is None] == likeliest and len(drawn) == 4


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 8)), min_size=1, max_size=12), st.integers(1, 9))
def test_the_plan_holds_every_prompt_once_and_pictures_together(shape, size):
    queries = [query(image, index, objects) for index, (image, objects) in enumerate(shape)]
    config = SPRConfig(spr=True, spr_sample_batch=size)
    plan = batch_plan(queries, find_recipe(config, FORM), size)
    asks = [tuple(ask) for batch in plan for ask in batch["asks"]]
    assert sorted(asks) == sorted((q.id, kind) for q in queries for kind in config.spr_prompts)
    assert all(0 < len(batch["asks"]) <= size for batch in plan) and len(
        {batch["id"] for batch in plan}
    ) == len(plan)
    paths = {q.id: q.image.path for q in queries}
    for path in set(paths.values()):
        count = sum(paths[region] == path for region, _ in asks)
        of_picture = [
            batch["id"] for batch in plan if any(paths[region] == path for region, _ in batch["asks"])
        ]
        assert len(of_picture) == -(-count // size)


@given(st.integers(2, 9))
def test_halves_hold_the_whole_in_order(count):
    batch = {"id": "7", "asks": [[str(n), "plain"] for n in range(count)]}
    first, second = halves(batch)
    assert first["asks"] + second["asks"] == batch["asks"] and first["asks"] and second["asks"]
    assert [first["id"], second["id"]] == ["7.0", "7.1"]


def test_what_is_left_to_do(tmp_path):
    """The plan is written once; a batch that was halved stays halved; a batch with one missing candidate is
    asked as a whole.
    """
    log, plan = Log(tmp_path / "candidates"), Log(tmp_path / "batches")
    batches = [{"id": str(n), "asks": [[f"{n}{m}", "plain"] for m in range(2)]} for n in range(3)]
    assert left_to_do(log, plan, lambda: batches, 2) == (batches, set())
    plan.append(*halves(batches[1]))
    logged = [candidate_id(region, "plain", index) for region in ("00", "01", "10") for index in range(2)]
    log.append(*({"id": id} for id in logged), {"id": candidate_id("20", "plain", 0)})
    left, theirs = left_to_do(log, plan, None, 2)
    assert [batch["id"] for batch in left] == ["1.1", "2"] and theirs == {candidate_id("20", "plain", 0)}


class Differ:
    """As much of a recipe as the plan asks: its answers are enough where two differ."""

    again = 2

    prompts = find_recipe(SPRConfig(), FORM).prompts

    def of(self, query):
        return self

    def enough(self, query, texts):
        return len(set(texts)) > 1


def answered(log, batch, texts, samples):
    """Have the log hold these texts, by index, as answers to a batch."""
    rows = [(query, kind, index) for query, kind in batch["asks"] for index in indices(batch, samples)]
    log.append(*(
        {"id": candidate_id(*row), "query": row[0], "index": row[2], "text": texts(*row)} for row in rows
    ))  # fmt: skip


def test_a_turn_asks_the_undecided_again(tmp_path):
    """Their new samples have numbers of their own; whoever goes on plans the same turn, and nothing twice."""
    log, plan, recipe = Log(tmp_path / "candidates"), Log(tmp_path / "batches"), Differ()
    queries = [query(number, 0, 3) for number in range(3)]
    agree, differ, broken = (query.id for query in queries)
    texts = {agree: lambda index: "a", differ: str, broken: lambda index: ""}
    (batch,), _ = left_to_do(log, plan, lambda: batch_plan(queries, recipe, 99), 2)
    answered(log, batch, lambda query, kind, index: texts[query](index), 2)
    assert left_to_do(log, plan, None, 2) == ([], set())
    assert [one.id for one in undecided(queries, recipe, log.read().values(), 2, 1)] == [agree]
    for _ in range(2):
        again = undecided(queries, recipe, log.read().values(), 2, 1)
        add_turn(plan, batch_plan(again, recipe, 99, 1))
        (batch,), theirs = left_to_do(log, plan, None, 2)
        assert batch["turn"] == 1 and {id for id, _ in batch["asks"]} == {agree} and not theirs
    assert list(indices(batch, 2)) == [2, 3] and all(half["turn"] == 1 for half in halves(batch))
    answered(log, batch, lambda query, kind, index: str(index), 2)
    assert left_to_do(log, plan, None, 2) == ([], set())
    # The turn's own answers do not change who was asked again; they count for the next one.
    assert [one.id for one in undecided(queries, recipe, log.read().values(), 2, 1)] == [agree]
    assert undecided(queries, recipe, log.read().values(), 2, 2) == []
    assert batch_plan([], recipe, 99, 2) == []
