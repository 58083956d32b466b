"""A run's pictures: where they are now, and what of them a browser is given."""

from __future__ import annotations

import io
import os
from dataclasses import replace

from PIL import Image

from spr_plugin.data.pictures import MadePicture, Picture, header_size, open_image, opened, stored_bytes
from spr_plugin.drawing import shrunk
from spr_plugin.errors import UserError
from spr_plugin.files import read_errors
from spr_plugin.ids import digest
from spr_plugin.runs.moved import advice, found

SHOWN = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
}
THUMBNAIL = 176  # of its longer side, in pixels


def trouble(picture: Picture, folder: str | None) -> str:
    """Why a picture cannot be shown, or not be trusted, in a sentence; "" where nothing is wrong."""
    path = found(picture.path, folder)
    if path is None:
        return f"The picture is not there. It {advice(picture.path, folder)}."
    try:
        size = header_size(path, picture.id)
    except UserError as error:
        return f"The picture cannot be shown: {error}."
    made = isinstance(picture, MadePicture)  # of a file whose size nobody noted
    if not made and size != (picture.width, picture.height):
        return (
            f"{path} is {size[0]} × {size[1]} pixels, and the run saw {picture.width} × {picture.height}: is"
            " it another picture? Boxes may lie wrong."
        )
    return ""


def version(picture: Picture, folder: str | None) -> str:
    """Another word where the file is another one, or changed; by this a browser keeps what it has. UserError
    where there is none.
    """
    path = _where(picture, folder)
    with read_errors(path):
        status = os.stat(path)
    return digest([path, status.st_mtime_ns, status.st_size])


def served(picture: Picture, folder: str | None) -> tuple[bytes, str]:
    """(content, media type) with the pixels that the run saw, as a browser shows them. UserError where there
    is none."""
    source = _source(picture, folder)
    with opened(source, picture.id) as image:
        kind = image.format or ""
    content = stored_bytes(source, picture.id) if kind in SHOWN else _encoded(open_image(source, picture.id))
    return content, "image/png" if content.startswith(b"\x89PNG") else SHOWN[kind]


def thumbnail(picture: Picture, folder: str | None) -> tuple[bytes, str]:
    """The same, small, for a list."""
    image = open_image(_source(picture, folder), picture.id, least=THUMBNAIL)
    return _encoded(shrunk(image, min(THUMBNAIL, max(image.size)))), "image/png"


def _source(picture: Picture, folder: str | None) -> str | MadePicture:
    return replace(picture, path=_where(picture, folder)).source


def _where(picture: Picture, folder: str | None) -> str:
    """The place of its file. UserError where it is nowhere."""
    path = found(picture.path, folder)
    if path is None:
        raise UserError(trouble(picture, folder))
    return path


def _encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
