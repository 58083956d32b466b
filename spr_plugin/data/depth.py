"""Depth of pictures, from files beside them: how far away each pixel is, in any unit.

Of a picture ``a/b.jpg`` these are looked for in the folder of depths, in this order:

    a/b_depth.npy   DIODE; with a/b_depth_mask.npy, where 0 is unknown
    a/b.npy         (height, width) or (height, width, 1), any numbers
    a/b.png         16 bits
    depths/b.h5     MegaDepth, beside its imgs/; its ordinal depths, which are below 0, are no depths

0, below 0 and what is not finite are unknown. Disparity, which is larger for what is nearer, is one divided
by depth.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spr_plugin.data.pictures import DEEP_MODES, BadImage, opened
from spr_plugin.errors import UserError

Depth = NDArray[np.float32]  # (height, width), NaN where it is unknown
MISSING, UNREADABLE = "missing_depth", "unreadable_depth"
ANOTHER_SIZE, ORDINAL, SHALLOW = "depth_of_another_size", "ordinal_depth", "png_not_of_16_bits"


class BadDepth(Exception):
    """A picture has no depth that can be used; the word is the reason, under which it is counted."""


def read_depth(folder: Path, name: str, size: tuple[int, int], disparity: bool = False) -> Depth:
    """The depth of a picture.

    Args:
        name: of the picture, relative to its own folder.
        size: (width, height) of the picture.
        disparity: the files hold disparity.

    Raises:
        BadDepth: no file is there, it cannot be read, or it is of another size than the picture.
        UserError: it takes a library that is not installed.
    """
    path = next((file for file in files_of(Path(folder, name)) if file.is_file()), None)
    if path is None:
        raise BadDepth(MISSING)
    depth = READERS[path.suffix](path)
    if depth.ndim == 3 and depth.shape[-1] == 1:
        depth = depth[..., 0]
    if depth.shape != (size[1], size[0]):
        raise BadDepth(ANOTHER_SIZE)
    # MegaDepth marks pictures with orders alone by negative numbers.
    if path.suffix == ".h5" and (depth < 0).any():
        raise BadDepth(ORDINAL)
    known = np.isfinite(depth) & (depth > 0)
    if (mask := path.with_name(f"{path.stem}_mask.npy")).is_file():
        known &= _mask(mask, depth.shape)
    # NaN goes through all that follows: what is unknown stays so, also turned round.
    whole = np.where(known, depth, np.nan).astype(np.float32)
    return np.float32(1) / whole if disparity else whole


def files_of(picture: Path) -> list[Path]:
    """Where a picture's depth may lie, seen from where the picture would lie in the folder of depths."""
    own = [picture.with_name(f"{picture.stem}_depth.npy"), picture.with_suffix(".npy")]
    own += [picture.with_suffix(".png")] if picture.suffix.lower() != ".png" else [picture]
    if picture.parent.name == "imgs":
        own.append(picture.parent.with_name("depths") / f"{picture.stem}.h5")
    return own


def _npy(file: Path) -> NDArray[np.float64]:
    try:
        array = np.load(file, allow_pickle=False)
        return np.asarray(array, np.float64)
    except (OSError, ValueError, EOFError, TypeError):
        raise BadDepth(UNREADABLE) from None


def _png(file: Path) -> NDArray[np.float64]:
    """Of 16 bits; one of 8 is a picture, and may be the very one whose depth is asked for."""
    try:
        with opened(str(file)) as image:
            deep, values = image.mode in DEEP_MODES, np.asarray(image, np.float64)
    except BadImage:
        raise BadDepth(UNREADABLE) from None
    if not deep:
        raise BadDepth(SHALLOW)
    return values


def _h5(file: Path) -> NDArray[np.float64]:
    try:
        import h5py
    except ImportError:
        raise UserError(f"{file}: MegaDepth's files need h5py: pip install h5py") from None
    try:
        with h5py.File(file, "r") as content:
            return np.asarray(content["depth"], np.float64)
    except (OSError, KeyError, ValueError, TypeError):
        raise BadDepth(UNREADABLE) from None


READERS = {".npy": _npy, ".png": _png, ".h5": _h5}


def _mask(file: Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    mask = _npy(file)
    if mask.size != shape[0] * shape[1]:
        raise BadDepth(ANOTHER_SIZE)
    known: NDArray[np.bool_] = mask.reshape(shape) > 0
    return known


def scaled(depth: Depth) -> Depth:
    """From 0, the nearest, to 1, the farthest. BadDepth where all is equally far, or unknown."""
    known = depth[np.isfinite(depth)]
    # So that nothing is divided by 0 below.
    if not known.size or not known.max() > known.min():
        raise BadDepth("flat_depth")
    between: Depth = (depth - known.min()) / (known.max() - known.min())
    return between
