"""The boxes that a text writes, to be drawn on its picture."""

from __future__ import annotations

from spr_plugin.data.pictures import Picture
from spr_plugin.formats import BoxFormat
from spr_plugin.recipes.base import Mark


def written_in(text: str, form: BoxFormat | None, picture: Picture) -> list[Mark]:
    """Each box with its phrase, which several may share, and where both stand in the text; none without a box
    format, in a run that is opened where its plugin is missing.
    """
    if form is None:
        return []
    return [
        Mark("written", box.pixels(), name=mention.phrase, spans=(mention.phrase_span, span))
        for mention in form.parse(text, picture.width, picture.height).mentions
        for box, span in zip(mention.boxes, mention.spans)
    ]
