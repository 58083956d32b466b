"""Cameras of pictures, from files beside them: where each stood, how it was turned, how it projects.

A scene is pictures of the same things. Two layouts are known:

    poses.json                     of one's own, names of pictures as seen from the pictures' folder:
        {"SCENE": {"pictures": {"a/1.jpg": {"rotation": [[…], […], […]], "centre": [x, y, z], "focal": 500}},
                   "object": [x, y, z]}}
    CLASS/OBJECT/sparse/0/         COLMAP's, as MVImgNet ships: images.bin and cameras.bin, or .txt of both;
                                   pictures in CLASS/OBJECT/images/, or in any folder that has a sparse/0

A rotation takes the world's axes to the camera's, x_camera = rotation · (x − centre): x right, y down, z
ahead. Focal lengths are pixels; distortion is passed over. "object", what all of it is about, may be left out
where the cameras look at it: it is the point that is nearest to their axes then.

Single bad records are left out and counted; a file that is wrong as a whole is a UserError.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spr_plugin.boxes import Array, finite
from spr_plugin.data.colmap import BadModel, Lens, models, read_model
from spr_plugin.data.pictures import image_size
from spr_plugin.errors import UserError
from spr_plugin.loading import read_json

POSES = "poses.json"
ORTHONORMAL = 1e-3  # by which an entry of RRᵀ may differ from the unit matrix
PARALLEL = 1e-3  # of the best known direction: the axes of cameras meet nowhere


@dataclass(frozen=True)
class Shot:
    """A picture with its camera.

    Attributes:
        name: of the picture, as seen from the pictures' folder.
        size: (width, height) in pixels.
        rotation, centre: (3, 3) and (3,), see the module.
        lens: in pixels of this picture; None where nobody knows.
    """

    name: str
    path: str
    size: tuple[int, int]
    rotation: Array
    centre: Array
    lens: Lens | None


@dataclass(frozen=True)
class Scene:
    """At least two shots; `point` (3,) is what they are about."""

    name: str
    shots: tuple[Shot, ...]
    point: Array


class _Posed(NamedTuple):
    """A record of a picture before its file is looked at; a lens that is a number is the focal length, in
    pixels of the picture itself.
    """

    name: str
    rotation: Array
    centre: Array
    lens: Lens | float | None


class Scenes:
    """The scenes of a folder of pictures, each read when it is asked for.

    Left out and counted in `skipped`: pictures as ``no_pose`` (what is needed is missing or no number),
    ``no_rotation`` (of another determinant than 1, or not orthonormal), ``picture_of_another_shape`` and
    under `spr_plugin.data.pictures.REASONS`; scenes as ``bad_model``, ``one_picture``, ``no_object``.

    Attributes:
        names: of the scenes, in order.
    """

    def __init__(self, folder: str, file: str | None, skipped: Counter[str]):
        """`file` is of one's own layout; None: POSES in the folder, or COLMAP's reconstructions below it.
        UserError where there is none.
        """
        self._folder, self._skipped = folder, skipped
        own = Path(file) if file else Path(folder, POSES)
        name = f"--spr_annotations {file}" if file else str(own)
        self._own = _own_scenes(own, name) if file or own.is_file() else None
        self.names = sorted(models(folder) if self._own is None else self._own)
        if not self.names:
            raise UserError(
                f"--spr_image_folder {folder}: holds neither {POSES} nor a reconstruction of COLMAP's"
                " (…/sparse/0/images.bin)"
            )

    def scene(self, name: str) -> Scene | None:
        """The scene, or None, counted."""
        given: Any = None
        if self._own is None:
            try:
                posed: Iterable[_Posed] = list(_colmap(Path(self._folder, name), name, self._skipped))
            except BadModel:
                self._skipped["bad_model"] += 1
                return None
        else:
            posed = _own_poses(self._own[name]["pictures"], self._skipped)
            given = self._own[name].get("object")
        shots = tuple(filter(None, map(self._shot, posed)))
        if len(shots) < 2:
            self._skipped["one_picture"] += 1
            return None
        point = looked_at(shots) if given is None else _numbers(given, (3,))
        if point is None:
            self._skipped["no_object"] += 1
            return None
        return Scene(name, shots, point)

    def _shot(self, posed: _Posed) -> Shot | None:
        path = os.path.join(self._folder, posed.name)
        size = image_size(path)
        if isinstance(size, str):
            self._skipped[size] += 1
            return None
        try:
            lens = _lens_on(size, posed.lens)
        except ValueError:
            self._skipped["picture_of_another_shape"] += 1
            return None
        return Shot(posed.name, path, size, posed.rotation, posed.centre, lens)


def _lens_on(size: tuple[int, int], lens: Lens | float | None) -> Lens | None:
    """The lens of a picture of this size, which may be larger or smaller than its camera's. ValueError where
    it is of another shape.
    """
    width, height = size
    if lens is None:
        return None
    if not isinstance(lens, Lens):
        return Lens(lens, lens, width / 2, height / 2, width, height)
    across, down = width / lens.width, height / lens.height
    # Resizing rounds each side to whole pixels: less than one at the longer side is no other shape.
    if abs(across - down) * max(lens.width, lens.height) > 1:
        raise ValueError("another shape")
    return Lens(lens.fx * across, lens.fy * down, lens.cx * across, lens.cy * down, width, height)


def looked_at(shots: Sequence[Shot]) -> Array | None:
    """The point (3,) that is nearest to the axes of the cameras, where it lies before most of them; None
    where the axes are parallel, or point away from each other.
    """
    # The third row of a rotation from the world to the camera is the camera's z axis in the world.
    ahead = np.array([shot.rotation[2] for shot in shots])
    centres = np.array([shot.centre for shot in shots])
    # I − a aᵀ takes from a vector what lies along the axis a: its length is the distance from the axis.
    across = np.eye(3) - ahead[:, :, None] * ahead[:, None, :]
    total = across.sum(0)
    # The smallest eigenvalue is 0 where all axes are parallel: p could slide along them.
    if np.linalg.eigvalsh(total)[0] < PARALLEL * len(shots):
        return None
    # Least squares: Σ (I − a aᵀ) p = Σ (I − a aᵀ) c.
    point: Array = np.linalg.solve(total, (across @ centres[:, :, None]).sum(0)[:, 0])
    before = ((point - centres) * ahead).sum(1) > 0
    return point if 2 * before.sum() > len(shots) else None


def is_rotation(matrix: Array) -> bool:
    """Whether it turns and does nothing else: orthonormal, of determinant 1."""
    unit = np.abs(matrix @ matrix.T - np.eye(3)).max() < ORTHONORMAL
    # Orthonormal of determinant −1 would be a mirror.
    return bool(unit and np.linalg.det(matrix) > 0)


def _numbers(value: object, shape: tuple[int, ...]) -> Array | None:
    """An array of this shape, None where `value` is none."""
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return array if array.shape == shape and np.isfinite(array).all() else None


# --- of one's own


def _own_scenes(file: Path, name: str) -> dict[str, Mapping[str, Any]]:
    content = read_json(file, name)
    if not isinstance(content, dict) or not content or not all(map(_is_scene, content.values())):
        raise UserError(f'{name}: is no table of scenes, {{"SCENE": {{"pictures": {{"a.jpg": {{…}}}}}}}}')
    return content


def _is_scene(value: object) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("pictures"), Mapping)


def _own_poses(pictures: Any, skipped: Counter[str]) -> Iterator[_Posed]:
    for name, row in pictures.items():
        row = row if isinstance(row, Mapping) else {}
        rotation, centre = _numbers(row.get("rotation"), (3, 3)), _numbers(row.get("centre"), (3,))
        focal = row.get("focal")
        if rotation is None or centre is None or not (focal is None or (finite([focal]) and focal > 0)):
            skipped["no_pose"] += 1
        elif not is_rotation(rotation):
            skipped["no_rotation"] += 1
        else:
            yield _Posed(name, rotation, centre, focal)


# --- COLMAP's


def _colmap(scene: Path, name: str, skipped: Counter[str]) -> Iterator[_Posed]:
    """The poses of a reconstruction, whose pictures' names begin with the scene's. BadModel where it is
    none.
    """
    folder = "" if name == os.curdir else f"{name}/"
    for image in read_model(scene):
        if image.lens is None or not finite(image.quaternion) or not finite(image.shift):
            skipped["no_pose"] += 1
            continue
        rotation = rotation_of(image.quaternion)
        if not is_rotation(rotation):
            skipped["no_rotation"] += 1
            continue
        # COLMAP's x = R X + t; at the centre x is 0.
        centre = -rotation.T @ np.array(image.shift)
        yield _Posed(f"{folder}images/{image.name}", rotation, centre, image.lens)


def rotation_of(quaternion: Sequence[float]) -> Array:
    """The matrix (3, 3) of a quaternion (w, x, y, z); no rotation where it is not of length 1."""
    w, x, y, z = quaternion
    return np.array(
        [
            [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
        ]
    )
