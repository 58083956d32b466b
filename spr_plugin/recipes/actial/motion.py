"""How a camera moved and turned between two pictures, by rotation algebra.

All of it is seen by the first camera, x right, y down, z ahead, in units of its distance D to what the scene
is about, which lies at o:

    move           x of shift = R₁(C₂ − C₁) / D
    turn           yaw, atan2(x, z), of ahead = R₁R₂ᵀ (0, 0, 1)ᵀ
    object_move    shift · r; r = (−o_z, 0, o_x) / |(o_x, o_z)|, the right hand of who faces the camera from o

Each is to the right (1), to the left (−1) or neither (0). What lies between neither and a side is unclear,
and so is all of a camera that fell on its side.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spr_plugin.boxes import Array

Codes = NDArray[np.int8]
UNCLEAR = 2
WORDS = {-1: "left", 0: "none", 1: "right"}
CODES = {word: code for code, word in WORDS.items()}
MOVED, RESTED = 0.1, 0.02  # of the distance D: from here on it moved, up to here it did not
TURNED, FIXED = 10.0, 2.0  # degrees: from here on it turned, up to here it did not
UPRIGHT = 0.7  # cosine of the angle between both cameras' vertical axes
LEVEL = 0.1  # of D: what is nearer to being above or below has no left and right
TASKS = ("move", "object_move", "turn")
# Motion → whether the camera moves sideways and whether it turns; both may be of any side.
MOTIONS = {"orbit": (True, True), "turn": (False, True), "shift": (True, False), "still": (False, False)}


class Seen(NamedTuple):
    """The motion between two cameras, as numbers.

    Attributes:
        shift: (…, 3), in units of D.
        sideways: (…) of it, to the right hand of who faces the first camera from o; NaN from above.
        yaw, angle: (…) degrees: about the vertical axis, to the right; about whatever axis, 0 or more.
        upright: (…) bool.
    """

    shift: Array
    sideways: Array
    yaw: Array
    angle: Array
    upright: NDArray[np.bool_]


class Motion(NamedTuple):
    """The same in codes (…): 1 right, −1 left, 0 neither, UNCLEAR; `kind` is the number of its name among
    MOTIONS, −1 for none of them.
    """

    move: Codes
    object_move: Codes
    turn: Codes
    kind: Codes


def seen_between(first: tuple[Array, Array], second: tuple[Array, Array], point: Array) -> Seen:
    """Of cameras as (rotations (…, 3, 3), centres (…, 3)), and what the scene is about (…, 3)."""
    (rotation, centre), (other, elsewhere) = first, second
    at = _turned(rotation, point - centre)
    distance = np.linalg.norm(at, axis=-1)
    distance = np.where(distance > 0, distance, np.nan)  # of a camera at o itself nothing is clear
    shift = _turned(rotation, elsewhere - centre) / distance[..., None]
    ahead, down = _turned(rotation, other[..., 2, :]), _turned(rotation, other[..., 1, :])
    right = np.stack([-at[..., 2], np.zeros_like(distance), at[..., 0]], -1)
    level = np.linalg.norm(right, axis=-1)  # near 0 above o, from where neither hand points anywhere
    right = right / np.where(level > LEVEL * distance, level, np.nan)[..., None]
    cosine = ((rotation * other).sum((-2, -1)) - 1) / 2  # the trace of R₁R₂ᵀ is the sum of their products
    return Seen(
        shift,
        (shift * right).sum(-1),
        np.degrees(np.arctan2(ahead[..., 0], ahead[..., 2])),
        np.degrees(np.arccos(np.clip(cosine, -1, 1))),
        down[..., 1] >= UPRIGHT,
    )


def _turned(rotation: Array, vector: Array) -> Array:
    """A vector of the world in a camera's axes."""
    turned: Array = (rotation * vector[..., None, :]).sum(-1)
    return turned


def motion_of(seen: Seen) -> Motion:
    """The numbers in codes."""
    move = _side(seen.shift[..., 0], MOVED, RESTED, seen.upright)
    object_move = _side(seen.sideways, MOVED, RESTED, seen.upright)
    turn = _side(seen.yaw, TURNED, FIXED, seen.upright)
    rests = np.linalg.norm(seen.shift, axis=-1) <= RESTED
    moves, turns = abs(move) == 1, abs(turn) == 1
    fixed = seen.upright & (seen.angle <= FIXED)
    kind = np.select([moves & turns, rests & turns, moves & fixed, rests & fixed], range(4), -1)
    return Motion(move, object_move, turn, kind.astype(np.int8))


def _side(values: Array, least: float, most: float, known: NDArray[np.bool_]) -> Codes:
    sizes = np.abs(values)
    sides = np.select([~known, sizes >= least, sizes <= most], [UNCLEAR, np.sign(values), 0], UNCLEAR)
    return sides.astype(np.int8)
