"""Which queries are judged together."""

import gc
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from spr_plugin.config import SPRConfig
from spr_plugin.formats import llava
from spr_plugin.judging import by_pictures, judge_all
from spr_plugin.recipes.spr.recipe import SPR
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.log import Log

CLIP = Path(__file__).parents[1] / "examples" / "tiny_world" / "clip"


def test_queries_are_grouped_by_all_their_pictures():
    shown = [("a",), ("b",), ("a",), ("a", "b"), ("b",), ("a", "b"), ("b", "a")]
    queries = [SimpleNamespace(sources=paths, id=id) for id, paths in enumerate(shown)]
    assert [[query.id for query in group] for group in by_pictures(queries)] == [[0, 2], [1, 4], [3, 5], [6]]


@pytest.mark.slow
def test_the_models_that_judge_are_gone_when_all_is_judged(tiny_world, write_queries, tmp_path, monkeypatch):
    """They refer to themselves in circles, and beside a 7B policy CLIP-L would keep 1.7 GB through DPO."""
    world, form = tiny_world(spr=4), llava("pad")
    config = SPRConfig(
        spr=True,
        spr_annotations=str(world / "spr.json"),
        spr_image_folder=str(world / "images"),
        spr_clip=str(CLIP),
        spr_regions=2,
    )
    queries = write_queries(Folder(tmp_path), config, form)
    said = dict(kind="plain", index=0, text="a red circle [0.1, 0.2, 0.3, 0.4].")
    candidates = {query.id: {"id": query.id, "query": query.id, **said} for query in queries}
    seen, on = [], SPR.on

    def watched(self, device):
        ready = on(self, device)
        seen.append(weakref.ref(ready.scorer.similarity.model))
        return ready

    monkeypatch.setattr(SPR, "on", watched)
    gc.disable()  # it may come by at any time, or not before the end
    try:
        judge_all(queries, SPR(config, form), "cpu", candidates, Log(tmp_path / "scores"))
        (model,) = seen
        assert model() is None
    finally:
        gc.enable()
    assert len(Log(tmp_path / "scores").read()) == len(queries) > 0
