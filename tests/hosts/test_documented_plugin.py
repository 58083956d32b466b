"""The plugin that docs/write-a-plugin.md shows, block by block, in a whole run on the tiny world's LLaVA."""

import functools
import json
import re
import shutil

import pytest
import transformers

from spr_plugin import follow
from spr_plugin.config import SPRConfig
from spr_plugin.formats import box_format
from spr_plugin.judging import by_pictures, by_query, judge_queries
from spr_plugin.plugins import load_file, manager
from spr_plugin.recipes.find import find_recipe
from spr_plugin.recipes.spr.regions import RegionQuery
from spr_plugin.runs.log import Log

from . import make_vlm
from .launch import ROOT, TINY

pytestmark = pytest.mark.slow
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "write-a-plugin.md").read_text(), re.DOTALL)


@pytest.fixture
def shown(tmp_path):
    """The documented plugin as a file, forgotten after the test."""
    file = tmp_path / "my_file.py"
    file.write_text("\n\n".join(BLOCKS))
    yield str(file)
    manager().unregister(name=str(file)) if manager().has_plugin(str(file)) else None


def write_sidecars(world, folder):
    """The world's pictures with a text file beside each, and the list that names them."""
    coco = json.loads((world / "spr.json").read_text())
    labels = {row["id"]: row["name"] for row in coco["categories"]}
    for image in coco["images"]:
        rows = [row for row in coco["annotations"] if row["image_id"] == image["id"]]
        lines = [
            f"{x} {y} {x + w} {y + h} {labels[row['category_id']]}"
            for row in rows
            for x, y, w, h in [row["bbox"]]
        ]
        name = image["file_name"].replace("/", "-")
        shutil.copy(world / "images" / image["file_name"], folder / name)
        (folder / name).with_suffix(".txt").write_text("\n".join(lines))
    (folder / "pictures.lst").write_text(
        "\n".join(image["file_name"].replace("/", "-") for image in coco["images"])
    )


def overheard(method, heard):
    """`method`, whose calls are noted by name."""

    @functools.wraps(method)
    def call(*args):
        heard.append(method.__name__)
        return method(*args)

    return call


def test_the_documented_plugin_goes_through_a_whole_run(shown, tiny_world, tmp_path, monkeypatch):
    write_sidecars(tiny_world(sft=4, spr=8), tmp_path)
    model, processor = make_vlm.make("llava")
    arguments = transformers.TrainingArguments(
        str(tmp_path / "out"), use_cpu=True, report_to=[], remove_unused_columns=False
    )
    trainer = transformers.Trainer(model, arguments, train_dataset=[0], processing_class=processor)
    load_file(shown)
    plugin, heard = manager().get_plugin(shown), []
    for kind, method in ((plugin.Photo, "score"), (plugin.Foreground, "detect")):
        monkeypatch.setattr(kind, method, overheard(getattr(kind, method), heard))
    config = SPRConfig(
        spr_only=True, spr_plugin=[shown], spr_annotations=f"{tmp_path}/pictures.lst",
        spr_image_folder=str(tmp_path),
        spr_clip=f"photo:{TINY / 'clip'}", spr_detector="foreground", spr_box_format="mine", spr_regions=5,
        spr_prompts=["plain"], spr_samples=3, spr_max_new_tokens=100, spr_epochs=1.0, spr_min_kept=0.0,
    )  # fmt: skip
    follow.train(trainer, config, {}, None)
    spr = tmp_path / "out" / "spr"
    regions, candidates, scores, pairs = (
        Log(spr / stage).read() for stage in ("queries", "candidates", "scores", "pairs")
    )
    queries = [RegionQuery.from_record(record) for record in regions.values()]
    assert len(queries) == 5 and all(
        record["pictures"][0]["id"].endswith((".png", ".jpg")) for record in regions.values()
    )
    assert all(len(scores[query.id]["truth"]) >= len(query.truth) for query in queries)
    # Once on the CPU at the start, once for the stage, then by picture.
    assert all(heard.count(name) > 2 for name in ("score", "detect"))
    assert any("skip" not in record for record in pairs.values()) and (spr / "report.html").exists()
    assert model.config.spr_box == {"family": "mine", "space": "normalized", "aspect": None}
    counting = find_recipe(SPRConfig(spr=True, spr_scorer="count"), box_format("mine")).on("cpu")
    said = by_query(candidates.values())
    for about in by_pictures(queries):
        for record in judge_queries(about, [said[query.id] for query in about], counting):
            terms = {tuple(row["terms"]) for row in record["candidates"] if row["reason"] is None}
            assert terms == {("missing",)}
