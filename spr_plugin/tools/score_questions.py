"""``spr score --recipe NAME``: anybody's answers to a recipe's questions, judged and paired without a
trainer.

Questions are a file of :mod:`spr_plugin.recipes.questions`; a response is one line ``{"id", "question",
"text"}``, where `question` is the id of one of them. Nothing is written before all is judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from spr_plugin.errors import UserError
from spr_plugin.files import write_json_lines
from spr_plugin.judging import judge_queries
from spr_plugin.loading import read_json_lines
from spr_plugin.outputs import refuse_overwriting, refuse_unwritable
from spr_plugin.pairing import Pairing, make_pair
from spr_plugin.progress import listed, progress, say
from spr_plugin.recipes.base import Query, Recipe
from spr_plugin.recipes.questions import read_questions

FIELDS = "id", "question", "text"
JUDGED = "terms score reason repaired repaired_terms repaired_score not_choosable not_rejectable".split()


def score_questions(
    recipe: Recipe, pairing: Pairing, questions: str, responses: str, out: str, pairs: str | None = None
) -> Counter[str]:
    """Judge the responses and write the outputs; how many responses and pairs, and questions without a pair
    by reason.

    Args:
        recipe: ready to judge.
        out: gets each response with what `JUDGED` names, in the order of the responses.
        pairs: gets the preference pairs.

    Raises:
        UserError: names the line that is no question or no response, or the output that cannot be written.
    """
    outputs = {"--out": out, **({"--pairs": pairs} if pairs else {})}
    refuse_unwritable(outputs)
    refuse_overwriting(outputs, (("--questions", questions), ("--responses", responses)))
    asked = _questions(questions, recipe)
    given = _responses(responses, asked)
    answers_to: dict[str, list[dict[str, Any]]] = {}
    for row in given:
        answers_to.setdefault(row["question"], []).append({"id": row["id"], "text": row["text"]})
    counts, judged, made = Counter(responses=len(given)), {}, []
    for id, answers in progress(list(answers_to.items()), len(answers_to), "scoring"):
        query = asked[id]
        (record,) = judge_queries([query], [answers], recipe)
        judged |= {(id, one["id"]): one for one in record["candidates"]}
        pair = make_pair(query, recipe.question(query), record["candidates"], pairing)
        counts["pairs" if not isinstance(pair, str) else f"no pair: {pair}"] += 1
        made += [] if isinstance(pair, str) else [asdict(pair)]
    rows = ({**row, **_judged(judged[row["question"], row["id"]])} for row in given)
    write_json_lines(out, rows)
    if pairs:
        write_json_lines(pairs, made)
    say(listed(counts))
    return counts


def _judged(one: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one[name] for name in JUDGED}


def _questions(file: str, recipe: Recipe) -> dict[str, Query]:
    asked: dict[str, Query] = {}
    for query, where in read_questions(file, recipe, "--questions"):
        if query.id in asked:
            raise UserError(f"{where}: the question {query.id} stands there twice")
        asked[query.id] = query
    if not asked:
        raise UserError(f"--questions {file}: holds no question")
    return asked


def _responses(file: str, asked: Mapping[str, Query]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    seen = set[tuple[str, str]]()
    for number, row in read_json_lines(file, f"--responses {file}"):
        where = f"--responses {file}:{number}"
        fields = row if isinstance(row, dict) else {}
        kinds = {name: (str, int) if name == "id" else str for name in FIELDS}
        if wrong := [name for name, kind in kinds.items() if not isinstance(fields.get(name), kind)]:
            raise UserError(
                f"{where}: a response wants id, question and text; {wrong[0]} is missing or of the wrong kind"
            )
        if fields["question"] not in asked:
            raise UserError(f"{where}: the question {fields['question'][:100]} is none of --questions")
        key = fields["question"], str(fields["id"])
        if key in seen:
            raise UserError(f"{where}: two responses to {key[0]} have the id {key[1]}")
        seen.add(key)
        rows.append({**fields, "id": key[1]})
    if not rows:
        raise UserError(f"--responses {file}: holds no response")
    return rows
