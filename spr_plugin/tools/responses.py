"""What `spr score` reads: responses, line by line, those of a region together."""

from array import array
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from itertools import groupby, islice

import numpy as np

from spr_plugin.boxes import finite
from spr_plugin.errors import UserError
from spr_plugin.loading import read_json_lines
from spr_plugin.recipes.spr.regions import RegionQuery

REGIONS = 32  # of one picture, in one batch
FIELDS: dict[str, type | tuple[type, ...]] = {"id": (str, int), "image": str, "region": list, "text": str}


def check(path: str, query: Callable[[dict], RegionQuery]) -> int:
    """How many responses there are; UserError for the first that cannot be scored or does not stand with
    those of its region.
    """
    total, marks = 0, array("Q")
    for region, group in groupby(responses_in(path), _region):
        ids = set()
        for index, row in enumerate(group):
            if not index:
                query(row)
            if str(row["id"]) in ids:
                raise UserError(
                    f"--responses {path}: two responses to {row['image']} {row['region']} have the id"
                    f" {row['id']}"
                )
            ids.add(str(row["id"]))
        marks.append(_mark(region))
        total += len(ids)
    if not total:
        raise UserError(f"--responses {path}: holds no response")
    values, times = np.unique(np.frombuffer(marks, dtype=np.uint64), return_counts=True)
    if (times > 1).any():
        apart = set(values[times > 1].tolist())
        groups = [
            (region, next(group))
            for region, group in groupby(responses_in(path), _region)
            if _mark(region) in apart
        ]
        (name, corners), row = next(
            later
            for index, later in enumerate(groups)
            if later[0] in [region for region, _ in groups[:index]]
        )
        raise UserError(
            f"--responses {path}: the lines of {name} {list(corners)} do not stand together ({row['id']}); "
            "sort the file"
        )
    return total


def _region(row: dict) -> tuple[str, tuple]:
    return row["image"], tuple(row["region"])


def _mark(region: tuple[str, tuple]) -> int:
    return int.from_bytes(blake2b(repr(region).encode(), digest_size=8).digest(), "big")


def batches(rows: Iterable[dict]) -> Iterator[list[list[dict]]]:
    """Responses by region, a few regions of one picture together."""
    for _, of_picture in groupby(rows, lambda row: row["image"]):
        regions = (list(group) for _, group in groupby(of_picture, _region))
        while batch := list(islice(regions, REGIONS)):
            yield batch


def responses_in(path: str) -> Iterator[dict]:
    for number, row in read_json_lines(path, f"--responses {path}"):
        yield _response(row, f"--responses {path}:{number}")


def _response(row: object, where: str) -> dict:
    fields = row if isinstance(row, dict) else {}
    wrong = [name for name, kind in FIELDS.items() if not isinstance(fields.get(name), kind)]
    if wrong:
        raise UserError(
            f"{where}: a response wants id, image, region and text; {wrong[0]} is missing or of the wrong"
            " kind"
        )
    if len(fields["region"]) != 4 or not finite(fields["region"]):
        region = f"{fields['region']}"[:100]
        raise UserError(
            f"{where}: the region of response {fields['id']} is no [x1, y1, x2, y2] in pixels: {region}"
        )
    return fields
