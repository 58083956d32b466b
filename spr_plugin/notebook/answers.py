"""Answers of any model about a region of a picture, scored, repaired and paired as a run would."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image

from spr_plugin.boxes import Box, Space
from spr_plugin.config import SPRConfig
from spr_plugin.data.annotations import AnnotatedImage, Annotation, label_of, usable
from spr_plugin.data.pictures import DEEP_MODES, DEEP_WHY, open_image
from spr_plugin.devices import refuse_no_device
from spr_plugin.errors import UserError
from spr_plugin.flags import refuse_unknown
from spr_plugin.foreign import kind, shown
from spr_plugin.formats import box_format, refuse_unknown_aspect
from spr_plugin.pairing import PreferencePair, find_pairing, make_pair
from spr_plugin.plugins import ask, load_file
from spr_plugin.recipes.base import JudgedAnswer
from spr_plugin.recipes.find import find_recipe
from spr_plugin.recipes.spr.answers import truth_of
from spr_plugin.recipes.spr.recipe import SPR
from spr_plugin.recipes.spr.regions import RegionQuery, region_query

Picture = str | os.PathLike | Image.Image
Corners = Sequence[float]  # x1, y1, x2, y2 in pixels of the picture
Objects = Iterable[tuple[str, Corners]]


@dataclass(frozen=True)
class Scored:
    """A region with its answers.

    Attributes:
        query: region, ground truth and picture.
        prompt: the question that all answers are answers to.
        answers: in the order of the texts.
    """

    query: RegionQuery
    prompt: str
    truth: list[list[float]]
    answers: tuple[JudgedAnswer, ...]
    picture: Image.Image
    recipe: SPR

    def _repr_html_(self) -> str:
        from spr_plugin.notebook.pages import of_answers

        return of_answers(self)


def score(
    image: Picture,
    region: Corners,
    texts: Sequence[str],
    objects: Objects,
    aspect: str = "pad",
    device: str = "cpu",
    **flags: Any,
) -> Scored:
    """See :func:`spr_plugin.score`."""
    picture, query = _asked(image, region, objects)
    answers = _texts(texts)
    refuse_no_device(device, f"device={device!r}")
    recipe = _recipe(_aspect(aspect), str(device), **_checked(flags, "score"))
    (judged,) = recipe.judge([picture], [query], [answers])
    return Scored(query, recipe.question(query), judged.truth, judged.answers, picture, recipe)


def refine(
    image: Picture, region: Corners, texts: Sequence[str], objects: Objects, aspect: str = "pad", **flags: Any
) -> list[str]:
    """See :func:`spr_plugin.refine`."""
    config, form = _config(_aspect(aspect), **_checked(flags, "refine"))
    repair = ask("spr_repair", config=config)
    if repair is None:
        raise UserError(
            f"spr_repair={config.spr_repair!r}: no plugin has it; ours are coordinates, item and none"
        )
    _, query = _asked(image, region, objects)
    recipe, truth = SPR(config, form, repair), truth_of(query)
    return [recipe.repaired(recipe.answer(query, text), truth, query).text for text in _texts(texts)]


def make_pairs(scored: Iterable[Scored], **flags: Any) -> list[PreferencePair | str]:
    """See :func:`spr_plugin.make_pairs`."""
    config = _flags(_checked(flags, "make_pairs"))
    pairing = find_pairing(config)
    made = []
    given = [scored] if isinstance(scored, Scored) else _several(scored, "scored", "what score returned")
    if strange := [one for one in given if not isinstance(one, Scored)]:
        raise UserError(f"scored: give what spr_plugin.score returned, not {strange[0]!r}")
    for one in given:
        rows = [{"id": f"{number:06d}", **asdict(answer)} for number, answer in enumerate(one.answers)]
        made.append(make_pair(one.query, one.prompt, rows, pairing))
    return made


def _checked(flags: Mapping[str, Any], function: str) -> dict[str, Any]:
    refuse_unknown(dict(flags), f"spr_plugin.{function}({{}}=…)")
    return dict(flags)


def _flags(flags: Mapping[str, Any]) -> SPRConfig:
    """The flags, the plugins' files that they name loaded."""
    config = SPRConfig(spr=True, **flags)
    for path in config.spr_plugin:
        load_file(path)
    return config


def _config(aspect: str, **flags: Any):
    """The flags, and how boxes are written. UserError where no format is named."""
    config = _flags(flags)
    if config.spr_box_format is None:
        raise UserError("spr_box_format: say how the answers write boxes: llava, ferret, shikra …")
    refuse_unknown_aspect(config.spr_box_format, aspect, f"aspect={aspect!r}")
    return config, box_format(config.spr_box_format, aspect)


def _recipe(aspect: str, device: str, **flags: Any) -> SPR:
    return _loaded(aspect, device, json.dumps(flags, sort_keys=True, default=str))


@functools.lru_cache(maxsize=1)
def _loaded(aspect: str, device: str, flags: str) -> SPR:
    """With its models, which a notebook asks again and again."""
    config, form = _config(aspect, **json.loads(flags))
    recipe = find_recipe(config, form).on(device)
    if not isinstance(recipe, SPR):
        raise UserError(
            f"spr_recipe={' '.join(config.spr_recipe)!r}: a region's answers are scored by the recipe spr"
        )
    return recipe


def _texts(texts: Sequence[str]) -> list[str]:
    answers = _several(texts, "texts", "answers, each a str")
    if not all(isinstance(text, str) for text in answers):
        raise UserError("texts: give a list of answers, each a str")
    return answers


def _aspect(aspect: Any) -> str:
    if not isinstance(aspect, str):
        raise UserError(f"aspect={aspect!r}: is no text, such as 'pad'")
    return aspect


def _several(given: Any, name: str, what: str) -> list[Any]:
    """A list of what was given, which may be read once alone. UserError for what is none."""
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise UserError(f"{name}: give a list of {what}, not {shown(given)}")
    return list(given)


def _asked(image: Picture, region: Corners, objects: Objects) -> tuple[Image.Image, RegionQuery]:
    """The picture, and what is asked about it."""
    if not isinstance(image, (str, os.PathLike, Image.Image)):
        how = "PIL.Image.fromarray(image) makes one of an array"
        raise UserError(f"image: give a picture of PIL or the path of one, not {kind(image)}; {how}")
    picture = _rgb(image) if isinstance(image, Image.Image) else open_image(image)
    path = str(getattr(image, "filename", "")) if isinstance(image, Image.Image) else str(image)
    space = Space.pixels(*picture.size)
    truth = tuple(
        _object(one, space, number)
        for number, one in enumerate(_several(objects, "objects", "(name, (x1, y1, x2, y2))"))
    )
    annotated = AnnotatedImage(os.path.basename(path) or "picture", path, *picture.size, truth)
    query = region_query(annotated, _box(region, space, "region"), 0)
    if not query.truth:
        raise UserError(
            f"objects: none of {len(truth)} lies in the region by half of its area, to measure by"
        )
    return picture, query


def _rgb(image: Image.Image) -> Image.Image:
    """A picture in memory as those of files are; UserError for one that cannot be read or has over 8 bits."""
    if image.mode in DEEP_MODES:
        raise UserError(f"image: {image.mode}: {DEEP_WHY}")
    try:
        return image.convert("RGB")
    except Exception as error:  # it may be read from a broken file only now
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(f"image: {image!r} cannot be read ({why})") from None


def _object(given: tuple[str, Corners], space: Space, number: int) -> Annotation:
    """An object of the truth; UserError for what is no name with a box."""
    try:
        label, corners = given
    except (TypeError, ValueError):
        raise UserError(f"objects[{number}]: {given!r} is no (name, (x1, y1, x2, y2))") from None
    return Annotation(
        number, label_of(label) or f"object {number}", _box(corners, space, f"objects[{number}]")
    )


def _box(corners: Corners, space: Space, name: str) -> Box:
    """A box on the picture; UserError names what is none."""
    try:
        box = usable(Box.of([float(value) for value in corners], space))
    except (TypeError, ValueError):
        box = None
    if box is None:
        size = f"{space.width} x {space.height}"
        raise UserError(f"{name}: {corners!r} is no box x1, y1, x2, y2 in pixels of this picture of {size}")
    return box
