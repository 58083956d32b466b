import json
import random
from functools import partial

import numpy as np
import pytest
from PIL import Image

from spr_plugin.config import SPRConfig
from spr_plugin.recipes.spatial_ssrl.samples import Refused, Scene
from spr_plugin.recipes.spatial_ssrl.settings import TASKS, Asking
from spr_plugin.recipes.spatial_ssrl.tasks import MAKERS


def _scene(width=96, height=72, seed=0, depth=True) -> Scene:
    """Coloured rectangles on a ramp, each at a depth of its own; nothing of it is symmetric."""
    rng = np.random.default_rng(seed)
    pixels = np.linspace(40, 120, width)[None, :, None] + np.linspace(0, 60, height)[:, None, None]
    pixels = np.broadcast_to(pixels, (height, width, 3)).copy()
    far = np.full((height, width), 1.0, np.float32)
    for _ in range(18):
        w, h = rng.integers(width // 6, width // 3), rng.integers(height // 6, height // 3)
        x, y = rng.integers(0, width - w), rng.integers(0, height - h)
        pixels[y : y + h, x : x + w] = rng.integers(0, 255, 3)
        far[y : y + h, x : x + w] = rng.uniform(0, 0.95)
    far[0, 0] = 0.0
    return Scene(Image.fromarray(pixels.astype(np.uint8)), far if depth else None)


def _samples(task, scene, count=40, **settings) -> list:
    """What so many seeds make of a scene, without what is refused."""
    made = []
    for seed in range(count):
        try:
            made.append(MAKERS[task](scene, Asking(**{"distance": "code", **settings}), random.Random(seed)))
        except Refused:
            continue
    return made


@pytest.fixture
def scene():
    """``scene(width, height, seed)`` → one that every task finds something to ask about."""
    return _scene


@pytest.fixture
def samples():
    """``samples(task, scene, count, **settings)`` → see above; regions lie apart as the paper's code says."""
    return _samples


@pytest.fixture(params=TASKS)
def task(request):
    return request.param


@pytest.fixture
def some(task):
    """``some(scene, count, **settings)`` → samples of one task."""
    return partial(_samples, task)


@pytest.fixture
def config(tmp_path):
    """``config(**section)`` → flags of a run on two pictures."""

    def made(**section):
        (tmp_path / "recipe.yaml").write_text(json.dumps({"spatial_ssrl": section}))
        named = dict(spr_recipe="spatial_ssrl", spr_recipe_config=str(tmp_path / "recipe.yaml"))
        return SPRConfig(spr=True, spr_regions=20, **named)

    return made
