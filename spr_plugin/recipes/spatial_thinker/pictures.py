"""Files of scene graphs → pictures with their objects and triples, each made when it is asked for.

Two layouts are known by their content. Of one's own: a JSON table of file name → graph, as
:func:`spr_plugin.recipes.spatial_thinker.graph.graph_of` describes it, boxes xyxy in pixels (``scenes.py
--geometry`` of the tiny world writes it). Visual Genome's (1.2 and later): ``scene_graphs.json``, or
``objects.json`` with ``relationships.json`` beside it.

Single bad records never stop a run: they are left out and counted. A file that is wrong as a whole is a
UserError.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeGuard

from spr_plugin.boxes import Box, Space, finite
from spr_plugin.data.annotations import AnnotatedImage, Annotation, label_of, usable
from spr_plugin.data.pictures import image_size
from spr_plugin.errors import UserError
from spr_plugin.loading import read_json
from spr_plugin.recipes.spatial_thinker.graph import (
    Triple,
    name_of,
    numbers_of,
    object_id,
    plain_name,
    triple_of,
)

GENOME = "VG_100K", "VG_100K_2"  # the folders that Visual Genome's pictures are unpacked to
Record = Mapping[str, Any]


@dataclass(frozen=True)
class GraphImage(AnnotatedImage):
    """A picture with its scene graph: annotations, whose ids are a label and a number, and triples of
    them.
    """

    triples: tuple[Triple, ...]


class GraphImages:
    """The pictures of a file of scene graphs; see the module for its layouts. Each is had by its number.

    Left out and counted in `skipped`, as far as pictures are asked for: objects as ``bad_object``,
    ``duplicate_id``, ``outside``; triples as ``bad_relation``, ``unknown_id``; pictures as ``bad_graph``,
    ``no_objects`` and under `spr_plugin.data.pictures.REASONS`.

    Attributes:
        ids: the pictures' file names.
    """

    def __init__(self, file: str, folder: str, skipped: Counter[str]):
        self._folder, self._skipped = folder, skipped
        self._records, self._graph = records_of(file, folder)
        self.ids = list(self._records)

    def image(self, number: int) -> GraphImage | None:
        """The picture ``ids[number]``, or None, counted."""
        name = self.ids[number]
        path = os.path.join(self._folder, name)
        size = image_size(path)
        if isinstance(size, str):
            self._skipped[size] += 1
            return None
        graph = self._graph(self._records[name])
        if graph is None:
            self._skipped["bad_graph"] += 1
            return None
        objects = objects_of(graph["objects"], Space.pixels(*size), self._skipped)
        if not objects:
            self._skipped["no_objects"] += 1
            return None
        triples = triples_of(graph["relationships"], {one.id for one in objects}, self._skipped)
        return GraphImage(name, path, *size, tuple(objects), triples)

    def some_name(self, rng: Random) -> str | None:
        """What an object of some picture is called: names come as often as they do in the file."""
        graph = self._graph(self._records[rng.choice(self.ids)])
        row = rng.choice(graph["objects"]) if graph and graph["objects"] else None
        try:
            return name_of(object_id(row.get("id"))) if isinstance(row, Mapping) else None
        except ValueError:
            return None

    def __iter__(self) -> Iterator[GraphImage]:
        return filter(None, map(self.image, range(len(self.ids))))


def objects_of(rows: Sequence[object], space: Space, skipped: Counter[str]) -> list[Annotation]:
    """The objects of a graph that lie on their picture, by their ids."""
    objects: dict[str, Annotation] = {}
    for row in rows:
        try:
            if not isinstance(row, Mapping):
                raise ValueError
            id, numbers = object_id(row.get("id")), numbers_of(row.get("bbox"))
        except ValueError:
            skipped["bad_object"] += 1
            continue
        box = usable(Box.of(map(float, numbers), space))
        if id in objects or box is None:
            skipped["duplicate_id" if id in objects else "outside"] += 1
        else:
            objects[id] = Annotation(id, name_of(id), box)
    return list(objects.values())


def triples_of(rows: Sequence[object], known: set[int | str], skipped: Counter[str]) -> tuple[Triple, ...]:
    """The triples of a graph both of whose ends are `known`, none twice."""
    triples: dict[Triple, None] = {}
    for row in rows:
        try:
            one = triple_of(row)
        except ValueError:
            skipped["bad_relation"] += 1
            continue
        predicate = label_of(one.predicate).lower()
        if not predicate or one.subject == one.object:
            skipped["bad_relation"] += 1
        elif one.subject in known and one.object in known:
            triples[one._replace(predicate=predicate)] = None
        else:
            skipped["unknown_id"] += 1
    return tuple(triples)


# --- the layouts


def records_of(file: str, folder: str) -> tuple[dict[str, Any], Callable[[Any], Record | None]]:
    """File name of a picture → its record, and what makes a graph of a record: one with two lists, or
    None.
    """
    name = f"--spr_annotations {file}"
    content = read_json(file, name)
    if isinstance(content, dict) and any(
        isinstance(row, dict) and "objects" in row for row in content.values()
    ):
        return content, own_graph
    if isinstance(content, list) and content and all(_is_genome(row) for row in content):
        return genome_records(content, file, folder), genome_graph
    raise UserError(
        f"{name}: neither a table of picture → scene graph nor Visual Genome's objects.json or"
        " scene_graphs.json"
    )


def own_graph(record: object) -> Record | None:
    """A graph of one's own, its missing lists empty."""
    if not isinstance(record, Mapping):
        return None
    graph = {part: record.get(part, []) for part in ("objects", "relationships")}
    return graph if all(isinstance(rows, list) for rows in graph.values()) else None


def _has_image(row: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(row, dict) and isinstance(row.get("image_id"), int)


def _is_genome(row: object) -> bool:
    return _has_image(row) and isinstance(row.get("objects"), list)


def genome_records(rows: Sequence[dict[str, Any]], file: str, folder: str) -> dict[str, dict[str, Any]]:
    """File name → Visual Genome's record with its relationships, which may lie in a file of their own."""
    beside = Path(file).with_name("relationships.json")
    of_image: dict[object, object] = {}
    if not any("relationships" in row for row in rows):
        if not beside.is_file():
            raise UserError(f"--spr_annotations {file}: {beside} is missing; Visual Genome's lies there")
        others = read_json(beside, f"--spr_annotations {beside}")
        if not isinstance(others, list) or not all(map(_has_image, others)):
            raise UserError(f"--spr_annotations {beside}: not Visual Genome's relationships.json")
        of_image = {row["image_id"]: row.get("relationships") for row in others}
    return {
        _genome_file(row["image_id"], folder): {"relationships": of_image.get(row["image_id"]) or [], **row}
        for row in rows
    }


def _genome_file(number: int, folder: str) -> str:
    names = [f"{number}.jpg", *(f"{part}/{number}.jpg" for part in GENOME)]
    return next((name for name in names if os.path.isfile(os.path.join(folder, name))), names[1])


def genome_graph(record: Record) -> Record | None:
    """A record of Visual Genome's as a graph of one's own: x, y, w, h become corners, an object's first
    name and its place in the record its id. What is no object stays what it is, to be counted.
    """
    if not isinstance(record["relationships"], list):
        return None
    ids: dict[object, str] = {}
    objects: list[object] = []
    for number, row in enumerate(record["objects"], 1):
        name = _genome_name(row)
        if name and isinstance(row.get("object_id"), int):
            ids[row["object_id"]] = f"{name}.{number}"
            objects.append({"id": f"{name}.{number}", "bbox": _corners(row)})
        else:
            objects.append(None)
    return {
        "objects": objects,
        "relationships": [_genome_triple(row, ids) for row in record["relationships"]],
    }


def _genome_name(row: object) -> str:
    """What an object is called, in characters that an id may have."""
    names = row.get("names") or [row.get("name")] if isinstance(row, Mapping) else []
    first = names[0] if isinstance(names, list) and names else ""
    kept = "".join(c if c.isalnum() or c in "_-' " else " " for c in label_of(first))
    return plain_name(kept).lstrip("' ")


def _corners(row: Record) -> object:
    numbers: list[Any] = [row.get(key) for key in "xywh"]
    if not finite(numbers):
        return None
    x, y, width, height = numbers
    return [x, y, x + width, y + height]


def _genome_triple(row: object, ids: Mapping[object, str]) -> object:
    """``relationships.json`` holds whole objects at both ends, ``scene_graphs.json`` their numbers."""
    if not isinstance(row, Mapping):
        return None
    ends = [
        row[side].get("object_id") if isinstance(row.get(side), Mapping) else row.get(f"{side}_id")
        for side in ("subject", "object")
    ]
    subject, other = (ids.get(end, "unknown.0") if isinstance(end, int) else None for end in ends)
    return {"subject": subject, "predicate": row.get("predicate"), "object": other}
