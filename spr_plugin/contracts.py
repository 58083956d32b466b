"""What plugins give, and the checks that they do.

A plugin is foreign code, and most of what it gives is used hours after it was asked. So each answer to a hook is tried at once on a small
made-up picture, and a scorer's, similarity model's, detector's or annotation source's later results pass the same checks, which also turn
them into plain numbers. What is wrong is one line that names plugin, hook and method. Our own implementations have their tests instead.
"""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw

from spr_plugin.annotations import SMALLEST, AnnotatedImage, Annotation, image_size, usable
from spr_plugin.boxes import Box, Space, pair_iou
from spr_plugin.formats.base import BoxFormat, Parsed
from spr_plugin.host import PARTS, Host
from spr_plugin.plugins import BUILT_IN, Broken, answers, blamed
from spr_plugin.regions import RegionQuery, region_query

Detection = tuple[str, Box, float]


class Scorer(Protocol):
    """Scores the regions of one picture together, with the texts of each. From the hook ``spr_scorer``."""

    def truth(
        self, queries: Sequence[RegionQuery], picture: Image.Image, texts: Sequence[Sequence[str]], box_format: BoxFormat
    ) -> list[np.ndarray]:
        """For each query its region's ground truth, ``(n, 4)`` xyxy in pixels of the picture, pooled over its texts."""

    def score(
        self,
        queries: Sequence[RegionQuery],
        picture: Image.Image,
        texts: Sequence[Sequence[str]],
        box_format: BoxFormat,
        truths: Sequence[np.ndarray],
    ) -> list[list[dict]]:
        """For each query one ``{"terms", "total", "valid", "reason"}`` a text: numbers by name, S, whether it can be used, and why not (or None).

        `truths` are those of `truth`, so that repaired texts are measured on the same boxes.
        """


class Similarity(Protocol):
    """An image-text model. From the hook ``spr_similarity``."""

    def score(self, picture: Image.Image, asked: Sequence[tuple[Box, str]]) -> list[tuple[float, float]]:
        """For each (region, text without coordinates) ``(S(I_crop, T), S_local(I, T))``: raw cosines.

        `asked` are all the regions and texts of one picture, no two alike, so that an implementation can batch them and show itself
        the whole picture once. Texts may be longer than the model reads.
        """


class Detector(Protocol):
    """An open-vocabulary detector. From the hook ``spr_detector``."""

    def detect(self, picture: Image.Image, phrases: Sequence[str]) -> list[Detection]:
        """``(phrase, Box, score)`` of everything found for `phrases`, in any order; boxes in any space of the picture."""


def ask(hook: str, **arguments):
    """What the first plugin that knows the request answers, checked; None where nobody does. UserError names a plugin that breaks its contract."""
    return checked(hook, *next(answers(hook, **arguments), (None, None)), **arguments)


def checked(hook: str, plugin: str | None, answer, **arguments):
    """`answer` of `plugin` to `hook`, tried, and wrapped where its later results are to be checked too; ours as it is."""
    return answer if plugin is None or plugin in BUILT_IN else CONTRACTS[hook](plugin, hook, answer, arguments)


# --- small checks; each raises Broken -----------------------------------------------------------------------------------------


def listed(given, count: int | None = None, of: str = "") -> list:
    """`given` as a list, of `count` rows if that is known, one for each of what `of` names."""
    if isinstance(given, (str, bytes, Mapping)) or not hasattr(given, "__iter__"):
        raise Broken(f"gives {_kind(given)}, no list" + (f" with a row for each of {count} {of}" if of else ""))
    rows = list(given)
    if count is not None and len(rows) != count:
        raise Broken(f"gives {len(rows)} rows for {count} {of}")
    return rows


def number(value, name: str) -> float:
    """A finite number, also one of NumPy or a tensor, as a float."""
    try:
        plain = math.nan if isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError, RuntimeError):  # tensors of several numbers raise the last
        plain = math.nan
    if not math.isfinite(plain):
        raise Broken(f"gives {name} {_shown(value)}, no finite number")
    return plain


def of_kind(value, kind, name: str):
    """`value`, which is a `kind`."""
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        raise Broken(f"gives {name}{_kind(value)}, no {' or '.join(one.__name__ for one in kinds if one is not type(None))}")
    return value


def _has(given, attributes: Iterable[str]) -> None:
    missing = [name for name in attributes if not hasattr(given, name)]
    if missing:
        raise Broken(f"gives {_kind(given)}, which has no attribute {', '.join(missing)}")


def _kind(value) -> str:
    return "None" if value is None else type(value).__name__


def _shown(value) -> str:
    return " ".join(repr(value).split())[:60]


class Foreign:
    """What a plugin gave. ``with checking("score"):`` makes a wrong result, or any exception, of that method a line that names it."""

    def __init__(self, plugin: str, hook: str, given, methods: Sequence[str] = ()):
        self.plugin, self.hook, self.given = plugin, hook, given
        with self.checking():
            missing = [name for name in methods if not callable(getattr(given, name, None))]
            if missing:
                raise Broken(f"gives {_kind(given)}, which has no method {', '.join(missing)}")

    def checking(self, method: str = ""):
        return blamed(f"plugin {self.plugin}: {self.hook}" + (f", {_kind(self.given)}.{method}" if method else ""))


# --- scorer, similarity model, detector ---------------------------------------------------------------------------------------


class CheckedScorer(Foreign):
    """A plugin's :class:`Scorer`. `try_out` needs the run's box format, so that whoever asks for a scorer calls it."""

    def __init__(self, plugin, hook, given, arguments):
        super().__init__(plugin, hook, given, public(Scorer))

    def truth(self, queries, picture, texts, box_format) -> list[np.ndarray]:
        with self.checking("truth"):
            rows = listed(self.given.truth(queries, picture, texts, box_format), len(queries), "regions")
            return [_corners(row) for row in rows]

    def score(self, queries, picture, texts, box_format, truths) -> list[list[dict]]:
        with self.checking("score"):
            rows = listed(self.given.score(queries, picture, texts, box_format, truths), len(queries), "regions")
            return [[_judged(one) for one in listed(row, len(said), "texts")] for row, said in zip(rows, texts)]

    def try_out(self, box_format: BoxFormat) -> None:
        with made_up() as (picture, queries):
            texts = [_texts(query, box_format) for query in queries]
            texts[1] = texts[1][:-1]  # regions differ in their number of texts
            truths = self.truth(queries, picture, texts, box_format)
            with self.checking("truth"):
                for x1, y1, x2, y2 in (corners for truth in truths for corners in truth.tolist()):
                    if not usable(Box(x1, y1, x2, y2, Space.pixels(*picture.size))):
                        raise Broken(f"gives {[x1, y1, x2, y2]}, no box in pixels of a picture of {picture.width} x {picture.height}")
            self.score(queries, picture, texts, box_format, truths)


def _corners(truth) -> np.ndarray:
    if truth is None:
        raise Broken("gives None for a region, no (n, 4) array")
    array = np.asarray(truth, dtype=np.float64)
    array = array.reshape(0, 4) if array.size == 0 else array
    if array.ndim != 2 or array.shape[1] != 4:
        raise Broken(f"gives an array of shape {array.shape} for a region, not (n, 4)")
    if not np.isfinite(array).all():
        raise Broken("gives boxes that are not finite")
    return array


def _judged(row) -> dict:
    """One text's score as plain data."""
    missing = [name for name in ("terms", "total", "valid", "reason") if name not in of_kind(row, Mapping, "")]
    if missing:
        raise Broken(f'gives a score without "{missing[0]}": {_shown(row)}')
    terms = {name: number(value, f"the term {name}") for name, value in of_kind(row["terms"], Mapping, "as terms ").items()}
    plain = {**row, "terms": terms, "total": number(row["total"], "as total")}
    plain["valid"] = bool(of_kind(row["valid"], (bool, np.bool_), "as valid "))
    of_kind(row["reason"], (str, type(None)), "as reason ")
    try:
        json.dumps(plain)  # it becomes a line of a log
    except TypeError as error:
        raise Broken(f"gives a score that JSON cannot hold ({error}): {', '.join(map(str, plain))}") from None
    return plain


class CheckedSimilarity(Foreign):
    """A plugin's :class:`Similarity`."""

    def __init__(self, plugin, hook, given, arguments):
        super().__init__(plugin, hook, given, public(Similarity))
        with made_up() as (picture, queries):
            self.score(picture, [(query.region, text) for query in queries for text in ("a red square and a cup", "a cup", LONG)])

    def score(self, picture, asked) -> list[tuple[float, float]]:
        with self.checking("score"):
            rows = listed(self.given.score(picture, asked), len(asked), "(region, text)")
            pairs = [listed(row, 2, "(S_crop, S_local)") for row in rows]
            return [(number(s_crop, "as S_crop"), number(s_local, "as S_local")) for s_crop, s_local in pairs]


class CheckedDetector(Foreign):
    """A plugin's :class:`Detector`."""

    def __init__(self, plugin, hook, given, arguments):
        super().__init__(plugin, hook, given, public(Detector))
        with made_up() as (picture, _):
            self.detect(picture, ["a cup", "a red square", LONG])

    def detect(self, picture, phrases) -> list[Detection]:
        with self.checking("detect"):
            return [_detection(row, picture.size, phrases) for row in listed(self.given.detect(picture, phrases))]


def _detection(row, size: tuple[int, int], phrases: Sequence[str]) -> Detection:
    if not isinstance(row, (tuple, list)) or len(row) != 3:
        raise Broken(f"gives {_shown(row)}, no (phrase, Box, score)")
    phrase, box, score = row
    if phrase not in phrases:
        raise Broken(f"gives something for {_shown(phrase)}, which was not asked for")
    space = of_kind(box, Box, "").space
    if (space.width, space.height) != size:
        raise Broken(f"gives a box of a picture of {space.width} x {space.height} for one of {size[0]} x {size[1]}")
    return phrase, Box(*(number(value, "a box with") for value in box.xyxy), space), number(score, "as score")


# --- annotated pictures ---------------------------------------------------------------------------------------------------------


class CheckedImages(Foreign):
    """A plugin's annotated pictures, each checked when it is asked for. One whose file is not as stated is counted, and left out."""

    def __init__(self, plugin, hook, given, arguments):
        by_number = hasattr(given, "ids")
        super().__init__(plugin, hook, given, ["image"] if by_number else ["__iter__"])
        self._skipped: Counter = arguments["skipped"]
        if by_number:
            with self.checking("ids"):
                self.ids = [of_kind(id, (str, int), "") for id in listed(given.ids)]

    def image(self, number: int) -> AnnotatedImage | None:
        with self.checking("image"):
            image = self.given.image(number)
            return None if image is None else self._as_stored(image)

    def __iter__(self) -> Iterator[AnnotatedImage]:
        with self.checking():
            images = iter(self.given)
        while True:
            with self.checking():
                image = next(images, images)  # itself: the end, as None is a mistake
                if image is images:
                    return
                found = self._as_stored(image)
            if found:
                yield found

    def _as_stored(self, image) -> AnnotatedImage | None:
        """`image`, or None, counted, where its file is missing or of another size."""
        check_image(of_kind(image, AnnotatedImage, ""))
        size = image_size(image.path)
        if size == (image.width, image.height):
            return image
        self._skipped[size if isinstance(size, str) else "size_mismatch"] += 1
        return None


def check_image(image: AnnotatedImage) -> None:
    """Raise Broken unless `image` and its annotations are plain data that a log can hold, with each box on the picture."""
    for name, kind in {"id": (str, int), "path": str, "width": int, "height": int, "annotations": (tuple, list)}.items():
        if not isinstance(value := getattr(image, name), kind):
            raise Broken(f"gives an AnnotatedImage whose {name} is {type(value).__name__}")
    ids = Counter()
    for annotation in image.annotations:
        with _in_record(image.id):
            _check_annotation(of_kind(annotation, Annotation, ""), Space.pixels(image.width, image.height))
            ids[annotation.id] += 1
            if ids[annotation.id] > 1:
                raise Broken(f"gives the annotation id {annotation.id!r} twice")


def _check_annotation(annotation: Annotation, space: Space) -> None:
    of_kind(annotation.id, (str, int), "as id ")
    if not of_kind(annotation.label, str, "as label ").strip():
        raise Broken("gives an annotation without a label")
    box = of_kind(annotation.box, Box, "as box ")
    if box.space != space:
        theirs = f"{box.space.name} of {box.space.width} x {box.space.height}"
        raise Broken(f"gives a box in {theirs}, not in pixels of {space.width} x {space.height}")
    for value in box.xyxy:
        number(of_kind(value, (int, float), "a box with "), "a box with")
    clipped = usable(box)
    if clipped is None or max(abs(a - b) for a, b in zip(clipped.xyxy, box.xyxy)) > SMALLEST:
        raise Broken(f"gives the box {list(box.xyxy)}, which is not on the picture of {space.width} x {space.height}; see annotations.usable")


@contextlib.contextmanager
def _in_record(id):
    try:
        yield
    except Broken as error:
        raise Broken(f"{error} (record {id})") from None


# --- box format -----------------------------------------------------------------------------------------------------------------

SIDES = 640, 480
ROUGH = ("", "a cup", "[", "[0.1, 0.2", "a cup [1, 2, 3]", "<box>", '{"bbox_2d": [1', "[[[9999, -3, x, 0.5]]] (and)")


def checked_format(plugin: str, hook: str, form, arguments: dict) -> BoxFormat:
    """`form`, which writes boxes, reads them back, moves and removes them, and does not raise on text that holds none."""
    space, checking = Space.pixels(*SIDES), Foreign(plugin, hook, form, public(BoxFormat)).checking
    first, second, third = (Box(*map(float, corners), space) for corners in ((64, 48, 320, 240), (400, 300, 620, 460), (0, 0, 640, 480)))

    def boxes_of(text: str) -> list[Box]:
        with checking("parse"):
            parsed = of_kind(form.parse(text, *SIDES), Parsed, "")
            for mention in parsed.mentions:
                of_kind(mention.phrase, str, "as phrase ")
            return [of_kind(box, Box, "") for box in parsed.boxes]

    def holds(wanted: list[Box], method: str, *arguments, **flags) -> str:
        """What `method` makes of its arguments: a text that reads as the boxes `wanted`."""
        with checking(method):
            text = of_kind(getattr(form, method)(*arguments, **flags), str, "")
            found = boxes_of(text)
            if len(found) != len(wanted):
                raise Broken(f"gives {_shown(text)}, which parse reads as {len(found)} boxes, not {len(wanted)}")
            for box, true in zip(found, wanted):
                if not box.space.same_picture(space) or pair_iou(box.pixels(), true.pixels()) < 0.5:
                    raise Broken(f"gives {_shown(text)}, which parse reads as another box than {list(true.xyxy)} in pixels")
        return text

    with checking():
        _has(form, BoxFormat.__annotations__)
    with checking("space"):
        of_kind(form.space(*SIDES), Space, "")
    with checking("write"):
        of_kind(form.write(first), str, "")
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
        described = of_kind(form.describe(), Mapping, "")
        for key in ("family", "space", "aspect"):
            if key not in described:
                raise Broken(f'gives no "{key}": {_shown(described)}')
            of_kind(described[key], (str, type(None)), f"as {key} ")
        # A checkpoint keeps the description alone: the report and the evaluation ask for the format by it.
        if next(answers("spr_box_format", family=described["family"], aspect=described["aspect"]), None) is None:
            raise Broken(f"gives the family {described['family']!r}, which spr_box_format does not know")
    return form


# --- host -----------------------------------------------------------------------------------------------------------------------


def checked_host(plugin: str, hook: str, host, arguments: dict) -> Host:
    """`host`, whose rows and names are as they must be. What runs the model (prefill, step, a forward) is left to the stage."""
    checking = Foreign(plugin, hook, host).checking

    def call(method: str, *args):
        with checking(method):
            return getattr(host, method)(*args)

    with checking():
        of_kind(host, Host, "")
        _has(host, Host.__annotations__)
        for attribute in ("data_path", "image_folder", "vision_tower"):
            of_kind(getattr(host, attribute), (str, Path, type(None)), f"as {attribute} ")
    checked_format(plugin, f"{hook}, {_kind(host)}.box_format", host.box_format, arguments)
    with made_up() as (picture, (query, _)):
        answer = host.box_format.render([("a red square", query.truth[0].box)])
        row = call("row", query.image.path, "Describe the objects.", answer)
        rows = call("questions", picture, ["Describe the objects.", "Where?"])
    with checking("row"):
        ids, labels = (_tokens(row, key) for key in ("input_ids", "labels"))
        said = [token for token, label in zip(ids, labels) if label != -100]
        if len(ids) != len(labels) or not said or len(said) == len(ids):
            raise Broken("gives labels that are not -100 off the answer and its tokens on it")
    with checking("questions"):
        for question in listed(rows, 2, "prompts"):
            _tokens(question, "input_ids")
    with checking("fits"):
        if host.fits(row) not in (True, False):
            raise Broken(f"gives {_shown(host.fits(row))}, neither True nor False")
    batch = call("batch", [row, row])
    with checking("batch"):
        tokens = of_kind(batch, Mapping, "").get("input_ids")
        if getattr(tokens, "ndim", None) != 2 or len(tokens) != 2:
            raise Broken("gives no input_ids of two rows for two rows")
    with checking("pictures"):
        listed(host.pictures(batch))
    with checking("stop_tokens"):
        if not [of_kind(token, int, "among ids ") for token in listed(host.stop_tokens)]:
            raise Broken("gives no token that ends an answer")
    with checking("texts"):
        of_kind(listed(host.texts([said]), 1, "answers")[0], str, "")
    with checking("language_model"):
        listed(host.language_model(), 2, "(decoder, head)")
    with checking("labels_overheard"):
        with host.labels_overheard() as heard:
            of_kind(heard, list, "")
    with checking("image_encoder"):
        encoder = host.image_encoder()
        if encoder is not None:
            owner, method, modules = listed(encoder, 3, "(object, name of its method, modules)")
            if not callable(getattr(owner, method, None)):
                raise Broken(f"gives {method!r}, which {_kind(owner)} has not")
            listed(modules)
    with checking("language_layers"):
        known = {layer for layer, _ in host.trainer.model.named_modules()}
        unknown = [layer for layer in listed(host.language_layers()) if layer not in known]
        if unknown:
            raise Broken(f"gives {_shown(unknown[0])}, which is no module of the model")
    with checking("part_of"):
        for parameter, _ in host.trainer.model.named_parameters():
            if (part := host.part_of(parameter)) not in PARTS:
                raise Broken(f"gives {_shown(part)} for {parameter}, none of {', '.join(PARTS)}")
    return host


def _tokens(row, key: str) -> list[int]:
    values = of_kind(row, Mapping, "").get(key)
    if getattr(values, "ndim", None) != 1:
        raise Broken(f"gives {key} of shape {tuple(getattr(values, 'shape', ()))} ({_kind(values)}), no 1-D tensor")
    return values.tolist()


# --- the made-up picture --------------------------------------------------------------------------------------------------------

LONG = "a red square beside a cup " * 30  # more than text towers read
OBJECTS = {"red square": (4, 4, 24, 20), "blue square": (30, 6, 50, 22), "cup": (8, 26, 28, 44), "green square": (36, 28, 60, 46)}


@contextlib.contextmanager
def made_up() -> Iterator[tuple[Image.Image, list[RegionQuery]]]:
    """A picture of 64 x 48 pixels, also as a file, and two regions of it, of two objects and of one."""
    picture, space = Image.new("RGB", (64, 48), "white"), Space.pixels(64, 48)
    for label, corners in OBJECTS.items():
        ImageDraw.Draw(picture).rectangle(corners, fill=label.split()[0] if " " in label else "gray")
    boxes = [Annotation(place, label, Box(*map(float, corners), space)) for place, (label, corners) in enumerate(OBJECTS.items())]
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "made-up.png")
        picture.save(path)
        image = AnnotatedImage("made-up", path, *picture.size, tuple(boxes))
        regions = Box(0.0, 0.0, 52.0, 24.0, space), Box(6.0, 24.0, 30.0, 46.0, space)
        yield picture, [region_query(image, region, seed) for seed, region in enumerate(regions)]


def _texts(query: RegionQuery, form: BoxFormat) -> list[str]:
    """A good answer, one with a wrong box, a long one, one without boxes, and an empty one."""
    right = form.render([(annotation.label, annotation.box) for annotation in query.truth])
    wrong = form.render([("cup", query.region)])
    return [right, wrong, f"{LONG} {right}", "a cup", ""]


def public(kind: type) -> list[str]:
    """Names of a class's own methods, in its order."""
    return [name for name, value in vars(kind).items() if not name.startswith("_") and callable(value)]


CONTRACTS = {
    "spr_host": checked_host,
    "spr_annotations": CheckedImages,
    "spr_box_format": checked_format,
    "spr_scorer": CheckedScorer,
    "spr_similarity": CheckedSimilarity,
    "spr_detector": CheckedDetector,
}
