"""What every host does by itself: where a batch goes, and what of a host goes to another process."""

import pickle

import pytest

pytest.importorskip("torch")

import torch

from spr_plugin.errors import UserError
from spr_plugin.training.host import Answering, positions_of


def test_positions_count_what_is_valid_up_to_each():
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    tokens = torch.zeros(2, 3)
    assert positions_of(mask, tokens).tolist() == [[0, 1, 2], [2, 3, 4]]
    assert positions_of(mask, torch.zeros(2, 5)).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]]


@pytest.mark.slow
def test_a_batch_goes_to_the_type_that_the_model_computes_in(live_llava):
    host, _ = live_llava()
    host.trainer.model.double()
    whole = torch.ones(2, dtype=torch.long)
    batch = {"a": [torch.ones(2), {"b": (whole, None, 3, "text")}]}
    moved = Answering.on_device(host, batch)
    half, inner = moved["a"]
    assert half.dtype == torch.float64 and inner["b"][0].dtype == torch.long
    assert inner["b"][1:] == (None, 3, "text") and isinstance(inner["b"], tuple)


@pytest.mark.slow
def test_a_step_s_batch_goes_as_transformers_trainer_sends_it(live_llava):
    """Also nested, and whatever the host's own trainer knows of its batches."""
    host, _ = live_llava()

    def none(data):
        raise AssertionError("the host's own was asked")

    host.trainer._prepare_inputs = host.trainer._prepare_input = none
    moved = host.on_device({"ids": torch.ones(2), "more": [{"x": torch.zeros(1)}, "text"]})
    assert moved["ids"].device == host.trainer.args.device
    assert torch.equal(moved["more"][0]["x"], torch.zeros(1)) and moved["more"][1] == "text"


@pytest.mark.slow
def test_rows_are_made_in_another_process_without_trainer_and_model(live_llava, pairs):
    host, _ = live_llava()
    (pair,) = pairs(1)
    there = pickle.loads(pickle.dumps(host))
    assert type(there) is type(host) and not hasattr(there, "trainer")
    assert not any(hasattr(value, "named_parameters") for value in vars(there).values())
    own, theirs = (one.row(pair.pictures, pair.prompt, pair.chosen) for one in (host, there))
    assert all(torch.equal(own[name], theirs[name]) for name in own) and own.keys() == theirs.keys()


@pytest.mark.slow
def test_what_cannot_be_pickled_is_one_line(live_llava):
    host, _ = live_llava()
    host.of_a_lab = lambda: None
    with pytest.raises(UserError, match="^LlavaHost cannot go to data loader workers .*workers 0$") as caught:
        pickle.dumps(host)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_step_of_decoding_goes_on_from_the_cache(live_llava, random_llava):
    """Token by token behind what was read, as in one forward."""
    host, _ = live_llava()
    model, (decoder, head) = host.trainer.model.eval(), host.language_model()
    ids = torch.randint(5, 300, (2, 7))
    mask = torch.ones_like(ids)
    with torch.no_grad():
        whole = head(decoder(input_ids=ids, attention_mask=mask).last_hidden_state[:, -1])
        first = decoder(input_ids=ids[:, :4], attention_mask=mask[:, :4], use_cache=True, return_dict=True)
        cache = first.past_key_values
        for end in (5, 7):
            logits, cache = host.step(ids[:, cache.get_seq_length() : end], mask[:, :end], cache)
    assert not model.training and torch.allclose(logits, whole, atol=1e-4)
