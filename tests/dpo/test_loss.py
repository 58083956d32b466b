"""The losses by hand, and against TRL's own trainer on the same model and pairs."""

import copy
import math
from pathlib import Path

import pytest
import torch

from spr_plugin.config import SPRConfig, dpo_settings, shaping
from spr_plugin.config import trl as settings_of_trl
from spr_plugin.dpo.head import token_log_probs
from spr_plugin.dpo.loss import LossSettings, deltas, metrics, preference_losses, word_drift
from spr_plugin.dpo.plan import slot_plan
from spr_plugin.dpo.rows import Answers
from spr_plugin.errors import UserError

TINY = Path(__file__).parents[2] / "examples" / "tiny_world"


def by_hand(policy, reference, tokens=(2, 4)):
    """Deltas of one pair whose answers have the log-probs ``policy`` (chosen, rejected), evenly over
    ``tokens``.
    """
    scored = torch.tensor([[i < n for i in range(max(tokens))] for n in tokens])
    answers = Answers(torch.tensor([[value / n] for value, n in zip(policy, tokens)]) * scored, scored)
    return deltas(answers, torch.tensor(reference), torch.tensor([float(tokens[0])]))


@pytest.mark.parametrize(
    "name, expected",
    [
        ("sigmoid", math.log(1 + math.exp(-1.0))),
        ("hinge", 0.0),
        ("ipo", (1 / 2 + 1 / 4 - 1) ** 2),
        ("robust", (0.9 * math.log(1 + math.exp(-1.0)) - 0.1 * math.log(1 + math.exp(1.0))) / 0.8),
        ("sigmoid_norm", math.log(1 + math.exp(-0.5 * (1 / 2 + 1 / 4)))),
        ("bco_pair", 2 * math.log(1 + math.exp(-0.5))),
        ("nca_pair", 1.5 * math.log(1 + math.exp(-0.5)) + 0.5 * math.log(1 + math.exp(0.5))),
        ("apo_zero", 2 / (1 + math.exp(0.5))),
        ("dpop", math.log(1 + math.exp(-1.0))),  # chosen has not fallen
        ("sft", 5.0),
    ],
)
def test_losses_by_hand(name, expected):
    """Δ chosen 1 on 2 tokens, Δ rejected -1 on 4 tokens, β ½."""
    pair = by_hand((-10.0, -12.0), [-11.0, -11.0])
    (loss,) = preference_losses(pair, [name], [1.0], LossSettings(0.5, 0.1, 4.0)).tolist()
    assert loss == pytest.approx(expected, abs=1e-6)


def test_dpop_is_dpo_less_what_chosen_has_fallen():
    """Δ chosen -2, Δ rejected -3, β ½, λ 4: δ is 1, and 8 go."""
    pair = by_hand((-12.0, -14.0), [-10.0, -11.0])
    for penalty, margin in ((4.0, 1 - 8), (0.0, 1)):
        (loss,) = preference_losses(pair, ["dpop"], [1.0], LossSettings(0.5, penalty=penalty)).tolist()
        assert loss == pytest.approx(math.log(1 + math.exp(-0.5 * margin)), abs=1e-6)


def test_words_drift_by_hand_and_by_a_loop():
    """Two pairs; the value is a mean over the words of both answers, coordinates and padding are of no
    account, and the gradient is that of the formula."""
    generator = torch.Generator().manual_seed(0)
    lengths = [3, 1, 2, 4]  # chosen of both pairs, rejected of both
    scored = torch.tensor([[index < n for index in range(4)] for n in lengths])
    told = torch.tensor([index % 2 == 1 for n in lengths for index in range(n)])
    entry = torch.randn(sum(lengths), generator=generator, dtype=torch.float64)
    logps = torch.zeros(4, 4, dtype=torch.float64).masked_scatter(scored, entry)
    logps = (
        logps + torch.randn(logps.shape, generator=generator, dtype=torch.float64) * scored
    ).requires_grad_()
    sums, counts, number = [0.0, 0.0], [0, 0], 0
    for row, length in enumerate(lengths):
        for index in range(length):
            if index % 2 == 0:
                ratio = (logps[row, index] - entry[number]).exp()
                sums[row % 2] = sums[row % 2] + ratio - 1 - ratio.log()
                counts[row % 2] += 1
            number += 1
    expected = torch.stack([total / count for total, count in zip(sums, counts)])
    drift = word_drift(Answers(logps, scored), told, entry)
    assert torch.allclose(drift, expected, atol=1e-12) and (drift > 0).all()
    (ours,), (theirs,) = (
        torch.autograd.grad(one.sum(), logps, retain_graph=True) for one in (drift, expected)
    )
    assert torch.allclose(ours, theirs, atol=1e-12) and ours.abs().max() > 0.1
    assert word_drift(Answers(logps, scored), told).tolist() == [0, 0]  # against itself
    assert word_drift(Answers(logps, scored), torch.ones_like(told), entry).tolist() == [0, 0]  # no words
    # A pair of which no answer holds a coordinate has words alone to teach; of the other one nothing changes.
    one = torch.tensor(
        [row % 2 == 1 and index % 2 == 1 for row, n in enumerate(lengths) for index in range(n)]
    )
    assert torch.equal(word_drift(Answers(logps, scored), one, entry), drift * torch.tensor([0, 1]))


@pytest.mark.parametrize("name", ["ipo", "sigmoid_norm", "sft"])
def test_an_answer_of_which_nothing_counts_makes_no_nan(name):
    scored = torch.ones(2, 3, dtype=torch.bool)
    logps = torch.full((2, 3), -1.0, requires_grad=True)
    pair = deltas(Answers(logps, scored, torch.zeros(2, 3)), torch.zeros(2), torch.zeros(1))
    (loss,) = preference_losses(pair, [name], [1.0], LossSettings(0.5))
    loss.backward()
    assert torch.isfinite(loss) and logps.grad.abs().max() == 0


def test_where_policy_is_reference_the_loss_is_log_2():
    pair = by_hand((-3.0, -50.0), [-3.0, -50.0])
    assert preference_losses(pair, ["sigmoid"], [1.0], LossSettings(0.1)).item() == pytest.approx(math.log(2))
    assert {name: value.item() for name, value in metrics(pair, 0.1).items() if "rewards" in name or name == "kl"} == {  # noqa: E501
        "rewards/chosen": 0, "rewards/rejected": 0, "rewards/margins": 0, "rewards/accuracies": 0, "kl": 0,
    }  # fmt: skip


def test_one_answer_that_became_likelier_does_not_drown_the_others_kl():
    """A rejected answer of hundreds of tokens may gain 30 nats while the others lose a few."""
    pair = by_hand((-10.0, -170.0), [-10.0, -200.0])
    assert metrics(pair, 0.5)["kl"].item() == -30


def test_metrics_by_hand():
    """Δ chosen 1 and Δ rejected -1, β ½: TRL's names, and KL's estimate -Δ of the rejected one."""
    found = {
        name: value.item() for name, value in metrics(by_hand((-10.0, -12.0), [-11.0, -11.0]), 0.5).items()
    }
    assert found == pytest.approx(
        {
            "rewards/chosen": 0.5,
            "rewards/rejected": -0.5,
            "rewards/margins": 1.0,
            "rewards/accuracies": 1.0,
            "logps/chosen": -10.0,
            "logps/rejected": -12.0,
            "kl": 1.0,
        }
    )


def test_an_answer_of_one_token_is_that_token_s_sft_term():
    (loss,) = preference_losses(
        by_hand((-3.0, -4.0), [0.0, 0.0], (1, 2)), ["sft"], [1.0], LossSettings(0.1)
    ).tolist()
    assert loss == 3.0


def test_every_loss_has_a_weight():
    with pytest.raises(ValueError):
        preference_losses(by_hand((-3.0, -4.0), [0.0, 0.0]), ["sigmoid", "sft"], [1.0], LossSettings(0.1))


def test_the_sft_term_is_a_mean_over_tokens_and_not_over_pairs():
    """Chosen answers of 1, 3 and 2 tokens of log-prob -6, -1 and -3: 15 / 6; their means' mean is 10 / 3."""
    scored = torch.tensor([[i < n for i in range(3)] for n in (1, 3, 2, 2, 3, 1)])
    answers = Answers(torch.tensor([[-6.0], [-1.0], [-3.0], [-2.0], [-2.0], [-2.0]]) * scored, scored)
    pairs = deltas(answers, torch.zeros(6), torch.full((3,), 2.0))
    assert preference_losses(pairs, ["sft"], [1.0], LossSettings(0.1)).mean().item() == 2.5


@pytest.mark.parametrize("kinds", [["sft"], ["sigmoid", "sft"], ["ipo", "sft"]])
@pytest.mark.parametrize("count", [8, 5], ids=["full", "a last step that is not full"])
@pytest.mark.parametrize(
    "batch, accumulation, world", [(4, 2, 1), (2, 4, 1), (1, 8, 1), (4, 1, 2), (1, 4, 2)]
)
def test_a_step_s_loss_and_gradient_are_those_of_its_pairs_at_once(kinds, count, batch, accumulation, world):
    """However the plan divides them: the Trainer divides by the accumulated steps, ranks average."""
    chosen, rejected = [1, 9, 2, 7, 1, 3, 14, 2][:count], [4, 1, 6, 2, 2, 9, 3, 5][:count]
    scored = torch.tensor([[index < n for index in range(14)] for n in (*chosen, *rejected)])
    logps = (
        torch.randn(scored.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * scored
    )
    found = []
    for sizes in ((8, 1, 1), (batch, accumulation, world)):
        plan = dict(zip(("batch", "accumulation", "world"), sizes))
        slots = slot_plan([1] * count, chosen, epochs=1, seed=0, **plan)
        given = logps.clone().requires_grad_()
        total = 0
        for start in range(0, len(slots), sizes[0]):  # the micro-batches of all ranks
            here = slots[start : start + sizes[0]]
            rows = [slot.pair for slot in here] + [count + slot.pair for slot in here]
            mean = torch.tensor([slot.mean_chosen_tokens for slot in here], dtype=torch.float64)
            pairs = deltas(Answers(given[rows], scored[rows]), logps[rows].sum(1) - 1, mean)
            losses = preference_losses(pairs, kinds, [1.0] * len(kinds), LossSettings(0.5))
            weight = torch.tensor([slot.weight for slot in here], dtype=torch.float64)
            total = total + (losses * weight).sum() / (sizes[1] * sizes[2])
        total.backward()
        found.append((total.item(), given.grad))
    (whole, expected), (divided, gradient) = found
    assert divided == pytest.approx(whole, rel=1e-12)
    assert torch.allclose(gradient, expected, rtol=1e-12, atol=0)
    if kinds == ["sft"]:
        assert whole == pytest.approx(-logps[:count].sum().item() / sum(chosen), rel=1e-12)


def test_ipo_pulls_the_margin_to_half_of_one_over_beta():
    (loss,) = preference_losses(
        by_hand((-10.0, -12.0), [-11.0, -11.0]), ["ipo"], [1.0], LossSettings(0.25)
    ).tolist()
    assert loss == pytest.approx((1 / 2 + 1 / 4 - 2) ** 2)


@pytest.fixture(scope="module")
def text_model():
    """A random Llama with the tiny world's tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(TINY / "llava", use_fast=False)
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2)
    return (
        LlamaForCausalLM(
            LlamaConfig(vocab_size=len(tokenizer), pad_token_id=0, bos_token_id=1, eos_token_id=2, **sizes)
        ),
        tokenizer,
    )


@pytest.fixture(scope="module")
def text_pairs():
    from datasets import Dataset

    # Of unequal lengths, as TRL's sft is a mean over tokens.
    chosen = [f"a red circle at 0.{n}1 ." + " and a ring" * n for n in range(4)]
    rows = [
        ("where is it ? ", chosen[n], "a blue square at 0.27 and a green ring ." * (n % 2 + 1))
        for n in range(4)
    ]
    return Dataset.from_list([dict(zip(("prompt", "chosen", "rejected"), row)) for row in rows])


SETTINGS = {
    "sigmoid": dict(loss_type=["sigmoid"]),
    "hinge": dict(loss_type=["hinge"]),
    "ipo": dict(loss_type=["ipo"]),
    "robust": dict(loss_type=["robust"], label_smoothing=0.2),
    "sigmoid_norm": dict(loss_type=["sigmoid_norm"]),
    "bco_pair": dict(loss_type=["bco_pair"]),
    "nca_pair": dict(loss_type=["nca_pair"]),
    "apo_zero": dict(loss_type=["apo_zero"]),
    "MPO's mixture": dict(loss_type=["sigmoid", "bco_pair", "sft"], loss_weights=[0.8, 0.2, 1.0]),
    "sigmoid and sft": dict(loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.5]),
    "ipo, hinge and sft": dict(loss_type=["ipo", "hinge", "sft"], loss_weights=[0.2, 0.7, 0.1]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_loss_metrics_and_gradients_equal_trl(tmp_path, text_model, text_pairs, name):
    """TRL's own DPOTrainer on the same model and pairs, for a policy that has moved: all to 1e-5."""
    trl = pytest.importorskip("trl", reason="the legacy environment has no TRL that fits its transformers")

    reference, tokenizer = text_model
    policy = copy.deepcopy(reference)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path), beta=0.3, use_cpu=True, report_to=[], per_device_train_batch_size=4, disable_dropout=True,  # noqa: E501
        max_length=None, bf16=False, **SETTINGS[name],
    )  # fmt: skip
    trainer = trl.DPOTrainer(
        model=copy.deepcopy(policy),
        ref_model=copy.deepcopy(reference),
        args=arguments,
        train_dataset=text_pairs,
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    theirs = trainer.compute_loss(trainer.model, batch)
    theirs.backward()

    config = SPRConfig(
        spr=True, spr_beta=0.3, **{f"spr_{key}": value for key, value in SETTINGS[name].items()}
    )
    with torch.no_grad():
        known = scored_answers(reference, batch).sums
    answers = scored_answers(policy, batch)
    pairs = deltas(answers, known, answers.tokens[:4].float().mean().expand(4))
    ours = preference_losses(pairs, *config.losses(), LossSettings(0.3, config.spr_label_smoothing)).mean()
    ours.backward()

    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    for (parameter, mine), (_, other) in zip(policy.named_parameters(), trainer.model.named_parameters()):
        assert torch.allclose(mine.grad, other.grad, atol=1e-5), parameter
    for key, value in metrics(pairs, 0.3).items():
        if key != "kl":
            assert value.mean().item() == pytest.approx(
                trainer._metrics["train"][key][0], abs=1e-5, rel=1e-6
            ), key


def scored_answers(model, batch) -> Answers:
    """Our head over a text model's hidden states."""
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    hidden = model.model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
    ).last_hidden_state
    scored = torch.zeros_like(labels, dtype=torch.bool)
    scored[:, 1:] = labels[:, 1:] != -100
    log_probs = token_log_probs(hidden[:, :-1][scored[:, 1:]], model.lm_head.weight, None, labels[scored])
    return Answers(torch.zeros(labels.shape).masked_scatter(scored, log_probs), scored)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (dict(spr_dpop_lambda=5.0), "--spr_dpop_lambda does nothing without --spr_loss_type dpop"),
        (dict(spr_loss_type=["kl_words"]), "alone it only keeps the model as it is"),
        (dict(spr_loss_type=["exo_pair"]), "--spr_loss_type exo_pair: choose from sigmoid"),
        (dict(spr_loss_type=["dpop"], spr_dpop_lambda=-1.0), "--spr_dpop_lambda -1.0"),
    ],
)
def test_losses_that_make_no_sense_are_one_line(flags, words):
    with pytest.raises(UserError, match=words):
        SPRConfig(spr=True, **flags)


def test_flags_name_the_losses():
    assert SPRConfig(spr=True).losses() == (["sigmoid", "sft"], [1.0, 3.0])
    assert SPRConfig(spr=True, spr_loss_type=["sigmoid"]).losses() == (["sigmoid"], [1.0])
    assert SPRConfig(spr=True, spr_loss_type=["ipo", "sft"], spr_loss_weights=[1.0, 0.5]).losses() == (
        ["ipo", "sft"],
        [1.0, 0.5],
    )
    assert SPRConfig(spr=True, spr_pairing=["sft"]).losses() == (["sft"], [1.0])


# --- --spr_dpo_config


@pytest.mark.parametrize(
    "suffix, text",
    [
        ("json", '{"beta": 0.3, "loss_type": "ipo", "max_grad_norm": 2.0}'),
        ("yaml", "beta: 0.3\nloss_type: [ipo]\nmax_grad_norm: 2.0\n"),
    ],
)
def test_a_file_sets_flags_and_the_trainer_s_arguments(tmp_path, suffix, text):
    path = tmp_path / f"dpo.{suffix}"
    path.write_text(text)
    config = SPRConfig(spr=True, spr_dpo_config=str(path))
    assert (config.spr_beta, config.spr_loss_type, dpo_settings(config)[1]) == (
        0.3,
        ["ipo"],
        {"max_grad_norm": 2.0},
    )
    assert shaping(config)["dpo"]["spr_dpo_config"] == {"max_grad_norm": 2.0}


@pytest.mark.parametrize(
    "text, flags, weights",
    [
        ("loss_type: [sigmoid, sft]", {}, [1.0, 1.0]),  # TRL's own default, not ours
        ("loss_type: [sigmoid, sft]\nloss_weights: [1, 3]", {}, [1.0, 3.0]),
        ("loss_type: [sigmoid, sft]", {"spr_loss_weights": [1.0, 2.0]}, [1.0, 2.0]),
        ("beta: 0.3", {}, [1.0, 3.0]),
    ],
)
def test_losses_that_a_file_names_weigh_what_they_weigh_in_trl(tmp_path, text, flags, weights):
    (tmp_path / "dpo.yaml").write_text(text)
    assert SPRConfig(spr=True, spr_dpo_config=str(tmp_path / "dpo.yaml"), **flags).losses()[1] == weights


@pytest.mark.parametrize(
    "text, words",
    [
        ("use_liger_kernel: true", "use_liger_kernel"),
        ("- beta", "table"),
        ("a: [", "cannot be read"),
        ("loss_type: exo_pair", "exo_pair"),
        ("beta: -1", "spr_beta -1"),
    ],
)
def test_what_the_stage_would_not_honour_is_refused_by_name(tmp_path, text, words):
    (tmp_path / "dpo.yaml").write_text(text)
    with pytest.raises(UserError, match=words):
        SPRConfig(spr=True, spr_dpo_config=str(tmp_path / "dpo.yaml"))


def test_the_names_are_those_of_the_installed_trl():
    """The one thing that the stage takes from TRL: its version matters to nothing else."""
    import dataclasses

    trl = pytest.importorskip("trl", reason="the legacy environment has no TRL that fits its transformers")
    assert {*settings_of_trl.FLAGS, *settings_of_trl.TRAINER} <= {
        field.name for field in dataclasses.fields(trl.DPOConfig)
    }


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="nowhere.json"):
        SPRConfig(spr=True, spr_dpo_config=str(tmp_path / "nowhere.json"))
