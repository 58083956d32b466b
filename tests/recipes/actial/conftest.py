"""Scenes and settings that the tests of this folder share."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from spr_plugin.config import SPRConfig
from spr_plugin.data.colmap import Lens
from spr_plugin.data.poses import POSES, Scene, Scenes, Shot
from spr_plugin.recipes.actial.settings import ActialSettings
from spr_plugin.recipes.base import Source
from spr_plugin.recipes.find import find_recipe


@pytest.fixture
def config(tmp_path):
    """``config(section, **flags)`` → the flags of a run."""

    def made(section=None, **flags):
        file = tmp_path / "recipe.yaml"
        file.write_text(json.dumps({"actial": section or {}}))
        return SPRConfig(spr=True, **{"spr_recipe": "actial", "spr_recipe_config": str(file), **flags})

    return made


@pytest.fixture
def ask(config, posed_world):
    """``ask(number, section, folder=…, **flags)`` → (queries, what was left out)."""

    def asked(number, section=None, folder=None, **flags):
        skipped, where = Counter(), folder or posed_world(scenes=12, views=24)
        recipe = find_recipe(config(section, spr_regions=number, **flags), None)
        return recipe.queries(Source(image_folder=str(where), skipped=skipped)), skipped

    return asked


@pytest.fixture
def scene(posed_world):
    """A walk around a scene, half of a circle in steps of 7.5 degrees."""
    scenes = Scenes(str(posed_world(scenes=12, views=24)), None, Counter())
    return scenes.scene("0/00000")


@pytest.fixture
def settings():
    return ActialSettings


@pytest.fixture
def walk():
    """``walk(centres, yaws, focal)`` → a scene of level cameras at these places, turned by so many degrees to
    the right, of pictures that nobody looks at.
    """

    def made(centres, yaws, focal=84.0):
        lens = None if focal is None else Lens(focal, focal, 48, 48, 96, 96)
        shots = []
        for number, (centre, yaw) in enumerate(zip(centres, np.radians(yaws))):
            turned = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
            name = f"{number}.png"
            shots.append(Shot(name, f"/{name}", (96, 96), turned, np.array(centre, float), lens))
        return Scene("scene", tuple(shots), np.array([0, 0, 4.0]))

    return made


@pytest.fixture
def table():
    """``table(folder, change)``: what poses.json of the folder holds is given to `change` and written."""

    def changed(folder: Path, change) -> None:
        content = json.loads((folder / POSES).read_text())
        change(content)
        (folder / POSES).write_text(json.dumps(content))

    return changed
