"""What the study of recipes keeps of a unit, and how it is read back."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]  # scripts, no packages
import settings  # noqa: E402

from spr_plugin.files import read_json  # noqa: E402

BASE, AFTER, EMBEDDED = "cold start", "DPO", "embedded"


def file_name(what: Mapping) -> str:
    """Of a result."""
    parts = [what.get("recipe"), what["variant"], what.get("worked"), what.get("rate"), what.get("seed")]
    name = "-".join(str(part).replace(" ", "-") for part in parts if part is not None)
    return f"validation/{name}.json" if what["split"] == "val" else f"{name}.json"


def packed(details: Iterable[Mapping]) -> dict:
    """lmms-eval's samples of a recipe → {"figures", "kinds", "pictures": {picture: [[kind, value …] …]}}, a
    kind as its place in `kinds`; pictures are the scenes that were asked about.
    """
    rows: dict[str, list] = {}
    names: list[str] = []
    for document in sorted(details, key=lambda document: document["id"]):
        (item,) = document["items"]
        *names, _ = item["figures"]
        values = [round(item["figures"][name][0], 3) for name in names]
        whole = [int(value) if value == int(value) else value for value in values]
        rows.setdefault(Path(document["image"]).stem, []).append([kind_of(document), *whole])
    kinds = sorted({row[0] for own in rows.values() for row in own})
    numbered = {
        picture: [[kinds.index(kind), *values] for kind, *values in own] for picture, own in rows.items()
    }
    return {"figures": names, "kinds": kinds, "pictures": numbered}


def kind_of(document: Mapping) -> str:
    """Of a question, by its sample: its last figure is that of its kind alone."""
    return str([*document["items"][0]["figures"]][-1].split(" ", 1)[1])


def load(folder: Path, recipe: str) -> list[dict]:
    """The results of a recipe, its questions' samples as paired.py reads them; without any where the stage
    had no pair.
    """
    found = [read_json(file) for file in sorted(folder.glob(f"{recipe}-*.json"))]
    for unit in (one for one in found if one["samples"]):
        own = unit["samples"].pop(f"spr_{recipe}")
        unit["samples"][f"spr_tiny_world_{recipe}"] = unpacked(own, settings.RECIPES[recipe].main)
    return found


def unpacked(own: Mapping, main: str) -> dict:
    """Rows of value and weight of each figure, and of `main` for each kind of question."""
    place = own["figures"].index(main)

    def row(kind: int, values: Sequence[float]) -> list[float]:
        plain = [part for value in values for part in (value, 1)]
        of_kinds = [
            part
            for number in range(len(own["kinds"]))
            for part in ((values[place], 1) if number == kind else (0, 0))
        ]
        return [*plain, *of_kinds]

    pictures = {
        picture: [row(kind, values) for kind, *values in rows] for picture, rows in own["pictures"].items()
    }
    return {"figures": [*own["figures"], *own["kinds"]], "pictures": pictures}


def asked_of(unit: Mapping, recipe: str) -> dict[str, int]:
    """Kind → how many questions."""
    own = unit["samples"][f"spr_tiny_world_{recipe}"]
    rows = [row for of_picture in own["pictures"].values() for row in of_picture]
    return {kind: sum(row[2 * own["figures"].index(kind) + 1] for row in rows) for kind in unit["blind"]}
