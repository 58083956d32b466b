"""``spr score``: the method on anybody's answers, without a trainer.

A response is one line ``{"id", "image", "region": [x1, y1, x2, y2], "text"}``; ``image`` is the annotation file's ``file_name``, the
region lies in pixels of the picture. Lines of one (image, region) stand together, since they share one ground truth and compete for
one pair; regions of one image that do so too are scored in one batch.

The file is read twice: first every line is checked, so that a mistake in the last one costs no hour of scoring. Beside the
annotations only a few regions are held at a time, and 8 bytes for each region seen.
"""

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from hashlib import blake2b
from itertools import groupby, islice

import numpy as np

from spr_plugin.annotations import AnnotatedImage, CocoImages, usable
from spr_plugin.boxes import Box, Space
from spr_plugin.errors import UserError
from spr_plugin.formats import BoxFormat
from spr_plugin.pairing import PreferencePair, make_pair
from spr_plugin.pictures import refuse_no_folder, refuse_outside
from spr_plugin.pipeline import score_regions
from spr_plugin.progress import progress, say
from spr_plugin.prompts import prompts_for
from spr_plugin.regions import RegionQuery, region_query

REGIONS = 32  # of one picture, in one batch
FIELDS = {"id": (str, int), "image": str, "region": list, "text": str}


def score_file(
    responses: str, annotations: str, images: str, box_format: BoxFormat, scorer, out: str,
    pairs: str | None = None, allow_outside: bool = False,
) -> Counter:  # fmt: skip
    """Score every response of a file, and pair those of each region.

    Args:
        responses: JSON lines as above.
        annotations, images: COCO JSON and its folder of pictures.
        scorer: as the ``spr_scorer`` hook gives it.
        out: gets each response with ``s_sem, s_crop, s_local, s_loc, score, boxes`` (xyxy, pixels), ``reason`` (of one that is not
            valid), ``refined`` and ``refined_score``; all numbers None where there is a reason.
        pairs: gets the preference pairs.
        allow_outside: pictures may lie outside their folder.

    Returns:
        How many responses and pairs, and regions without a pair by reason.

    Raises:
        UserError: names the line that is no response, the region whose lines do not stand together, or the
            picture that lies outside.
    """
    refuse_no_folder(images, "--images")
    skipped, used = Counter(), {}
    source = CocoImages(annotations, images, skipped)

    def query(row: dict) -> RegionQuery:
        try:
            image = source.named(row["image"])
        except KeyError:
            image = None
        found = _query(image, row, annotations, skipped)
        used[image.path] = image.id
        return found

    total = _check(responses, query)
    if not allow_outside:
        refuse_outside(((id, path) for path, id in used.items()), images, "--images", "--allow-outside")
    counts = Counter()
    with ExitStack() as files:
        write = files.enter_context(open(out, "w", encoding="utf-8"))
        write_pairs = files.enter_context(open(pairs, "w", encoding="utf-8")) if pairs else None
        for rows in _batches(progress(_responses(responses), total, "scoring")):
            queries = [query(row) for row, *_ in rows]
            candidates = [[{"id": str(row["id"]), "text": row["text"]} for row in group] for group in rows]
            for asked, group, record in zip(queries, rows, score_regions(queries, candidates, scorer, box_format)):
                for row, scored in zip(group, record["candidates"]):
                    write.write(_line({**row, **_answer(scored, asked, box_format)}))
                counts["responses"] += len(group)
                made = make_pair(asked, prompts_for(asked, box_format, ["plain"])[0].text, record["candidates"])
                counts["pairs" if isinstance(made, PreferencePair) else f"no pair: {made}"] += 1
                if write_pairs and isinstance(made, PreferencePair):
                    write_pairs.write(_line(asdict(made)))
    say(_listed(counts))
    return counts


def _listed(counts: Counter) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in counts.items())


def _check(path: str, query: Callable[[dict], RegionQuery]) -> int:
    """How many responses there are; UserError for the first that cannot be scored or does not stand with those of its region."""
    total, marks = 0, array("Q")
    for region, group in groupby(_responses(path), _region):
        first = next(group)
        query(first)
        marks.append(_mark(region))
        total += 1 + sum(1 for _ in group)
    values, times = np.unique(np.frombuffer(marks, dtype=np.uint64), return_counts=True)
    if (times > 1).any():
        apart = set(values[times > 1].tolist())
        groups = [(region, next(group)) for region, group in groupby(_responses(path), _region) if _mark(region) in apart]
        (name, corners), row = next(later for place, later in enumerate(groups) if later[0] in [region for region, _ in groups[:place]])
        raise UserError(f"--responses {path}: the lines of {name} {list(corners)} do not stand together ({row['id']}); sort the file")
    return total


def _region(row: dict) -> tuple[str, tuple]:
    return row["image"], tuple(row["region"])


def _mark(region: tuple[str, tuple]) -> int:
    return int.from_bytes(blake2b(repr(region).encode(), digest_size=8).digest(), "big")


def _batches(rows: Iterable[dict]) -> Iterator[list[list[dict]]]:
    """Responses by region, a few regions of one picture together."""
    for _, of_picture in groupby(rows, lambda row: row["image"]):
        regions = (list(group) for _, group in groupby(of_picture, _region))
        while batch := list(islice(regions, REGIONS)):
            yield batch


def _line(row: dict) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _responses(path: str) -> Iterator[dict]:
    for number, line in _lines(path):
        yield _response(line, f"--responses {path}:{number}")


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """(number, line) of every line that is not blank."""
    try:
        with open(path, encoding="utf-8") as lines:
            yield from ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--responses {path}: {getattr(error, 'strerror', None) or error}") from None


def _response(line: str, place: str) -> dict:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{place}: not JSON ({error})") from None
    wrong = [name for name, kind in FIELDS.items() if not isinstance(row, dict) or not isinstance(row.get(name), kind)]
    if wrong:
        raise UserError(f"{place}: a response wants id, image, region and text; {wrong[0]} is missing or of the wrong kind")
    if len(row["region"]) != 4 or not all(isinstance(value, (int, float)) for value in row["region"]):
        raise UserError(f"{place}: region is [x1, y1, x2, y2] in pixels, not {row['region']}")
    return row


def _query(image: AnnotatedImage | None, row: dict, annotations: str, skipped: Counter) -> RegionQuery:
    """The query of a response's region. UserError where its picture is not annotated or no object lies there."""
    if image is None:
        left_out = f" (left out there: {_listed(skipped)})" if skipped else ""
        raise UserError(
            f"response {row['id']}: {row['image']} is not in --annotations {annotations}, "
            f"or its picture or boxes cannot be used{left_out}"
        )
    region = usable(Box(*map(float, row["region"]), Space.pixels(image.width, image.height)))
    query = region and region_query(image, region, seed=0)
    if not query or not query.truth:
        raise UserError(f"response {row['id']}: the region {row['region']} of {row['image']} holds no annotated object")
    return query


def _answer(scored: dict, query: RegionQuery, box_format: BoxFormat) -> dict:
    initial, refined = scored["initial"], scored["refined"]
    terms = initial["terms"] or dict.fromkeys(("s_crop", "s_local", "s_sem", "s_loc"))
    boxes = [list(box.pixels()) for box in box_format.parse(scored["text"], query.image.width, query.image.height).boxes]
    return {
        **terms,
        "score": initial["total"] if initial["valid"] else None,
        "reason": initial["reason"],
        "boxes": boxes,
        "refined": scored["refined_text"],
        "refined_score": refined["total"] if refined["valid"] else None,
    }
