"""The live model, or a server, answers every query several times.

The batch plan is written once, from all queries, and a batch is the unit of work on any number of ranks.
Every candidate has noise of its own, seeded by its id, so that a run that died gives the same answers when it
goes on (same plan, machine, thread count and dtype).
"""

from __future__ import annotations

import functools

from PIL import Image

from spr_plugin.config.candidates import CandidatesFlags
from spr_plugin.data.pictures import read_all
from spr_plugin.errors import UserError
from spr_plugin.progress import progress, say
from spr_plugin.queries import wanted_of
from spr_plugin.recipes.base import Query, Recipe
from spr_plugin.runs.log import Log
from spr_plugin.sampling.live import LiveSampler
from spr_plugin.sampling.plan import (
    Ask,
    add_turn,
    batch_plan,
    candidate,
    candidate_id,
    indices,
    left_to_do,
    prompts_in,
    seed_of,
    undecided,
)
from spr_plugin.training import ranks
from spr_plugin.training.host import Host


def sample(
    host: Host | None, queries: list[Query], recipe: Recipe, config: CandidatesFlags, log: Log, plan: Log
) -> None:
    """Fill ``log`` with a Candidate record for each (query, prompt, sample), and with as many more for the
    queries that the recipe has asked again; what it already holds is not asked for.

    Args:
        host: whose live model answers; None is enough for a server.

    Raises:
        UserError: a picture has vanished since the queries were made, one prompt alone does not fit in
            memory, a server fails or has too many empty answers.
    """
    by_id = {query.id: query for query in queries}
    samples, size = config.spr_samples, config.spr_sample_batch

    def asks_of(batch: dict) -> list[Ask]:
        prompts = {
            id: {prompt.kind: prompt for prompt in recipe.prompts(by_id[id])} for id, _ in batch["asks"]
        }
        return [(by_id[id], prompts[id][kind]) for id, kind in batch["asks"]]

    def work_of(turn: int) -> tuple[list[dict], set[str]]:
        # Seen by its earlier turns alone, which are whole: whoever goes on here decides the same.
        if turn and (again := undecided(queries, recipe, log.read().values(), samples, turn)):
            add_turn(plan, batch_plan(again, recipe, size, turn))
        return left_to_do(log, plan, lambda: batch_plan(queries, recipe, size), samples)

    for turn in range(1 + recipe.again):
        batches, logged = ranks.from_rank_0(functools.partial(work_of, turn))
        if config.spr_sampler == "openai":
            wanted = wanted_of(recipe, queries, samples)
            _sample_on_server(ranks.share(batches, prompts_in), logged, asks_of, recipe, config, log, wanted)
        elif batches:  # also without a share of its own: under ZeRO-3 all ranks gather the model together
            assert host is not None, "a model answers where no server does"
            LiveSampler(host, recipe, config, log, plan, logged, asks_of).run(batches)
        log.close()
        ranks.barrier()


def _sample_on_server(
    batches: list[dict],
    logged: set[str],
    asks_of,
    recipe: Recipe,
    config: CandidatesFlags,
    log: Log,
    wanted: int,
) -> None:
    """This rank's share of the batches, of ``wanted`` candidates in all. Empty answers are candidates only if
    they are few."""
    from spr_plugin.sampling.server import ask_server, name_of

    unread: set[str] = set()

    def missing(batch: dict, ask: Ask) -> dict[int, int | None]:
        numbers = indices(batch, config.spr_samples)
        ids = {index: candidate_id(ask[0].id, ask[1].kind, index) for index in numbers}
        return {index: seed_of(ask, index, config) for index, id in ids.items() if id not in logged}

    def shown_by(ask: Ask) -> list[Image.Image] | None:
        query, prompt = ask
        pictures = read_all(query.pictures)
        if pictures is None:
            unread.update(picture.path for picture in query.pictures)
        return pictures and prompt.shown(pictures)

    def record(ask: Ask, index: int, raw: str) -> dict:
        return candidate(ask, index, raw, recipe)

    bar = progress(batches, len(batches), "sampling", show=ranks.rank() == 0)
    asked = ((ask, missing(batch, ask)) for batch in bar for ask in asks_of(batch))
    most_empty = config.spr_max_empty * wanted

    def thinks(ask: Ask) -> bool:
        return recipe.of(ask[0]).thinks

    told = asked, config, log, record, shown_by, most_empty, thinks
    empty = ask_server(*told) if batches else []
    silent = sum(ranks.from_all(len(empty)))
    if silent > most_empty:
        raise UserError(
            f"{name_of(config)}: {silent} of {wanted} answers are empty, more"
            f" than --spr_max_empty {config.spr_max_empty} allows; mend the server or raise the share, and"
            " run the same command again: the others are kept"
        )
    if empty:
        log.append(*empty)
    pictures = len(set().union(*ranks.from_all(unread)))
    if ranks.rank() == 0 and (silent or pictures):
        say(f"sampling: {silent} of {wanted} answers are empty, {pictures} pictures cannot be read")
