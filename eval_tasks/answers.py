"""What all protocols do with an answer before they judge it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

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


@dataclass(frozen=True)
class Grounding:
    """A place in an answer where boxes of a phrase are written: those that can be read, or why its first one
    cannot.
    """

    phrase: str
    boxes: tuple[Box, ...] = ()
    reason: str | None = None


def groundings(parsed: Parsed, text: str) -> Iterator[Grounding]:
    """The groundings of an answer in its order, by the rule of all tasks: the first box *written* answers.

    Where it cannot be read, none later stands in for it. Fewer than four numbers are a point or a footnote,
    and no box (:mod:`spr_plugin.formats.attempts`).
    """
    rows = [
        ((mention.spans[0], mention.span[1]), Grounding(mention.phrase, mention.boxes))
        for mention in parsed.mentions
    ]
    for failure in parsed.failed:
        written = text[slice(*failure.span)]
        if attempts(f"[{written}]" if failure.inside else written):
            rows.append(
                (
                    (failure.span, (failure.inside or failure.span)[1]),
                    Grounding(failure.phrase, reason=failure.reason),
                )
            )
    reached = 0
    for (span, end), grounding in sorted(rows, key=itemgetter(0)):
        if span[0] >= reached:  # what lies in the list of one before is no place of its own
            reached = end
            yield grounding


def first_box(parsed: Parsed, text: str) -> Box | None:
    """What answers a question for one box; None where there is none, or where the first one cannot be
    read.
    """
    first = next(groundings(parsed, text), None)
    return first.boxes[0] if first and first.boxes else None


def true_box(doc: Mapping, corners: Sequence[float]) -> Box:
    """A document's box with its space."""
    return Box.of(corners, Space.pixels(doc["width"], doc["height"]))


def rounded_iou(form: BoxFormat, truth: Box) -> float:
    """IoU with `truth` of what a model reaches that writes the truth itself, rounded as its family's text
    is.
    """
    read = form.parse(form.render([("", truth)]), truth.space.width, truth.space.height).boxes
    return iou(read[0].to(truth.space), truth) if read else 0.0
