"""What can be known before anything trains is said then, in one line, and nothing of ours is on the disk by
then; the mended command runs."""

import dataclasses
import random
import re
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from spr_plugin import follow
from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.files import read_json
from spr_plugin.runs.log import Log
from spr_plugin.training.trainable import adapter_weights
from tests.dpo import live
from tests.hosts import make_vlm
from tests.random_llava import coco_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
CLIP = str(ROOT / "examples" / "tiny_world" / "clip")
ANY = dict(spr_plugin=[str(ROOT / "tests" / "hosts" / "any_answer.py")], spr_recipe="any")
SMALL = dict(
    spr_prompts=["plain"],
    spr_regions=4,
    spr_more_than=1,
    spr_max_new_tokens=6,
    spr_batch_size=2,
    spr_learning_rate=1e-2,
    spr_min_kept=0.0,
    spr_epochs=1.0,
)


class Trained(Exception):
    """The host's training was reached: all checks had passed."""


def host_train():
    raise Trained


@pytest.fixture(scope="module")
def coco(random_llava, tmp_path_factory):
    """Four boxes on each of the random LLaVA's pictures."""
    file = coco_of(tmp_path_factory.mktemp("source"))
    return dict(spr_annotations=str(file), spr_image_folder=str(random_llava / "images"))


@pytest.fixture
def begin(random_llava, coco, tmp_path):
    """``begin(settings of live.build…)`` → a refusal's line, or None where the host's training began."""

    def build(**settings):
        return live.build(random_llava, tmp_path / "out", **{**SMALL, **ANY, **coco, **settings})

    def go(change=lambda host: None, **settings):
        host, config = build(**settings)
        change(host)
        return begun(host.trainer, host.namespace, config)

    go.host = build
    return go


def begun(trainer, namespace, config) -> str | None:
    try:
        follow.train(trainer, config, namespace, host_train)
    except Trained:
        return None
    except UserError as error:
        assert "\n" not in str(error)
        return str(error)
    raise AssertionError("neither refused nor trained")


def nothing_of_ours(out: Path) -> bool:
    return not (out / "spr").exists()


# --- the model


@pytest.fixture(scope="module")
def vlm(coco, tmp_path_factory):
    """``vlm(peft config, …)`` → (trainer, config) of a Hugging Face model under a plain Trainer."""

    def go(settings=None, family="internvl", name="default", change=lambda model, processor: None, **flags):
        model, processor = make_vlm.make(family)
        if settings is not None:
            import peft

            model = peft.get_peft_model(model, settings, adapter_name=name)
        change(model, processor)
        out = tmp_path_factory.mktemp("out")
        arguments = transformers.TrainingArguments(
            str(out), use_cpu=True, report_to=[], remove_unused_columns=False, save_strategy="no"
        )
        trainer = transformers.Trainer(model, arguments, train_dataset=[0], processing_class=processor)
        return trainer, SPRConfig(spr=True, **{**SMALL, **ANY, **coco, **flags})

    return go


def lora(**more):
    from peft import LoraConfig

    return LoraConfig(**{"r": 4, "target_modules": r".*language_model.*\.(q_proj|v_proj)", **more})


def prompts():
    from peft import PromptTuningConfig

    return PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=4, token_dim=32, num_layers=2, num_attention_heads=4
    )


REFUSED = {
    "lora on the head": (
        lambda: lora(target_modules=["q_proj", "lm_head"]),
        "head, which PEFT has wrapped.*target_modules",
    ),
    "dora on the head": (
        lambda: lora(target_modules=["q_proj", "lm_head"], use_dora=True),
        "head, which PEFT has wrapped.*target_modules",
    ),
    "a saved head": (
        lambda: lora(modules_to_save=["lm_head"]),
        "head, which PEFT has wrapped.*modules_to_save",
    ),
    "prompts": (prompts, "PEFT's PROMPT_TUNING"),
    "nothing but a frozen adapter": (
        lambda: lora(inference_mode=True),
        "nothing to train.*give its adapter targets there",
    ),
    "an adapter elsewhere": (
        lambda: lora(target_modules=r".*vision_tower.*\.(q_proj|v_proj)"),
        "nothing to train.*give its adapter targets there",
    ),
}


def refused(trainer, config, words: str) -> None:
    line = begun(trainer, {}, config)
    assert line and re.search(words, line), line
    assert nothing_of_ours(Path(trainer.args.output_dir))


@pytest.mark.parametrize("kind", REFUSED)
def test_adapters_that_the_stage_cannot_train(vlm, kind):
    make, words = REFUSED[kind]
    trainer, config = vlm(make())
    if "nothing to train" in words:  # else the stage would wait for a train() that moves the language model
        config = dataclasses.replace(config, spr_only=True)
    refused(trainer, config, words)


def ia3():
    from peft import IA3Config

    return IA3Config(
        target_modules=r".*language_model.*\.(k_proj|v_proj|down_proj)",
        feedforward_modules=r".*language_model.*\.down_proj",
    )


def loha():
    from peft import LoHaConfig

    return LoHaConfig(r=4, target_modules=r".*language_model.*\.(q_proj|v_proj)")


TRAINED = {
    "the stage's old name": (lora, "spr"),
    "dora": (lambda: lora(use_dora=True, use_rslora=True), "default"),
    "embeddings too": (lambda: lora(modules_to_save=["embed_tokens"]), "default"),
    "ia3": (ia3, "default"),
    "loha": (loha, "default"),
}


@pytest.mark.parametrize("kind", TRAINED)
def test_a_host_s_own_adapter_is_what_trains_whatever_its_kind_and_name(vlm, kind):
    """And the host gets its structure back; a second adapter, which is not in use, stays as it is."""
    make, name = TRAINED[kind]
    trainer, config = vlm(make(), name=name, spr_only=True)
    if kind == "the stage's old name":
        trainer.model.add_adapter("unused", make())
    model = trainer.model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    follow.train(trainer, config, {}, host_train)
    after = dict(model.named_parameters())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert after.keys() == before.keys() and moved and moved <= adapter_weights(model)
    assert moved == {n for n in adapter_weights(model) if f".{name}." in n or n.endswith(f".{name}")}
    saved = read_json(Path(trainer.args.output_dir) / "spr" / "exit.json")["weights"]
    assert moved <= saved.keys()


class Scaled(torch.nn.Linear):
    def forward(self, hidden):
        return 2 * super().forward(hidden)


def scaled_head(model, processor):
    model.lm_head = Scaled(32, model.lm_head.out_features, bias=False)


def quantized_head(model, processor):
    model.lm_head.weight = torch.nn.Parameter(
        model.lm_head.weight.detach().mul(9).to(torch.int8), requires_grad=False
    )


def capped(model, processor):
    model.get_decoder().config.final_logit_softcapping = 30.0


def frozen_adapter(model, processor):
    import peft

    peft.inject_adapter_in_model(lora(inference_mode=True), model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" not in name)


MODELS = {
    "all weights beside a frozen adapter": (
        frozen_adapter,
        "beside an adapter that is frozen.*--spr_tune full",
    ),
    "a scaled head": (scaled_head, "head; this is a Scaled"),
    "a quantized head": (quantized_head, "head; this is a Linear of torch.int8"),
    "capped logits": (capped, "final_logit_softcapping = 30.0"),
}


@pytest.mark.parametrize("kind", MODELS)
def test_models_that_cannot_do_it(vlm, kind):
    change, words = MODELS[kind]
    refused(*vlm(change=change), words)


def test_a_script_without_a_clip_is_told_and_the_mended_command_runs_on_the_same_folder(vlm):
    trainer, config = vlm(spr_recipe="spr", spr_plugin=[])
    refused(trainer, config, "^--spr_clip: .*name a CLIP checkpoint")
    assert begun(trainer, {}, dataclasses.replace(config, spr_clip=CLIP)) is None
    assert read_json(Path(trainer.args.output_dir) / "spr" / "manifest.json")["config"]["spr_clip"] == CLIP


# --- flags and files


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


def no_images(host):
    host.dataset.data_args.image_folder = None


def no_data(host):
    host.dataset.tokenizer = None


FLAGS = {
    "another scorer": (dict(spr_recipe="spr", spr_scorer="none"), "--spr_scorer none"),
    "a clip that is none": (dict(spr_recipe="spr", spr_clip="/nowhere"), "--spr_clip /nowhere"),
    "no usable region": (dict(spr_more_than=9), "gives no usable region"),
    "no folder of pictures": (
        dict(change=no_images, spr_image_folder=None),
        "image_folder: name the folder of the pictures",
    ),
    "a folder without candidates": (dict(spr_candidates="/nowhere"), "--spr_candidates /nowhere"),
    "a data set that raises": (dict(change=no_data), "LlavaHost fails on query .*images/.*NoneType"),
}


@pytest.mark.parametrize(
    ("text", "words"),
    [("[]", "COCO"), ('{"images": [], "annotations": [], "categories": []}', "no usable region")],
)
def test_annotations_of_the_wrong_kind(begin, tmp_path, text, words):
    (tmp_path / "wrong.json").write_text(text)
    line = begin(spr_annotations=str(tmp_path / "wrong.json"))
    assert "--spr_annotations" in line and "wrong.json" in line and words in line
    assert nothing_of_ours(tmp_path / "out")


def test_a_folder_without_a_clip(begin, tmp_path):
    line = begin(spr_recipe="spr", spr_clip=str(tmp_path))
    assert "--spr_clip" in line and str(tmp_path) in line and nothing_of_ours(tmp_path / "out")


@pytest.mark.parametrize("kind", FLAGS)
def test_flags_and_files(begin, tmp_path, kind):
    settings, words = FLAGS[kind]
    line = begin(**settings)
    assert line and re.search(words, line), line
    assert nothing_of_ours(tmp_path / "out")
    assert begin() is None  # nothing was bound: the mended command runs


def test_settings_of_the_stage_s_trainer(begin, tmp_path):
    file = tmp_path / "dpo.yaml"
    file.write_text("lr_scheduler_type: zigzag")
    line = begin(spr_dpo_config=str(file))
    assert line and line.startswith(f"--spr_dpo_config {file}: ") and "zigzag" in line, line
    assert nothing_of_ours(tmp_path / "out")
    file.write_text(
        "lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr: 1e-7}\nreport_to: "
        "none\nlearning_rate: 5e-5"
    )
    assert begin(spr_dpo_config=str(file)) is None


@pytest.mark.parametrize("named", [{}, {"spr_sampler_model": "mine"}])
def test_a_server_that_does_not_answer(begin, tmp_path, monkeypatch, named):
    monkeypatch.setattr("spr_plugin.sampling.server.RETRIES", 0)
    url = closed_port()
    line = begin(spr_sampler="openai", spr_sampler_url=url, **named)
    assert line and f"--spr_sampler_url {url}: Connection error" in line
    assert nothing_of_ours(tmp_path / "out")


def test_a_missing_client(begin, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    assert "pip install 'spr-plugin[server]'" in begin(
        spr_sampler="openai", spr_sampler_url="http://127.0.0.1:1/v1"
    )
    assert nothing_of_ours(tmp_path / "out")


def test_a_script_that_could_not_save_the_base(begin, tmp_path, monkeypatch):
    """Known before, not when the host's training is over."""
    host, config = begin.host(lora=True, args={"lora_enable": True}, spr_save_base=True)
    fork = {name: value for name, value in host.namespace.items() if "_maybe_zero_3" not in name}
    assert "--spr_save_base: this LLaVA-like script lacks get_peft_state_maybe_zero_3" in begun(
        host.trainer, fork, config
    )
    assert begun(host.trainer, host.namespace, config) is None


# --- what is on the disk already


def test_a_refused_command_leaves_an_earlier_run_as_it_was(begin, tmp_path):
    """Also with the flags that delete."""
    assert begin() is None
    spr = tmp_path / "out" / "spr"
    Log(spr / "scores").append({"id": "a region"})
    before = {path: path.read_bytes() for path in spr.rglob("*") if path.is_file() and path.name != "lock"}
    for flag in ("spr_overwrite", "spr_restart_dpo"):
        assert "--spr_candidates /nowhere" in begin(spr_candidates="/nowhere", **{flag: True})
        assert {
            path: path.read_bytes() for path in spr.rglob("*") if path.is_file() and path.name != "lock"
        } == before and len(before) == 9


def test_candidates_of_the_folder_that_is_to_be_deleted(begin, tmp_path):
    assert begin() is None
    spr = tmp_path / "out" / "spr"
    assert f"--spr_candidates {spr} lies in what --spr_overwrite deletes" in begin(
        spr_candidates=str(spr), spr_overwrite=True
    )
    assert (spr / "manifest.json").exists()


def test_the_host_s_training_draws_as_if_nobody_had_asked_before(begin):
    """What its data set draws as it is asked is `test_rehearsal`'s to see."""
    host, config = begin.host()
    states = lambda: (random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist())
    before = states()
    assert begun(host.trainer, host.namespace, config) is None and states() == before
