"""Shims: needed where they say so, harmless elsewhere, and enough for unmodified LLaVA to train, save, resume
and generate.

``bare`` looks at the installed libraries in a process without shims. A test that fails there with "no longer
needed" is good news: narrow the shim's range, or remove it.
"""

import json
import subprocess
import sys
import types

import pytest
import transformers
import transformers.trainer

from spr_plugin.errors import UserError
from spr_plugin.hooks import shims

pytestmark = pytest.mark.legacy
VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])

LOOK = """
import inspect, json, sys, importlib
import transformers.trainer as trainer, transformers
arguments = transformers.TrainingArguments(output_dir="out", use_cpu=True, report_to="none")
names = ["is_sagemaker_mp_enabled", "get_parameter_names", "has_length", "ALL_LAYERNORM_LAYERS", "logger"]
has = lambda f, name: name in inspect.signature(f, follow_wrapped=False).parameters
own = lambda f: inspect.signature(f, follow_wrapped=False).parameters.values()
takes = lambda f, name: has(f, name) or any(p.kind == p.VAR_KEYWORD for p in own(f))
try:
    importlib.import_module("llava.train.llava_trainer")
    llava = ""
except ImportError as error:
    llava = str(error)
print(json.dumps({
    "missing": [name for name in names if not hasattr(trainer, name)],
    "tokenizer": takes(trainer.Trainer.__init__, "tokenizer"),
    "metrics": has(trainer.Trainer._save_checkpoint, "metrics"),
    "sampler": has(trainer.Trainer._get_train_sampler, "train_dataset"),
    "local_rank": arguments.local_rank,
    "safe_globals": hasattr(trainer, "safe_globals"),
    "llava": llava,
}))
"""


def python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def bare():
    done = python(LOOK)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def shimmed():
    done = python("from spr_plugin.hooks import shims; shims.install()\n" + LOOK)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "fact, since, fine",
    [
        ("missing", (4, 53), lambda value: value == []),
        ("tokenizer", (5, 0), bool),
        ("metrics", (4, 47), bool),
        ("local_rank", (5, 0), lambda value: value == 0),
        ("llava", (4, 53), lambda value: value == ""),
    ],
)
def test_shim_is_needed_where_it_says_and_enough(bare, shimmed, fact, since, fine):
    assert fine(shimmed[fact]), shimmed[fact]
    assert fine(bare[fact]) == (VERSION < since), (
        f"{fact}: the shim is no longer needed on transformers {transformers.__version__}"
    )


@pytest.mark.slow
def test_sampler_shim_is_needed_where_it_says(bare):
    assert bare["sampler"] == (VERSION >= (4, 51)), "sampler_of_llava_trainer is no longer needed"


@pytest.mark.slow
def test_random_state_shim_is_needed_where_it_says(bare):
    assert bare["safe_globals"] == (VERSION >= (4, 48)), "random_state_of_trainer is no longer needed"


def test_needed_compares_with_the_installed_version():
    after = (VERSION[0], VERSION[1] + 1)
    assert shims.needed() and shims.needed(VERSION) and shims.needed((4, 0), after)
    assert not shims.needed(after) and not shims.needed(None, VERSION)


@pytest.mark.slow
def test_install_works_before_and_after_transformers_is_imported():
    tell = (
        "from llava.train.llava_trainer import LLaVATrainer as T; print(hasattr(T._get_train_sampler,"
        " '__wrapped__'))"
    )
    install, load = (
        "from spr_plugin.hooks import shims; shims.install(); shims.install()",
        "import transformers.trainer, llava.model",
    )
    for order in ((install, load), (load, install)):
        done = python("; ".join([*order, tell]))
        assert done.stdout.split()[-1:] == [str(VERSION >= (4, 51))], done.stderr


# --- each change of a class, on a class in little


def test_unknown_forward_arguments_are_dropped_and_the_signature_stays():
    import inspect

    class Model:
        def forward(self, input_ids=None, images=None):
            return input_ids, images

    shims._drop_unknown(Model)
    shims._drop_unknown(Model)
    assert Model().forward(1, images=2, cache_position=3) == (1, 2)
    assert list(inspect.signature(Model.forward).parameters) == ["self", "input_ids", "images"]


def test_tokenizer_becomes_the_processing_class():
    class Trainer:
        def __init__(self, model, processing_class=None):
            self.processing_class = processing_class

    shims._rename_tokenizer(Trainer)
    assert Trainer("m", tokenizer="t").processing_class == "t"
    assert Trainer("m", processing_class="p", tokenizer="t").processing_class == "p"


def test_metrics_are_accepted():
    class Trainer:
        def _save_checkpoint(self, model, trial):
            return model, trial

    shims._accept_metrics(Trainer)
    assert Trainer()._save_checkpoint(1, 2, None) == (1, 2)


def test_a_sampler_without_arguments_is_given_none():
    class Trainer:
        def _get_train_sampler(self):
            return "sampler"

    shims._accept_dataset(Trainer)
    assert Trainer()._get_train_sampler("data") == Trainer()._get_train_sampler() == "sampler"


def test_copy_to_cpu_is_maybe_zero_3_without_deepspeed(monkeypatch):
    import torch

    parameter = torch.nn.Parameter(torch.ones(2))
    copied = shims.copy_to_cpu(parameter, ignore_status=True, name="w")
    assert (
        torch.equal(copied, parameter)
        and not copied.requires_grad
        and copied.data_ptr() != parameter.data_ptr()
    )
    for there, expected in ((False, shims.copy_to_cpu), (True, "theirs")):
        monkeypatch.setattr(shims, "_has_deepspeed", lambda there=there: there)
        namespace = {"maybe_zero_3": "theirs"}
        shims.mend_script(namespace)
        assert namespace["maybe_zero_3"] is expected or namespace["maybe_zero_3"] == expected


def test_a_script_without_maybe_zero_3_gets_none(monkeypatch):
    monkeypatch.setattr(shims, "_has_deepspeed", lambda: False)
    namespace = {}
    shims.mend_script(namespace)
    assert namespace == {}


@pytest.mark.slow
def test_swallowed_import_errors_get_one_line(tmp_path):
    (tmp_path / "llava" / "model").mkdir(parents=True)
    (tmp_path / "llava" / "__init__.py").write_text("from .model import LlavaLlamaForCausalLM\n")
    code = "try:\n    from .language_model.llava_llama import LlavaLlamaForCausalLM\nexcept:\n    pass\n"
    (tmp_path / "llava" / "model" / "__init__.py").write_text(code)
    (tmp_path / "llava" / "model" / "language_model").mkdir()
    (tmp_path / "llava" / "model" / "language_model" / "llava_llama.py").write_text(
        "import a_package_nobody_has\n"
    )
    done = python(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from spr_plugin.hooks import shims;"
        " shims.install(); import llava"
    )
    assert (
        "spr: llava.model has no models: No module named 'a_package_nobody_has'" in done.stderr.splitlines()
    )


def test_deepspeed_that_would_be_ignored_is_refused():
    arguments = types.SimpleNamespace(deepspeed="zero2.json")
    with pytest.raises(UserError, match="--deepspeed zero2.json: accelerate .* would ignore it"):
        shims.refuse_ignored_deepspeed(
            types.SimpleNamespace(
                args=arguments, accelerator=types.SimpleNamespace(distributed_type="MULTI_CPU")
            )
        )
    shims.refuse_ignored_deepspeed(
        types.SimpleNamespace(args=arguments, accelerator=types.SimpleNamespace(distributed_type="DEEPSPEED"))
    )
    shims.refuse_ignored_deepspeed(types.SimpleNamespace(args=types.SimpleNamespace(deepspeed=None)))


def test_deepspeed_flag_without_the_package_is_refused(monkeypatch):
    monkeypatch.setattr(shims, "_has_deepspeed", lambda: False)
    with pytest.raises(UserError, match="deepspeed is not installed"):
        shims.prepare_deepspeed(True)


# --- unmodified LLaVA, whole


@pytest.mark.slow
def test_lora_trains_generates_saves_and_resumes(llava_command):
    done = llava_command.run("--lora_enable", "True", "--spr", "--save_steps", 2)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("adapter_config.json", "non_lora_trainables.bin", "config.json", "checkpoint-2"):
        assert (llava_command.output / name).exists()
    again = llava_command.run("--lora_enable", "True", "--spr", "--max_steps", 3, "--save_steps", 2)
    assert again.returncode == 0, again.stderr[-3000:]
    first, second = llava_command.records()
    assert (first["steps"], second["steps"]) == (2, 3)
    assert (
        first["trainer"] == "LLaVATrainer"
        and first["namespace"]
        and first["new_tokens"] >= 5
        and first["warmup"] == 0.03
    )


@pytest.mark.slow
@pytest.mark.skipif(not shims.needed((4, 38), (5, 4)), reason="generate passes nothing LLaVA does not know")
def test_generate_needs_the_forward_shim(llava_command):
    done = llava_command.run("--lora_enable", "True", "--spr_only", without="_drop_unknown")
    assert done.returncode != 0 and "unexpected keyword argument" in done.stderr, (
        "forward_of_llava is no longer needed"
    )


@pytest.mark.slow
@pytest.mark.skipif(hasattr(transformers.trainer, "safe_globals"), reason="this Trainer tells torch of NumPy")
def test_resuming_needs_the_random_state_shim(llava_command):
    assert llava_command.run("--lora_enable", "True", "--spr", "--save_steps", 2).returncode == 0
    done = llava_command.run("--lora_enable", "True", "--spr", "--max_steps", 3, without="_allow_numpy")
    assert done.returncode != 0 and "Weights only load failed" in done.stderr, (
        "random_state_of_trainer is no longer needed"
    )


@pytest.mark.slow
@pytest.mark.skipif(not shims._has_deepspeed(), reason="the legacy environment has no DeepSpeed")
@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("extra", [[], ["--freeze_mm_mlp_adapter", "True"]])
def test_deepspeed_is_really_used_without_a_launcher(llava_command, pytestconfig, stage, extra):
    """Also with a frozen projector: LoRA then leaves the no-decay group empty, on which schedulers once
    stumbled.
    """
    config = pytestconfig.rootpath / "tests" / "deepspeed" / f"zero{stage}.json"
    done = llava_command.run("--lora_enable", "True", "--spr", "--deepspeed", config, *extra)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [record["wrapped"] for record in llava_command.records()] == ["DeepSpeedEngine"]


@pytest.mark.slow
@pytest.mark.skipif(shims._has_deepspeed(), reason="DeepSpeed is installed here")
def test_deepspeed_flag_gets_one_line_where_it_cannot_work(llava_command, pytestconfig):
    done = llava_command.run(
        "--spr", "--deepspeed", pytestconfig.rootpath / "tests" / "deepspeed" / "zero2.json"
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("spr: error: --deepspeed")
