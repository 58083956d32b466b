"""Joined rows against the host's plain forward: log-probs and gradients of a real LLaVA, whatever its
attention.
"""

import contextlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin.dpo import rows
from spr_plugin.dpo.pairs import batch_of, pair_rows
from spr_plugin.dpo.rows import answers, join_rows, pair_mask
from spr_plugin.errors import UserError
from spr_plugin.training import trainable

# Llama and Mistral as LLaVA wraps them; the window is shorter than a row but longer than a picture.
MODELS = {
    "llama-sdpa": dict(family="llama", attention="sdpa"),
    "llama-eager": dict(family="llama", attention="eager"),
    "mistral-window": dict(family="mistral", attention="sdpa", model_settings={"sliding_window": 12}),
    "mistral-eager-window": dict(family="mistral", attention="eager", model_settings={"sliding_window": 12}),
    "ferret-like": dict(family="ferret", attention="sdpa"),
    "mistral-full": dict(family="mistral", attention="sdpa", model_settings={"sliding_window": None}),
}


def plain_log_probs(host, inputs):
    """The host's own forward with its labels, full logits, no hook of ours but the expanded labels."""
    heard = []
    expand = host.llava.prepare_inputs_labels_for_multimodal
    host.llava.prepare_inputs_labels_for_multimodal = lambda *a, **k: (
        heard.append(expand(*a, **k)) or heard[-1]
    )
    try:
        logits = host.trainer.model(**inputs["batch"]).logits
    finally:
        del host.llava.prepare_inputs_labels_for_multimodal
    labels = heard[0][-1]
    scored = labels[:, 1:] != -100
    chosen = logits[:, :-1].float().log_softmax(-1).gather(-1, labels[:, 1:].clamp(min=0)[..., None])[..., 0]
    return (chosen * scored).sum(1)


@pytest.mark.parametrize("name", MODELS)
def test_log_probs_and_gradients_are_those_of_the_host_s_own_forward(live_llava, pairs, name):
    host, _ = live_llava(**MODELS[name])
    model, inputs = host.trainer.model, batch_of(host, pairs(4))
    weights = torch.linspace(-1, 1, 8)
    gradients = []
    for forward in (
        lambda: plain_log_probs(host, inputs),
        lambda: answers(host, model, inputs["batch"], inputs["unshared"], joined=False).sums,
        lambda: answers(host, model, inputs["batch"], inputs["unshared"], joined=True).sums,
    ):
        model.zero_grad()
        sums = forward()
        (sums * weights).sum().backward()
        gradients.append(
            (sums.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        )
    (plain, expected), *ours = gradients
    assert plain.abs().min() > 1
    for sums, got in ours:
        assert torch.allclose(sums, plain, atol=2e-5, rtol=1e-6), (sums - plain).abs().max()
        assert got.keys() == expected.keys() and "model.mm_projector.0.weight" in got
        for parameter in expected:
            scale = expected[parameter].abs().max().clamp(min=1)
            assert ((got[parameter] - expected[parameter]).abs().max() / scale) < 1e-5, parameter


def test_three_axes_of_positions_restart_with_the_row():
    """M-RoPE: Qwen2.5-VL's own positions of a row with a picture, (3, 2B, T), joined; the real decoder gives
    the same log-probs.
    """
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    text = dict(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, initializer_range=0.2,  # noqa: E501
        rope_parameters={"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4},
    )  # fmt: skip
    sight = dict(
        depth=1,
        hidden_size=32,
        intermediate_size=48,
        num_heads=4,
        out_hidden_size=32,
        patch_size=14,
        fullatt_block_indexes=[0],
    )
    ids = dict(image_token_id=50, video_token_id=51, vision_start_token_id=52, vision_end_token_id=53)
    model = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=text, vision_config=sight, **ids)
    ).eval()
    asked = [1, 2, 52, 50, 50, 50, 50, 53, 3, 4]
    rows_of_tokens = [asked + [5, 6, 7, 8], asked + [9, 10, 0, 0]]
    tokens = torch.tensor(rows_of_tokens)
    labels = tokens.masked_fill(torch.arange(14)[None] < len(asked), -100).masked_fill(tokens == 0, -100)
    batch = {
        "input_ids": tokens, "attention_mask": (tokens != 0).long(), "image_grid_thw": torch.tensor([[1, 4, 4]] * 2),  # noqa: E501
        "pixel_values": torch.randn(16, 3 * 2 * 14 * 14).repeat(2, 1), "mm_token_type_ids": (tokens == 50).int(),  # noqa: E501
    }  # fmt: skip

    class Host:
        def language_model(self):
            return model.model.language_model, model.lm_head

        @contextlib.contextmanager
        def labels_overheard(self):
            yield [labels]

    logits = model(**batch).logits
    own = (
        logits[:, :-1].log_softmax(-1).gather(-1, labels[:, 1:].clamp(min=0)[..., None])[..., 0]
        * (labels[:, 1:] != -100)
    ).sum(1)
    for joined in (False, True):
        sums = answers(Host(), model, batch, [4, 2], joined=joined).sums
        assert torch.allclose(sums, own, atol=1e-5), (joined, sums, own)


def test_the_window_matters_in_that_test(live_llava, pairs):
    sums = []
    for window in (12, None):
        host, _ = live_llava(family="mistral", model_settings={"sliding_window": window})
        inputs = batch_of(host, pairs(1))
        sums.append(answers(host, host.trainer.model, inputs["batch"], inputs["unshared"], joined=True).sums)
    assert (sums[0] - sums[1]).abs().max() > 1e-2


def test_a_joined_row_may_be_longer_than_the_host_s_maximum(live_llava, pairs):
    """P + 2C > model_max_length ≥ P + C: the host's checks are about its own rows."""
    (pair,) = pairs(1)
    host, _ = live_llava()
    inputs = batch_of(host, [pair])
    lengths = [len(row["input_ids"]) - 1 + 4 for row in pair_rows(host, pair)]
    short, _ = live_llava(max_length=max(lengths))
    assert max(lengths) < sum(lengths) - (lengths[0] - inputs["unshared"][0])
    again = batch_of(short, [pair])
    own, joined = (
        answers(short, short.trainer.model, again["batch"], again["unshared"], joined=j).sums
        for j in (False, True)
    )
    assert torch.allclose(own, joined, atol=2e-5)
    assert all(short.fits(row) for row in pair_rows(short, pair))
    cut, _ = live_llava(max_length=max(lengths) - 1)
    assert not all(cut.fits(row) for row in pair_rows(cut, pair))


def test_a_row_that_the_host_cut_is_no_pair(live_llava, pairs):
    (pair,) = pairs(1)
    host, _ = live_llava(max_length=48)
    inputs = batch_of(host, [pair])
    with pytest.raises(ValueError, match="cut a row"):
        answers(host, host.trainer.model, inputs["batch"], inputs["unshared"], joined=True)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_changes_nothing(live_llava, pairs, reentrant):
    host, _ = live_llava()
    model, inputs = host.trainer.model, batch_of(host, pairs(2))
    found = []
    for on in (False, True):
        model.train()
        for parameter in model.parameters():  # as an adapter does: nothing before the decoder's layers trains
            parameter.requires_grad_(False)
        query = model.get_submodule("model.layers.0.self_attn.q_proj").weight.requires_grad_()
        query.grad = None
        if on:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        answers(host, model, inputs["batch"], inputs["unshared"], joined=True).sums.sum().backward()
        found.append(query.grad.clone())
    assert torch.allclose(*found, atol=1e-6) and found[0].abs().max() > 0


def test_what_is_hooked_is_unhooked_also_after_an_error(live_llava, pairs):
    host, _ = live_llava()
    backbone, head = host.language_model()
    inputs = batch_of(host, pairs(1))
    with pytest.raises(AttributeError):
        answers(
            host, host.trainer.model, {**inputs["batch"], "images": "none"}, inputs["unshared"], joined=True
        )
    assert "forward" not in vars(head) and "prepare_inputs_labels_for_multimodal" not in vars(host.llava)
    assert not backbone._forward_pre_hooks


# --- the plan of a joined row


@st.composite
def layouts(draw):
    """(starts, lengths, prompts, width) of B pairs, padded on either side."""
    pairs = draw(st.integers(1, 3))
    prompts = [draw(st.integers(1, 4)) for _ in range(pairs)]
    lengths = [prompts[i % pairs] + draw(st.integers(0, 4)) for i in range(2 * pairs)]
    width = max(lengths) + draw(st.integers(0, 2))
    left = draw(st.booleans())
    return [width - length if left else 0 for length in lengths], lengths, prompts, width


@given(layouts(), st.one_of(st.none(), st.integers(1, 6)))
def test_every_token_sees_what_it_saw_in_its_own_row(layout, window):
    starts, lengths, prompts, width = layout
    pairs = len(prompts)
    plan = join_rows(starts, lengths, prompts, width)
    positions = torch.tensor([max(0, t - starts[row]) for row in range(2 * pairs) for t in range(width)])[
        plan.index
    ]
    seen = pair_mask(plan.branch, positions, window, torch.float32)[:, 0] == 0
    for row in range(2 * pairs):
        pair = row % pairs
        for t in range(lengths[row]):
            position = plan.inverse[row, starts[row] + t].item()
            assert position // plan.index.shape[1] == pair
            visible = seen[pair, position % plan.index.shape[1]].nonzero()[:, 0].tolist()
            own = [
                plan.inverse[row, starts[row] + s].item() % plan.index.shape[1]
                for s in range(t + 1)
                if window is None or t - s < window
            ]
            assert sorted(visible) == sorted(own)
            # It comes from its own row, or, in the prompt, from the same position of the chosen one.
            source = plan.index[pair, position % plan.index.shape[1]].item()
            home = row if t >= prompts[pair] else pair
            assert source == home * width + starts[home] + t


def test_mixed_attention_is_not_joined():
    class Config:
        _attn_implementation, layer_types = "sdpa", ["full_attention", "sliding_attention"]

    assert "mix full_attention and sliding_attention" in rows.no_joining(Config)
    Config.layer_types = ["full_attention"] * 2
    assert rows.no_joining(Config) is None
    Config._attn_implementation = "flash_attention_2"
    assert "flash_attention_2" in rows.no_joining(Config)


def test_a_head_that_does_more_than_a_linear_map_is_refused():
    class Config:
        final_logit_softcapping = None

    trainable.refuse_head(torch.nn.Linear(2, 3), Config)
    Config.final_logit_softcapping = 30.0
    with pytest.raises(UserError, match="final_logit_softcapping"):
        trainable.refuse_head(torch.nn.Linear(2, 3), Config)
    with pytest.raises(UserError, match="Embedding"):
        trainable.refuse_head(torch.nn.Embedding(2, 3), Config)
