"""``--deepspeed FILE``: what its engine would refuse, or pass over without a word, said before a model is
loaded.

DeepSpeed itself is asked, so that every version has its own keys. Standard library at import: flags are
checked before anything heavy is loaded.
"""

import difflib
from typing import Any

from spr_plugin import loading
from spr_plugin.errors import UserError

BATCH = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
# read outside DeepSpeed's configuration class
ELSEWHERE = frozenset(("sequence_parallel_size", "data_parallel_size"))
QUANTIZED = ("load_in_4bit", "load_in_8bit")


def zero_stage(given: str | dict | None) -> int:
    """ZeRO's stage of a ``--deepspeed`` file, 0 without one."""
    zero = read_settings(given).get("zero_optimization") if given else None
    return int(zero.get("stage", 0)) if isinstance(zero, dict) else 0


class _Asked(dict):
    """A configuration that notes which keys it is asked for."""

    def __init__(self, values):
        super().__init__(values)
        self.names = set()

    def __contains__(self, name):
        self.names.add(name)
        return super().__contains__(name)

    def __getitem__(self, name):
        self.names.add(name)
        return super().__getitem__(name)

    def get(self, name, default=None):
        self.names.add(name)
        return super().get(name, default)

    def keys(self):
        return self  # DeepSpeed writes ``name in settings.keys()``


def check_deepspeed(given: str | dict, flags) -> None:
    """UserError for a file with unknown keys or values, and for ZeRO-3 with quantized weights.

    Args:
        given: path of the file, or what is in it.
        flags: the host's, as attributes.
    """
    settings = read_settings(given)
    zero = settings.get("zero_optimization")
    if isinstance(zero, dict) and zero.get("stage") == 3:
        _refuse_quantized(flags, given)
    from deepspeed.runtime.config import DeepSpeedConfig

    asked = _Asked(
        {**{name: value for name, value in _without_auto(settings).items() if name not in BATCH}, BATCH[1]: 1}
    )
    try:
        DeepSpeedConfig(asked)
    except Exception as error:  # whatever this is, the engine would fail on it too, once the model is loaded
        raise UserError(f"--deepspeed {given}: {_one_line(error, settings)}") from None
    known = asked.names | ELSEWHERE
    notes = {
        name for name in settings if name.startswith("_")
    }  # "_comment" and the like, which no engine reads and nobody mistypes
    for name in sorted(settings.keys() - known - notes):
        near = difflib.get_close_matches(name, sorted(known), 1)
        raise UserError(
            f"--deepspeed {given}: unknown key {name}"
            + (f"; did you mean {near[0]}?" if near else "; this DeepSpeed reads no such key")
        )


def read_settings(given: str | dict) -> dict:
    """What is in a file, given by its path or as it is. UserError where that is no table of settings."""
    if isinstance(given, dict):
        return given
    return loading.read_settings(given, f"--deepspeed {given}")


def stage_settings(given: str | dict) -> dict:
    """The settings for the DPO stage, whose batches, optimizer and schedule are its own: transformers refuses
    numbers of the file that differ from those of its arguments.
    """
    kept = {
        name: value for name, value in read_settings(given).items() if name not in ("optimizer", "scheduler")
    }
    return kept | dict.fromkeys((*BATCH, "gradient_clipping"), "auto")


def _refuse_quantized(flags, given) -> None:
    named = [f"--{name}" for name in QUANTIZED if getattr(flags, name, False)]
    named += [f"--bits {flags.bits}"] if getattr(flags, "bits", 16) in (4, 8) else []
    if named:
        raise UserError(
            f"{named[0]} with ZeRO-3 ({given}): quantized weights cannot be partitioned; take ZeRO-2, or"
            " leave the flag out"
        )


def _without_auto(settings):
    """Settings without the values that transformers fills in."""
    if not isinstance(settings, dict):
        return settings
    return {name: _without_auto(value) for name, value in settings.items() if value != "auto"}


def _one_line(error: Any, settings: dict) -> str:
    """One line of what DeepSpeed says; pydantic names a key but not the section that it stands in."""
    if not hasattr(error, "errors"):
        return " ".join(str(error).split())
    first = error.errors()[0]
    section = next(
        (
            name
            for name, value in settings.items()
            if first["loc"] and isinstance(value, dict) and first["loc"][0] in value
        ),
        error.title,
    )
    return f"{'.'.join(map(str, (section, *first['loc'])))}: {first['msg']}"
