"""What an answer says: its four tags, the graph between ``<scene>``, the option that it takes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spr_plugin.formats.attempts import Span
from spr_plugin.loading import parse_json
from spr_plugin.recipes.spatial_thinker.graph import Graph, graph_of, is_object

TAGS = ("observe", "scene", "think", "answer")
_FLAT = re.compile(r"\{[^{}]*\}")  # an object or a triple of a scene; no id has a brace


@dataclass(frozen=True)
class Answer:
    """A text that keeps to the format.

    Attributes:
        graph: its boxes in the units in which the question gives the picture's size.
        option: the option, as it is written.
        spans: tag → (start, end) of what stands in it.
    """

    text: str
    graph: Graph
    option: str
    spans: Mapping[str, Span]

    @property
    def places(self) -> list[tuple[Span, ...]]:
        """(start, end) of each object of the graph in the text, id and box; () where that cannot be told."""
        start, end = self.spans["scene"]
        flat = (match.span() for match in _FLAT.finditer(self.text, start, end))
        objects: list[tuple[Span, ...]] = [(span,) for span in flat if _says_object(self.text[slice(*span)])]
        return objects if len(objects) == len(self.graph.ids) else [()] * len(self.graph.ids)

    def inside(self, tag: str) -> str:
        """What stands between ``<tag>`` and ``</tag>``."""
        return self.text[slice(*self.spans[tag])]


def read(text: str) -> Answer | None:
    """The answer, or None where a tag is missing or stands there twice, or its scene is no graph (the term
    F of the authors' code; in what order the tags come is not looked at).
    """
    spans = {tag: _span(text, tag) for tag in TAGS}
    present = {tag: span for tag, span in spans.items() if span}
    if len(present) < len(TAGS):
        return None
    try:
        graph = graph_of(parse_json(text[slice(*present["scene"])]))
    except ValueError:
        return None
    return Answer(text, graph, text[slice(*present["answer"])].strip(), present)


def _says_object(text: str) -> bool:
    try:
        return is_object(parse_json(text))
    except ValueError:  # braces within a triple's words
        return False


def _span(text: str, tag: str) -> Span | None:
    opens, closes = f"<{tag}>", f"</{tag}>"
    if text.count(opens) != 1 or text.count(closes) != 1:
        return None
    start, end = text.index(opens) + len(opens), text.index(closes)
    return (start, end) if start <= end else None


def written(observed: str, scene: Mapping[str, Any], thought: str, option: str) -> str:
    """The text of an answer."""
    parts = zip(TAGS, (observed, json.dumps(scene, ensure_ascii=False), thought, option))
    return "\n".join(f"<{tag}>{part}</{tag}>" for tag, part in parts)
