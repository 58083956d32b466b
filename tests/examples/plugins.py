"""A plugin of the study, loaded from its file, at work on regions of the tiny world."""

from collections import Counter
from contextlib import contextmanager

from spr_plugin.config import SPRConfig
from spr_plugin.data.annotations import CocoImages
from spr_plugin.judging import judge_queries
from spr_plugin.plugins import load_file, manager
from spr_plugin.recipes.find import find_recipe
from spr_plugin.recipes.spr.regions import region_queries
from tests.paper import PAPER
from tests.runs.finished import CLIP, FORM

from .world import WORLD


@contextmanager
def loaded(name):
    """``--spr_plugin examples/tiny_world/reproduce/NAME.py``, inside."""
    file = str((WORLD / "reproduce" / f"{name}.py").resolve())
    load_file(file)
    try:
        yield
    finally:
        manager().unregister(name=file)


def regions(world, count):
    """Region queries of a tiny world's annotations."""
    images = CocoImages(str(world / "spr.json"), str(world / "images"), Counter())
    return list(region_queries(images, seed=0, limit=count, skipped=Counter()))


def judged(queries, texts, **flags):
    """Records of the scores of `texts`, some for each query, by the recipe that is found now."""
    recipe = find_recipe(SPRConfig(**{**PAPER, "spr_clip": str(CLIP), **flags}), FORM).on("cpu")
    rows = [
        [{"id": f"{query.id}-{place}", "text": text} for place, text in enumerate(row)]
        for query, row in zip(queries, texts)
    ]
    return judge_queries(queries, rows, recipe)
