"""Files of what was found: a unit's manifest, what its stage worked with, and its samples, condensed."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

import figures
import targets
from spr_plugin import runs
from spr_plugin.errors import UserError
from spr_plugin.files import read_json
from spr_plugin.formats import BoxFormat
from spr_plugin.pairing import PreferencePair
from spr_plugin.recipes.spr.regions import RegionQuery
from spr_plugin.report.page import summary


def slug(name: str) -> str:
    return name.replace(",", "").replace(" ", "-")


def found(file: Path, manifest: dict) -> bool:
    """Whether `file` is there. UserError where it is of another configuration: two would be averaged under
    one name.
    """
    known = read_json(file)
    changed = [
        f"{name} was {known.get(name)}, is {value}"
        for name, value in manifest.items()
        if known and known.get(name) != value
    ]
    if changed:
        what = file.parent if file.name == "manifest.json" else file
        raise UserError(
            f"reproduce: {what} is of another configuration ({'; '.join(changed)}); remove it to make it anew"
        )
    return known is not None


def write_result(file: Path, known: dict, samples: dict) -> None:
    """One line a task."""
    lines = [f"{json.dumps(task)}: {json.dumps(one, separators=(',', ':'))}" for task, one in samples.items()]
    head = json.dumps(known, indent=1, ensure_ascii=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".tmp")
    draft.write_text(head[:-2] + ',\n "samples": {\n' + ",\n".join(lines) + "\n}}\n", encoding="utf-8")
    draft.rename(file)


def evidence(spr: Path) -> dict:
    """What the stage worked with: pairs and skips, mean terms of chosen and rejected, how S_sem and S go with
    S_loc within a region, and how many chosen answers hold a name without a box.
    """
    run = runs.open(spr)
    shown = summary(run)
    regions = [
        [row for row in record["candidates"] if row["reason"] is None]
        for record in run.records("scores").values()
    ]
    rows = [
        np.array([(one["terms"]["s_sem"], one["score"], one["terms"]["s_loc"]) for one in region])
        for region in regions
        if len(region) > 1
    ]
    centred = np.vstack([row - row.mean(axis=0) for row in rows]) if rows else np.zeros((0, 3))
    with_loc = np.corrcoef(centred.T)[:2, 2] if centred.any(axis=0).all() else (None, None)
    correlation = {
        name: value if value is None else round(float(value), 3)
        for name, value in zip(("S_sem", "S"), with_loc)
    }
    return {
        "counts": {step["name"]: step["count"] for step in shown["funnel"]},
        figures.ONE_CANDIDATE: sum(pair.chosen_candidate == pair.rejected_candidate for pair in run.pairs),
        targets.BARE: with_bare_name(run.pairs, run.queries, run.box_format),
        "skipped": next(step["left_out"] for step in shown["funnel"] if step["name"] == "preference pairs"),
        "terms": shown["terms"],
        "correlation with S_loc": correlation,
    }


def with_bare_name(
    pairs: Sequence[PreferencePair], queries: Mapping[str, RegionQuery], form: BoxFormat
) -> int:
    """How many chosen answers hold a name without a box, as the repair of items reads them."""
    said = ((pair.chosen, queries[pair.query].image) for pair in pairs)
    parsed = ((text, form.parse(text, image.width, image.height)) for text, image in said)
    return sum(form.without_items(text, one, ()).bare > 0 for text, one in parsed)


def condensed(details: Iterable[dict], areas: bool = False) -> dict:
    """lmms-eval's samples of a task → ``{"figures": names, "pictures": {picture: [row …]}}``, a row a sample,
    those of a picture in the order of their documents' ids.

    A box is its IoU, cut (not rounded: 0.8996 is no 0.9) to three decimals; any other sample has sum and
    weight of each figure. With `areas` those of the true boxes, in px², stand under that name as the rows do.
    """
    names, rows, sizes = ["IoU"], {}, {}
    for document in sorted(details, key=lambda document: str(document["id"])):
        picture = Path(str(document["image"])).stem
        row = rows.setdefault(picture, [])
        for item in document["items"]:
            if "iou" in item:
                row.append(int(item["iou"] * 1000) / 1000)
                if areas:
                    sizes.setdefault(picture, []).append(short(item["area"]))
            else:
                names = list(item["figures"])
                row.append([short(value) for pair in item["figures"].values() for value in pair])
    return {"figures": names, "pictures": rows, **({"areas": sizes} if areas else {})}


def short(value: float) -> float:
    return int(value) if value == int(value) else round(value, 3)
