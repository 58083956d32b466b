"""What a notebook shows of answers and of a run: fragments of the report's own templates."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from spr_plugin.drawing import COLORS
from spr_plugin.recipes.base import Judged
from spr_plugin.report.examples import clipped, data_uri, repaired, written
from spr_plugin.report.rendering import template

if TYPE_CHECKING:
    from spr_plugin.notebook.answers import Scored


class Html(str):
    """A text that a notebook shows as HTML."""

    def _repr_html_(self) -> str:
        return str(self)


def fragment(examples: Iterable[dict], **more) -> Html:
    """Examples, see :class:`spr_plugin.report.examples.Shown`, and whatever else ``notebook.html`` shows."""
    return Html(template("notebook.html").render(examples=list(examples), colours=COLORS, **more))


def of_answers(scored: Scored) -> Html:
    """Each answer as it is, and repaired, on the picture."""
    query, sides = scored.query, []
    drawn = scored.recipe.draw(query, Judged(scored.truth, scored.answers))
    for number, (answer, (marks, marks_repaired)) in enumerate(zip(scored.answers, drawn)):
        sides.append(written(f"answer {number}", "chosen", answer, marks))
        if answer.repaired != answer.text or answer.not_choosable != answer.reason:
            sides.append(repaired(f"answer {number}, repaired", "chosen", answer, marks_repaired))
    picture = {"name": query.image.id, "uri": data_uri(scored.picture), "why": None}
    return fragment(
        [
            {
                "why": f"{len(scored.answers)} answers",
                "id": query.id,
                "prompt": clipped(scored.prompt),
                "pictures": [picture],
                "sizes": [(query.image.width, query.image.height)],
                "sides": sides,
            }
        ]
    )
