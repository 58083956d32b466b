"""Two pictures of a scene between which the camera moved as is asked for: two shots as they are, or views
that are made of shots by turning their cameras on the spot, for which nobody needs to know depth.

    orbit    two shots that are so many degrees apart
    turn     one shot, its camera turned to either side
    shift    two shots that are a little apart, the second one's camera turned to face as the first one's does
    still    one shot, twice

Where the scene itself has shots of a turn, a shift or a rest they are taken.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spr_plugin.boxes import Array
from spr_plugin.data.colmap import Lens
from spr_plugin.data.made import PixelBox
from spr_plugin.data.pictures import MadePicture, Picture
from spr_plugin.data.poses import Scene, Shot
from spr_plugin.recipes.actial.motion import CODES, MOTIONS, TASKS, WORDS, motion_of, seen_between
from spr_plugin.recipes.actial.settings import ActialSettings

MOST_SHOTS = 100  # of a scene: of a longer one every second, third …
TURNS = (12.0, 25.0)  # degrees of a turn that is made
MOST_AWAY = 25.0  # degrees between two shots of which a shift is made
TRIES = 8
LEAST_SIDE = 16  # pixels of a view
EDGE = 1e-6  # of a pixel, which a corner may lie outside: the last digits of a rotation decide nothing
# A view shows at least half of what its shot does, a side; (share of it, place across and down) in order.
SHARES = [
    (share, across, down)
    for share in (0.9, 0.8, 0.7, 0.6, 0.5)
    for across in (0.5, 0.0, 1.0)
    for down in (0.5, 0.0, 1.0)
]


class Refused(Exception):
    """No pair can be made; the word is the reason, under which it is counted."""


class View(NamedTuple):
    """A picture that is shown, with its camera.

    Attributes:
        point: (x, y) in its pixels of what the scene is about, None where it is not seen or nobody knows.
    """

    picture: Picture
    rotation: Array
    centre: Array
    point: tuple[float, float] | None


class Pair(NamedTuple):
    """Two views and what lies between them: task → left, right or none; no task whose answer is unclear."""

    views: tuple[View, View]
    answers: dict[str, str]


class Shots:
    """The shots of a scene, and the motion between any two."""

    def __init__(self, scene: Scene, settings: ActialSettings):
        # Every n-th shot, n rounded up: at most MOST_SHOTS of them, from all over the scene.
        self.scene, self.shots = scene, scene.shots[:: -(-len(scene.shots) // MOST_SHOTS)]
        self._cameras = _cameras((one.rotation, one.centre) for one in self.shots)
        # (n, 1) against (n,): between any two shots.
        first = self._cameras[0][:, None], self._cameras[1][:, None]
        seen = seen_between(first, self._cameras, scene.point)
        self.motion, self._away = motion_of(seen), np.abs(seen.yaw)
        self._apart = (self._away >= settings.least_apart) & (self._away <= settings.most_apart)

    def pair(self, motion: str, task: str, side: str, rng: random.Random) -> Pair:
        """Two views between which the camera moved so; where that gives the task a side, it is this one.
        Refused says why there is none.
        """
        wanted = np.ones_like(self._apart)
        if is_sided(motion, task):
            wanted = getattr(self.motion, task) == CODES[side]
        fitting = (self.motion.kind == [*MOTIONS].index(motion)) & wanted
        if motion == "orbit":
            fitting &= self._apart
        np.fill_diagonal(fitting, False)
        if chosen := _some(fitting, rng, 1):
            views = tuple(_whole(self.shots[number], self.scene) for number in chosen[0])
        elif motion in MAKERS:
            views = MAKERS[motion](self, wanted, side, rng)
        else:
            raise Refused(f"no_{motion}")
        return self._checked(motion, task, side, *views)

    def _checked(self, motion: str, task: str, side: str, one: View, other: View) -> Pair:
        """The pair of these views, whose answers come of their own cameras. Refused where they are not as was
        asked.
        """
        seen = seen_between((one.rotation, one.centre), (other.rotation, other.centre), self.scene.point)
        motions = motion_of(seen)
        codes = {name: int(getattr(motions, name)) for name in TASKS}
        answers = {name: WORDS[code] for name, code in codes.items() if code in WORDS}
        wanted = side if is_sided(motion, task) else "none"
        if [*MOTIONS].index(motion) != int(motions.kind) or answers.get(task) != wanted:
            raise Refused("unclear_motion")
        return Pair((one, other), answers)

    # --- views that are made

    def turned(self, wanted: NDArray[np.bool_], side: str, rng: random.Random) -> tuple[View, ...]:
        """One shot, turned to one side and to the other."""
        shot = rng.choice(self.shots)
        half = rng.uniform(*TURNS) / 2 * (1 if side == "right" else -1)
        return self._made([shot, shot], [_yaw(-half) @ shot.rotation, _yaw(half) @ shot.rotation])

    def shifted(self, wanted: NDArray[np.bool_], side: str, rng: random.Random) -> tuple[View, ...]:
        """Two shots, both turned as the first one is."""
        moved = (np.abs(self.motion.move) == 1) & (self._away <= MOST_AWAY) & wanted
        why = Refused("no_shift")
        for first, second in _some(moved, rng, TRIES):
            one, other = self.shots[first], self.shots[second]
            try:
                views = self._made([one, other], [one.rotation, one.rotation])
            except Refused as refused:
                why = refused
                continue
            if all(view.point for view in views):
                return views
        raise why

    def twice(self, wanted: NDArray[np.bool_], side: str, rng: random.Random) -> tuple[View, ...]:
        """One shot, as it is."""
        view = _whole(rng.choice(self.shots), self.scene)
        return view, view

    def _made(self, shots: list[Shot], rotations: list[Array]) -> tuple[View, ...]:
        """What the shots show once their cameras are turned like this, all through the same window."""
        lenses = [_matrix(shot.lens) for shot in shots if shot.lens is not None]
        if len(lenses) < len(shots):
            raise Refused("no_focal_length")
        # A pixel of the turned camera → its ray → the shot's own pixel.
        back = np.linalg.inv(lenses[0])
        maps = [
            lens @ shot.rotation @ rotation.T @ back for lens, shot, rotation in zip(lenses, shots, rotations)
        ]
        window = window_of(maps, [shot.size for shot in shots])
        if window is None:
            raise Refused("narrow_view")
        return tuple(
            _through(window, shot, rotation, map, lenses[0], self.scene)
            for shot, rotation, map in zip(shots, rotations, maps)
        )


MAKERS: dict[str, Callable[[Shots, NDArray[np.bool_], str, random.Random], tuple[View, ...]]] = {
    "turn": Shots.turned,
    "shift": Shots.shifted,
    "still": Shots.twice,
}


def is_sided(motion: str, task: str) -> bool:
    """Whether a task has an answer other than none after such a motion."""
    moves, turns = MOTIONS[motion]
    return turns if task == "turn" else moves


def _some(where: NDArray[np.bool_], rng: random.Random, count: int) -> list[tuple[int, int]]:
    """Indices of an array that are true, at most so many, by chance."""
    indices = np.flatnonzero(where)
    chosen = rng.sample(range(len(indices)), min(count, len(indices)))
    # Of a flat index: row and column.
    return [divmod(int(indices[one]), where.shape[1]) for one in chosen]


def _cameras(cameras: Iterable[tuple[Array, Array]]) -> tuple[Array, Array]:
    rotations, centres = zip(*cameras)
    return np.array(rotations), np.array(centres)


def _whole(shot: Shot, scene: Scene) -> View:
    at = None if shot.lens is None else _seen_at(_matrix(shot.lens), shot.rotation, shot.centre, scene.point)
    picture = Picture(shot.name, shot.path, *shot.size)
    return View(picture, shot.rotation, shot.centre, _inside(at, shot.size))


def _through(window: PixelBox, shot: Shot, rotation: Array, map: Array, matrix: Array, scene: Scene) -> View:
    left, top, right, bottom = window
    size = right - left, bottom - top
    # The window counts its pixels from its own corner.
    moved = map @ np.array([[1, 0, left], [0, 1, top], [0, 0, 1.0]])
    # Rounded, so that every machine makes the same pixels, and the same id.
    # Eight of nine: a homography is the same at any scale, and the last is made 1.
    numbers = tuple(round(float(one), 9) for one in (moved / moved[2, 2]).ravel()[:8])
    picture = MadePicture(shot.name, shot.path, *size, (("seen", *size, numbers),))
    at = _seen_at(matrix, rotation, shot.centre, scene.point)
    return View(
        picture, rotation, shot.centre, _inside(None if at is None else (at[0] - left, at[1] - top), size)
    )


def _seen_at(matrix: Array, rotation: Array, centre: Array, point: Array) -> tuple[float, float] | None:
    x, y, z = matrix @ rotation @ (point - centre)
    return (float(x / z), float(y / z)) if z > 0 else None


def _inside(at: tuple[float, float] | None, size: tuple[int, int]) -> tuple[float, float] | None:
    return at if at is not None and 0 <= at[0] <= size[0] and 0 <= at[1] <= size[1] else None


def _matrix(lens: Lens) -> Array:
    return np.array([[lens.fx, 0, lens.cx], [0, lens.fy, lens.cy], [0, 0, 1.0]])


def _yaw(degrees: float) -> Array:
    """What turns a camera to its right."""
    angle = np.radians(degrees)
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    return np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])


def window_of(maps: list[Array], sizes: list[tuple[int, int]]) -> PixelBox | None:
    """The largest window, of the shape of the first picture, all of which shows pixels of each of them; None
    where less than half a side does, or fewer than LEAST_SIDE pixels.

    Args:
        maps: (3, 3), a pixel of the window → one of the picture, homogeneous.
    """
    width, height = sizes[0]
    shares = np.array(SHARES)
    wide, high = np.floor(shares[:, 0] * width), np.floor(shares[:, 0] * height)
    left, top = np.floor(shares[:, 1] * (width - wide)), np.floor(shares[:, 2] * (height - high))
    right, bottom = left + wide, top + high
    corners = np.stack([[left, top], [right, top], [left, bottom], [right, bottom]])  # (4, 2, windows)
    corners = np.concatenate([corners, np.ones((4, 1, len(shares)))], 1)
    fits = np.minimum(wide, high) >= LEAST_SIDE
    for map, (most_x, most_y) in zip(maps, sizes):
        x, y, z = np.moveaxis(map @ corners, 1, 0)
        room = EDGE * z
        # Compared times z: nothing is divided by what may be 0.
        inside = (x >= -room) & (x <= most_x * z + room) & (y >= -room) & (y <= most_y * z + room)
        fits &= ((z > 0) & inside).all(0)
    if not fits.any():
        return None
    best = int(fits.argmax())
    return int(left[best]), int(top[best]), int(right[best]), int(bottom[best])
