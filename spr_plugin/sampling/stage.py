"""The live model, or a server, answers every query several times.

The batch plan is written once, from all queries, and a batch is the unit of work on any number of ranks. Every candidate has noise of its
own, seeded by its id, so that a run that died gives the same answers when it goes on (same plan, machine, thread count and dtype).
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import torch
from PIL import Image

from spr_plugin.config import SPRConfig
from spr_plugin.data.loading import sound
from spr_plugin.data.pictures import MISSING, BadImage, open_image
from spr_plugin.errors import UserError
from spr_plugin.ids import digest
from spr_plugin.progress import progress, say
from spr_plugin.queries import wanted_of
from spr_plugin.recipes.base import Prompt, Query, Recipe
from spr_plugin.redaction import shown
from spr_plugin.runs.log import Log
from spr_plugin.sampling.decoding import decode, drawing
from spr_plugin.training import ranks
from spr_plugin.training.engine import generating
from spr_plugin.training.host import Host

READERS = 4  # threads that decode the pictures of the batch ahead
Ask = tuple[Query, Prompt]


@dataclass(frozen=True)
class Candidate:
    """One answer of the model to one query.

    ``raw`` is what the model said to the prompt of ``kind``; ``text`` is the same as an answer to the query's question.
    ``index`` numbers the samples of one prompt.
    """

    id: str
    query: str
    kind: str
    index: int
    raw: str
    text: str


def candidate_id(query: str, kind: str, index: int) -> str:
    return digest([query, kind, index])


def candidate(ask: Ask, index: int, raw: str, recipe: Recipe) -> dict:
    """The record of one answer."""
    query, prompt = ask
    raw = sound(raw)
    text = recipe.restated(raw, prompt, query)
    return asdict(Candidate(candidate_id(query.id, prompt.kind, index), query.id, prompt.kind, index, raw, text))


# --- the plan -----------------------------------------------------------------------------------------------------------------


def batch_plan(queries: list[Query], recipe: Recipe, size: int) -> list[dict]:
    """Batches of up to ``size`` prompts, as records ``{"id", "asks": [[query, kind], …]}``.

    The prompts of the same pictures stay together, so that they are read and encoded once; prompts of a length meet.
    """
    pictures = {}
    for query in queries:
        asks = pictures.setdefault(paths_of(query), [])
        asks.extend((len(prompt.text), query.id, prompt.kind) for prompt in recipe.prompts(query))
    batches = [[]]
    for asks in sorted(pictures.values(), key=lambda asks: max(asks)[0]):
        # Rounded up: the number of batches, and of prompts in each.
        even = -(-len(asks) // -(-len(asks) // size))  # nine prompts are five and four, not eight and one
        for start in range(0, len(asks), even):
            piece = [[query, kind] for _, query, kind in asks[start : start + even]]
            if len(batches[-1]) + len(piece) > size:
                batches.append([])
            batches[-1] += piece
    return [{"id": f"{number:08d}", "asks": asks} for number, asks in enumerate(batches)]


def paths_of(query: Query) -> tuple[str, ...]:
    return tuple(picture.path for picture in query.pictures)


def prompts_in(batch: dict) -> int:
    return len(batch["asks"])


def halves(batch: dict) -> list[dict]:
    """The two batches that take the place of one which did not fit in memory."""
    middle = (len(batch["asks"]) + 1) // 2
    return [{"id": f"{batch['id']}.{side}", "asks": asks} for side, asks in enumerate((batch["asks"][:middle], batch["asks"][middle:]))]


def left_to_do(log: Log, plan: Log, make_plan: Callable[[], list[dict]], samples: int) -> tuple[list[dict], set[str]]:
    """Batches with candidates that ``log`` lacks, and which of theirs it holds. Writes the plan if there is none; for one rank."""
    plan.held()
    if not plan.path.exists():
        plan.write(make_plan())
    batches, held = plan.read(), log.held()
    left, theirs = [], set()
    for batch in batches.values():
        if f"{batch['id']}.0" in batches:
            continue
        ids = {candidate_id(query, kind, index) for query, kind in batch["asks"] for index in range(samples)}
        if not ids <= held:
            left.append(batch)
            theirs |= ids & held
    return left, theirs


# --- the stage ----------------------------------------------------------------------------------------------------------------


def sample(host: Host | None, queries: list[Query], recipe: Recipe, config: SPRConfig, log: Log, plan: Log) -> None:
    """Fill ``log`` with a Candidate record for each (query, prompt, sample); what it already holds is not asked again.

    Args:
        host: whose live model answers; None is enough for a server.

    Raises:
        UserError: a picture has vanished since the regions were made, one prompt alone does not fit in
            memory, a server fails or has too many empty answers.
    """
    make_plan = lambda: batch_plan(queries, recipe, config.spr_sample_batch)
    batches, held = ranks.agreed(lambda: left_to_do(log, plan, make_plan, config.spr_samples))
    by_id = {query.id: query for query in queries}

    def asks_of(batch: dict) -> list[Ask]:
        prompts = {id: {prompt.kind: prompt for prompt in recipe.prompts(by_id[id])} for id, _ in batch["asks"]}
        return [(by_id[id], prompts[id][kind]) for id, kind in batch["asks"]]

    if config.spr_sampler == "openai":
        wanted = wanted_of(recipe, queries, config)
        _sample_on_server(ranks.share(batches, prompts_in), held, asks_of, recipe, config, log, wanted)
    elif batches:  # also without a share of its own: under ZeRO-3 all ranks gather the model together
        LiveSampler(host, recipe, config, log, plan, held, asks_of).run(batches)
    log.close()
    ranks.barrier()


def _sample_on_server(
    batches: list[dict], held: set[str], asks_of, recipe: Recipe, config: SPRConfig, log: Log, wanted: int
) -> None:
    """This rank's share of the batches, of ``wanted`` candidates in all. Empty answers are candidates only if
    they are few."""
    from spr_plugin.sampling.server import ask_server

    unread = set()

    def missing(ask: Ask) -> dict[int, int]:
        ids = {index: candidate_id(ask[0].id, ask[1].kind, index) for index in range(config.spr_samples)}
        return {index: int(id, 16) for index, id in ids.items() if id not in held}

    def shown_by(ask: Ask) -> list[Image.Image] | None:
        query, prompt = ask
        pictures = opened(query)
        if pictures is None:
            unread.update(paths_of(query))
        return pictures and prompt.shown(pictures)

    def record(ask: Ask, index: int, raw: str) -> dict:
        return candidate(ask, index, raw, recipe)

    bar = progress(batches, len(batches), "sampling", show=ranks.rank() == 0)
    asked = ((ask, missing(ask)) for batch in bar for ask in asks_of(batch))
    most_empty = config.spr_max_empty * wanted
    empty = ask_server(asked, config, log, record, shown_by, most_empty) if batches else []
    found = sum(ranks.from_all(len(empty)))
    if found > most_empty:
        raise UserError(
            f"--spr_sampler_url {shown(config.spr_sampler_url)}: {found} of {wanted} answers are empty, more "
            f"than --spr_max_empty {config.spr_max_empty} allows; mend the server or raise the share, and run "
            "the same command again: the others are kept"
        )
    if empty:
        log.append(*empty)
    pictures = len(set().union(*ranks.from_all(unread)))
    if ranks.rank() == 0 and (found or pictures):
        say(f"sampling: {found} of {wanted} answers are empty, {pictures} pictures cannot be read")


class LiveSampler:
    """The live model answers batches; while it does, the pictures and rows of the next batch are made in threads."""

    def __init__(self, host: Host, recipe: Recipe, config: SPRConfig, log: Log, plan: Log, held: set[str], asks_of):
        self.host, self.recipe, self.config, self.log, self.plan = host, recipe, config, log, plan
        self.held, self.asks_of = held, asks_of
        self.draw = drawing(config.spr_temperature, config.spr_top_p, config.spr_top_k)
        self.tokenizing = threading.Lock()  # one thread at a time: fast tokenizers are not made for more
        self.unread = 0

    def run(self, batches: list[dict]) -> None:
        """Answer this rank's share of the batches. In step with the others, it repeats one where it has none left."""
        with generating(self.host) as self.in_step, ThreadPoolExecutor(READERS) as readers:
            turns = ranks.rounds(batches) if self.in_step else [(batch, True) for batch in ranks.share(batches, prompts_in)]
            prepared = ahead(lambda turn: self.rows(self.asks_of(turn[0]), readers), turns)
            bar = progress(prepared, len(turns), "sampling", lambda: f"{self.unread} unreadable pictures", show=ranks.rank() == 0)
            for (batch, mine), rows in bar:
                records = list(self.answered(batch, rows))
                if mine:
                    self.log.append(*(record for record in records if record["id"] not in self.held))

    def rows(self, asks: list[Ask], readers: ThreadPoolExecutor) -> list[dict | None]:
        """The host's row of each prompt, None where a picture of it cannot be read. A picture is decoded once."""
        names = {picture.path: picture.id for query, _ in asks for picture in query.pictures}
        pictures = dict(zip(names, readers.map(readable, names, names.values())))
        wanted = {}
        for query, prompt in asks:
            wanted.setdefault((paths_of(query), prompt.crop), (prompt, []))[1].append(prompt.text)
        with self.tokenizing:
            made = {
                shows: iter(self.host.questions(prompt.shown([pictures[path] for path in shows[0]]), texts))
                for shows, (prompt, texts) in wanted.items()
                if all(pictures[path] is not None for path in shows[0])
            }
        return [next(made.get((paths_of(query), prompt.crop), iter(())), None) for query, prompt in asks]

    def answered(self, batch: dict, rows: list[dict | None]) -> Iterator[dict]:
        """Candidate records of one batch. A picture that cannot be read gives records without text: counted, not asked again."""
        asks, samples = self.asks_of(batch), range(self.config.spr_samples)
        shown = [place for place, row in enumerate(rows) if row is not None]
        self.unread += len(rows) - len(shown)
        asked = [batch["asks"][place] for place in shown]
        seeds = [[int(candidate_id(region, kind, index), 16) % 2**63 for index in samples] for region, kind in asked]
        try:
            said = self.decoded([rows[place] for place in shown], seeds)
        except torch.cuda.OutOfMemoryError:
            said = None
        if said is None:  # outside the handler, whose traceback would keep the tensors alive
            yield from self.split(batch, rows)
            return
        with self.tokenizing:
            texts = dict(zip(shown, map(self.host.texts, said)))
        for place, ask in enumerate(asks):
            for index, raw in zip(samples, texts.get(place, itertools.repeat(""))):
                yield candidate(ask, index, raw, self.recipe)

    def decoded(self, rows: list[dict], seeds: list[list[int]]) -> list[list[list[int]]]:
        """The answers to these rows, as tokens. In step, every rank decodes equally many rows, since a host may call a module once a row."""
        length = self.config.spr_max_new_tokens
        if not self.in_step:
            return decode(self.host, rows, seeds, self.draw, length) if rows else []
        more = max(ranks.from_all(len(rows))) - len(rows)
        if not rows and not more:
            return []
        with self.tokenizing:
            spare = (rows or self.host.questions([Image.new("RGB", (64, 64))], ["?"]))[0]
        fillers = [[0] * self.config.spr_samples] * more
        return decode(self.host, rows + [spare] * more, seeds + fillers, self.draw, length, ranks.any_of)[: len(rows)]

    def split(self, batch: dict, rows: list[dict | None]) -> Iterator[dict]:
        """Half by half what was too much at once; the plan keeps it, so that nobody tries the whole again. Ranks in step cannot: the others are
        still in the batch."""
        if self.in_step:
            raise UserError(f"out of memory with {len(rows)} prompts while ranks answer in step: lower --spr_sample_batch, with --spr_overwrite")
        if len(rows) < 2:
            raise UserError(
                f"out of memory with one prompt of {self.config.spr_samples} samples: lower --spr_samples or --spr_max_new_tokens "
                f"(query {batch['asks'][0][0]})"
            )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        first, second = halves(batch)
        self.plan.append(first, second)
        say(f"batch {batch['id']} does not fit in memory with {len(rows)} prompts and is split; --spr_sample_batch sets the size")
        yield from self.answered(first, rows[: len(first["asks"])])
        yield from self.answered(second, rows[len(first["asks"]) :])


def opened(query: Query) -> list[Image.Image] | None:
    """The query's pictures, None where one of them is no readable picture."""
    pictures = [readable(picture.path, picture.id) for picture in query.pictures]
    return None if any(picture is None for picture in pictures) else pictures


def readable(path: str, record_id: str) -> Image.Image | None:
    """The picture, or None if the file is no readable picture. UserError if it has vanished: that can be mended, and asked again."""
    try:
        return open_image(path, record_id)
    except BadImage as error:
        if error.reason == MISSING:
            raise UserError(f"record {record_id}: {path} has vanished since the queries were made; put it back and run the same command") from None
        return None


def ahead(make: Callable, items: Iterable) -> Iterator[tuple]:
    """``(item, make(item))``, made in a thread one item ahead of the caller."""
    with ThreadPoolExecutor(1) as worker:
        before = None
        for item in items:
            now = (item, worker.submit(make, item))
            if before:
                yield before[0], before[1].result()
            before = now
        if before:
            yield before[0], before[1].result()
