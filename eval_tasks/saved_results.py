"""What lmms-eval saved of a run, checked record by record."""

import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

from spr_plugin.boxes import finite
from spr_plugin.errors import UserError
from spr_plugin.eval_tasks import metrics
from spr_plugin.files import AnyPath
from spr_plugin.loading import read_json, read_json_lines
from spr_plugin.outputs import refuse_unnamed

SAMPLES = re.compile(r"(?P<time>(?:(?!_samples_)\w)+)_samples_(?P<task>.+)\.jsonl")


MADE = ("model", "model_args", "date", "lmms_eval_version")


@dataclass(frozen=True)
class Results:
    """The samples of one result folder: task → document id → its record in lmms-eval's samples file; the
    files that hold them; and what lmms-eval says of the run (`made`: model, model_args, date, its version).
    """

    folder: Path
    tasks: Mapping[str, Mapping[str | int, dict]]
    files: tuple[Path, ...]
    made: Mapping[str, str] = field(default_factory=dict)


def read_run(named: AnyPath) -> Results:
    """The samples of each task of ours under a folder, which holds one run: the newest, where it was made
    again in its place.

    Raises UserError for a folder without samples, one that holds several runs or those of several models, and
    records that no task of ours wrote.
    """
    refuse_unnamed("a folder of results", named)
    folder = Path(named)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    saved = sorted(
        (match["time"], match["task"], file)
        for file in folder.rglob("*.jsonl")
        if (match := SAMPLES.fullmatch(file.name))
    )
    read = {file: _records(file) for _, _, file in saved}
    newest = {task: file for _, task, file in saved if read[file]}
    if not newest:
        raise UserError(
            f"{folder}: holds no samples of spr tasks; run lmms-eval with --log_samples --output_path"
            f" {folder}"
        )
    homes = sorted({str(file.parent) for file, records in read.items() if records})
    if len(homes) > 1:
        raise UserError(f"{folder} holds {len(homes)} runs ({', '.join(homes)}): name the folder of one")
    results = [file.with_name(f"{time}_results.json") for time, _, file in saved if read[file]]
    _refuse_several_models(results)
    newest = dict(sorted(newest.items()))
    tasks = {task: read[file] for task, file in newest.items()}
    return Results(folder, tasks, tuple(newest.values()), _made(results[-1]))


def _records(file: Path) -> dict[str | int, dict]:
    """Document id → record; empty for a task that is not ours."""
    records: dict[str | int, dict] = {}
    for number, record in read_json_lines(file, str(file)):
        details = record.get(metrics.DETAILS) if isinstance(record, dict) else None
        if details is None and isinstance(record, dict) and not records:
            return {}
        if not isinstance(record, dict) or not isinstance(details, dict) or not _is_id(details.get("id")):
            raise UserError(
                f"{file}, line {number}: no record of a task of ours, whose {metrics.DETAILS} have an id"
            )
        if details["id"] in records:
            raise UserError(f"{file}, line {number}: document {details['id']} stands there twice")
        records[details["id"]] = record
    return records


def _is_id(value: object) -> bool:
    return isinstance(value, (str, int))


def _refuse_several_models(results: Iterable[Path]) -> None:
    """UserError where two of these files of lmms-eval, as far as they are there, say another model or other
    arguments of one."""
    of: dict[tuple, Path] = {}
    for file in dict.fromkeys(results):
        config = _config(file) if file.is_file() else None
        if config and (config.get("model") or config.get("model_args")):
            given = config.get("model_args") or ""
            pairs = given.items() if isinstance(given, dict) else str(given).split(",")
            of.setdefault((str(config.get("model")), *sorted(map(str, pairs))), file)
    if len(of) > 1:
        names = [f"{model} {','.join(arguments)} ({file.name})" for (model, *arguments), file in of.items()]
        raise UserError(
            f"{file.parent} holds the samples of {len(of)} models: {'; '.join(names)}; give each an "
            "--output_path of its own, and move the files of all but one away"
        )


def _made(results: Path) -> dict[str, str]:
    """What a file of lmms-eval's says of its run, as far as it is there and says it."""
    content = read_json(results, str(results)) if results.is_file() else None
    if not isinstance(content, dict):
        return {}
    told = {**content, **(_config(results) or {})}
    return {name: str(told[name]) for name in MADE if told.get(name)}


def _config(results: Path) -> dict | None:
    """What lmms-eval says that it was called with."""
    content = read_json(results, str(results))
    config = content.get("config") if isinstance(content, dict) else None
    return config if isinstance(config, dict) else None


def spoken(record: Mapping) -> tuple[str | None, str | None]:
    """What the model was asked and what it said, as lmms-eval logs them; None for what is not there."""
    answer = record.get("filtered_resps")
    if isinstance(answer, list):
        answer = next((one for one in answer if isinstance(one, str)), None)
    asked = record.get("input")
    return asked if isinstance(asked, str) else None, answer if isinstance(answer, str) else None


def refuse_unsound(task: str, run: Results) -> None:
    """UserError for the first document that is not what one of our tasks makes of it, or whose figures are
    none.
    """
    records = run.tasks[task].values()
    kinds = {name for record in records for name in _kinds(record[metrics.DETAILS])}
    scores = {name for record in records for name, value in record.items() if is_payload(name, value)}
    for record in records:
        details = record[metrics.DETAILS]
        boxes = details.get("items", ()) if "iou" in kinds else ()
        if not _whole(details, kinds):
            why = "is no record of a task of ours, with an image and items"
        elif unsound := [item["id"] for item in boxes if not _is_box_item(item)]:
            why = f"has an item {unsound[0]} without a sound iou, reason, truth or predicted box"
        elif unsound := [name for name in sorted(scores) if not _is_score(record.get(name))]:
            why = f"has no sound score and n of {unsound[0]}"
        else:
            continue
        raise UserError(f"{task}: document {details['id']} of {run.folder} {why}")


def _kinds(details: Mapping) -> set[str]:
    """Of what a task may measure beside plain scores: "iou" of boxes, "said" of captions."""
    items = details.get("items")
    boxed = isinstance(items, list) and any(isinstance(item, dict) and "iou" in item for item in items)
    return {name for name, there in (("iou", boxed), ("said", "said" in details)) if there}


def _whole(details: Mapping, kinds: Set[str]) -> bool:
    """Whether a record is what `metrics.detail`, or that of the captions, makes of a document."""
    items = details.get("items", [] if "said" in kinds else None)
    listed = isinstance(items, list) and all(isinstance(item, dict) and "id" in item for item in items)
    references = details.get("references")
    texts = isinstance(references, list) and all(isinstance(reference, str) for reference in references)
    told = isinstance(details.get("said"), str) and texts and references != []
    return isinstance(details.get("image"), str) and listed and (told or "said" not in kinds)


def _is_box_item(item: Mapping) -> bool:
    """Whether it is what `metrics.box_item` makes."""
    overlap, reason, predicted = item.get("iou"), item.get("reason", 0), item.get("predicted", 0)
    sound = isinstance(overlap, (int, float)) and finite([overlap]) and 0 <= overlap <= 1
    sound = sound and (reason is None or isinstance(reason, str))
    return sound and _is_box(item.get("truth")) and (predicted is None or _is_box(predicted))


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and finite(value)


def is_payload(name: str, value: object) -> bool:
    """Whether a field of a record is a metric's payload, sound or not: not lmms-eval's own ``doc``, say."""
    return (
        isinstance(value, dict)
        and name not in ("doc", metrics.DETAILS)
        and ("score" in value or "n" in value)
    )


def _is_score(value: object) -> bool:
    """Whether it is what `metrics.payload` makes."""
    return isinstance(value, dict) and finite([value.get("score"), value.get("n")]) and value["n"] >= 0
