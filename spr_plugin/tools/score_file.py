"""``spr score``: the method on anybody's answers, without a trainer.

A response is one line ``{"id", "image", "region": [x1, y1, x2, y2], "text"}``; ``image`` is the annotation file's
``file_name`` (of a plugin's source: the picture's path in ``--images``), the region lies in pixels of the picture.
Lines of one (image, region) stand together, since they share one ground truth and compete for one pair; regions of
one image that do so too are scored in one batch.

The file is read twice: first every line is checked, so that a mistake in the last one costs no hour of scoring.
Beside the annotations only a few regions are held at a time, 8 bytes for each region seen, and the names of the
pictures.

Each batch is appended to a log in ``OUT.run``, which the same command goes on from after a crash; outputs are
written from it, each as a whole, when all is scored.
"""

import contextlib
import json
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import lru_cache
from hashlib import blake2b
from itertools import groupby, islice
from pathlib import Path

import numpy as np

from spr_plugin.boxes import Box, Space, finite
from spr_plugin.contracts import ask
from spr_plugin.data.annotations import AnnotatedImage, usable
from spr_plugin.data.loading import read_json_lines
from spr_plugin.data.pictures import MISSING, name_too_large, refuse_no_folder, refuse_outside
from spr_plugin.errors import UserError
from spr_plugin.files import remove, write_lines
from spr_plugin.formats import BoxFormat
from spr_plugin.ids import digest
from spr_plugin.judging import judge_queries
from spr_plugin.outputs import refuse_overwriting, refuse_unwritable, refuse_within
from spr_plugin.pairing import Pairing, make_pair
from spr_plugin.progress import listed, progress, say
from spr_plugin.recipes.base import Recipe
from spr_plugin.recipes.spr.regions import RegionQuery, region_query
from spr_plugin.runs.clearing import delete
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.lock import lock
from spr_plugin.runs.log import record_of
from spr_plugin.runs.manifest import bind, changes, check_layout, of_file

REGIONS = 32  # of one picture, in one batch
PICTURES = 64  # whose annotations are held
FIELDS = {"id": (str, int), "image": str, "region": list, "text": str}


class Scoring:
    """A ``spr score`` that has passed all checks which need no scorer.

    Args:
        responses: JSON lines as above.
        annotations, images: what ``spr_annotations`` hooks know, COCO JSON above all, and its folder of pictures.
        out: gets each response with ``s_sem, s_crop, s_local, s_loc, score, boxes`` (xyxy, pixels, as far as they
            lie on the picture), ``reason`` (of one that is not valid), ``refined`` and ``refined_score``; all numbers
            None where there is a reason.
        pairs: gets the preference pairs.
        allow_outside: pictures may lie outside their folder.
        settings: flag → value of what else shapes the scores; others make a run that goes on score again.
        reads: (flag, path) of what else is read and must not be written to.

    Raises:
        UserError: names the line that is no response, the response whose picture or region cannot be used, the
            region whose lines do not stand together, the picture that lies outside, or the output that cannot be
            written.
    """

    def __init__(
        self, responses: str, annotations: str, images: str, box_format: BoxFormat, out: str,
        pairs: str | None = None, allow_outside: bool = False,
        settings: Mapping[str, object] = {}, reads: Iterable[tuple[str, str]] = (),
    ):  # fmt: skip
        self.responses, self.box_format, self.out, self.pairs = responses, box_format, out, pairs
        self.folder = Folder(f"{out}.run")
        outputs = {"--out": out, **({"--pairs": pairs} if pairs else {})}
        files = [("--responses", responses), ("--annotations", annotations)]
        refuse_within(str(self.folder), [*outputs.items(), *files])
        refuse_unwritable(outputs)
        refuse_unwritable({"--out": str(self.folder)}, folders=True)
        if os.path.exists(responses) and not os.path.isfile(responses):
            raise UserError(f"--responses {responses}: is no file, which can be read twice")
        refuse_overwriting(outputs, [*((flag, path) for flag, path in files if os.path.isfile(path)), *reads])
        check_layout(self.folder, "--out")
        refuse_no_folder(images, "--images")
        self._pictures = Pictures(annotations, images)
        self.total = _check(responses, self._query)
        used = self._pictures.used
        if not allow_outside:
            refuse_outside(((id, path) for path, id in used.items()), images, "--images", "--allow-outside")
        refuse_overwriting(outputs, (("a picture", path) for path in used))
        if self._pictures.skipped:
            say(f"--annotations {annotations}: left out {listed(self._pictures.skipped)}")
        read = {
            "responses": of_file(responses),
            "annotations": of_file(annotations),
            "images": {"path": images, "hash": _state(used, images)},
        }
        self._settings = {"scores": {**settings, **read, "box": box_format.describe()}}

    def run(self, recipe: Recipe, pairing: Pairing) -> Counter:
        """Score what is not scored yet, and write the outputs.

        Args:
            recipe: ready to judge.
            pairing: of the ``spr_pairing`` hook.

        Returns:
            How many responses and pairs, and regions without a pair by reason.
        """
        lock(self.folder.path, "--out")
        bind(self.folder, self._settings, changes(self.folder, self._settings))
        log = self.folder.log("scores")
        if done := _held(log.path):
            say(f"{done} batches are scored already, in {self.folder}")
        for number, rows in enumerate(_batches(progress(_responses(self.responses), self.total, "scoring"))):
            if number >= done:
                log.append({"id": str(number), "regions": self._scored(rows, recipe, pairing)})
        log.close()
        write_lines(self.out, (_line(row) for region in _regions(log.path) for row in region["rows"]))
        if self.pairs:
            write_lines(
                self.pairs, (_line(region["pair"]) for region in _regions(log.path) if region["pair"])
            )
        counts = Counter()
        for region in _regions(log.path):
            counts["responses"] += len(region["rows"])
            counts["pairs" if region["pair"] else f"no pair: {region['skip']}"] += 1
        if not delete(self.folder):
            remove(self.folder.path)
        say(listed(counts))
        return counts

    def _query(self, row: dict) -> RegionQuery:
        """The query of a response's region. UserError where its picture cannot be used or no object lies there."""
        image = self._pictures.of(row)
        region = usable(Box(*map(float, row["region"]), Space.pixels(image.width, image.height)))
        query = region and region_query(image, region, seed=0)
        if not query or not query.truth:
            raise UserError(
                f"response {row['id']}: the region {row['region']} of {row['image']} holds no annotated object "
                "(pixels, x1 y1 x2 y2)"
            )
        return query

    def _scored(self, rows: list[list[dict]], recipe: Recipe, pairing: Pairing) -> list[dict]:
        """What the log keeps of the regions of one batch: ``{"rows", "pair", "skip"}``."""
        queries = [self._query(row) for row, *_ in rows]
        candidates = [[{"id": str(row["id"]), "text": row["text"]} for row in group] for group in rows]
        records, found = judge_queries(queries, candidates, recipe), []
        for query, group, record in zip(queries, rows, records):
            answers = [
                {**row, **_answer(judged, query, self.box_format)}
                for row, judged in zip(group, record["candidates"])
            ]
            made = make_pair(query, recipe.question(query), record["candidates"], pairing)
            skip = made if isinstance(made, str) else None
            found.append({"rows": answers, "pair": None if skip else asdict(made), "skip": skip})
        return found


class Pictures:
    """The annotated pictures that responses name.

    Attributes:
        used: path → id of each.
        skipped: what of them was left out, by reason.
    """

    def __init__(self, annotations: str, images: str):
        self.used: dict[str, str] = {}
        self._annotations, self._images, self._now = annotations, images, Counter()
        source = ask(
            "spr_annotations", source=annotations, image_folder=images, skipped=self._now, keep_crowd=False
        )
        self._find = self._by_name(source) if hasattr(source, "named") else self._by_path(source)
        self.skipped = Counter(self._now)
        self._unknown = self._now["unknown_image"]
        self._read = lru_cache(PICTURES)(self._reading)

    def of(self, row: dict) -> AnnotatedImage:
        """The picture of a response, which must have an object. UserError says why it cannot be used."""
        name = row["image"]
        try:
            image, why = self._read(name)
        except KeyError:
            raise UserError(
                f"response {row['id']}: {name} is not in --annotations {self._annotations}"
            ) from None
        if image is None:
            raise UserError(
                f"response {row['id']}: {name} of --annotations {self._annotations} cannot be used ({why})"
            )
        return image

    def _reading(self, name: str) -> tuple[AnnotatedImage | None, str]:
        """The picture of this name, and what of it was left out, which is counted once. KeyError if there is none."""
        self._now.clear()
        image = self._find(name)
        if image and image.path not in self.used:
            self.used[image.path] = image.id
            self.skipped.update(self._now)
        why = listed(self._now)
        name_too_large(self._now, "--max-pixels")
        if self._now[MISSING]:
            why += f": there is no {os.path.join(self._images, name)}"
        elif self._now["no_objects"] and self._unknown:
            why += (
                f': {self._unknown} annotations have an image_id that no picture has; 1 and "1" are two ids'
            )
        return image, why

    def _by_name(self, source) -> Callable[[str], AnnotatedImage | None]:
        """What finds a COCO file's picture by its ``file_name``, or by another spelling of the same path: never by
        the end of a name, which other pictures may have too."""

        def find(name: str) -> AnnotatedImage | None:
            path, folder = os.path.abspath(os.path.join(self._images, name)), os.path.abspath(self._images)
            for spelling in (name, path, os.path.relpath(path, folder)):
                with contextlib.suppress(KeyError):
                    return source.named(spelling)
            raise KeyError(name)

        return find

    def _by_path(self, source) -> Callable[[str], AnnotatedImage]:
        """What finds a plugin's pictures by their path in the folder."""
        numbered = hasattr(source, "ids")
        found = filter(None, map(source.image, range(len(source.ids))) if numbered else source)
        by_path = {os.path.abspath(image.path): image for image in found}
        return lambda name: by_path[os.path.abspath(os.path.join(self._images, name))]


# --- the log


def _held(path: Path) -> int:
    """How many whole batches the log begins with; what follows a torn or damaged line is cut off."""
    held = end = 0
    if not path.exists():
        return held
    with open(path, "rb+") as file:
        for line in file:
            try:
                sound = record_of(line)["id"] == str(held)
            except ValueError:
                sound = False
            if not sound:
                break
            held, end = held + 1, end + len(line)
        file.truncate(end)
    return held


def _regions(path: Path) -> Iterator[dict]:
    """What the log holds, region by region, in the order of the responses."""
    with open(path, "rb") as lines:
        for line in lines:
            yield from record_of(line)["regions"]


# --- responses


def _check(path: str, query: Callable[[dict], RegionQuery]) -> int:
    """How many responses there are; UserError for the first that cannot be scored or does not stand with those of its region."""
    total, marks = 0, array("Q")
    for region, group in groupby(_responses(path), _region):
        ids = set()
        for place, row in enumerate(group):
            if not place:
                query(row)
            if str(row["id"]) in ids:
                raise UserError(
                    f"--responses {path}: two responses to {row['image']} {row['region']} have the id {row['id']}"
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
            for region, group in groupby(_responses(path), _region)
            if _mark(region) in apart
        ]
        (name, corners), row = next(
            later
            for place, later in enumerate(groups)
            if later[0] in [region for region, _ in groups[:place]]
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


def _batches(rows: Iterable[dict]) -> Iterator[list[list[dict]]]:
    """Responses by region, a few regions of one picture together."""
    for _, of_picture in groupby(rows, lambda row: row["image"]):
        regions = (list(group) for _, group in groupby(of_picture, _region))
        while batch := list(islice(regions, REGIONS)):
            yield batch


def _state(pictures: Iterable[str], folder: str) -> str:
    """A hash of which pictures these are, as far as their names in `folder`, sizes and times tell."""
    states = ((os.path.relpath(path, folder), os.stat(path)) for path in sorted(pictures))
    return digest([[name, state.st_size, state.st_mtime_ns] for name, state in states])


def _line(row: dict) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _responses(path: str) -> Iterator[dict]:
    for number, row in read_json_lines(path, f"--responses {path}"):
        yield _response(row, f"--responses {path}:{number}")


def _response(row: object, place: str) -> dict:
    wrong = [
        name
        for name, kind in FIELDS.items()
        if not isinstance(row, dict) or not isinstance(row.get(name), kind)
    ]
    if wrong:
        raise UserError(
            f"{place}: a response wants id, image, region and text; {wrong[0]} is missing or of the wrong kind"
        )
    if len(row["region"]) != 4 or not finite(row["region"]):
        region = f"{row['region']}"[:100]
        raise UserError(f"{place}: the region of response {row['id']} is no [x1, y1, x2, y2] in pixels: {region}")
    return row


def _answer(judged: dict, query: RegionQuery, box_format: BoxFormat) -> dict:
    written = box_format.parse(judged["text"], query.image.width, query.image.height).boxes
    return {
        **dict.fromkeys(("s_crop", "s_local", "s_sem", "s_loc")),
        **judged["terms"],
        "score": judged["score"],
        "reason": judged["reason"],
        "boxes": [list(box.xyxy) for box in map(usable, written) if box],
        "refined": judged["repaired"],
        "refined_score": judged["repaired_score"],
    }
