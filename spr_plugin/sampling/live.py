"""The live model answers batches."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from PIL import Image

from spr_plugin.config.candidates import CandidatesFlags
from spr_plugin.data.pictures import prefetch, readable
from spr_plugin.errors import UserError
from spr_plugin.progress import progress, say
from spr_plugin.recipes.base import Recipe
from spr_plugin.runs.log import Log
from spr_plugin.sampling.decoding import decode, drawing
from spr_plugin.sampling.plan import Ask, candidate, halves, indices, prompts_in, seed_of
from spr_plugin.training import ranks
from spr_plugin.training.engine import generating
from spr_plugin.training.host import Host

READERS = 4  # threads that decode the pictures of the batch ahead


class LiveSampler:
    """The live model answers batches; while it does, the pictures and rows of the next batch are made in
    threads.
    """

    def __init__(
        self,
        host: Host,
        recipe: Recipe,
        config: CandidatesFlags,
        log: Log,
        plan: Log,
        logged: set[str],
        asks_of,
    ):
        self.host, self.recipe, self.config, self.log, self.plan = host, recipe, config, log, plan
        self.logged, self.asks_of = logged, asks_of
        self.draw = drawing(config.spr_temperature, config.spr_top_p, config.spr_top_k)
        self.tokenizing = threading.Lock()  # one thread at a time: fast tokenizers are not made for more
        self.unread = 0

    def run(self, batches: list[dict]) -> None:
        """Answer this rank's share of the batches. In step with the others, it repeats one where it has none
        left.
        """
        with generating(self.host) as self.in_step, ThreadPoolExecutor(READERS) as readers:
            turns = (
                ranks.rounds(batches)
                if self.in_step
                else [(batch, True) for batch in ranks.share(batches, prompts_in)]
            )
            prepared = prefetch(lambda turn: self.rows(self.asks_of(turn[0]), readers), turns)
            bar = progress(
                prepared,
                len(turns),
                "sampling",
                lambda: f"{self.unread} unreadable pictures",
                show=ranks.rank() == 0,
            )
            for (batch, mine), rows in bar:
                records = list(self.answered(batch, rows))
                if mine:
                    self.log.append(*(record for record in records if record["id"] not in self.logged))

    def rows(self, asks: list[Ask], readers: ThreadPoolExecutor) -> list[dict | None]:
        """The host's row of each prompt, None where a picture of it cannot be read. A picture is decoded
        once.
        """
        names = {picture.source: picture.id for query, _ in asks for picture in query.pictures}
        pictures = dict(zip(names, readers.map(readable, names, names.values())))
        wanted = {}
        for query, prompt in asks:
            wanted.setdefault((query.sources, prompt.crop), (prompt, []))[1].append(prompt.text)
        with self.tokenizing:
            # An iterator a picture: rows are handed out below in the order of their prompts.
            made = {
                shows: iter(
                    self.host.questions(prompt.shown([pictures[source] for source in shows[0]]), texts)
                )
                for shows, (prompt, texts) in wanted.items()
                if all(pictures[source] is not None for source in shows[0])
            }
        return [next(made.get((query.sources, prompt.crop), iter(())), None) for query, prompt in asks]

    def answered(self, batch: dict, rows: list[dict | None]) -> Iterator[dict]:
        """Candidate records of one batch. A picture that cannot be read gives records without text: counted,
        not asked again.
        """
        asks, samples = self.asks_of(batch), indices(batch, self.config.spr_samples)
        asked = {number: row for number, row in enumerate(rows) if row is not None}  # by place in the batch
        self.unread += len(rows) - len(asked)
        seeds = [[seed_of(asks[number], index, self.config) for index in samples] for number in asked]
        try:
            answers = self.decoded(list(asked.values()), seeds)
        except torch.cuda.OutOfMemoryError:
            answers = None
        if answers is None:  # outside the handler, whose traceback would keep the tensors alive
            yield from self.split(batch, rows)
            return
        with self.tokenizing:
            texts = dict(zip(asked, map(self.host.texts, answers)))
        for number, ask in enumerate(asks):
            for index, raw in zip(samples, texts.get(number, itertools.repeat(""))):
                yield candidate(ask, index, raw, self.recipe)

    def decoded(self, rows: list[dict], seeds: list[list[int | None]]) -> list[list[list[int]]]:
        """The answers to these rows, as tokens; prompts that show a picture whole share what it takes. In
        step, every rank decodes equally many rows, since a host may call a module once a row: none is shared.
        """
        length = self.config.spr_max_new_tokens
        if not self.in_step:
            return decode(self.host, rows, seeds, self.draw, length, share=True) if rows else []
        more = max(ranks.from_all(len(rows))) - len(rows)
        if not rows and not more:
            return []
        with self.tokenizing:
            spare = (rows or self.host.questions([Image.new("RGB", (64, 64))], ["?"]))[0]
        fillers = [[0] * self.config.spr_samples] * more
        return decode(self.host, rows + [spare] * more, seeds + fillers, self.draw, length, ranks.any_of)[
            : len(rows)
        ]

    def split(self, batch: dict, rows: list[dict | None]) -> Iterator[dict]:
        """Half by half what was too much at once; the plan keeps it, so that nobody tries the whole again.
        Ranks in step cannot: the others are still in the batch.
        """
        if self.in_step:
            raise UserError(
                f"out of memory with {len(rows)} prompts while ranks answer in step: lower"
                " --spr_sample_batch, with --spr_overwrite"
            )
        if len(rows) < 2:
            raise UserError(
                f"out of memory with one prompt of {self.config.spr_samples} samples: lower --spr_samples or"
                f" --spr_max_new_tokens (query {batch['asks'][0][0]})"
            )
        # torch keeps what the failed batch had in pieces that no larger tensor fits in.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        first, second = halves(batch)
        self.plan.append(first, second)
        say(
            f"batch {batch['id']} does not fit in memory with {len(rows)} prompts and is split;"
            " --spr_sample_batch sets the size"
        )
        yield from self.answered(first, rows[: len(first["asks"])])
        yield from self.answered(second, rows[len(first["asks"]) :])
