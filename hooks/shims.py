"""Compatibility shims: unmodified LLaVA code on a transformers that is years younger.

Each shim is one function. The decorator says which module it waits for and which versions of transformers
need it; outside them it does nothing, so 4.37.2, the version LLaVA was written for, stays as it is but for
what a younger torch asks. ``tests/hooks/test_shims.py`` fails when a shim is no longer needed.
:func:`install` is called by the boot module with ``--spr``, and by the lmms-eval entry point.

Standard library only at import: this is read before transformers is.
"""

import functools
import importlib.util
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass

from spr_plugin.errors import UserError
from spr_plugin.imports import after_import, once
from spr_plugin.lines import say

OLDEST, NEWEST = (4, 37), (5, 23)  # transformers that the tests have seen; docs/hosts.md has the table
LLAVA_MODELS = {
    "llava.model.language_model.llava_llama": "LlavaLlamaForCausalLM",
    "llava.model.language_model.llava_mistral": "LlavaMistralForCausalLM",
}


@dataclass(frozen=True)
class Shim:
    """``change(module)`` after each of ``modules`` was imported, where transformers lies in the range."""

    change: Callable
    modules: tuple[str, ...]
    since: tuple[int, int] | None
    until: tuple[int, int] | None

    def __call__(self, module) -> None:
        if self.needed():
            self.change(module)

    def needed(self) -> bool:
        return needed(self.since, self.until)


SHIMS: list[Shim] = []


def shim(*modules, since=None, until=None):
    """Register ``function(module)`` to run after each of ``modules`` was imported, on transformers from
    ``since`` on and before ``until``.
    """

    def register(function):
        SHIMS.append(Shim(function, modules, since, until))
        return function

    return register


def needed(since=None, until=None) -> bool:
    """Whether the installed transformers lies in the range of pairs like (4, 47); None leaves an end open."""
    import transformers

    version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    return (since is None or version >= since) and (until is None or version < until)


def check_transformers() -> None:
    """UserError below the versions that were tested, one line above them."""
    import transformers

    if needed(until=OLDEST):
        raise UserError(f"transformers {transformers.__version__} is too old: 4.37 is the first that works")
    if needed(since=(NEWEST[0], NEWEST[1] + 1)) and os.environ.get("LOCAL_RANK", "0") == "0":
        say(
            f"transformers {transformers.__version__} is newer than what was tested ({NEWEST[0]}.{NEWEST[1]})"
        )


@functools.cache
def install() -> None:
    """Install every shim: at once where its module is imported already, else when it will be. Twice is
    once.
    """
    for one in SHIMS:
        for module in one.modules:
            after_import(module, one)


# --- transformers' Trainer


@shim("transformers.trainer", since=(4, 53))
def names_of_trainer(module) -> None:
    """``llava_trainer.py`` imports from ``transformers.trainer`` a name that has moved out of it."""
    from transformers.pytorch_utils import ALL_LAYERNORM_LAYERS

    module.ALL_LAYERNORM_LAYERS = ALL_LAYERNORM_LAYERS


@shim("transformers.trainer", since=(5, 0))
def tokenizer_of_trainer(module) -> None:
    """``Trainer(tokenizer=)``, which versions before 5 took."""
    _rename_tokenizer(module.Trainer)


@shim("transformers.trainer", since=(4, 47))
def metrics_of_trainer(module) -> None:
    """``_save_checkpoint(model, trial, metrics)``, as LLaVA's trainer calls it."""
    _accept_metrics(module.Trainer)


@once
def _rename_tokenizer(trainer) -> None:
    host_init = trainer.__init__

    @functools.wraps(host_init)
    def __init__(self, *args, tokenizer=None, **kwargs):
        if tokenizer is not None:
            kwargs.setdefault("processing_class", tokenizer)
        host_init(self, *args, **kwargs)

    trainer.__init__ = __init__


@once
def _accept_metrics(trainer) -> None:
    host_save = trainer._save_checkpoint

    @functools.wraps(host_save)
    def _save_checkpoint(self, model, trial, metrics=None):
        return host_save(self, model, trial)

    trainer._save_checkpoint = _save_checkpoint


@shim("transformers.trainer")
def random_state_of_trainer(module) -> None:
    """Resuming: torch ≥ 2.6 refuses the NumPy arrays in ``rng_state.pth`` unless told of them, and an older
    Trainer does not tell.
    """
    import torch

    if not hasattr(module, "safe_globals") and hasattr(torch.serialization, "safe_globals"):
        _allow_numpy(module.Trainer)


@once
def _allow_numpy(trainer) -> None:
    host_load = trainer._load_rng_state

    @functools.wraps(host_load)
    def _load_rng_state(self, checkpoint):
        import numpy as np
        import torch

        multiarray = np.core.multiarray if np.__version__.startswith("1.") else np._core.multiarray
        with torch.serialization.safe_globals(
            [multiarray._reconstruct, np.ndarray, np.dtype, type(np.dtype(np.uint32))]
        ):
            return host_load(self, checkpoint)

    trainer._load_rng_state = _load_rng_state


@shim("transformers.training_args", since=(5, 0))
def local_rank_of_arguments(module) -> None:
    """transformers 5 leaves ``local_rank`` at -1; LLaVA decides by it who saves and prints, so that every
    rank would save.
    """
    _set_local_rank(module.TrainingArguments)


@once
def _set_local_rank(arguments) -> None:
    host_post_init = arguments.__post_init__

    @functools.wraps(host_post_init)
    def __post_init__(self):
        host_post_init(self)
        if self.local_rank == -1:
            self.local_rank = int(os.environ.get("LOCAL_RANK", 0))

    arguments.__post_init__ = __post_init__


# --- LLaVA


@shim("llava.train.llava_trainer", since=(4, 51))
def sampler_of_llava_trainer(module) -> None:
    """The Trainer passes the data set to ``_get_train_sampler``; LLaVA's takes none."""
    _accept_dataset(module.LLaVATrainer)


@once
def _accept_dataset(trainer) -> None:
    host_sampler = trainer._get_train_sampler
    if len(inspect.signature(host_sampler).parameters) > 1:
        return

    @functools.wraps(host_sampler)
    def _get_train_sampler(self, train_dataset=None):
        return host_sampler(self)

    trainer._get_train_sampler = _get_train_sampler


@shim("llava.train.llava_trainer")
def gather_without_deepspeed(module) -> None:
    """``maybe_zero_3`` imports DeepSpeed to save a plain LoRA model. The script's own copy is replaced by
    :func:`mend_script`.
    """
    if not _has_deepspeed():
        module.maybe_zero_3 = copy_to_cpu


def copy_to_cpu(param, ignore_status=False, name=None):
    """``maybe_zero_3`` where nothing is partitioned."""
    return param.detach().cpu().clone()


def mend_script(namespace: dict) -> None:
    """Shims of the training script itself: it runs as ``__main__``, so that no import of it can be waited
    for.
    """
    if "maybe_zero_3" in namespace and not _has_deepspeed():
        namespace["maybe_zero_3"] = copy_to_cpu


@shim(*LLAVA_MODELS, since=(4, 38), until=(5, 4))
def forward_of_llava(module) -> None:
    """``generate`` hands the model ``cache_position``, which LLaVA's forward does not know."""
    _drop_unknown(getattr(module, LLAVA_MODELS[module.__name__]))


@once
def _drop_unknown(model) -> None:
    host_forward = model.forward
    known = frozenset(inspect.signature(host_forward).parameters)

    # wraps() keeps the signature: a visible **kwargs would make the Trainer believe that the model divides
    # the loss itself.
    @functools.wraps(host_forward)
    def forward(self, *args, **kwargs):
        return host_forward(self, *args, **{key: value for key, value in kwargs.items() if key in known})

    model.forward = forward


@shim("llava.model")
def import_errors_of_llava(module) -> None:
    """``llava/model/__init__.py`` swallows every error; say in one line what went wrong, before "cannot
    import name" hides it.
    """
    if any(name.endswith("ForCausalLM") for name in vars(module)):
        return
    try:
        import llava.model.language_model.llava_llama  # noqa: F401
    except (ImportError, RuntimeError) as error:
        say(f"llava.model has no models: {str(error).splitlines()[0]}")


# --- DeepSpeed


def _has_deepspeed() -> bool:
    return importlib.util.find_spec("deepspeed") is not None


def prepare_deepspeed(use_cpu: bool) -> None:
    """Before the host's TrainingArguments: DeepSpeed must be there, and on a CPU it needs gloo and no
    compiler.

    Its shared-memory collective is compiled at the first use (39 s, and an error without ninja) and serves
    inference only.
    """
    if not _has_deepspeed():
        raise UserError("--deepspeed: the package deepspeed is not installed in this environment")
    import torch

    if not use_cpu and torch.cuda.is_available():
        return
    # The one-line form: deepspeed picks an accelerator when it is first imported.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # LLaVA calls it before it saves under DeepSpeed; here is nothing to wait for.
    torch.cuda.synchronize = lambda device=None: None
    _single_process_rendezvous()
    deepspeed.init_distributed("gloo")


def _single_process_rendezvous() -> None:
    """Without a launcher, be a group of one; else DeepSpeed asks MPI."""
    if "RANK" not in os.environ:
        import socket

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        os.environ.update(
            RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
        )


def refuse_ignored_deepspeed(trainer) -> None:
    """Old accelerate drops ``--deepspeed`` on a CPU without a word and trains plain DDP. Raises UserError
    instead.
    """
    accelerator = getattr(trainer, "accelerator", None)
    if (
        getattr(trainer.args, "deepspeed", None)
        and getattr(accelerator, "distributed_type", None) != "DEEPSPEED"
    ):
        import accelerate
        import transformers

        raise UserError(
            f"--deepspeed {trainer.args.deepspeed}: accelerate {accelerate.__version__} with transformers"
            f" {transformers.__version__} would ignore it here and train without DeepSpeed; leave the flag"
            " out or use newer versions"
        )
