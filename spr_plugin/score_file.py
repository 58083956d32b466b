"""``spr score``: the method on anybody's answers, without a trainer.

A response is one line ``{"id", "image", "region": [x1, y1, x2, y2], "text"}``; ``image`` is the annotation file's ``file_name``, the
region lies in pixels of the picture. Lines of one (image, region) stand together, since they share one ground truth and compete for
one pair. Only one region is held at a time.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from spr_plugin.annotations import AnnotatedImage, CocoImages, usable
from spr_plugin.boxes import Box, Space
from spr_plugin.errors import UserError
from spr_plugin.formats import BoxFormat
from spr_plugin.pairing import PreferencePair, make_pair
from spr_plugin.pipeline import score_region
from spr_plugin.progress import progress, say
from spr_plugin.prompts import prompts_for
from spr_plugin.regions import RegionQuery, region_query

FIELDS = {"id": (str, int), "image": str, "region": list, "text": str}


def score_file(responses: str, annotations: str, images: str, box_format: BoxFormat, scorer, out: str, pairs: str | None = None) -> Counter:
    """Score every response of a file, and pair those of each region.

    Args:
        responses: JSON lines as above.
        annotations, images: COCO JSON and its folder of pictures.
        scorer: as the ``spr_scorer`` hook gives it.
        out: gets each response with ``s_sem, s_crop, s_local, s_loc, score, boxes`` (xyxy, pixels), ``reason`` (of one that is not
            valid), ``refined`` and ``refined_score``; all numbers None where there is a reason.
        pairs: gets the preference pairs.

    Returns:
        How many responses and pairs, and regions without a pair by reason.

    Raises:
        UserError: names the line that is no response, or the region whose lines do not stand together.
    """
    total = sum(1 for _ in _lines(responses))
    by_name = {_name(image, images): image for image in CocoImages(annotations, images, Counter())}
    counts, seen = Counter(), set()
    with ExitStack() as files:
        write = files.enter_context(open(out, "w", encoding="utf-8"))
        write_pairs = files.enter_context(open(pairs, "w", encoding="utf-8")) if pairs else None
        lines = progress(_responses(responses), total, "scoring")
        for (name, corners), group in groupby(lines, lambda row: (row["image"], tuple(row["region"]))):
            group = list(group)
            if (name, corners) in seen:
                raise UserError(f"--responses {responses}: the lines of {name} {list(corners)} do not stand together ({group[0]['id']}); sort the file")
            seen.add((name, corners))
            query = _query(by_name.get(name), name, corners, group[0]["id"], annotations)
            record = score_region(query, [{"id": str(row["id"]), "text": row["text"]} for row in group], scorer, box_format)
            for row, scored in zip(group, record["candidates"]):
                write.write(json.dumps({**row, **_answer(scored, query, box_format)}, ensure_ascii=False) + "\n")
            counts["responses"] += len(group)
            made = make_pair(query, prompts_for(query, box_format, ["plain"])[0].text, record["candidates"])
            counts["pairs" if isinstance(made, PreferencePair) else f"no pair: {made}"] += 1
            if write_pairs and isinstance(made, PreferencePair):
                write_pairs.write(json.dumps(asdict(made), ensure_ascii=False) + "\n")
    say(", ".join(f"{reason} {count}" for reason, count in counts.items()))
    return counts


def _name(image: AnnotatedImage, folder: str) -> str:
    return Path(image.path).relative_to(folder).as_posix()


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


def _query(image: AnnotatedImage | None, name: str, corners: Iterable[float], id, annotations: str) -> RegionQuery:
    if image is None:
        raise UserError(f"response {id}: {name} is not in --annotations {annotations}, or its picture or boxes cannot be used")
    region = usable(Box(*map(float, corners), Space.pixels(image.width, image.height)))
    query = region and region_query(image, region, seed=0)
    if not query or not query.truth:
        raise UserError(f"response {id}: the region {list(corners)} of {name} holds no annotated object")
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
