"""The HTML report of a run: one self-contained file of what became of its queries, with scores, curves and
examples on their pictures.

What is drawn on a picture, and what a region is about, is the recipe's to say.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from spr_plugin import runs
from spr_plugin.data.pictures import MISSING
from spr_plugin.drawing import COLORS
from spr_plugin.errors import UserError
from spr_plugin.files import read_json, write_text
from spr_plugin.meanings import LEFT_OUT, REASONS, meaning_of
from spr_plugin.pairing import find_pairing
from spr_plugin.progress import say
from spr_plugin.report import figures
from spr_plugin.report.examples import Pictures, Shown, clipped, examples_of
from spr_plugin.report.rendering import template
from spr_plugin.runs import SavedRun
from spr_plugin.runs.layout import PARTS_OF
from spr_plugin.runs.moved import advice
from spr_plugin.runs.reading import strange_errors


def write_report(
    directory, plugins: Iterable[str] = (), results: Sequence[str] = (), images: str | None = None
) -> Path:
    """Write ``report.html`` of the run under ``OUTPUT_DIR/spr`` from its logs alone, and of each of its later
    rounds, to which it links; return its path.

    Args:
        results: two result folders of lmms-eval, of the base and of the improved model, whose comparison
            goes along with the first.
        images: where the pictures are, if they are not where the run found them.

    Raises:
        UserError: ``directory`` holds no run or cannot be written, or the extra ``report`` is not installed;
            the results cannot be compared.
    """
    run = runs.open(directory, plugins, images)
    _write(run, _compared(results))
    for later in run.rounds:
        _write(later, None)
    return run.folder.report


def _write(run: SavedRun, comparison: dict | None) -> None:
    """The page of one round."""
    page = template()
    with strange_errors(run.folder.path):
        counts, examples = summary(run), shown(run)
    write_text(run.folder.report, page.render(**counts, **examples, comparison=comparison))
    lost = [picture["lost"] for one in examples["examples"] for picture in one["pictures"] if picture["lost"]]
    if lost:
        reason, path, why = next((one for one in lost if one[0] == MISSING), lost[0])
        about = advice(path, run.images) if reason == MISSING else f"is {path}: {why}"
        say(f"report: {len(lost)} examples are without their picture; the first {about}")


def summary(run: SavedRun) -> dict[str, Any]:
    """What the report says in numbers, as plain data."""
    scores = run.records("scores")
    pairs = [pair for pair in run.pairs if figures.sound(pair, scores)]
    groups = figures.scores_by_group(scores.values(), pairs)
    funnel = figures.funnel(
        run.skipped,
        len(run.queries),
        scores.values(),
        run.records("pairs").values(),
        run.records("lengths").values(),
        run.excluded,
    )
    own = run.recipe.MEANINGS if run.recipe else {}
    reasons = {reason for step in funnel for reason in step["left_out"]}
    return {
        "funnel": funnel,
        "meanings": {reason: meaning_of(reason, own, REASONS | LEFT_OUT) for reason in reasons},
        "terms": figures.mean_terms(groups),
        "distributions": figures.distributions(groups),
        "lambdas": _lambdas(run),
        "facets": figures.facets(run.recipe, run.queries, pairs) if run.recipe else {},
        "curves": figures.curves(run.steps),
    }


def shown(run: SavedRun) -> dict[str, Any]:
    """Examples, and what the run was made with."""
    scores, records = run.records("scores"), run.records("pairs")
    pairs = [pair for pair in run.pairs if pair.query in run.queries and figures.sound(pair, scores)]
    skips = {record["query"]: record["skip"] for record in records.values() if "skip" in record}
    # A run whose box format nobody here has shows its questions as the recipe has them, without boxes.
    question = run.recipe.question if run.recipe and run.box_format else lambda query: query.text
    seen = Shown(run.recipe, Pictures())
    examples = list(examples_of(seen, run.queries, scores, pairs, skips, question, run.flags.spr_seed))
    return {
        "examples": examples,
        "kinds": {mark["kind"] for one in examples for side in one["sides"] for mark in side["marks"]},
        "folder": str(run.folder),
        "state": _state(run),
        "version": run.version,
        "versions": run.versions,
        "config": {name: clipped(str(value)) for name, value in run.config.items()},
        "stages": _stages(run),
        "rounds": [str(one.folder.path.name) for one in run.rounds],
        "colours": COLORS,
    }


def _state(run: SavedRun) -> str:
    """The round's: the process that makes it writes its page while the run goes on."""
    state = run.state
    return "finished" if state == "running" and run.folder.is_finished() else state


def _lambdas(run: SavedRun) -> list[dict]:
    try:
        pairing = find_pairing(run.flags)
    except UserError:  # its plugin is not here
        return []
    if run.recipe is None:
        return []
    own = run.flags.spr_lambda if "spr_lambda" in run.config else None
    return figures.under_lambdas(run.recipe, pairing, run.queries, run.records("scores"), run.pairs, own)


def _stages(run: SavedRun) -> dict[str, Any]:
    """Stage → how long it took, as far as its manifest is there."""
    stages = {}
    for stage in PARTS_OF:
        with contextlib.suppress(UserError):  # a damaged one says nothing
            known = read_json(run.folder.stage_manifest(stage))
            if isinstance(known, dict):
                stages[stage] = known.get("seconds")
    return stages


def _compared(results: Sequence[str]) -> dict | None:
    """What `spr compare` says of two result folders; None where none are named."""
    if not results:
        return None
    from spr_plugin.eval_tasks.compare import compared
    from spr_plugin.eval_tasks.saved_results import read_run
    from spr_plugin.report.comparison import charts

    comparison = compared(*(read_run(folder) for folder in results))
    return {**comparison, "charts": charts(comparison)}
