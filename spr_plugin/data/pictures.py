"""The one way to pictures: which are opened, how large they may be, whether they lie in their folder.

Names of pictures come from annotation files that other people wrote. So a name is followed to where it really
leads, what is no regular file is not read, and only formats that hold pictures are tried: Pillow would hand
an EPS named ``a.jpg`` to Ghostscript. Knows nothing about boxes.

A picture comes as a `PictureSource`, and by every way in it has the same pixels: those that the file stores.
EXIF's orientation is ignored, because LLaVA ignores it, and is not passed on, so that no library turns
the picture later. (TIFF's is part of how Pillow decodes it, for every host too.)
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any, BinaryIO, Union

from PIL import Image, ImageFile, UnidentifiedImageError

from spr_plugin.config.queries import MAX_PIXELS
from spr_plugin.data.made import Step, make, steps_of
from spr_plugin.errors import UserError
from spr_plugin.files import regular
from spr_plugin.progress import say

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")  # JPEG opens cameras' MPO too
# ``convert("RGB")`` cuts these at 255, in every host too
DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
DEEP_WHY = "more than 8 bits a channel, which hosts see as white"
ORIENTATION = 0x0112  # EXIF's tag
MISSING, UNREADABLE = "missing_image", "unreadable_image"
DEEP, TOO_LARGE = "more_than_8_bits", "more_than_max_pixels"
REASONS = MISSING, UNREADABLE, DEEP, TOO_LARGE

# A path, a file's content, both as ``datasets`` keeps a picture (``{"bytes": …, "path": …}``, where the path
# counts if there are no bytes), or a picture that is made of a file's.
PictureSource = Union[str, os.PathLike, bytes, Mapping, "MadePicture"]

_max_pixels = MAX_PIXELS


@dataclass(frozen=True)
class Picture:
    """A picture file that is known, not opened.

    Attributes:
        id: names the record that it comes from in messages.
        path: of the file.
        width, height: in pixels, as stored.
    """

    id: str
    path: str
    width: int
    height: int

    @property
    def source(self) -> str | MadePicture:
        """What `open_image` opens; equal ones have the same pixels."""
        return self.path


@dataclass(frozen=True)
class MadePicture(Picture):
    """A picture that no file holds: it is made of a file's whenever it is looked at.

    Attributes:
        path: of the file.
        width, height: of what is made.
        steps: see :mod:`spr_plugin.data.made`.
    """

    steps: tuple[Step, ...]

    @property
    def source(self) -> MadePicture:
        return self


def picture_of(record: Mapping[str, Any]) -> Picture:
    """The picture of a record, which ``dataclasses.asdict`` made of it, or of a recipe's own kind of picture,
    which has more fields."""
    own = {field.name: record[field.name] for field in fields(Picture)}
    return MadePicture(**own, steps=steps_of(record["steps"])) if "steps" in record else Picture(**own)


def source_of(record: str | Mapping[str, Any]) -> str | MadePicture:
    """A picture's `source`, of the same."""
    return record if isinstance(record, str) else picture_of(record).source


class BadImage(UserError):
    """A picture file that cannot be read; the text names the record and the file. Callers count it and go on.

    Attributes:
        reason: to be counted under, one of `REASONS`.
        why: the same in words.
        path: of the file, or what a message calls it.
    """

    def __init__(self, reason: str, why: object, path: object, record_id: str | None = None):
        record = f"record {record_id}: " if record_id is not None else ""
        super().__init__(f"{record}cannot read {path} ({why}); mend or remove the file")
        self.reason, self.why, self.path = reason, why, path


def limit_pixels(most: int) -> None:
    """From now on, pictures of more than `most` pixels are refused in this process.

    Pillow's own limit is raised with it, also for the host, but never lowered: what the host reads by itself
    it goes on reading.
    """
    global _max_pixels
    _max_pixels = most
    if most > MAX_PIXELS and Image.MAX_IMAGE_PIXELS is not None:  # there it warns; it refuses at twice that
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, most)


def name_too_large(skipped: Counter, flag: str) -> None:
    """Say how many pictures were left out for their size, and which flag admits them."""
    if large := skipped[TOO_LARGE]:
        say(f"{large} pictures of more than {_max_pixels} pixels are left out; {flag} raises the limit")


# --- opening


def open_image(source: PictureSource, record_id: str | None = None, least: int = 0) -> Image.Image:
    """The picture as RGB, stored orientation, the first of an animation. BadImage also for over 8 bits.

    With `least`, to be shown: a JPEG is decoded smaller, faster, its longer side no shorter than that.
    """
    with opened(source, record_id) as image:
        _refuse_deep(image, source, record_id)
        if least and not isinstance(source, MadePicture):  # whose steps count the pixels that are stored
            longer = max(image.size)
            image.draft(None, (image.width * least // longer or 1, image.height * least // longer or 1))
        picture = image.convert("RGB")
    picture.info = {}  # with the orientation, which processors apply
    return make(picture, source.steps) if isinstance(source, MadePicture) else picture


def image_size(source: PictureSource) -> tuple[int, int] | str:
    """:func:`header_size`, or the reason to leave the picture out (see `BadImage`)."""
    try:
        return header_size(source)
    except BadImage as error:
        return error.reason


def header_size(source: PictureSource, record_id: str | None = None) -> tuple[int, int]:
    """(width, height) from the file's header. BadImage as `open_image`, but for what comes after the
    header.
    """
    with opened(source, record_id) as image:
        _refuse_deep(image, source, record_id)
        return image.size


def whole_size(source: PictureSource, record_id: str | None = None) -> tuple[int, int]:
    """:func:`header_size` of a picture that is there to its last row; BadImage for any other."""
    with opened(source, record_id) as image:
        _refuse_deep(image, source, record_id)
        size = image.size
        image.draft(None, (1, 1))  # a JPEG is read whole and decoded small, in a third of the time
        image.load()
    return size


def stored_bytes(source: str | MadePicture, record_id: str | None = None) -> bytes:
    """A picture file's content with the pixels of `open_image` in every library: a file whose orientation
    others would apply becomes a PNG without it, and so does a picture that is made."""
    if isinstance(source, str):
        with opened(source, record_id) as image:
            turned = _is_turned(image)
        if not turned:
            with open(source, "rb", opener=regular) as file:
                return file.read()
    buffer = io.BytesIO()
    open_image(source, record_id).save(buffer, "PNG")
    return buffer.getvalue()


def _is_turned(image: Image.Image) -> bool:
    """Whether the file asks to be turned, or asks something that cannot be read."""
    try:
        return image.getexif().get(ORIENTATION, 1) != 1
    except (SyntaxError, ValueError, LookupError, struct.error):
        return True


@contextlib.contextmanager
def opened(source: PictureSource, record_id: str | None = None) -> Iterator[Image.Image]:
    """The picture, header read. BadImage for whatever keeps it from being read, also inside the ``with``."""
    name, origin = _name(source), _origin(source)
    try:
        with contextlib.ExitStack() as files:
            files.enter_context(_whole_alone())
            file: BinaryIO = (
                io.BytesIO(origin) if isinstance(origin, bytes) else open(origin, "rb", opener=regular)
            )
            image = files.enter_context(Image.open(files.enter_context(file), formats=FORMATS))
            if image.width * image.height > _max_pixels:
                why = f"{image.width} x {image.height}: more than {_max_pixels} pixels"
                raise BadImage(TOO_LARGE, why, name, record_id)
            yield image
    except UserError:
        raise
    except FileNotFoundError as error:
        raise BadImage(MISSING, error.strerror, name, record_id) from None
    except Image.DecompressionBombError as error:
        # Pillow's limit comes first where it is ours; a lower one is the host's, who cannot read it either.
        ours = 2 * (Image.MAX_IMAGE_PIXELS or 0) >= _max_pixels
        raise BadImage(TOO_LARGE if ours else UNREADABLE, error, name, record_id) from None
    except UnidentifiedImageError:
        raise BadImage(UNREADABLE, f"none of {', '.join(FORMATS)}", name, record_id) from None
    except Exception as error:  # Pillow's readers raise whatever a broken file makes them stumble over
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise BadImage(UNREADABLE, why, name, record_id) from None


@contextlib.contextmanager
def _whole_alone() -> Iterator[None]:
    """Inside, half a picture is none: lmms-eval has Pillow fill up the rest, for the whole process."""
    theirs, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = theirs


def _origin(source: Any) -> str | os.PathLike | bytes:
    """Where its bytes are: at a path, or here."""
    if isinstance(source, Mapping):
        content = source.get("bytes")
        source = source.get("path") if content is None else content
    if isinstance(source, Picture):
        source = source.path
    if isinstance(source, (str, os.PathLike, bytes)):
        return source
    raise BadImage(MISSING, "neither a path nor bytes", "its picture")


def _name(source: Any) -> object:
    """What a message calls it."""
    if isinstance(source, Mapping):
        source = source.get("path")
    if isinstance(source, Picture):
        source = source.path
    return source if isinstance(source, (str, os.PathLike)) else "its picture"


def _refuse_deep(image: Image.Image, source: PictureSource, record_id: str | None = None) -> None:
    if image.mode in DEEP_MODES:
        why = f"{image.mode}: {DEEP_WHY}"
        raise BadImage(DEEP, why, _name(source), record_id)


# --- where they lie


def outside_of(folder: str) -> Callable[[str], str | None]:
    """path → the real path of its file, links and ``..`` followed, where it lies outside `folder`; else None.

    `folder` itself may be a link. Folders are resolved once each: a million names take ten seconds.
    """
    root = os.path.join(os.path.realpath(folder), "")
    directory = functools.lru_cache(maxsize=1 << 16)(os.path.realpath)

    def outside(path: str) -> str | None:
        parent, name = os.path.split(path)
        real = os.path.join(directory(parent), name)
        if os.path.islink(real):
            real = os.path.realpath(real)
        return None if real.startswith(root) else real

    return outside


def refuse_outside(named: Iterable[tuple[str, str]], folder: str, folder_flag: str, allow_flag: str) -> None:
    """UserError that names the first of the pictures (record id, path) outside `folder`, and how to go on."""
    outside = outside_of(folder)
    strangers = {path: (id, real) for id, path in named if (real := outside(path))}
    if strangers:
        path, (id, real) = next(iter(strangers.items()))
        raise UserError(
            f"record {id}: {path} lies outside the pictures' folder {folder or '.'}, at {real} "
            f"({len(strangers)} such pictures): if that is meant, add {allow_flag}; "
            f"or name the folder that holds them to {folder_flag}"
        )


def refuse_no_folder(folder: str | None, flag: str) -> None:
    """UserError where the pictures' folder is not there; "" is the current one."""
    if folder is None:
        raise UserError(f"{flag}: name the folder of the pictures; the training command names none")
    if not os.path.isdir(folder or "."):
        raise UserError(f"{flag} {folder}: no such folder")


# --- for the stages, hours after the pictures were found


def read_all(pictures: Iterable[Picture]) -> list[Image.Image] | None:
    """All of them, None where one is no readable picture."""
    images = [readable(picture.source, picture.id) for picture in pictures]
    sound = [image for image in images if image is not None]
    return sound if len(sound) == len(images) else None


def readable(source: str | MadePicture, record_id: str) -> Image.Image | None:
    """The picture, None where the file is no readable one. UserError where it has vanished, to be mended."""
    try:
        return open_image(source, record_id)
    except BadImage as error:
        if error.reason == MISSING:
            raise UserError(
                f"record {record_id}: {_name(source)} has vanished since the queries were made; put it"
                " back and run the same command"
            ) from None
        return None


def prefetch(make: Callable, items: Iterable) -> Iterator[tuple]:
    """``(item, make(item))``, made in a thread one item ahead of the caller."""
    with ThreadPoolExecutor(1) as worker:
        before = None
        for item in items:
            now = (item, worker.submit(make, item))
            if before:
                yield before[0], before[1].result()
            before = now
        if before:
            yield before[0], before[1].result()
