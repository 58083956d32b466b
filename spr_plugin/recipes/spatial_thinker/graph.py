"""Scene graphs as answers and truths write them: objects with boxes, and triples. Plain data in and out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from spr_plugin.boxes import Array, finite

# A name and a number. The authors' code takes letters and "_" alone, which says no "fire-hydrant.1".
ID = re.compile(r"(\w[\w' -]*)\.(\d+)")
OBJECT, TRIPLE = {"id", "bbox"}, ("subject", "predicate", "object")


class Triple(NamedTuple):
    """`subject` and `object` are ids."""

    subject: str
    predicate: str
    object: str

    def to_record(self) -> dict[str, str]:
        return self._asdict()


@dataclass(frozen=True)
class Graph:
    """A scene graph.

    Attributes:
        ids: of the objects, none twice.
        boxes: (n, 4) xyxy, in whatever space the text speaks of.
        triples: whose ids may be none of these.
    """

    ids: tuple[str, ...]
    boxes: Array
    triples: tuple[Triple, ...]

    @property
    def names(self) -> list[str]:
        """What each object is called."""
        return [name_of(id) for id in self.ids]


def name_of(id: str) -> str:
    """ "Fire-hydrant.3" → "fire hydrant"."""
    return plain_name(id.rpartition(".")[0])


def plain_name(text: str) -> str:
    """As names are compared: lower case, "_" and "-" as blanks."""
    return " ".join(text.replace("_", " ").replace("-", " ").lower().split())


def graph_of(record: object) -> Graph:
    """The graph of ``{"objects": [{id, bbox}], "relationships": [{subject, predicate, object}]}``; a list
    that is missing is empty.

    Raises:
        ValueError: says what is no such graph.
    """
    if not isinstance(record, Mapping) or not record:
        raise ValueError("no graph")
    rows, relations = record.get("objects", []), record.get("relationships", [])
    if not isinstance(rows, list) or not isinstance(relations, list):
        raise ValueError("objects and relationships are lists")
    objects = [_object(row) for row in rows]
    ids = tuple(id for id, _ in objects)
    if len(set(ids)) < len(ids):
        raise ValueError("an id stands there twice")
    boxes = np.array([box for _, box in objects], dtype=np.float64).reshape(-1, 4)
    return Graph(ids, boxes, tuple(triple_of(row) for row in relations))


def is_object(row: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether a row has what an object has, and nothing else."""
    return isinstance(row, Mapping) and row.keys() == OBJECT


def _object(row: object) -> tuple[str, Sequence[float]]:
    if not is_object(row):
        raise ValueError("an object has an id and a bbox, and nothing else")
    return object_id(row["id"]), numbers_of(row["bbox"])


def object_id(value: object) -> str:
    """The same, where it is a name and a number (``red circle.1``); ValueError where not."""
    if not isinstance(value, str) or not ID.fullmatch(value):
        raise ValueError("an id is a name, a point and a number")
    return value


def numbers_of(value: object) -> Sequence[float]:
    """The four numbers of a box; ValueError where there are none."""
    if not isinstance(value, list) or len(value) != 4 or not finite(value):
        raise ValueError("a bbox is four numbers")
    return value


def triple_of(row: object) -> Triple:
    """The triple of a record; ValueError where it is none. What else it holds is not looked at."""
    if not isinstance(row, Mapping) or not all(isinstance(row.get(name), str) for name in TRIPLE):
        raise ValueError("a relationship has subject, predicate and object")
    subject, predicate, other = (row[name] for name in TRIPLE)
    return Triple(object_id(subject), predicate, object_id(other))


def record_of(
    ids: Sequence[str], boxes: Sequence[Sequence[float]], triples: Sequence[Triple]
) -> dict[str, Any]:
    """What `graph_of` reads."""
    objects = [{"id": id, "bbox": list(box)} for id, box in zip(ids, boxes)]
    return {"objects": objects, "relationships": [triple.to_record() for triple in triples]}
