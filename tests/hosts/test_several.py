"""Two recipes in one command, through a whole run of LLaVA's own script: killed while it samples, it goes on;
each has its pairs, its values in the probe, its rows in `spr inspect`.

A server answers: the tiny model has never been taught Spatial-SSRL's form, and would have no pair there.
"""

import json
import random
import re
from collections import Counter

import pytest
from click.testing import CliRunner

from spr_plugin import runs
from spr_plugin.cli import commands
from spr_plugin.runs.log import Log
from spr_plugin.runs.steps import probes_of
from spr_plugin.tools.inspect.choosing import Wanted
from spr_plugin.tools.inspect.indexed import IndexedRun

from .checks import assert_saved_equals_live
from .launch import TINY, command, kill_when, run

pytestmark = pytest.mark.slow


@pytest.fixture
def server(chat_server):
    """Guesses where a thought is asked for; elsewhere it names shapes where a reference prompt says that
    they are, or one somewhere.
    """

    def answer(text: str, seed: int) -> str:
        if "boxed" in text:
            return chat_server.guess(text, seed)
        x, y = (random.Random(seed).randrange(0, 50) / 100 for _ in range(2))
        told = re.findall(r"\[[^]]*\]", text)[1:]  # behind the region
        boxes = told or [f"[{x:.3f}, {y:.3f}, {x + 0.4:.3f}, {y + 0.4:.3f}]"]
        return ", ".join(f"a red circle {box}" for box in boxes)

    with chat_server.ChatServer() as server:
        server.answers = answer
        yield server


def test_two_recipes_killed_and_gone_on(server, tiny_world, tmp_path):
    world, out = tiny_world(sft=4, spr=24), tmp_path / "llava"
    (tmp_path / "recipes.yaml").write_text(
        json.dumps(
            {
                "spr": {"prompts": ["plain", "reference"], "more_than": 1, "match": "iou"},
                "spatial_ssrl": {"resample": 1},
            }
        )
    )
    flags = f"""--spr --spr_only --spr_recipe spr spatial_ssrl=2 --spr_recipe_config {tmp_path}/recipes.yaml
        --spr_annotations {world}/spr.json --spr_image_folder {world}/images --spr_clip {TINY}/clip
        --spr_regions 30 --spr_samples 4 --spr_max_new_tokens 24 --spr_batch_size 4 --spr_epochs 1
        --spr_sampler openai --spr_sampler_url {server.url} --spr_sampler_concurrency 1
        --spr_probe_steps 2 --spr_save_steps 1""".split()
    arguments = command(world, out, *flags)

    def sampled_some():
        return len(Log(out / "spr" / "candidates").read()) > 30

    assert kill_when(arguments, sampled_some, tmp_path / "log"), (tmp_path / "log").read_text()[-3000:]
    assert runs.open(out).state != "finished"
    run(arguments)
    assert_saved_equals_live(out)
    saved = runs.open(out)
    answered = {pair["query"] for pair in saved.records("pairs").values()}
    assert saved.queries.keys() == saved.records("scores").keys() == answered
    assert saved.state == "finished" and saved.recipe is not None and saved.recipe.name == "spr spatial_ssrl"
    assert Counter(one.recipe for one in saved.queries.values()) == {"spr": 10, "spatial_ssrl": 20}
    for stage in ("queries", "candidates", "scores", "pairs"):
        for record in saved.records(stage).values():
            query = saved.queries[record.get("query", record["id"])]
            assert record["recipe"] == query.recipe
    paired = Counter(saved.queries[pair.query].recipe for pair in saved.pairs)
    assert paired["spr"] >= 5 and paired["spatial_ssrl"] >= 5, paired
    again = Counter(saved.queries[one["query"]].recipe for one in saved.records("candidates").values())
    assert again["spr"] == 10 * 2 * 4 and again["spatial_ssrl"] > 20 * 4
    probes = probes_of(saved.steps)
    assert probes and all(
        {"best", "spr/s_loc", "spatial_ssrl/exact"} <= probe.keys() for probe in probes.values()
    )
    page = saved.folder.report.read_text()
    assert "spatial_ssrl/exact" in page and "not shown" not in page
    index = IndexedRun(out)
    index.refresh()
    for name, count in (("spr", 10), ("spatial_ssrl", 20)):
        assert len(list(index.chosen(Wanted(recipe=name)))) == count


@pytest.mark.parametrize(
    "recipes", [["spatial_thinker"], ["actial"], ["spr", "spatial_ssrl", "spatial_thinker"]], ids=" ".join
)
def test_a_server_answers_any_recipe_s_questions(server, tiny_world, posed_world, tmp_path, recipes):
    """`spr sample`: each query as often as its recipe asks, and the same command then asks nothing."""
    world = tiny_world(spr=24, geometry=True)
    folder = posed_world(scenes=3, views=6) if recipes == ["actial"] else world / "images"
    graphs = {"spatial_thinker": {"annotations": f"{world}/graphs/spr.json"}}
    (tmp_path / "recipes.yaml").write_text(json.dumps({name: graphs.get(name, {}) for name in recipes}))
    words = ["--spr_recipe", *recipes, "--spr_recipe_config", tmp_path / "recipes.yaml", "--spr_regions", 9]
    words += ["--spr_annotations", f"{world}/spr.json"] if "spr" in recipes else []
    words += ["--spr_image_folder", folder, "--spr_box_format", "llava", "--spr_prompts", "plain"]
    words += ["--spr_sampler_url", server.url, "--out", tmp_path / "out"]
    for _ in range(2):
        printed = CliRunner().invoke(commands, ["sample", *map(str, words)], catch_exceptions=False).output
        assert f"{len(server.seen)} candidates in {tmp_path / 'out'}" in printed
    saved = runs.open(tmp_path / "out")
    asked = {query.id: saved.recipe.of(query) for query in saved.queries.values()}
    assert Counter(recipe.name for recipe in asked.values()) == {name: 9 // len(recipes) for name in recipes}
    answered = Counter(one["query"] for one in saved.records("candidates").values())
    for id, recipe in asked.items():
        assert answered[id] in {2 * turns for turns in range(1, 2 + recipe.again)}
