"""The stages on two queries, and what they say of a whole run."""

import dataclasses

import pytest
import torch

from spr_plugin import forecast
from spr_plugin.config import SPRConfig
from spr_plugin.opening import first_round, start_of
from spr_plugin.plugins import load_file
from spr_plugin.runs.layout import Folder
from spr_plugin.tools.trial import Tried, foreseen, pair_of, tried
from spr_plugin.training.cost import Cost
from tests.dpo.test_rounds import SETTINGS
from tests.random_llava import coco_of

pytestmark = pytest.mark.slow


@pytest.fixture
def begun(live_llava, random_llava, tmp_path):
    """``begun(**flags)`` → a run's first round and its queries; answers are nonsense and all valid."""

    def go(**flags):
        source = {"spr_annotations": str(coco_of(tmp_path)), "spr_image_folder": str(random_llava / "images")}
        host, config = live_llava(**{**SETTINGS, **source, "spr_samples": 2, **flags})
        for file in config.spr_plugin:
            load_file(file)
        first = first_round(host, config)
        return first, start_of(first).queries

    return go


def test_the_stages_are_tried_and_no_weight_moves(begun, tmp_path):
    first, queries = begun()
    model = first.host.trainer.model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    folder = Folder.under(tmp_path / "trial")
    found = tried(first, queries[:2], folder, 60)
    # Two prompts a query, two samples each.
    assert (found.answers, found.queries) == (8, 2) and len(folder.log("scores", 0).read()) == 2
    assert all(one.seconds > 0 and one.peak for one in (found.sampling, found.judging, found.step))
    now = {name.replace(".base_layer", ""): p for name, p in model.named_parameters()}
    assert all(torch.equal(value, now[name]) for name, value in before.items())
    plan, config = found.plan, first.config
    assert (plan.pairs, plan.prompts, plan.samples) == (2, config.spr_sample_batch, 2)
    assert (plan.probes, plan.pictures) == (min(6, config.spr_probe_regions, config.spr_sample_batch), 60)
    said = foreseen(first, found, 60)
    assert said.startswith("GiB above the process: ") and all(stage in said for stage in forecast.STAGES)
    assert "; 60 queries at most " in said


def test_imported_answers_are_not_sampled(begun, tmp_path):
    first, queries = begun()
    given = first.config.but_for({"spr_candidates": "elsewhere"})
    found = tried(dataclasses.replace(first, config=given), queries[:2], Folder.under(tmp_path / "trial"), 6)
    assert found.answers == 0 and not (tmp_path / "trial" / "spr" / "candidates").exists()
    assert found.trial.answers == 1
    assert found.told(given).startswith(
        "answers are imported (--spr_candidates); a DPO step of 2 pairs a rank: "
    )


def test_a_pair_is_the_worked_answer_over_the_longest_of_the_query_s(begun):
    first, (query, other, *_) = begun()
    worked = first.recipe.worked(query)
    texts = {"a": "short", "b": "the longest of its own", "c": worked, "d": " "}
    answers = {id: {"query": query.id, "text": text} for id, text in texts.items()}
    answers["e"] = {"query": other.id, "text": "x" * 999}
    pair = pair_of(first, query, answers)
    long = worked if len(worked) > len(texts["b"]) else texts["b"]
    assert long == worked  # which is no rejected one
    assert (pair.chosen, pair.rejected) == (worked, texts["b"])
    assert pair.prompt == first.recipe.question(query) and pair.id == query.id
    alone = pair_of(first, query, {})
    assert alone.chosen == worked != alone.rejected and alone.rejected.strip()


def test_what_was_tried_in_words_and_in_numbers():
    costs = Cost(6.0, 2**30), Cost(1.5, 2**31), Cost(2.0, 2**31)
    one = Tried(8, 2, *costs, shape=None, plan=None)
    assert dataclasses.astuple(one.trial) == (2, 4, 6.0, 1.5, 2.0)
    said = one.told(SPRConfig(spr_batch_size=3))
    assert said == (
        f"8 answers to 2 queries: {costs[0]}; judged: {costs[1]}; a DPO step of 3 pairs a rank: {costs[2]}"
    )
