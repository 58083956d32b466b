"""The plan of the batches, which is written once, from all queries: a batch is the unit of work on any number
of ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import TypeVar

from spr_plugin.config.candidates import PLAIN, CandidatesFlags
from spr_plugin.ids import digest
from spr_plugin.loading import sound
from spr_plugin.recipes.base import Prompt, Query, Recipe
from spr_plugin.runs.log import Log, note_begin

Ask = tuple[Query, Prompt]
T = TypeVar("T")


@dataclass(frozen=True)
class Candidate:
    """One answer of the model to one query.

    ``raw`` is what the model said to the prompt of ``kind``; ``text`` is the same as an answer to the query's
    question. ``index`` numbers the samples of one prompt.
    """

    id: str
    query: str
    kind: str
    index: int
    raw: str
    text: str


def candidate_id(query: str, kind: str, index: int) -> str:
    return digest([query, kind, index])


def seed_of(ask: Ask, index: int, config: CandidatesFlags) -> int | None:
    """Of a candidate's noise: its id; None for one that is the likeliest answer, drawn without noise."""
    query, prompt = ask
    greedy = config.spr_greedy and prompt.kind == PLAIN and index == 0
    # A hash is longer than what torch.Generator takes.
    return None if greedy else int(candidate_id(query.id, prompt.kind, index), 16) % 2**63


def candidate(ask: Ask, index: int, raw: str, recipe: Recipe) -> dict:
    """The record of one answer."""
    query, prompt = ask
    raw = sound(raw)
    text = recipe.restated(raw, prompt, query)
    made = Candidate(candidate_id(query.id, prompt.kind, index), query.id, prompt.kind, index, raw, text)
    return {**asdict(made), "recipe": recipe.of(query).name}


def batch_plan(queries: list[Query], recipe: Recipe, size: int, turn: int = 0) -> list[dict]:
    """Batches of up to ``size`` prompts, as records ``{"id", "asks": [[query, kind], …]}``, of a later turn
    with its number.

    The prompts of the same pictures stay together, so that they are read and encoded once; prompts of a
    length meet.
    """
    pictures = {}
    for query in queries:
        asks = pictures.setdefault(query.sources, [])
        asks.extend((len(prompt.text), query.id, prompt.kind) for prompt in recipe.prompts(query))
    batches = dealt(pictures.values(), lambda ask: ask[0], size)
    name, more = (f"turn-{turn}-", {"turn": turn}) if turn else ("", {})
    return [
        {"id": f"{name}{number:08d}", "asks": [[query, kind] for _, query, kind in asks], **more}
        for number, asks in enumerate(batches)
        if asks
    ]


def undecided(
    queries: Iterable[Query], recipe: Recipe, candidates: Iterable[dict], samples: int, turn: int
) -> list[Query]:
    """The queries that are asked in a later turn: their recipe has so many, and their answers in the turns
    before, of ``samples`` each, are not enough: others may make a pair.
    """
    texts: dict[str, list[str]] = {}
    for one in candidates:
        if one["index"] < turn * samples:
            texts.setdefault(one["query"], []).append(one["text"])
    answered = ((query, texts.get(query.id, [])) for query in queries if recipe.of(query).again >= turn)
    # Of pictures that cannot be read all are empty, and would be again.
    return [query for query, own in answered if any(own) and not recipe.enough(query, own)]


def indices(batch: dict, samples: int) -> range:
    """The numbers of the samples of each of a batch's prompts."""
    turn = batch.get("turn", 0)
    return range(turn * samples, (turn + 1) * samples)


def dealt(families: Iterable[list[T]], length: Callable[[T], int], size: int) -> list[list[T]]:
    """Batches of up to ``size`` of what stands in families, each of which stays together as far as it goes;
    those of a length meet.
    """
    batches: list[list[T]] = [[]]
    for asks in sorted(families, key=lambda asks: max(map(length, asks))):
        # Rounded up: the number of batches, and of prompts in each.
        even = -(-len(asks) // -(-len(asks) // size))  # nine prompts are five and four, not eight and one
        for start in range(0, len(asks), even):
            piece = asks[start : start + even]
            if len(batches[-1]) + len(piece) > size:
                batches.append([])
            batches[-1] += piece
    return batches


def prompts_in(batch: dict) -> int:
    return len(batch["asks"])


def halves(batch: dict) -> list[dict]:
    """The two batches that take the place of one which did not fit in memory."""
    middle = (len(batch["asks"]) + 1) // 2
    return [
        {**batch, "id": f"{batch['id']}.{side}", "asks": asks}
        for side, asks in enumerate((batch["asks"][:middle], batch["asks"][middle:]))
    ]


def add_turn(plan: Log, batches: list[dict]) -> None:
    """Have the plan hold the batches of a later turn too; those that it holds already stay. For one rank."""
    known = plan.read()
    plan.append(*(batch for batch in batches if batch["id"] not in known))


def left_to_do(
    log: Log, plan: Log, make_plan: Callable[[], list[dict]], samples: int
) -> tuple[list[dict], set[str]]:
    """Batches with candidates that ``log`` lacks, and which of theirs it holds. Writes the plan if there is
    none; for one rank.
    """
    plan.held()
    if not plan.path.exists():
        plan.write(make_plan())
    batches, logged = plan.read(), log.held()
    left, theirs, wanted = [], set(), 0
    for batch in batches.values():
        # It was split: its halves stand in the plan too.
        if f"{batch['id']}.0" in batches:
            continue
        numbers = indices(batch, samples)
        ids = {candidate_id(query, kind, index) for query, kind in batch["asks"] for index in numbers}
        wanted += len(ids)
        if not ids <= logged:
            left.append(batch)
            theirs |= ids & logged
    if left:
        note_begin(log.directory, wanted, len(logged))
    return left, theirs
