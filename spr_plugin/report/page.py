"""The HTML report of a run: one self-contained file with scores, skip reasons, and chosen and rejected on
their pictures.

What is drawn on a picture is the recipe's to say.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from spr_plugin import runs
from spr_plugin.data.pictures import open_image
from spr_plugin.drawing import COLORS, Line, drawn, legend_of, lines_of
from spr_plugin.errors import UserError
from spr_plugin.files import write_text
from spr_plugin.pairing import PreferencePair, answer_of
from spr_plugin.progress import counted
from spr_plugin.recipes.base import Judged, Mark, Query
from spr_plugin.runs import SavedRun

SHOWN_PAIRS = 24


def write_report(directory, plugins: Iterable[str] = ()) -> Path:
    """Write ``report.html`` of the run under ``OUTPUT_DIR/spr`` from its logs alone and return its path.

    Raises:
        UserError: ``directory`` holds no run or cannot be written, or the extra ``report`` is not installed.
    """
    run = runs.open(directory, plugins)
    write_text(run.folder.report, template().render(**summary(run)))
    return run.folder.report


def template(name: str = "report.html"):
    """A template of ours; UserError where jinja2 is not installed."""
    try:
        import jinja2
    except ImportError:
        raise UserError("the report needs jinja2: pip install 'spr-plugin[report]'") from None
    folder = Path(__file__).with_name("templates")
    return jinja2.Environment(autoescape=True, loader=jinja2.FileSystemLoader(folder)).get_template(name)


def summary(run: SavedRun) -> dict:
    """What the report shows, as plain data."""
    queries, scores = run.queries, run.records("scores")
    rows = {row["id"]: row for record in scores.values() for row in record["candidates"]}
    pairs = [pair for pair in run.pairs if _is_there(pair, queries, rows)]
    invalid = [row["reason"] for row in rows.values() if row["reason"]]
    unchosen = [row["not_choosable"] for row in rows.values() if row["not_choosable"] and not row["reason"]]
    skipped = [record["skip"] for record in run.records("pairs").values() if "skip" in record]
    counts = {"queries": len(queries), "candidates": len(rows), "preference pairs": len(pairs)}
    some = _spread(pairs, SHOWN_PAIRS)
    shown = [_shown(pair, queries[pair.query], scores[pair.query], run) for pair in some]
    return {
        "counts": counts,
        "skipped_images": run.skipped,
        "skipped_queries": counted(skipped),
        "invalid_candidates": counted(invalid),
        "not_choosable": counted(unchosen),
        "terms": _mean_terms(rows, pairs),
        "pairs": shown,
        "legend": legend_of(kind for one in shown for kind in one["kinds"]),
        "config": run.config,
        "colors": COLORS,
    }


def _is_there(pair: PreferencePair, queries: Mapping, candidates: Mapping) -> bool:
    """Whether what a pair was made from is there to be shown: a damaged record is left out."""
    return pair.query in queries and {pair.chosen_candidate, pair.rejected_candidate} <= candidates.keys()


def _spread(items: list, count: int) -> list:
    """``count`` items spread evenly over the list, so that the report shows no chance run of neighbours."""
    step = max(1, len(items) // count)
    return items[::step][:count]


def _mean_terms(rows: Mapping[str, dict], pairs: Sequence[PreferencePair]) -> list[dict]:
    """Mean of every score term over all answers that have a score, the chosen (repaired) and the rejected
    (initial) ones.
    """
    groups = {
        "all candidates": [_scored(row) for row in rows.values()],
        "all, refined": [_scored(row, "repaired_") for row in rows.values()],
        "chosen": [_scored(rows[pair.chosen_candidate], "repaired_") for pair in pairs],
        "rejected": [_scored(rows[pair.rejected_candidate]) for pair in pairs],
    }
    return [{"group": name, **_means(list(filter(None, group)))} for name, group in groups.items()]


def _scored(row: Mapping, side: str = "") -> dict[str, float] | None:
    """Terms and S of a text, or of it repaired; None where it has no score."""
    score = row[f"{side}score"]
    return None if score is None else {**row[f"{side}terms"], "S": score}


def _means(rows: Sequence[Mapping[str, float]]) -> dict:
    # A plugin's terms need not be there for each text.
    values = {key: [row[key] for row in rows if key in row] for row in rows for key in row}
    means = {key: f"{sum(column) / len(column):.3f}" for key, column in values.items()}
    return {"n": len(rows), "means": means}


def _shown(pair: PreferencePair, query: Query, record: Mapping, run: SavedRun) -> dict:
    """One pair for the template: its texts, scores and the pictures of both sides."""
    judged = Judged(record["truth"], tuple(answer_of(row) for row in record["candidates"]))
    marked = run.recipe.draw(query, judged) if run.recipe else [([], [])] * len(judged.answers)
    by_id = {row["id"]: marks for row, marks in zip(record["candidates"], marked)}
    marks = {"chosen": by_id[pair.chosen_candidate][1], "rejected": by_id[pair.rejected_candidate][0]}
    sides = [
        {
            "side": side,
            "text": getattr(pair, side),
            "score": f"{getattr(pair, side + '_score'):.3f}",
            "pictures": _pictures(query, marks[side], side),
        }
        for side in marks
    ]
    kinds = {mark.kind for side in marks.values() for mark in side}
    return {"prompt": pair.prompt, "image": query.pictures[0].id, "sides": sides, "kinds": kinds}


def _pictures(query: Query, marks: Sequence[Mark], side: str) -> list[str | None]:
    """The query's pictures with their marks as data URIs; None for one that cannot be opened any more."""
    uris: list[str | None] = []
    for number, picture in enumerate(query.pictures):
        try:
            image = open_image(picture.path, picture.id)
        except UserError:
            uris.append(None)
            continue
        mine = [mark for mark in marks if mark.picture == number]
        uris.append(data_uri(image, lines_of(mine, side)))
    return uris


def data_uri(image: Image.Image, boxes: Sequence[Line]) -> str:
    """The picture with boxes on it as a data URI."""
    buffer = io.BytesIO()
    drawn(image, boxes).save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
