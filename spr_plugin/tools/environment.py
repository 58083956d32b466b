"""What `spr doctor` looks at without a command: this environment."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from spr_plugin.errors import UserError
from spr_plugin.hooks import shims
from spr_plugin.plugins import BUILT_IN, BUILT_IN_OF, manager
from spr_plugin.tools.checks import Check, checked

# Package → its names as a distribution, and what needs it where a training does not always.
PACKAGES = {
    "torch": (("torch",), None),
    "transformers": (("transformers",), None),
    "accelerate": (("accelerate",), None),
    "peft": (("peft",), "--spr_tune lora"),
    "deepspeed": (("deepspeed",), "--deepspeed"),
    "trl": (("trl",), "a TRL script"),
    "lmms_eval": (("lmms-eval", "lmms_eval"), "measuring with lmms-eval"),
    "llava": (("llava-torch", "llava"), "a LLaVA command"),
}
LEAST_FREE = 2**30  # bytes; less fills up within a run
_ROLE = re.compile(r":[a-z]+:`~?([^`]+)`")  # a docstring's reference, of which a reader wants the name
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


def environment_checks() -> list[Check]:
    """Everything that is worth knowing before a command is started. No file is left behind, and lmms-eval's
    own tasks, which take long to import, are not read."""
    checks = [
        Check("python", True, _python()),
        checked("boot file", "pip install spr-plugin again, or start with python -m spr_plugin.run", _wakes),
        *(checked(name, _install(name), partial(_version, name)) for name in PACKAGES),
    ]
    there = {name for name in PACKAGES if _is_there(name)}
    if "transformers" in there:
        checks += [checked("transformers version", "see the versions in docs/hosts.md", _tested), *_shims()]
    checks += _hooks()
    if "lmms_eval" in there:
        checks.append(checked("lmms-eval tasks and models", _install("lmms_eval"), _lmms_eval))
    if "torch" in there:
        checks.append(checked("GPU", "mend the driver, or take a torch that was built for it", _gpu))
        network = "let this host's name resolve (/etc/hosts), or name a network by GLOO_SOCKET_IFNAME"
        checks.append(checked("gloo", network, _gloo))
    if {"torch", "deepspeed"} <= there:
        checks.append(checked("DeepSpeed ops", _install("deepspeed"), _deepspeed_ops))
    disks = {"current folder": ".", "temporary files": tempfile.gettempdir(), "models": _cache()}
    for what, folder in disks.items():
        fix = "make room, or take a larger disk (TMPDIR, HF_HOME)"
        checks.append(checked(f"disk, {what}", fix, partial(_disk, folder)))
    return [*checks, Check("offline", True, _offline())]


def _python() -> str:
    return f"{platform.python_version()} ({sys.executable}), {platform.platform()}"


def _wakes() -> str:
    program = "import sys; print('spr_plugin.boot' in sys.modules)"
    command = [sys.executable, "-c", program, "--spr"]
    told = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    if "True" not in told.stdout.split():
        raise UserError("--spr wakes nothing: site-packages has no spr_plugin.pth, or this Python reads none")
    return "--spr is heard by every Python of this environment"


def _is_there(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _install(name: str) -> str:
    extra = {"deepspeed": "deepspeed", "lmms_eval": "eval"}.get(name, "dpo")
    by_hand = {"lmms_eval": "lmms-eval", "llava": "llava-torch"}
    also = f" and pip install --no-deps {by_hand[name]}" if name in by_hand else ""
    return f"pip install 'spr-plugin[{extra}]'{also}"


def _version(name: str) -> str:
    distributions, needed_by = PACKAGES[name]
    if not _is_there(name):
        if needed_by is None:
            raise UserError("is not installed")
        return f"is not installed; {needed_by} needs it"
    for distribution in distributions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(distribution)
    spec = importlib.util.find_spec(name)
    return f"of unknown version, in {next(iter((spec and spec.submodule_search_locations) or ['?']))}"


def _tested() -> str:
    shims.check_transformers()
    (*oldest,), (*newest,) = shims.OLDEST, shims.NEWEST
    newer = shims.needed(since=(newest[0], newest[1] + 1))
    span = f"{'.'.join(map(str, oldest))} to {'.'.join(map(str, newest))}"
    return f"tested are {span}" + ("; this one is newer" if newer else "")


def _shims() -> Iterator[Check]:
    for one in shims.SHIMS:
        if one.needed():
            why = _ROLE.sub(r"\1", " ".join((one.change.__doc__ or "").split())).replace("``", "`")
            yield Check(f"shim {one.change.__name__}", True, f"on {', '.join(one.modules)}: {why}")


def _hooks() -> Iterator[Check]:
    """Who implements each hook: ours, and installed plugins, which are loaded for it."""
    loaded = checked("plugins", "mend or uninstall that plugin", _plugins)
    yield loaded
    if loaded.ok:
        for hook, ours in BUILT_IN_OF.items():
            known = getattr(manager().hook, hook).get_hookimpls()
            theirs = [one.plugin_name for one in known if one.plugin_name not in BUILT_IN]
            names = ", ".join([*theirs, *(name.removeprefix("spr_plugin.") for name in ours)])
            yield Check(f"hook {hook}", True, names)


def _plugins() -> str:
    names = sorted({entry.name for entry in importlib.metadata.entry_points(group="spr_plugin")})
    manager()
    return f"installed: {', '.join(names) or 'none'}; --spr_plugin FILE brings others"


def _lmms_eval() -> str:
    from lmms_eval.models import MODEL_REGISTRY_V2

    from spr_plugin.eval_tasks import catalogue
    from spr_plugin.eval_tasks.register import FOLDER, register

    models = [manifest.model_id for manifest in register()]
    if unseen := set(models) - set(MODEL_REGISTRY_V2.list_canonical_model_ids()):
        raise UserError(
            f"lmms-eval does not see {', '.join(sorted(unseen))}: our entry point is not installed"
        )
    missing = [name for name in catalogue.files() if not (Path(FOLDER) / name).is_file()]
    if missing:
        raise UserError(f"{FOLDER} lacks {len(missing)} task files, such as {missing[0]}")
    return f"models {', '.join(models)}; {len(catalogue.SPLITS)} tasks in {FOLDER}"


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
        if shutil.which("nvidia-smi") and not hidden:
            built = "" if torch.version.cuda else ": it was built for CPUs"
            raise UserError(f"nvidia-smi is there, and torch {torch.__version__} sees none{built}")
        return "none" + (" (CUDA_VISIBLE_DEVICES hides them)" if hidden else "; everything runs on the CPU")
    gpus = []
    for number in range(torch.cuda.device_count()):
        torch.ones(1, device=f"cuda:{number}").sum().item()
        free, whole = torch.cuda.mem_get_info(number)
        name = torch.cuda.get_device_name(number)
        gpus.append(f"{name}, {free / 2**30:.0f} of {whole / 2**30:.0f} GiB free")
    return "; ".join(gpus) + ("" if torch.cuda.is_bf16_supported() else "; no bfloat16")


def _gloo() -> str:
    """A group of one makes the connections that a larger one makes."""
    import torch
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_gloo_available():
        raise UserError("this torch was built without it")
    if dist.is_initialized():
        return f"a group of {dist.get_backend()} is there already"
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=0, world_size=1)
        try:
            dist.all_reduce(torch.ones(1))
        finally:
            dist.destroy_process_group()
    return "ranks can meet on this machine"


def _deepspeed_ops() -> str:
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from deepspeed.ops import __compatible_ops__ as known

    # The prefix tells the ops from what says whether they are known.
    ops = {name: can for name, can in known.items() if not name.startswith("deepspeed_")}
    tools = [name for name in ("ninja", "c++", "nvcc") if not shutil.which(name)]
    yes, no = ([name for name, can in ops.items() if bool(can) is wanted] for wanted in (True, False))
    lacks = f"; without {', '.join(tools)} what needs it cannot be compiled" if tools else ""
    return f"can be built: {', '.join(yes) or 'none'}; not: {', '.join(no) or 'none'}{lacks}"


def _cache() -> str:
    """Where huggingface_hub keeps what it fetched, by its own rules."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = Path(os.environ.get("HF_HOME") or caches / "huggingface")
    return os.environ.get("HF_HUB_CACHE") or str(home / "hub")


def _disk(folder: str) -> str:
    where = Path(folder).absolute()
    holder = next(path for path in (where, *where.parents) if path.exists())
    free = shutil.disk_usage(holder).free
    if free < LEAST_FREE:
        raise UserError(f"{where}: {free / 2**30:.2f} GiB free")
    return f"{where}: {free / 2**30:.0f} GiB free"


def _offline() -> str:
    on = [name for name in OFFLINE if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")]
    if on:
        return f"{', '.join(on)}: models and data are read from {_cache()} and from paths alone"
    return f"no: what is not in {_cache()} is fetched"
