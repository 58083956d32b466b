"""The plugin as an installed package: each hook is found, asked before the built-in, and silent elsewhere.

``ask`` and ``find_recipe`` are how a run asks: they try what it returns, and a wrong shape fails here too.
"""

from collections import Counter
from types import SimpleNamespace

import pytest
from PIL import Image

from spr_plugin.boxes import Box, Space
from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.formats import box_format
from spr_plugin.plugins import ask, manager
from spr_plugin.recipes.base import Source
from spr_plugin.recipes.find import find_recipe
from spr_plugin.recipes.spr.regions import region_queries

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
    recipe = find_recipe(SPRConfig(spr=True, spr_scorer="lab"), box_format("lab")).on("cpu")
    texts = ["a dog [0.1, 0.1, 0.5, 0.5]", "a dog [0.1, 0.1, 0.5, 0.5] a cat [0, 0, 0.1, 0.1]", "a dog"]
    (judged,) = recipe.judge([Image.open(queries[0].image.path)], queries, [texts])
    assert [one.score and round(one.score, 6) for one in judged.answers] == [0.98, 0.96, 0.0]
    assert [one.reason for one in judged.answers] == [None] * 3
    assert judged.answers[2].not_choosable == "no_box"


def test_recipe(tmp_path):
    for name in "abc":
        Image.new("RGB", (200, 100)).save(tmp_path / f"{name}.png")
    rows = ["a.png,dog,20,10,100,50", "b.png,cat,20,10,100,50", "c.png,cup,20,10,100,50"]
    (tmp_path / "objects.csv").write_text("\n".join(["file,label,x1,y1,x2,y2", *rows]))
    (tmp_path / "names.yaml").write_text("names: {together: 2, per_word: 0.1}")
    flags = {
        "spr_annotations": str(tmp_path / "objects.csv"),
        "spr_recipe_config": str(tmp_path / "names.yaml"),
    }
    recipe = find_recipe(SPRConfig(spr=True, spr_recipe="names", **flags), None)
    (query,) = recipe.queries(Source(image_folder=str(tmp_path)))
    assert [picture.id for picture in query.pictures] == ["a.png", "b.png"] and query.truth == ["cat", "dog"]
    (judged,) = recipe.judge([], [query], [["a dog", "cat, dog", " "]])
    assert [one.score and round(one.score, 6) for one in judged.answers] == [0.3, 0.8, None]
    assert [one.not_rejectable for one in judged.answers] == [None, "all_named", "empty"]
    assert recipe.measure([recipe.worked(query), "a dog"], [query] * 2) == {"named": 0.75}


@pytest.mark.parametrize(
    "text, words",
    [("names: {together: 6}", "names: together 6: must lie"), ("names: {x: 1}", "names: x is no setting")],
)
def test_a_wrong_setting_of_the_recipe_is_named(tmp_path, text, words):
    (tmp_path / "names.yaml").write_text(text)
    with pytest.raises(UserError, match=words):
        find_recipe(
            SPRConfig(spr=True, spr_recipe="names", spr_recipe_config=str(tmp_path / "names.yaml")), None
        )


def test_host_is_for_the_labs_trainer_alone():
    other = SimpleNamespace(model=SimpleNamespace(config=None))
    assert ask("spr_host", trainer=other, namespace={}, config=SPRConfig(spr=True)) is None


@pytest.mark.parametrize(
    "name", ["spr_annotations", "spr_box_format", "spr_recipe", "spr_scorer", "spr_host"]
)
def test_it_is_installed_with_its_hooks(name):
    """And so is asked before what the plugin system brings itself."""
    assert name in {caller.name for caller in manager().get_hookcallers(manager().get_plugin("lab"))}
