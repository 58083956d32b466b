"""A recipe of a plugin's, whose questions show several pictures, from its queries to the report."""

import random

import pytest
import torch
import transformers

from spr_plugin import follow, runs
from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.hooks.transformers_vlm import TransformersHost
from spr_plugin.opening import find_host
from spr_plugin.plugins import load_file, manager
from spr_plugin.recipes.base import Source
from spr_plugin.recipes.find import find_recipe
from spr_plugin.recipes.spatial_thinker.recipe import SpatialThinker

from . import make_vlm
from .checks import dies_in_judging_and_goes_on
from .launch import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def lab():
    file = str(ROOT / "examples" / "lab_plugin" / "lab_spr.py")
    load_file(file)
    yield file
    manager().unregister(name=file)


def test_a_recipe_of_two_pictures_goes_through_a_whole_run(lab, tiny_world, tmp_path, objects_csv):
    """Under a host that shows several: sampled, judged, paired and trained on; one that shows one refuses at
    the start.
    """
    world = tiny_world(sft=4, spr=8)
    (tmp_path / "names.yaml").write_text("names: {together: 2}")
    model, processor = make_vlm.make("llava")
    arguments = transformers.TrainingArguments(str(tmp_path / "out"), use_cpu=True, report_to=[])
    trainer = transformers.Trainer(model, arguments, train_dataset=[0], processing_class=processor)
    flags = dict(
        spr_only=True, spr_plugin=[lab], spr_recipe="names", spr_recipe_config=str(tmp_path / "names.yaml"),
        spr_annotations=objects_csv(world, tmp_path / "objects.csv"), spr_image_folder=f"{world}/images",
        spr_samples=3, spr_max_new_tokens=24, spr_epochs=1.0, spr_batch_size=2,
    )  # fmt: skip
    follow.train(trainer, SPRConfig(**flags), {}, None)
    run = runs.open(tmp_path / "out", plugins=[lab])
    assert len(run.queries) == 4 and all(len(query.pictures) == 2 for query in run.queries.values())
    assert {record["recipe"] for record in run.records("scores").values()} == {"names"} and run.pairs
    assert all(len(pair.pictures) == 2 and pair.chosen_score > pair.rejected_score for pair in run.pairs)
    assert run.folder.exit.exists()
    assert run.folder.report.read_text().count("data:image/jpeg") == 4 * len(run.pairs)
    trainer.args.output_dir = str(tmp_path / "other")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransformersHost, "most_pictures", 1)
        with pytest.raises(
            UserError, match="--spr_recipe names asks about 2 pictures at once, and .* shows one picture"
        ):
            follow.train(trainer, SPRConfig(**flags), {}, None)


# --- SpatialThinker, on a model of random weights that the host's own training teaches its format first

SCENE = '<observe></observe><scene>{{"objects": []}}</scene><think></think><answer>{}</answer>'


@pytest.fixture
def thinker(tiny_world, tmp_path):
    """``thinker(family, flags…)`` → (a trainer around a model of the family, config), in one folder."""
    world = tiny_world(spr=24, geometry=True)
    (tmp_path / "thinker.yaml").write_text("spatial_thinker: {tasks: [location], per_picture: 1}")
    flags = dict(
        spr=True, spr_recipe="spatial_thinker", spr_recipe_config=str(tmp_path / "thinker.yaml"),
        spr_annotations=str(world / "graphs" / "spr.json"), spr_image_folder=str(world / "images"),
        spr_regions=12, spr_samples=6, spr_temperature=0.7, spr_max_new_tokens=120, spr_epochs=1.0,
        spr_batch_size=4, spr_learning_rate=1e-3,
    )  # fmt: skip

    def make(family, **changes):
        model, processor = make_vlm.make(family)
        arguments = transformers.TrainingArguments(str(tmp_path / "out"), use_cpu=True, report_to=[])
        trainer = transformers.Trainer(model, arguments, train_dataset=[0], processing_class=processor)
        return trainer, SPRConfig(**{**flags, **changes})

    return make


def taught(trainer, config) -> None:
    """The host's training: each option as an answer to each question, so that a quarter of them is right."""
    host = find_host(trainer, {}, config)
    recipe = find_recipe(config, host.box_format)
    rows = [
        host.row([query.pictures[0].path], recipe.question(query), SCENE.format(option))
        for query in recipe.queries(Source(None, config.spr_image_folder))[:8]
        for option in query.text.splitlines()[2:]
    ]
    optimizer = torch.optim.AdamW(trainer.model.parameters(), lr=1e-2)
    for _ in range(50):
        trainer.model(**host.batch(random.sample(rows, 3))).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_spatial_thinker_goes_through_a_whole_run_and_on_after_a_death(thinker, tmp_path, monkeypatch):
    """Qwen2.5-VL shrinks a picture of 96 pixels to 84: that is what the question says."""
    trainings = iter([taught, lambda *_: pytest.fail("trained again")])

    def train():
        trainer, config = thinker("qwen2_5_vl")
        return follow.train(trainer, config, {}, lambda: next(trainings)(trainer, config))

    run = dies_in_judging_and_goes_on(train, SpatialThinker, tmp_path / "out", monkeypatch)
    assert len(run.records("candidates")) == 72
    assert run.pairs and all("Image size: 84 x 84\n" in pair.prompt for pair in run.pairs)
    for pair in run.pairs:
        query = run.queries[pair.query]
        assert query.truth["answer"] in pair.chosen and pair.chosen_score == pytest.approx(0.6)
        assert query.truth["answer"] not in pair.rejected and pair.rejected_score <= 0.1 + 1e-9
    assert "data:image/jpeg" in run.folder.report.read_text()


def test_a_model_that_never_writes_the_format_has_no_pair_to_train_on(thinker, tmp_path, capsys):
    """The tiny world's own LLaVA: sampled and judged, and said in one line."""
    few = dict(spr_only=True, spr_regions=3, spr_samples=2, spr_max_new_tokens=12)
    trainer, config = thinker("llava", **few)
    with pytest.raises(UserError, match=r"no preference pair is left of 3 queries \(unparsable 3\)"):
        follow.train(trainer, config, {}, None)
    # No word of a truth is counted as a reason.
    assert (
        "6 answers judged (without a score: none; not to be chosen: unparsable 6)" in capsys.readouterr().err
    )
    rows = [
        row
        for record in runs.open(tmp_path / "out").records("scores").values()
        for row in record["candidates"]
    ]
    assert len(rows) == 6 and {(row["score"], row["not_choosable"]) for row in rows} == {(0.0, "unparsable")}
