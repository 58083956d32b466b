"""``spr score``: the method on anybody's answers, without a trainer.

A response is one line ``{"id", "image", "region": [x1, y1, x2, y2], "text"}``; ``image`` is the annotation
file's ``file_name`` (of a plugin's source: the picture's path in ``--images``), the region lies in pixels of
the picture. Lines of one (image, region) stand together, since they share one ground truth and compete for
one pair; regions of one image that do so too are scored in one batch.

The file is read twice: first every line is checked, so that a mistake in the last one costs no hour of
scoring. Beside the annotations only a few regions are held at a time, 8 bytes for each region seen, and the
names of the pictures.

Each batch is appended to a log in ``OUT.run``, which the same command goes on from after a crash; outputs are
written from it, each as a whole, when all is scored.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from spr_plugin.boxes import Box, Space
from spr_plugin.data.annotations import usable
from spr_plugin.data.pictures import refuse_no_folder, refuse_outside
from spr_plugin.errors import UserError
from spr_plugin.files import remove, write_json_lines
from spr_plugin.formats import BoxFormat
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
from spr_plugin.tools.named_pictures import Pictures, state_of
from spr_plugin.tools.responses import batches, check, responses_in


class Scoring:
    """A ``spr score`` that has passed all checks which need no scorer.

    Args:
        responses: JSON lines as above.
        annotations, images: what ``spr_annotations`` hooks know, COCO JSON above all, and its folder of
            pictures.
        out: gets each response with ``s_sem, s_crop, s_local, s_loc, score, boxes`` (xyxy, pixels, as far as
            they lie on the picture), ``reason`` (of one that is not valid), ``refined``,
            ``refined_score`` and ``not_choosable`` (why it is never chosen); all numbers None where there is
            a reason.
        pairs: gets the preference pairs.
        allow_outside: pictures may lie outside their folder.
        settings: flag → value of what else shapes the scores; others make a run that goes on score again.
        reads: (flag, path) of what else is read and must not be written to.

    Raises:
        UserError: names the line that is no response, the response whose picture or region cannot be used,
            the region whose lines do not stand together, the picture that lies outside, or the output that
            cannot be written.
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
        self.total = check(responses, self._query)
        used = self._pictures.used
        if not allow_outside:
            refuse_outside(((id, path) for path, id in used.items()), images, "--images", "--allow-outside")
        refuse_overwriting(outputs, (("a picture", path) for path in used))
        if self._pictures.skipped:
            say(f"--annotations {annotations}: left out {listed(self._pictures.skipped)}")
        read = {
            "responses": of_file(responses),
            "annotations": of_file(annotations),
            "images": {"path": images, "hash": state_of(used, images)},
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
        if done := _scored_batches(log.path):
            say(f"{done} batches are scored already, in {self.folder}")
        for number, rows in enumerate(batches(progress(responses_in(self.responses), self.total, "scoring"))):
            if number >= done:
                log.append({"id": str(number), "regions": self._scored(rows, recipe, pairing)})
        log.close()
        write_json_lines(self.out, (row for region in _regions(log.path) for row in region["rows"]))
        if self.pairs:
            made = (region["pair"] for region in _regions(log.path) if region["pair"])
            write_json_lines(self.pairs, made)
        counts = Counter()
        for region in _regions(log.path):
            counts["responses"] += len(region["rows"])
            counts["pairs" if region["pair"] else f"no pair: {region['skip']}"] += 1
        if not delete(self.folder):
            remove(self.folder.path)
        say(listed(counts))
        return counts

    def _query(self, row: dict) -> RegionQuery:
        """The query of a response's region. UserError where its picture cannot be used or no object lies
        there.
        """
        image = self._pictures.of(row)
        region = usable(Box.of(map(float, row["region"]), Space.pixels(image.width, image.height)))
        query = region and region_query(image, region, seed=0)
        if not query or not query.truth:
            raise UserError(
                f"response {row['id']}: the region {row['region']} of {row['image']} holds no annotated"
                " object (pixels, x1 y1 x2 y2)"
            )
        return query

    def _scored(self, rows: list[list[dict]], recipe: Recipe, pairing: Pairing) -> list[dict]:
        """What the log keeps of the regions of one batch: ``{"rows", "pair", "skip"}``."""
        queries = [self._query(row) for row, *_ in rows]
        candidates = [[{"id": str(row["id"]), "text": row["text"]} for row in group] for group in rows]
        records, scored = judge_queries(queries, candidates, recipe), []
        for query, group, record in zip(queries, rows, records):
            answers = [
                {**row, **_answer(judged, query, self.box_format)}
                for row, judged in zip(group, record["candidates"])
            ]
            made = make_pair(query, recipe.question(query), record["candidates"], pairing)
            # A plugin's word may be "".
            skip, pair = (made, None) if isinstance(made, str) else (None, asdict(made))
            scored.append({"rows": answers, "pair": pair, "skip": skip})
        return scored


def _scored_batches(path: Path) -> int:
    """How many whole batches the log begins with; what follows a torn or damaged line is cut off."""
    scored = end = 0
    if not path.exists():
        return scored
    with open(path, "rb+") as file:
        for line in file:
            try:
                sound = record_of(line)["id"] == str(scored)
            except ValueError:
                sound = False
            if not sound:
                break
            scored, end = scored + 1, end + len(line)
        file.truncate(end)
    return scored


def _regions(path: Path) -> Iterator[dict]:
    """What the log holds, region by region, in the order of the responses."""
    with open(path, "rb") as lines:
        for line in lines:
            yield from record_of(line)["regions"]


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
        "not_choosable": judged["not_choosable"],
    }
