"""The DPO loss and its log-probs against naive references and against TRL."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from spr_plugin.config import SPRConfig
from spr_plugin.dpo import PreferencePhase, completion_log_probs, dpo_loss, dropout_off

TINY = Path(__file__).parents[1] / "examples" / "tiny_world"


def naive_log_probs(logits, labels):
    sums, counts = [], []
    for row, label in zip(logits.double().tolist(), labels.tolist()):
        total, n = 0.0, 0
        for t in range(len(label) - 1):
            if label[t + 1] == -100:
                continue
            scores = row[t]
            total += scores[label[t + 1]] - math.log(sum(math.exp(s) for s in scores))
            n += 1
        sums.append(total)
        counts.append(n)
    return sums, counts


@pytest.mark.parametrize("seed", range(3))
def test_log_probs_are_summed_over_completion_positions_alone(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 9, 7, generator=generator)
    labels = torch.randint(0, 7, (4, 9), generator=generator)
    labels[:, :3] = -100
    labels[1, 6:] = -100
    labels[3, :] = -100
    sums, counts = completion_log_probs(logits, labels)
    expected, n = naive_log_probs(logits, labels)
    assert sums.tolist() == pytest.approx(expected, abs=1e-5)
    assert counts.tolist() == n


def test_half_precision_logits_are_summed_in_fp32():
    logits = torch.randn(2, 5, 11, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = torch.tensor([[-100, 1, 2, 3, 4]] * 2)
    sums, _ = completion_log_probs(logits, labels)
    assert sums.dtype == torch.float32
    assert sums.tolist() == pytest.approx(naive_log_probs(logits.float(), labels)[0], abs=1e-5)


def test_loss_by_hand():
    loss, chosen, rejected = dpo_loss(*(torch.tensor([v]) for v in (-10.0, -12.0, -11.0, -11.0)), beta=0.5)
    assert (chosen.item(), rejected.item()) == (0.5, -0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1.0)), abs=1e-6)


def test_where_policy_is_reference_the_loss_is_log_2():
    same = torch.tensor([-3.0, -50.0])
    loss, chosen, rejected = dpo_loss(same, same - 1, same, same - 1, beta=0.1)
    assert loss.tolist() == pytest.approx([math.log(2)] * 2)
    assert not chosen.any() and not rejected.any()


@pytest.mark.parametrize("pairing", ["best_worst", "sft"])
def test_sft_on_the_chosen_alone_knows_no_rejected(pairing):
    """The loss that the phase hands to the host's Trainer, for two pairs of random logits."""
    logits = torch.randn(4, 6, 9, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[-100, -100, 1, 2, 3, 4]] * 3 + [[-100, -100, 1, 2, -100, -100]])

    class Phase(PreferencePhase):
        spr = SimpleNamespace(logits_and_labels=lambda model, batch: (logits, labels)), SPRConfig(spr=True, spr_pairing=pairing, spr_beta=0.3)
        spr_metrics = []

    sums, counts = naive_log_probs(logits, labels)
    loss = Phase().compute_loss(None, {"batch": {}, "reference": torch.tensor([-9.0, -8.0, -7.0, -6.0])}).item()
    if pairing == "sft":
        assert loss == pytest.approx(-(sums[0] / counts[0] + sums[1] / counts[1]) / 2, abs=1e-5)
    else:
        margins = [0.3 * ((sums[0] + 9) - (sums[2] + 7)), 0.3 * ((sums[1] + 8) - (sums[3] + 6))]
        assert loss == pytest.approx(sum(math.log(1 + math.exp(-m)) for m in margins) / 2, abs=1e-5)


def test_dropout_is_off_inside_and_back_after():
    model = torch.nn.Sequential(torch.nn.Dropout(0.3), torch.nn.Linear(2, 2))
    model[1].attention_dropout = 0.2
    with dropout_off(model):
        assert model[0].p == 0 and model[1].attention_dropout == 0
    assert model[0].p == 0.3 and model[1].attention_dropout == 0.2


@pytest.fixture
def tiny_text_model():
    """A random Llama with the tiny world's tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(TINY / "llava", use_fast=False)
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2)
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), pad_token_id=0, bos_token_id=1, eos_token_id=2, **sizes)), tokenizer


@pytest.fixture
def tiny_text_pairs():
    from datasets import Dataset

    rows = [("where is it ? ", f"a red circle at 0.{n}1 .", f"a blue square at 0.{n}7 and a green ring .") for n in range(4)]
    return Dataset.from_list([dict(zip(("prompt", "chosen", "rejected"), row)) for row in rows])


@pytest.mark.slow
def test_loss_and_gradients_equal_trl(tmp_path, tiny_text_model, tiny_text_pairs):
    """TRL's own DPOTrainer on the same model and pairs: loss and every gradient to 1e-5."""
    trl = pytest.importorskip("trl", reason="the legacy environment has no TRL that fits its transformers")
    import copy

    policy, tokenizer = tiny_text_model
    reference = copy.deepcopy(policy)
    with torch.no_grad():  # a policy that has moved, so that nothing cancels
        for parameter in policy.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path), beta=0.3, use_cpu=True, report_to=[], per_device_train_batch_size=4, disable_dropout=True, max_length=None
    )
    trainer = trl.DPOTrainer(
        model=copy.deepcopy(policy), ref_model=reference, args=arguments, train_dataset=tiny_text_pairs, processing_class=tokenizer
    )
    batch = next(iter(trainer.get_train_dataloader()))
    theirs = trainer.compute_loss(trainer.model, batch)
    theirs.backward()

    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    (chosen, rejected) = completion_log_probs(policy(**inputs).logits, labels)[0].chunk(2)
    with torch.no_grad():
        (ref_chosen, ref_rejected) = completion_log_probs(reference(**inputs).logits, labels)[0].chunk(2)
    ours = dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=0.3)[0].mean()
    ours.backward()

    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    for (name, mine), (_, other) in zip(policy.named_parameters(), trainer.model.named_parameters()):
        assert torch.allclose(mine.grad, other.grad, atol=1e-5), name
