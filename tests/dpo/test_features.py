"""Image features that are kept: a picture is encoded once, within a budget, and only while the encoder is
frozen.
"""

import pytest
import torch

from spr_plugin.dpo import choose_trainable, improve
from spr_plugin.dpo.features import FeatureCache, cached_features
from spr_plugin.dpo.pairs import batch_of
from spr_plugin.dpo.rows import answers
from spr_plugin.recipes.find import find_recipe
from spr_plugin.runs.layout import Folder


def counted_encoder(host, monkeypatch):
    seen = []
    encode = host.llava.encode_images
    monkeypatch.setattr(
        host.llava, "encode_images", lambda pictures: seen.append(len(pictures)) or encode(pictures)
    )
    return seen


def frozen(host):
    for name, parameter in host.trainer.model.named_parameters():
        parameter.requires_grad_(host.part_of(name) == "language model")


def test_a_picture_is_encoded_once(live_llava, pairs, monkeypatch):
    host, _ = live_llava()
    frozen(host)
    seen = counted_encoder(host, monkeypatch)
    inputs, cache, sums = batch_of(host, pairs(3)), FeatureCache(1 << 20), []
    for _ in range(2):
        with cached_features(host, cache, inputs["pictures"], False):
            sums.append(answers(host, host.trainer.model, inputs["batch"], inputs["unshared"], True).sums)
    assert seen == [3]
    assert torch.equal(*sums)
    assert torch.allclose(
        sums[0], answers(host, host.trainer.model, inputs["batch"], inputs["unshared"], True).sums, atol=1e-5
    )


def test_the_cache_keeps_to_its_budget(live_llava, pairs, monkeypatch):
    host, _ = live_llava()
    frozen(host)
    seen = counted_encoder(host, monkeypatch)
    inputs = batch_of(host, pairs(3))
    one = 4 * 32 * 4  # patches × width × bytes
    cache = FeatureCache(2 * one)
    for _ in range(2):
        with cached_features(host, cache, inputs["pictures"], False):
            answers(host, host.trainer.model, inputs["batch"], inputs["unshared"], True)
    assert seen == [3, 1] and cache.bytes == 2 * one


def test_a_projector_that_trains_is_not_cached_but_its_tower_is(live_llava, pairs):
    host, _ = live_llava()
    model, cache, inputs = host.trainer.model, FeatureCache(1 << 20), batch_of(host, pairs(2))
    for _ in range(2):
        model.zero_grad()
        with cached_features(host, cache, inputs["pictures"], False):
            answers(host, model, inputs["batch"], inputs["unshared"], True).sums.sum().backward()
        assert model.get_model().mm_projector[0].weight.grad.abs().max() > 0
    assert len(cache.kept) == 2


@pytest.mark.parametrize("gib, kept", [(4.0, True), (0.0, False)])
def test_spr_feature_cache_is_how_much_a_stage_keeps(live_llava, pairs, tmp_path, monkeypatch, gib, kept):
    """Two pictures, for the reference and two epochs: two are encoded in all, or two each time and what is
    tried before.
    """
    settings = dict(spr_batch_size=2, spr_epochs=2.0, spr_save_steps=100)
    host, config = live_llava(spr_feature_cache=gib, **settings)
    seen = counted_encoder(host, monkeypatch)
    choose_trainable(host, config)
    before = len(seen)
    improve(
        host,
        find_recipe(config, host.box_format),
        pairs(2),
        [],
        config,
        Folder(tmp_path / "spr"),
        entry="entry",
    )
    assert sum(seen[before:]) == 2 if kept else sum(seen[before:]) >= 6


def test_a_picture_fits_that_fills_the_budget():
    features = torch.zeros(4, 8)
    cache = FeatureCache(2 * features.nbytes)
    for key in ("a", "a", "b", "c"):
        cache.keep(key, features)
    assert list(cache.kept) == ["a", "b"] and cache.bytes == cache.budget
