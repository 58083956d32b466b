"""A lab's plugin file adds an annotation source, a scorer and a box format; mistakes in one are one line."""

import pickle
import sys
from collections import Counter

import pytest

from spr_plugin import cli, plugins
from spr_plugin.errors import UserError
from spr_plugin.formats import box_format
from spr_plugin.hookspecs import hookimpl
from spr_plugin.plugins import ask, load_file, manager

PLUGIN = """
from spr_plugin.data.annotations import AnnotatedImage, Annotation
from spr_plugin.boxes import Box, Space
from spr_plugin.formats import shikra
from spr_plugin.hookspecs import hookimpl


@hookimpl
def spr_annotations(source, image_folder, skipped):
    if not source.startswith("grid:"):
        return None
    space = Space.pixels(90, 90)
    cells = [(i % 3 * 30, i // 3 * 30) for i in range(9)]
    boxes = [Annotation(i, f"cell {i}", Box(x, y, x + 30, y + 30, space)) for i, (x, y) in enumerate(cells)]
    return iter([AnnotatedImage("grid", f"{image_folder}/grid.png", 90, 90, tuple(boxes))])


class BoxCounter:
    def score(self, picture, descriptions):
        return [({"boxes": len(one.predicted)}, len(one.predicted)) for one in descriptions]


@hookimpl
def spr_scorer(config, device):
    return BoxCounter() if config.spr_scorer == "boxes" else None


@hookimpl
def spr_box_format(family, aspect):
    return shikra() if family == "lab" else None
"""

WRAPPER = """
from spr_plugin.hookspecs import hookimpl

@hookimpl(wrapper=True)
def spr_scorer(config):
    return (yield)
"""


@pytest.fixture
def plugin(tmp_path):
    """PLUGIN as a file that is registered for one test."""
    file = tmp_path / "lab.py"
    file.write_text(PLUGIN)
    load_file(str(file))
    yield file
    manager().unregister(name=str(file))


def test_a_plugin_file_adds_source_scorer_and_format_and_the_pipeline_uses_them(plugin, tmp_path):
    from PIL import Image

    from spr_plugin.config import SPRConfig
    from spr_plugin.judging import judge_queries
    from spr_plugin.recipes.find import find_recipe
    from spr_plugin.recipes.spr.regions import region_queries

    Image.new("RGB", (90, 90)).save(tmp_path / "grid.png")
    images = ask(
        "spr_annotations", source="grid:3", image_folder=str(tmp_path), skipped=Counter(), keep_crowd=False
    )
    (query,) = region_queries(images, seed=0, skipped=Counter())
    form = box_format("lab")
    assert form.family == "shikra"
    recipe = find_recipe(SPRConfig(spr=True, spr_scorer="boxes"), form).on("cpu")
    text = form.render((annotation.label, annotation.box) for annotation in query.truth)
    [record] = judge_queries(
        [query], [[{"id": "good", "text": text}, {"id": "bad", "text": "nothing"}]], recipe
    )
    assert [row["score"] for row in record["candidates"]] == [len(query.truth), 0]
    assert record["recipe"] == "spr" and record["candidates"][1]["not_choosable"] == "no_box"


def test_loading_a_file_twice_is_once(plugin):
    load_file(str(plugin))


def test_a_plugin_wins_over_the_built_in(plugin):
    assert ask("spr_box_format", family="lab", aspect=None) is not None
    assert box_format("llava", "pad").family == "llava"


@pytest.mark.parametrize(
    "source, words",
    [
        (None, "no such file"),
        ("x = 1", "has no hook"),
        (
            "from spr_plugin.hookspecs import hookimpl\n@hookimpl\ndef spr_box_fromat(family): ...",
            "spr_box_fromat",
        ),
        ("from spr_plugin.hookspecs import hookimpl\n@hookimpl\ndef spr_box_format(famly): ...", "famly"),
        ("import nowhere_to_be_found", "nowhere_to_be_found"),
        ("def (", "invalid syntax"),
        ("\n\nnumpy.zeros(3)", "raised NameError: name 'numpy' is not defined"),
        ("\n\nnumpy.zeros(3)", "broken.py, line 3)"),
        ("raise OSError('no such\\n data')", "raised OSError: no such data"),
        ("import sys; sys.exit(5)", "broken.py, line 1): remove that"),
        ("x = '\0'", "null bytes"),
        ("def spr_scorer(config): ...", "has spr_scorer without @hookimpl"),
        (PLUGIN + "\ndef spr_detector(config): ...", "has spr_detector without @hookimpl"),
        (WRAPPER, "hook wrapper, spr_scorer"),
    ],
)
def test_a_broken_plugin_is_one_line_with_the_file(tmp_path, source, words):
    file = tmp_path / "broken.py"
    if source is not None:
        file.write_text(source)
    with pytest.raises(UserError) as caught:
        load_file(str(file))
    message = str(caught.value)
    assert "--spr_plugin" in message and "broken.py" in message and words in message and "\n" not in message
    assert not manager().has_plugin(str(file))
    assert str(file) not in [getattr(module, "__file__", None) for module in sys.modules.values()]


@pytest.mark.parametrize("name", ["lab.py", "lab", "lab.plugin.txt"])
def test_a_file_of_any_name_may_hold_dataclasses_that_are_pickled(tmp_path, name):
    file = tmp_path / name
    more = "\n@dataclasses.dataclass\nclass Settings:\n    weight: float = 0.5\n"
    file.write_text(f"from __future__ import annotations\nimport dataclasses\n{PLUGIN}{more}")
    load_file(str(file))
    try:
        settings = manager().get_plugin(str(file)).Settings(0.25)
        assert pickle.loads(pickle.dumps(settings)) == pickle._loads(pickle._dumps(settings)) == settings
    finally:
        manager().unregister(name=str(file))


@pytest.mark.parametrize(
    "source, words",
    [
        ("1 / 0", "raised ZeroDivisionError"),
        ("x = 1", "has no hook"),
        ("import nowhere", "raised ModuleNotFoundError"),
        ("def spr_host(trainer): ...", "has spr_host without @hookimpl"),
    ],
)
def test_a_broken_installed_plugin_is_named(tmp_path, monkeypatch, source, words):
    (tmp_path / "labs_own_module.py").write_text(source)
    about = tmp_path / "lab-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[spr_plugin]\nlabs = labs_own_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with pytest.raises(UserError, match=f"^installed plugin labs: .*{words}"):
            manager.__wrapped__()
    finally:
        sys.modules.pop("labs_own_module", None)


def test_a_wrong_format_is_one_line_without_a_trainer_too(tmp_path):
    """``spr score --plugin``: before any line is scored."""
    file = tmp_path / "lab.py"
    file.write_text(PLUGIN.replace('shikra() if family == "lab"', '["brackets"] if family == "lab"'))
    words = "--annotations a.json --images . --responses r --box-format lab --clip c --out o".split()
    try:
        with pytest.raises(UserError, match="lab.py: spr_box_format gives list, which has no method space"):
            cli.commands.main(["score", *words, "--plugin", str(file)], standalone_mode=False)
    finally:
        manager().unregister(name=str(file))


def test_every_hook_is_documented():
    from spr_plugin import hookspecs

    specs = [value for name, value in vars(hookspecs).items() if name.startswith("spr_")]
    assert specs and all(spec.__doc__ for spec in specs)


def test_an_unknown_format_names_the_flag():
    with pytest.raises(UserError, match="--spr_box_format nobody"):
        box_format("nobody")


def test_built_ins_are_registered():
    assert list(plugins.answers("spr_box_format", family="llava", aspect="pad"))
    assert hookimpl is not None
