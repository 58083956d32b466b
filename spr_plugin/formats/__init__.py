"""Box text of the model families: one object a family that writes, reads and rewrites it (see
:mod:`spr_plugin.formats.base`).

The family is the model's declared one or ``--spr_box_format``, never the one that happens to fit the ground
truth.
"""

import re

from spr_plugin.errors import UserError
from spr_plugin.formats.base import BoxFormat
from spr_plugin.formats.bracket import BracketFormat, cogvlm, ferret, llava, shikra
from spr_plugin.formats.families import FAMILIES, family_of
from spr_plugin.formats.listed import qwen2_5_vl, qwen3_vl
from spr_plugin.formats.parsed import Mention, Parsed
from spr_plugin.formats.tagged import internvl, kosmos2, qwen_vl
from spr_plugin.hookspecs import hookimpl
from spr_plugin.plugins import ask

__all__ = [
    "FAMILIES",
    "BoxFormat",
    "BracketFormat",
    "Mention",
    "Parsed",
    "box_format",
    "cogvlm",
    "family_of",
    "ferret",
    "internvl",
    "known_format",
    "kosmos2",
    "llava",
    "qwen2_5_vl",
    "qwen3_vl",
    "qwen_vl",
    "shikra",
]  # fmt: skip


def box_format(family: str, aspect: str | None = None) -> BoxFormat:
    """The box format of a model family, ours or a plugin's. Raises UserError for a family that no plugin
    knows.
    """
    form: BoxFormat | None = ask("spr_box_format", family=family, aspect=aspect)
    if form is None:
        raise UserError(
            f"--spr_box_format {family}: no such family; built in are {', '.join(FAMILIES)}, others come with"
            " --spr_plugin FILE"
        )
    return form


def known_format(form: BoxFormat | None) -> BoxFormat:
    """The format, where something is written or read with it. UserError where there is none: a run whose
    plugin is missing, or whose manifest is gone, can be shown, and no more.
    """
    if form is None:
        raise UserError("nobody here knows the run's box format: name its file with --spr_plugin FILE")
    return form


# What LLaVA and its descendants call the ways in which a picture reaches the model, whatever the family.
_LLAVA_ASPECT = re.compile(r"pad|square|anyres(_max_\d+)?|highres|crop_split")
_PIXEL_LIMITS = re.compile(r"(\d{1,18})-(\d{1,18})")


def refuse_unknown_aspect(family: str, aspect: str, named_by: str) -> None:
    """UserError for an aspect, named by a person, that means nothing to a built-in family: LLaVA's boxes,
    say, would be read as 0-1 of the picture for any word but "pad".
    """
    resized = family_of(family).resized
    limits = _PIXEL_LIMITS.fullmatch(aspect) if resized else None
    known = 0 < int(limits[1]) <= int(limits[2]) if limits else _LLAVA_ASPECT.fullmatch(aspect)
    if family in FAMILIES and not known:
        way = ", or its processor's MIN-MAX number of pixels" if resized else ""
        raise UserError(f"{named_by}: {family} knows no aspect {aspect!r}; it is pad, square or anyres{way}")


@hookimpl
def spr_box_format(family: str, aspect: str | None) -> BoxFormat | None:
    """The built-in families."""
    return FAMILIES[family].form(aspect) if family in FAMILIES else None
