"""The plugin as an installed package: each hook is found, asked before the built-in, and silent elsewhere.

``ask`` and ``find_scorer`` are how a run asks: they try what it returns, and a wrong shape fails here too.
"""

from collections import Counter
from types import SimpleNamespace

import pytest
from PIL import Image

from spr_plugin.boxes import Box, Space
from spr_plugin.config import SPRConfig
from spr_plugin.contracts import ask
from spr_plugin.formats import box_format
from spr_plugin.plugins import manager
from spr_plugin.recipes.spr.regions import region_queries
from spr_plugin.recipes.spr.scoring import find_scorer

SPACE = Space.pixels(200, 100)


def read(folder, *rows):
    """The annotated pictures of these rows, and what was left out."""
    Image.new("RGB", (200, 100)).save(folder / "a.png")
    table = folder / "objects.csv"
    table.write_text("\n".join(["file,label,x1,y1,x2,y2", *rows]))
    skipped = Counter()
    return list(
        ask("spr_annotations", source=str(table), image_folder=str(folder), skipped=skipped, keep_crowd=False)
    ), skipped


def test_it_is_installed():
    assert manager().get_plugin("lab").__name__ == "lab_spr"


def test_annotations(tmp_path):
    (image,), skipped = read(
        tmp_path,
        "a.png,dog,10,10,50,60",
        "a.png,cat,300,300,310,310",
        "a.png,cup,0,0,20,20",
        "gone.png,dog,1,1,9,9",
    )
    assert [(a.label, a.box.xyxy) for a in image.annotations] == [
        ("dog", (10, 10, 50, 60)),
        ("cup", (0, 0, 20, 20)),
    ]
    assert skipped == {"outside": 1, "missing_image": 1}


def test_box_format():
    lab = box_format("lab")
    assert lab.write(Box(20, 10, 100, 50, SPACE)) == "[0.100, 0.100, 0.500, 0.500]"
    assert lab.parse("a dog [0.1, 0.1, 0.5, 0.5]", 200, 100).boxes[0].pixels() == (20, 10, 100, 50)
    assert box_format("llava").family == "llava"


def test_scorer(tmp_path):
    images, skipped = read(tmp_path, "a.png,dog,20,10,100,50")
    queries = list(region_queries(images, seed=0, more_than=0, skipped=skipped))
    scorer = find_scorer(SPRConfig(spr=True, spr_scorer="lab"), "cpu", box_format("lab"))
    texts = ["a dog [0.1, 0.1, 0.5, 0.5]", "a dog [0.1, 0.1, 0.5, 0.5] a cat [0, 0, 0.1, 0.1]", "a dog"]
    asked = queries, Image.open(queries[0].image.path), [texts], box_format("lab")
    (scores,) = scorer.score(*asked, scorer.truth(*asked))
    assert [round(score["total"], 6) for score in scores] == [0.98, 0.96, 0.0]
    assert [score["reason"] for score in scores] == [None, None, "no_box"]


def test_host_is_for_the_labs_trainer_alone():
    other = SimpleNamespace(model=SimpleNamespace(config=None))
    assert ask("spr_host", trainer=other, namespace={}, config=SPRConfig(spr=True)) is None


@pytest.mark.parametrize("name", ["spr_annotations", "spr_box_format", "spr_scorer", "spr_host"])
def test_it_is_installed_with_its_hooks(name):
    """And so is asked before what the plugin system brings itself."""
    assert name in {caller.name for caller in manager().get_hookcallers(manager().get_plugin("lab"))}
