"""The HTML report of a run: one self-contained file with scores, skip reasons and chosen/rejected boxes drawn on the pictures."""

import base64
import io
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageDraw

from spr_plugin import runs
from spr_plugin.errors import UserError
from spr_plugin.files import write_text
from spr_plugin.formats import BoxFormat
from spr_plugin.pictures import open_image
from spr_plugin.progress import counted
from spr_plugin.recipes.spr.regions import RegionQuery
from spr_plugin.runs import SavedRun

SHOWN_PAIRS = 24
PICTURE_SIDE = 360
COLORS = {"region": "#888888", "truth": "#1f77ff", "chosen": "#12a150", "rejected": "#e5484d"}


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
    queries, scores = run.regions, run.records("scores")
    records = list(run.records("pairs").values())
    shown = {row["id"] for region in scores.values() for row in region["candidates"]}
    pairs = [record for record in records if "skip" not in record and _is_there(record, queries, shown)]
    invalid = [row["initial"]["reason"] for region in scores.values() for row in region["candidates"] if not row["initial"]["valid"]]
    counts = {
        "regions": len(queries),
        "candidates": sum(len(region["candidates"]) for region in scores.values()),
        "preference pairs": len(pairs),
    }
    return {
        "counts": counts,
        "skipped_images": run.skipped,
        "skipped_regions": counted(record["skip"] for record in records if "skip" in record),
        "invalid_candidates": counted(invalid),
        "terms": _mean_terms(scores, pairs, "initial" if run.config.get("spr_no_refinement") else "refined"),
        "pairs": [_shown(pair, queries[pair["region"]], run.box_format) for pair in _spread(pairs, SHOWN_PAIRS)],
        "config": run.config,
        "colors": COLORS,
    }


def _is_there(pair: dict, queries: dict, candidates: set[str]) -> bool:
    """Whether what a pair was made from is there to be shown: a damaged record is left out."""
    return pair["region"] in queries and {pair["chosen_candidate"], pair["rejected_candidate"]} <= candidates


def _spread(items: list, count: int) -> list:
    """``count`` items spread evenly over the list, so that the report shows no chance run of neighbours."""
    step = max(1, len(items) // count)
    return items[::step][:count]


def _mean_terms(scores: dict, pairs: list, chosen_side: str) -> list[dict]:
    """Mean of every score term over all valid candidates, the chosen (refined, unless that is off) and the rejected (initial) ones."""
    rows = {row["id"]: row for region in scores.values() for row in region["candidates"]}
    groups = {
        "all candidates": [row["initial"] for row in rows.values()],
        "all, refined": [row["refined"] for row in rows.values()],
        "chosen": [rows[pair["chosen_candidate"]][chosen_side] for pair in pairs],
        "rejected": [rows[pair["rejected_candidate"]]["initial"] for pair in pairs],
    }
    return [{"group": name, **_means([score for score in group if score["valid"]])} for name, group in groups.items()]


def _means(scores: list[dict]) -> dict:
    flat = [{**score["terms"], "S": score["total"]} for score in scores]
    # A plugin's terms need not be there for each text.
    values = {key: [row[key] for row in flat if key in row] for row in flat for key in row}
    means = {key: f"{sum(found) / len(found):.3f}" for key, found in values.items()}
    return {"n": len(flat), "means": means}


def _shown(pair: dict, query: RegionQuery, form: BoxFormat | None) -> dict:
    """One pair for the template: its texts, scores and the two pictures."""
    sides = []
    for side in ("chosen", "rejected"):
        parsed = form and form.parse(pair[side], query.image.width, query.image.height)
        boxes = [box.pixels() for box in parsed.boxes] if parsed else []
        sides.append({"side": side, "text": pair[side], "score": f"{pair[side + '_score']:.3f}", "picture": _picture(query, boxes, side)})
    return {"prompt": pair["prompt"], "image": query.image.id, "sides": sides}


def _picture(query: RegionQuery, boxes: list[tuple], side: str) -> str | None:
    """The picture with region (grey), truth (blue) and written boxes as a data URI; None if it cannot be opened any more."""
    try:
        image = open_image(query.image.path, query.image.id)
    except UserError:
        return None
    boxes_drawn = [("region", query.region.pixels(), 1)] + [("truth", a.box.pixels(), 1) for a in query.truth] + [(side, box, 3) for box in boxes]
    return data_uri(image, [(COLORS[kind], corners, width) for kind, corners, width in boxes_drawn])


def data_uri(image: Image.Image, boxes: list[tuple]) -> str:
    """The picture, made small, with boxes (colour, xyxy in its pixels, line width) on it, as a data URI."""
    factor = PICTURE_SIDE / max(image.size)
    image = image.resize([max(1, round(length * factor)) for length in image.size], Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for colour, corners, width in boxes:
        x1, y1, x2, y2 = (value * factor for value in corners)
        draw.rectangle([min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)], outline=colour, width=width)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
