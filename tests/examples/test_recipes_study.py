"""The study of recipes: its flags parse, nothing asked is trained on, what is kept is what was measured, and
the docs say what the committed results say.
"""

import copy
import dataclasses
import json
from pathlib import Path

import pytest

from spr_plugin.config import SPRConfig
from spr_plugin.files import read_json
from spr_plugin.flags import flags_class
from spr_plugin.tools.demo import WORLD, train_command

from .world import load, same

pytest.importorskip("datasets")  # the oldest environment has no lmms-eval and what it needs

ROOT = Path(__file__).parents[2]
study = load("recipes_study/study")
kept, report, settings = study.kept, study.report, study.settings
RECIPES = list(settings.RECIPES)


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    """Commands name the embedded models from there."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def small(monkeypatch):
    """A study of a few scenes."""
    monkeypatch.setattr(settings, "SCENES", {"sft": 6, "spr": 6})
    monkeypatch.setattr(settings, "CONVERSATIONS", 2)
    monkeypatch.setattr(settings, "QUESTIONS", {"val": 6, "test": 9})
    monkeypatch.setattr(settings, "SCENES_ASKED", {"val": 6, "test": 6})
    monkeypatch.setattr(settings, "OWN", {"count": 4, "described": 2, "seed": 90})


# --- the plan


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_units_flags_parse(tmp_path, small, recipe):
    """By transformers' parser, as the host's command reads them."""
    transformers = pytest.importorskip("transformers")
    parser = transformers.HfArgumentParser((flags_class(),))
    hosts = {word for word in train_command(Path("d"), Path("m"), "") if word.startswith("--")}
    hosts |= {"--num_train_epochs"}
    found = study.Study(recipe, tmp_path)
    rates = settings.RECIPES[recipe].rates
    units = [*((rate, settings.TUNED) for rate in rates), *((rates[-1], seed) for seed in settings.SEEDS)]
    model = tmp_path / "one" / "llava"
    for rate, seed in units:
        command = found.command(Path("d"), model, found.flags(rate, seed), WORLD / "llava", seed)
        flags, rest = parser.parse_args_into_dataclasses(command[3:], return_remaining_strings=True)
        config = SPRConfig(**vars(flags))
        assert {word for word in rest if word.startswith("--")} <= hosts
        assert (config.spr_recipe, config.spr_seed, config.spr_learning_rate) == ([recipe], seed, float(rate))
        assert config.spr_only and f"pictures-spr-{seed}" in config.spr_image_folder
        assert (config.spr_annotations is None) == (recipe == "spatial_ssrl")
    assert settings.TUNED not in settings.SEEDS


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_no_scene_is_in_two_of_the_data(tmp_path, small, recipe):
    found = study.Study(recipe, tmp_path)
    cold = found.cold_data(6)
    rows = json.loads((cold / "sft.json").read_text())
    assert sum("sft/" in row["image"] for row in rows) == 3  # two scenes, one with a crop of it
    assert len(rows) == 9 and all((cold / "images" / row["image"]).exists() for row in rows)
    pictures = [
        study.world_data.pictures(found.pictures(split, 6, seed) / "images")
        for split, seed in (("sft", 0), ("spr", 0), ("spr", 9), ("val", 91), ("test", 91))
    ]
    assert sum(map(len, pictures)) == len({name for one in pictures for name in one}) == 30
    asked = found.questions("test")
    lines = (asked / recipe / "val.jsonl").read_text().splitlines()
    assert len(lines) == 9 and (asked / "presence" / "val.jsonl").exists()


# --- what is kept


def detail(id, kind, right, image="000001.png"):
    figures = {"exact": (right, 1.0), "format": (1.0, 1.0), "reward": (0.1 + 0.9 * right, 1.0)}
    item = {"id": id, "figures": {**figures, f"exact {kind}": (right, 1.0)}}
    return {"id": id, "image": image, "items": [item]}


def test_what_is_kept_is_read_as_it_was_measured():
    asked = [
        detail("b", "position", 1.0),
        detail("a", "depth_order", 0.0),
        detail("c", "position", 0.0, "2.png"),
    ]
    found = kept.packed(asked)
    assert found["figures"] == ["exact", "format", "reward"] and found["kinds"] == ["depth_order", "position"]
    assert found["pictures"] == {"000001": [[0, 0, 1, 0.1], [1, 1, 1, 1]], "2": [[1, 0, 1, 0.1]]}
    unit = {"variant": "a", "samples": {"spr_tiny_world_x": kept.unpacked(found, "exact")}}
    rows = report.paired.gains([unit], [unit], "x")
    assert rows["exact"]["a"] == pytest.approx(1 / 3) and rows["reward"]["a"] == pytest.approx(0.4)
    assert (rows["position"]["a"], rows["depth_order"]["a"]) == (0.5, 0)


# --- the docs


@pytest.fixture(scope="module")
def committed() -> dict:
    return read_json(report.FACTS)


def test_the_committed_json_is_made_of_the_committed_results(committed, monkeypatch):
    """All but the intervals: those take longer."""
    monkeypatch.setattr(report.figures.paired.metrics, "RESAMPLES", 20)
    assert same(report.findings(), committed, {"low", "high", "p"})


def test_every_result_is_of_the_plan(committed):
    """Its file is named as what it holds, and the rate that was taken is the rule's."""
    for file in report.RESULTS.rglob("*.json"):
        assert report.RESULTS / kept.file_name(read_json(file)) == file
    for recipe, facts in held_out(committed):
        assert facts["rate"] == report.chosen(report.RESULTS, recipe)
        assert facts["worked"] == settings.RECIPES[recipe].worked
        assert facts["seeds"] == list(settings.SEEDS)


def held_out(facts):
    """(recipe, its facts) of those that held-out scenes were asked about."""
    return [(recipe, own) for recipe, own in facts.items() if "questions" in own]


def test_other_results_are_other_words(committed):
    """No word outlives the figure that it was said of."""
    facts = copy.deepcopy(committed)
    assert held_out(facts)
    for recipe, own in held_out(facts):
        row = own["questions"][settings.RECIPES[recipe].main]
        for low, high, word in ((-0.2, -0.1, "loses"), (-0.1, 0.1, "no difference"), (0.1, 0.2, "gains")):
            row.update(gain=(low + high) / 2, low=low, high=high, apart=False)
            said = f"to {report.words.percent(row['b'])}: DPO {report.words.said(row)}"
            assert word in said and said in report.here(facts)
            page = report.measured(recipe, facts).splitlines()
            (line,) = [line for line in page if line.startswith("| **right answers**")]
            assert f"| {report.words.word(row)} |" in line and word in line


def test_what_was_not_measured_is_not_claimed():
    tried = {recipe: {"validation": {"sizes": {}, "rates": {}, "no pair": []}} for recipe in RECIPES}
    assert all(
        "Not measured" in report.measured(recipe, facts) for recipe in RECIPES for facts in ({}, tried)
    )
    assert "gains" not in report.here({}).split("Spatial-SSRL")[1]
    assert dataclasses.asdict(settings.PAPERS["actial"])["result"] in report.here({})
