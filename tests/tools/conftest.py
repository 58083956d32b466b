from collections import Counter

import pytest

from spr_plugin.data.annotations import CocoImages
from spr_plugin.recipes.spr.regions import region_queries


@pytest.fixture
def little_environment(monkeypatch):
    """What `spr doctor` looks at needs no import of a large library."""
    from spr_plugin.tools import environment

    there = environment._is_there
    monkeypatch.setattr(environment, "_is_there", lambda name: name == "transformers" and there(name))
    packages = dict.fromkeys(("transformers", "peft"), (("none",), "a test"))
    monkeypatch.setattr(environment, "PACKAGES", packages)


@pytest.fixture(scope="module")
def world(tiny_world):
    return tiny_world(sft=1, spr=4, val=1, test=5)


@pytest.fixture(scope="module")
def queries(world):
    return list(
        region_queries(
            CocoImages(str(world / "spr.json"), str(world / "images"), Counter()), seed=0, skipped=Counter()
        )
    )
