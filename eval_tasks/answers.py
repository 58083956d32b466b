"""What all protocols do with an answer before they judge it."""

from collections.abc import Mapping, Sequence

from spr_plugin.boxes import Box, Space, iou
from spr_plugin.formats import BoxFormat, Parsed
from spr_plugin.formats.attempts import attempts

NO_BOX = "no_box"


def answer_text(results: Sequence) -> str:
    """What lmms-eval hands to ``process_results`` → the answer; "" for anything that is no text."""
    return results[0] if results and isinstance(results[0], str) else ""


def failure(parsed: Parsed) -> str | None:
    """Why an answer has no readable box, or None where it has one."""
    return None if parsed.boxes else next(iter(parsed.failures), NO_BOX)


def first_box(parsed: Parsed, text: str) -> Box | None:
    """What answers a question for one box: the first box that is *written*.

    None where there is none, or where it cannot be read: no later box stands in for it. Fewer than four numbers are a point or
    a footnote, and no box (:mod:`spr_plugin.formats.attempts`).
    """
    first = next(iter(parsed.mentions), None)
    before = (span for span in parsed.failed_spans if first and span < first.spans[0])
    return first.boxes[0] if first and not any(attempts(text[slice(*span)]) for span in before) else None


def true_box(doc: Mapping, corners: Sequence[float]) -> Box:
    """A document's box with its space."""
    return Box.of(corners, Space.pixels(doc["width"], doc["height"]))


def rounded_iou(form: BoxFormat, truth: Box) -> float:
    """IoU with `truth` of what a model reaches that writes the truth itself, rounded as its family's text is."""
    read = form.parse(form.render([("", truth)]), truth.space.width, truth.space.height).boxes
    return iou(read[0].to(truth.space), truth) if read else 0.0
