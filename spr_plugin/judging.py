"""The stage of the scores: a picture is opened once, and the recipe judges all answers about it together."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from PIL import Image

from spr_plugin.data.pictures import prefetch, read_all
from spr_plugin.progress import progress, say
from spr_plugin.recipes.base import Judged, Query, Recipe, unjudged
from spr_plugin.runs.log import Log
from spr_plugin.training import ranks, weights


def judge_all(queries: list[Query], recipe: Recipe, device, candidates: Mapping[str, dict], log: Log) -> None:
    """One record a query, of whose candidates each is judged; what ``log`` holds is not judged again."""
    logged = ranks.from_rank_0(lambda: log.resume({query.id for query in queries}))
    # Pictures of which a query is missing are judged as a whole, so that a batch is the same whatever was
    # done before.
    wanted = [about for about in by_pictures(queries) if any(query.id not in logged for query in about)]
    mine = ranks.share(wanted, len)
    answers = by_query(candidates.values())
    asked = {query.id: query for query in queries}
    if wanted:
        recipe = recipe.after(
            (asked[id], one["kind"], one["text"])
            for id, rows in answers.items()
            if id in asked
            for one in rows
        )
        if recipe.learned and ranks.rank() == 0:
            say(recipe.learned)
    with weights.loading_whole():  # under ZeRO-3 a model that is loaded would be dealt among the ranks
        ready = recipe.on(device) if mine else recipe
    shown = progress(prefetch(pictures_of, mine), len(mine), "scoring pictures", show=ranks.rank() == 0)
    for about, pictures in shown:
        records = judge_pictures(pictures, about, [answers.get(query.id, []) for query in about], ready)
        log.append(*(record for record in records if record["id"] not in logged))
    # Models refer to themselves in circles: CLIP would stay beside the policy through DPO.
    del ready
    gc.collect()
    ranks.barrier()


def by_query(candidates: Iterable[dict]) -> dict[str, list[dict]]:
    """Candidate records grouped by query, in canonical order."""
    grouped = {}
    for record in sorted(candidates, key=lambda c: (c["query"], c["kind"], c["index"])):
        grouped.setdefault(record["query"], []).append(record)
    return grouped


def by_pictures(queries: Iterable[Query]) -> list[list[Query]]:
    """Queries grouped by the pictures that they show, in the order of the first of each."""
    grouped = {}
    for query in queries:
        grouped.setdefault(query.sources, []).append(query)
    return list(grouped.values())


def pictures_of(queries: Sequence[Query]) -> list[Image.Image] | None:
    """The pictures that all of these queries show, or None where one is no readable picture."""
    return read_all(queries[0].pictures)


def judge_queries(
    queries: Sequence[Query], candidates: Sequence[Sequence[Mapping]], recipe: Recipe
) -> list[dict]:
    """:func:`judge_pictures` of the pictures that all of these queries show, read from their files."""
    return judge_pictures(pictures_of(queries), queries, candidates, recipe)


def judge_pictures(
    pictures: Sequence[Image.Image] | None,
    queries: Sequence[Query],
    candidates: Sequence[Sequence[Mapping]],
    recipe: Recipe,
) -> list[dict]:
    """The records of queries that all show these pictures.

    Args:
        pictures: None where they cannot be read: no answer has a score then.
        candidates: of each query, with an id and a text.
    """
    texts = [[candidate["text"] for candidate in row] for row in candidates]
    judged = _unread(texts) if pictures is None else recipe.judge(pictures, queries, texts)
    return [_record(*one, recipe.of(one[0]).name) for one in zip(queries, candidates, judged)]


def _unread(texts: Sequence[Sequence[str]]) -> list[Judged]:
    why = "image_unreadable"
    return [Judged([], tuple(unjudged(text, why) for text in row)) for row in texts]


def _record(query: Query, candidates: Sequence[Mapping], judged: Judged, recipe: str) -> dict:
    rows = [{"id": one["id"], **asdict(answer)} for one, answer in zip(candidates, judged.answers)]
    return {"id": query.id, "recipe": recipe, "truth": judged.truth, "candidates": rows}
