"""The plugin as an installed package: every hook is found by its entry point, asked before the built-in, and silent where it is not meant."""

from collections import Counter
from types import SimpleNamespace

import pytest
from PIL import Image

from spr_plugin.boxes import Box, Space
from spr_plugin.config import SPRConfig
from spr_plugin.formats import box_format
from spr_plugin.plugins import hook, manager

SPACE = Space.pixels(200, 100)


def test_it_is_installed():
    assert manager().get_plugin("lab").__name__ == "lab_spr"


def test_annotations(tmp_path):
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    table = tmp_path / "objects.csv"
    rows = "a.png,dog,10,10,50,60", "a.png,cat,300,300,310,310", "a.png,cup,0,0,20,20", "gone.png,dog,1,1,9,9"
    table.write_text("\n".join(["file,label,x1,y1,x2,y2", *rows]))
    skipped = Counter()
    (image,) = hook().spr_annotations(source=str(table), image_folder=str(tmp_path), skipped=skipped)
    assert [(a.label, a.box.xyxy) for a in image.annotations] == [("dog", (10, 10, 50, 60)), ("cup", (0, 0, 20, 20))]
    assert skipped == {"outside": 1, "missing_image": 1}


def test_box_format():
    lab = box_format("lab")
    assert lab.write(Box(20, 10, 100, 50, SPACE)) == "[10, 10, 50, 50]"
    assert lab.parse("a dog [10, 10, 50, 50]", 200, 100).boxes[0].pixels() == (20, 10, 100, 50)
    assert box_format("llava").family == "llava"


def test_scorer():
    scorer = hook().spr_scorer(config=SPRConfig(spr=True, spr_scorer="lab"), device="cpu")
    query = SimpleNamespace(image=SimpleNamespace(width=200, height=100), truth=[SimpleNamespace(box=Box(20, 10, 100, 50, SPACE))])
    texts = ["a dog [10, 10, 50, 50]", "a dog [10, 10, 50, 50] a cat [0, 0, 9, 9]", "a dog"]
    truth = scorer.truth(query, None, texts, box_format("lab"))
    scores = scorer.score(query, None, texts, box_format("lab"), truth)
    assert [round(score["total"], 6) for score in scores] == [0.98, 0.96, 0.0] and [score["valid"] for score in scores] == [True, True, False]


def test_host_is_for_the_labs_trainer_alone():
    other = SimpleNamespace(model=SimpleNamespace(config=None))
    assert hook().spr_host(trainer=other, namespace={}, config=SPRConfig(spr=True)) is None


@pytest.mark.parametrize("name", ["spr_annotations", "spr_box_format", "spr_scorer", "spr_host"])
def test_it_is_asked_before_the_built_ins(name):
    assert [implementation.plugin_name for implementation in getattr(manager().hook, name).get_hookimpls()][-1] == "lab"
