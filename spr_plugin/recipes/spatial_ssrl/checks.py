"""Is a sample's answer right? It is applied to what is shown, and compared with the picture, or with every
pixel of the depth that it speaks of.

Reads a sample alone, not how it was made.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spr_plugin.data.made import make
from spr_plugin.recipes.spatial_ssrl.marked import APART, FACINGS, GAP, RANGE, distance_of, told
from spr_plugin.recipes.spatial_ssrl.samples import LETTERS, Sample, Scene
from spr_plugin.recipes.spatial_ssrl.settings import Asking

Pixels = NDArray[np.uint8]


def holds(task: str, scene: Scene, ask: Asking, sample: Sample) -> bool:
    """Whether the sample's answer is right."""
    shown = [np.asarray(make(scene.picture, view.steps)) for view in sample.views]
    if any(one.shape != (view.size[1], view.size[0], 3) for one, view in zip(shown, sample.views)):
        return False
    return CHECKS[task](scene, ask, sample, shown)


def _patch_order(scene: Scene, ask: Asking, sample: Sample, shown: list[Pixels]) -> bool:
    rows, columns = sample.facts["grid"]
    (pixels,), order = shown, list(map(int, sample.answer.split("-")))
    height, width = pixels.shape[0] // rows, pixels.shape[1] // columns

    def patch(of: Pixels, number: int) -> Pixels:
        # Patches are numbered row by row.
        top, left = number // columns * height, number % columns * width
        return of[top : top + height, left : left + width]

    whole, white = np.asarray(scene.picture), sample.facts["white"]
    right = all(
        (patch(pixels, number) == (255 if number == white else patch(whole, index))).all()
        for index, number in enumerate(order)
    )
    return right and sorted(order) == list(range(rows * columns)) != order


def _flipped_patch(scene: Scene, ask: Asking, sample: Sample, shown: list[Pixels]) -> bool:
    number, direction = map(int, sample.answer.split("-"))
    left, top, right, bottom = sample.facts["boxes"][number]
    pixels = shown[0].copy()
    piece = pixels[top:bottom, left:right]
    # Mirrored once more, the patch is as it was.
    pixels[top:bottom, left:right] = piece[:, ::-1] if direction else piece[::-1]
    whole = np.asarray(scene.picture)[: pixels.shape[0], : pixels.shape[1]]
    return bool((pixels == whole).all() and (shown[0] != whole).any())


def _cropped_patch(scene: Scene, ask: Asking, sample: Sample, shown: list[Pixels]) -> bool:
    square = left, top, right, bottom = sample.facts["square"]
    whole = np.asarray(scene.picture)
    if len(shown) > 1:
        pieces, true = shown[1:], whole[top:bottom, left:right]
        above = shown[0].copy()
    else:
        # The first step that cuts lays the picture itself on the page.
        cells = [step[3] for step in sample.views[0].steps if step[0] == "cut"][1:]
        pieces = [shown[0][y1:y2, x1:x2] for x1, y1, x2, y2 in cells]
        size = (cells[0][2] - cells[0][0], cells[0][3] - cells[0][1])
        true = np.asarray(_scaled(scene.picture.crop(square), size))
        above = shown[0][: whole.shape[0]].copy()
    hidden = above[top:bottom, left:right]
    black = not hidden.any()
    hidden[:] = whole[top:bottom, left:right]
    # One piece is the part, and the answer names no other.
    fits = [bool((piece == true).all()) for piece in pieces]
    return black and bool((above == whole).all()) and fits == [one == sample.answer for one in LETTERS]


def _scaled(piece: Image.Image, size: tuple[int, int]) -> Image.Image:
    return piece if piece.size == size else piece.resize(size, Image.Resampling.BICUBIC)


def _depths(scene: Scene, sample: Sample) -> list[NDArray[np.float64]]:
    assert scene.depth is not None, "a sample of depth was made of one"
    depth = scene.depth.astype(np.float64)
    return [depth[y1:y2, x1:x2].ravel() for x1, y1, x2, y2 in sample.facts["regions"]]


def _depth_order(scene: Scene, ask: Asking, sample: Sample, shown: list[Pixels]) -> bool:
    depths = _depths(scene, sample)
    order = [depths[int(number) - 1] for number in sample.answer.split("-")]
    level = all(np.isfinite(one).all() and one.max() - one.min() < RANGE for one in order)
    return level and all((far.min() - near.max()) > GAP for near, far in itertools.pairwise(order))


def _position(scene: Scene, ask: Asking, sample: Sample, shown: list[Pixels]) -> bool:
    """Every pixel of the second region lies there as seen from every pixel of the first."""
    (first, second), (a, b) = _depths(scene, sample), sample.facts["regions"]
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return False
    x = np.subtract.outer(np.arange(b[0], b[2]), np.arange(a[0], a[2])) / distance_of(scene.picture.size, ask)
    z = np.array([second.min() - first.max(), second.max() - first.min()]) / APART
    angle = np.pi / 2 * FACINGS[sample.facts["facing"]][0]
    # In units of their thresholds: one of the two axes falls on the other.
    cos, sin = round(np.cos(angle)), round(np.sin(angle))
    right, front = (x * cos if cos else z * sin), (z * cos if cos else -x * sin)
    option = sample.facts["options"][LETTERS.index(sample.answer)]
    seen = _side(right), _side(front)
    return seen[0] is not None and seen[1] is not None and told(seen[0], seen[1]) == option != ""


def _side(values: NDArray[np.float64]) -> int | None:
    """None where some pixels lie there and some do not."""
    if (values >= 1).all() or (values <= -1).all():
        return int(np.sign(values.flat[0]))
    return 0 if (np.abs(values) < 1).all() else None


CHECKS: dict[str, Callable[[Scene, Asking, Sample, list[Pixels]], bool]] = {
    "patch_order": _patch_order,
    "flipped_patch": _flipped_patch,
    "cropped_patch": _cropped_patch,
    "depth_order": _depth_order,
    "position": _position,
}
