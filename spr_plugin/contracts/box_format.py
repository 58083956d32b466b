"""A plugin's box format, tried on a few boxes."""

from __future__ import annotations

from collections.abc import Mapping

from spr_plugin.boxes import Box, Space, pair_iou
from spr_plugin.foreign import Broken, Foreign, has, methods, of_kind, shown
from spr_plugin.formats.base import BoxFormat
from spr_plugin.formats.parsed import Parsed
from spr_plugin.plugins import answers

SIDES = 640, 480
CORNERS = (64.0, 48.0, 320.0, 240.0), (400.0, 300.0, 620.0, 460.0), (0.0, 0.0, 640.0, 480.0)
ROUGH = (
    "",
    "a cup",
    "[",
    "[0.1, 0.2",
    "a cup [1, 2, 3]",
    "<box>",
    '{"bbox_2d": [1',
    "[[[9999, -3, x, 0.5]]] (and)",
)


def checked_format(plugin: str, hook: str, form, arguments: dict) -> BoxFormat:
    """`form`, which writes boxes, reads them back, moves and removes them, and raises on no text."""
    space, checking = Space.pixels(*SIDES), Foreign(plugin, hook, form, methods(BoxFormat)).checking
    first, second, third = (Box(*corners, space) for corners in CORNERS)

    def boxes_of(text: str) -> list[Box]:
        with checking("parse"):
            parsed = of_kind(form.parse(text, *SIDES), Parsed)
            for mention in parsed.mentions:
                of_kind(mention.phrase, str, "as phrase ")
            return [of_kind(box, Box) for box in parsed.boxes]

    def holds(wanted: list[Box], method: str, *arguments, **flags) -> str:
        """What `method` makes of its arguments: a text that reads as the boxes `wanted`."""
        with checking(method):
            text = of_kind(getattr(form, method)(*arguments, **flags), str)
            read = boxes_of(text)
            if len(read) != len(wanted):
                raise Broken(
                    f"gives {shown(text)}, which parse reads as {len(read)} boxes, not {len(wanted)}"
                )
            for box, true in zip(read, wanted):
                if not box.space.same_picture(space) or pair_iou(box.pixels(), true.pixels()) < 0.5:
                    raise Broken(f"gives {shown(text)}, which parse reads as another box than {true.xyxy}")
        return text

    with checking():
        has(form, BoxFormat.__annotations__)
    with checking("space"):
        of_kind(form.space(*SIDES), Space)
    with checking("write"):
        of_kind(form.write(first), str)
    for box in (first, second, third):
        holds([box], "render", [("", box)])
    text = holds([first, second], "render", [("a cup", first), ("a red square", second)])
    for rough in (*ROUGH, text[:-2], text[3:]):
        boxes_of(rough)
    parsed = form.parse(text, *SIDES)
    holds([third, second], "rewrite", text, parsed, {0: third})
    holds([], "rewrite", text, parsed, {0: None, 1: None}, drop_failures=True)
    holds([], "words", text, parsed)
    with checking("describe"):
        _check_description(form.describe())
    return form


def _check_description(described) -> None:
    for key in ("family", "space", "aspect"):
        if key not in of_kind(described, Mapping):
            raise Broken(f'gives no "{key}": {shown(described)}')
        of_kind(described[key], (str, type(None)), f"as {key} ")
    # A checkpoint keeps the description alone: the report and the evaluation ask for the format by it.
    family, aspect = described["family"], described["aspect"]
    if next(answers("spr_box_format", family=family, aspect=aspect), None) is None:
        raise Broken(f"gives the family {family!r}, which spr_box_format does not know")
