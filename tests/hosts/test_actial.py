"""Actial through whole runs: two pictures of a scene are asked about, judged, trained on, reported and looked
at; killed, it goes on. A host that shows one picture refuses it.
"""

import random

import pytest
import torch
import transformers

from spr_plugin import follow
from spr_plugin.config import SPRConfig
from spr_plugin.data.pictures import MadePicture, open_image
from spr_plugin.errors import UserError
from spr_plugin.opening import find_host
from spr_plugin.recipes.actial.recipe import Actial
from spr_plugin.recipes.base import Source
from spr_plugin.recipes.find import find_recipe

from . import make_vlm
from .checks import dies_in_judging_and_goes_on

pytestmark = pytest.mark.slow
ANSWER = "<think></think><answer>{}</answer>"


@pytest.fixture
def flags(posed_world):
    return dict(
        spr=True, spr_recipe="actial", spr_image_folder=str(posed_world(scenes=4, views=12)), spr_regions=12,
        spr_samples=4, spr_temperature=0.8, spr_max_new_tokens=45, spr_epochs=1.0, spr_batch_size=4,
        spr_learning_rate=1e-3,
    )  # fmt: skip


@pytest.fixture
def host_of(tmp_path, flags):
    """``host_of(family, **changes)`` → (a trainer around a model of the family, config), in one folder."""

    def make(family, **changes):
        model, processor = make_vlm.make(family)
        arguments = transformers.TrainingArguments(str(tmp_path / "out"), use_cpu=True, report_to=[])
        trainer = transformers.Trainer(model, arguments, train_dataset=[0], processing_class=processor)
        return trainer, SPRConfig(**{**flags, **changes})

    return make


def taught(trainer, config) -> None:
    """The host's training: left, right and none as answers to each question."""
    host = find_host(trainer, {}, config)
    recipe = find_recipe(config, host.box_format)
    rows = [
        host.row(query.sources, recipe.question(query), ANSWER.format(side))
        for query in recipe.queries(Source(None, config.spr_image_folder))[:6]
        for side in ("left", "right", "none")
    ]
    optimizer = torch.optim.AdamW(trainer.model.parameters(), lr=1e-2)
    for _ in range(30):
        trainer.model(**host.batch(random.sample(rows, 4))).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_a_whole_run_and_on_after_a_death(host_of, tmp_path, monkeypatch):
    """Qwen2.5-VL: sampled live, from both pictures."""
    random.seed(0)
    trainings = iter([taught, lambda *_: pytest.fail("trained again")])

    def train():
        trainer, config = host_of("qwen2_5_vl")
        return follow.train(trainer, config, {}, lambda: next(trainings)(trainer, config))

    run = dies_in_judging_and_goes_on(train, Actial, tmp_path / "out", monkeypatch)
    assert len(run.records("candidates")) >= 48
    assert {query.truth["motion"] for query in run.queries.values()} == {"orbit", "turn", "shift"}
    assert len(run.pairs) >= 3
    for pair in run.pairs:
        query = run.queries[pair.query]
        assert run.recipe.is_right(pair.chosen, query) and not run.recipe.is_right(pair.rejected, query)
        assert pair.chosen_score > pair.rejected_score and pair.pictures == query.sources
    assert_both_pictures_are_shown(run)


def assert_both_pictures_are_shown(run) -> None:
    """By the report, each embedded; by spr inspect, with the pixels that the model saw."""
    page = run.folder.report.read_text()
    assert page.count("data:image/jpeg") >= 2 * len(run.pairs) and "not shown" not in page
    client = pytest.importorskip("starlette.testclient")
    from spr_plugin.tools.inspect.app import application
    from spr_plugin.tools.inspect.indexed import IndexedRun

    app = application(IndexedRun(run.folder.path.parent))
    browser, made = client.TestClient(app, base_url="http://127.0.0.1:8765"), 0
    for pair in run.pairs:
        query, shown = run.queries[pair.query], browser.get(f"/pair/{pair.id}").text
        assert shown.count("<figure") == 2
        for number, picture in enumerate(query.pictures):
            content = browser.get(f"/picture/{query.id}/{number}").content
            assert open_image(content).tobytes() == open_image(picture.source).tobytes()
            made += isinstance(picture, MadePicture)
        boxes = shown.count('<rect class="exact"')
        assert boxes == sum(at is not None for at in query.truth["object"])
    assert made


def test_a_host_of_one_picture_refuses_before_anything_trains(flags, tiny_world, embedded_llava, tmp_path):
    """LLaVA-1.5's own script, in one line."""
    host = embedded_llava(tiny_world(sft=4), tmp_path / "out")
    with pytest.raises(UserError) as refused:
        follow.train(host.trainer, SPRConfig(**flags), host.namespace, lambda: pytest.fail("trained"))
    assert str(refused.value) == (
        "--spr_recipe actial asks about 2 pictures at once, and LlavaHost shows one picture: take another"
        " recipe, or a host that shows several"
    )
    assert not (tmp_path / "out" / "spr").exists()
