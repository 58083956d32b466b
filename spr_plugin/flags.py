"""Our flags on the host's command line, whichever parser reads it and however many there are.

``HfArgumentParser`` (TRL's copy too) learns our flags and keeps them from the host, whose own dataclasses
come out as ever. What counts is all that was said: a file's or dict's values, over them the command line's,
over them what a parser was handed as a list. A parse that holds none of our flags changes nothing. Standard
library only at import.
"""

import dataclasses
import difflib
import functools
import importlib.util
import os
import sys
from collections.abc import Container

from spr_plugin.imports import once
from spr_plugin.lines import say
from spr_plugin.process import State, fail, or_fail
from spr_plugin.redaction import redacted

# A frame outside these is the training script: forks under any package name are found without knowing it.
LIBRARIES = ("argparse", "transformers", "trl", "spr_plugin")
# transformers' old name of a flag → the name since 4.46 or 5.0. Values keep their meaning: warmup_steps below
# 1 is a share.
RENAMED_FLAGS = {
    "--evaluation_strategy": "--eval_strategy",
    "--warmup_ratio": "--warmup_steps",
    "--no_cuda": "--use_cpu",
}
# Flags that transformers 5 has no more → what becomes of what they ask.
DROPPED_FLAGS = {
    "--logging_dir": "it is TENSORBOARD_LOGGING_DIR now, and set",
    "--overwrite_output_dir": "it always does",
    "--save_safetensors": "it always does",
}


def asked(arguments) -> bool:
    """Whether a command line holds one of our flags. The one line of ``spr_plugin.pth`` says the same."""
    return any(a == "--spr" or a.startswith(("--spr=", "--spr_", "--spr-")) for a in arguments)


def named(words) -> list[str]:
    """Names of our flags among ``words``, as they are written there (``--spr-beta`` and
    ``--no_spr_keep_best`` are argparse's)."""
    options = [
        word.partition("=")[0].replace("-", "_")
        for word in words
        if isinstance(word, str) and word.startswith("--")
    ]
    plain = [option.removeprefix("__no_").removeprefix("__") for option in options]
    return [name for name in plain if name == "spr" or name.startswith("spr_")]


@functools.cache
def flags_class():
    """A dataclass with SPRConfig's fields for the parser, which passes a field's metadata on to argparse."""
    from spr_plugin.command_line import for_argparse
    from spr_plugin.config import SPRConfig

    def plain(f):
        metadata = {"help": for_argparse(f.metadata["help"])}
        return dataclasses.field(default=f.default, default_factory=f.default_factory, metadata=metadata)

    return dataclasses.make_dataclass(
        "SPRFlags", [(f.name, f.type, plain(f)) for f in dataclasses.fields(SPRConfig)]
    )


def names() -> list[str]:
    """Of all our flags."""
    return list(flags_class().__dataclass_fields__)


def refuse_unknown(given, where="--{}") -> None:
    """UserError for the first name that is no flag of ours."""
    from spr_plugin.errors import UserError

    for name in given:
        if name not in names():
            close = difflib.get_close_matches(name, names(), 1)
            hint = f"; did you mean {close[0]}?" if close else "; docs/flags.md lists them"
            raise UserError(f"{where.format(name)}: unknown flag{hint}")


# --- what was said --------------------------------------------------------------------------------


def settle(script) -> None:
    """Make ``State.config`` of all flags that were heard so far; ``script`` is the frame of the training
    script that asks.

    Raises:
        UserError: a value makes no sense, or flags were given without ``--spr``.
    """
    from spr_plugin.command_line import given
    from spr_plugin.config import SPRConfig
    from spr_plugin.errors import UserError

    flags = {**State.from_files, **given(State.words), **State.from_lists}
    if flags and not {"spr", "spr_only"} & flags.keys():
        first = next(iter(flags))
        raise UserError(
            f"--{first} does nothing without --spr: add --spr (or --spr_only to skip the host's training)"
        )
    for name in ("spr_only", "spr_doctor"):
        if flags.get(name) and flags.get("spr") is False:
            raise UserError(f"--{name} with --spr False: leave one of them out")
    if flags or State.config is None:
        State.config = SPRConfig(**flags)
    from spr_plugin.hooks import shims

    if State.config.spr:
        shims.check_transformers()
    shims.mend_script(script.f_globals)


def script_frame():
    """The innermost caller that is no library."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in LIBRARIES:
        frame = frame.f_back
    return frame


def _hear(from_files: dict, from_lists: dict) -> None:
    """Take up what one parse was told; one that was told nothing of ours leaves what others were."""
    State.touched = not State.worker
    script = script_frame()
    if from_files or from_lists:
        State.from_files = {**State.from_files, **from_files}
        State.from_lists = {**State.from_lists, **from_lists}
    if from_files or from_lists or State.namespace is None:
        State.namespace = script.f_globals
    or_fail(settle, script)


# --- parsers --------------------------------------------------------------------------------------


@once
def hook_parser(parser) -> None:
    """Teach an ``HfArgumentParser`` our flags."""
    from spr_plugin.command_line import word_of

    host_init, host_parse_known, host_error, host_dict = (
        parser.__init__,
        parser.parse_known_args,
        parser.error,
        parser.parse_dict,
    )

    @functools.wraps(host_init)
    def __init__(self, *args, **kwargs):
        host_init(self, *args, **kwargs)
        flags = flags_class()
        self.dataclass_types.append(flags)
        self._add_dataclass_arguments(flags)
        for action in self._actions:
            if action.dest in flags.__dataclass_fields__ and action.nargs != 0:
                action.type = word_of(action.dest)

    @functools.wraps(host_parse_known)
    def parse_known_args(self, args=None, namespace=None):
        args = list(sys.argv[1:] if args is None else args)
        args = rewrite_renamed(
            without_dropped(args, self._option_string_actions), self._option_string_actions
        )
        or_fail(refuse_unknown, named(args))
        parsed, rest = host_parse_known(self, args, namespace)
        _hear(*_read(self, args, parsed))
        _before_training_arguments(parsed)
        return parsed, rest

    @functools.wraps(host_dict)
    def parse_dict(self, args, *rest, **kwargs):
        ours = {name: value for name, value in args.items() if named([f"--{name}"])}
        or_fail(refuse_unknown, ours)
        results = host_dict(self, args, *rest, **kwargs)
        _hear(ours, {})
        return _without_ours(results)

    def error(self, message):
        # argparse prints the host's usage first, hundreds of lines; a mistake in our flags deserves its one
        # line.
        fail(redacted(message)) if message.startswith("argument --spr") else host_error(self, message)

    parser.__init__, parser.parse_known_args, parser.parse_dict, parser.error = (
        __init__,
        parse_known_args,
        parse_dict,
        error,
    )
    host_parse = parser.parse_args_into_dataclasses
    parser.parse_args_into_dataclasses = functools.wraps(host_parse)(
        lambda *args, **kwargs: _without_ours(host_parse(*args, **kwargs))
    )


@once
def check_file(parser) -> None:
    """TRL's ``TrlParser`` makes a YAML file's values the defaults of its flags; names that it does not know
    pass it in silence."""
    if not hasattr(parser, "set_defaults_with_config"):
        return
    host_set = parser.set_defaults_with_config

    @functools.wraps(host_set)
    def set_defaults_with_config(self, **values):
        or_fail(refuse_unknown, named(f"--{name}" for name in values))
        return host_set(self, **values)

    parser.set_defaults_with_config = set_defaults_with_config


def _read(parser, args: list, parsed) -> tuple[dict, dict]:
    """What ``args`` say of our flags, and before it what defaults do that were set since (by a file); values
    as they were parsed."""
    in_list = {name for name in named(args) if hasattr(parsed, name)}
    known = flags_class().__dataclass_fields__
    changed = {a.dest for a in parser._actions if a.dest in known and not _is_own_default(known[a.dest], a)}
    values = vars(parsed)
    return {name: values[name] for name in sorted(changed - in_list)}, {
        name: values[name] for name in sorted(in_list)
    }


def _is_own_default(field, action) -> bool:
    if action.option_strings[0].startswith("--no_"):
        return True  # argparse's second action of a flag that is true by default
    own = field.default_factory() if field.default is dataclasses.MISSING else field.default
    return action.default == own


def _without_ours(results) -> tuple:
    return tuple(result for result in results if not isinstance(result, flags_class()))


def rewrite_renamed(args: list, known) -> list:
    """``args`` with flags that transformers has renamed under their new names; ``known`` holds the parser's
    options."""
    stale = {old: new for old, new in RENAMED_FLAGS.items() if old not in known and new in known}
    renamed = [
        f"{old} as {new}"
        for old, new in stale.items()
        if any(a == old or a.startswith(old + "=") for a in args)
    ]
    if renamed and os.environ.get("LOCAL_RANK", "0") == "0":
        say(f"this transformers renamed flags; reading {', '.join(renamed)}")
    return [_under_new_name(a, stale) for a in args]


def without_dropped(args: list[str], known: Container[str]) -> list[str]:
    """``args`` without the flags that transformers has given up, and without their values; ``known`` holds
    the parser's options. TensorBoard's folder goes on by the environment.
    """
    dropped = {name for name in DROPPED_FLAGS if name not in known}
    kept, values = [], {}
    for before, argument in zip(["", *args], args):
        name, _, value = argument.partition("=")
        if name in dropped:
            values[name] = value
        elif before in dropped and not argument.startswith("-"):
            values[before] = argument
        else:
            kept.append(argument)
    if folder := values.get("--logging_dir"):
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", folder)
    if values and os.environ.get("LOCAL_RANK", "0") == "0":
        notes = "; ".join(f"{name}: {DROPPED_FLAGS[name]}" for name in values)
        say(f"this transformers has flags no more, which are passed over ({notes})")
    return kept


def _under_new_name(argument, stale):
    name, equals, value = argument.partition("=")
    return stale.get(name, name) + equals + value


def _before_training_arguments(parsed) -> None:
    """What is known before the host's TrainingArguments are made: DeepSpeed's process group must exist by
    then, and what is wrong with its file, or with the attention that is asked for, is said before a model is
    loaded."""
    if getattr(parsed, "deepspeed", None):
        from spr_plugin.hooks import shims
        from spr_plugin.training.deepspeed_settings import check_deepspeed

        or_fail(
            shims.prepare_deepspeed, getattr(parsed, "use_cpu", False) or getattr(parsed, "no_cuda", False)
        )
        or_fail(check_deepspeed, parsed.deepspeed, parsed)
    # LLaVA's train_mem.py calls train(attn_implementation="flash_attention_2"), LLaVA-NeXT has a flag of that
    # name.
    wanted = [
        script_frame().f_locals.get("attn_implementation"),
        getattr(parsed, "attn_implementation", None),
    ]
    available = any(importlib.util.find_spec(name) for name in ("flash_attn", "kernels"))
    if State.config.spr and "flash_attention_2" in wanted and not available:
        fail(
            "flash_attention_2 is asked for and flash_attn is not installed: take train.py in place of "
            "train_mem.py, or --attn_implementation sdpa"
        )
