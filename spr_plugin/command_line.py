"""Our flags where no host parses them: `spr sample`, a script's own words, the table of docs/flags.md."""

import argparse
import dataclasses
import functools
import re

from spr_plugin.config import KINDS, SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.redaction import redacted, secrets_of
from spr_plugin.settings import default_of, typed

# What a flag's help says of a training command alone.
HOST_DEFAULT = re.compile(r"; default: [^;]*(?:the host's|--data_path)[^;]*$")


def for_argparse(help: str) -> str:
    """A flag's help as argparse wants it, which formats it with ``%``; all others show it as it is."""
    return help.replace("%", "%%")


def _refuse(words: list[str], message: str) -> None:
    """What argparse says of a command line, without an address's secrets that may stand there."""
    raise UserError(redacted(message, frozenset().union(*(secrets_of(word, {}) for word in words))))


def parse(words: list[str], names: list[str], prog: str) -> SPRConfig:
    """The configuration of a command line that takes the flags ``names`` as a training command does, without
    a host.
    """
    parser = argparse.ArgumentParser(prog=prog, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.error = functools.partial(_refuse, words)  # type: ignore[method-assign, assignment]
    _add_flags(parser, names, lambda help: HOST_DEFAULT.sub("", help))
    # Argparse puts a default where nothing is: what stays as it is here was not given.
    flags = vars(parser.parse_args(words, argparse.Namespace(**dict.fromkeys(names))))
    return SPRConfig(spr=True, **{name: value for name, value in flags.items() if value is not None})


def given(words: list[str]) -> dict:
    """Flag → value of what a host's command line says of ours; the rest is not for us."""
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS, add_help=False, allow_abbrev=False)
    parser.error = functools.partial(_refuse, words)  # type: ignore[method-assign, assignment]
    _add_flags(parser, [f.name for f in dataclasses.fields(SPRConfig)], default=argparse.SUPPRESS)
    return vars(parser.parse_known_args(words)[0])


def _add_flags(parser, names: list[str], told=str, **how) -> None:
    """Give a parser of Python's own the flags ``names`` as ``HfArgumentParser`` would, which reads true and
    false as words; `told` makes of a flag's help what is shown.
    """
    for f in dataclasses.fields(SPRConfig):
        if f.name not in names:
            continue
        default = default_of(f)
        options = {f"--{f.name}": None, f"--{f.name.replace('_', '-')}": None}
        text = {"help": for_argparse(told(f.metadata["help"]))}
        text |= {"type": word_of(f.name), "default": default}
        if isinstance(default, bool):
            parser.add_argument(*options, **{"nargs": "?", "const": True, **text, **how})
            if default:
                off = [f"--no_{f.name}", f"--no-{f.name.replace('_', '-')}"]
                text.pop("type")
                parser.add_argument(*off, dest=f.name, action="store_false", **{**text, **how})
        else:
            parser.add_argument(*options, **{"nargs": "+" if KINDS[f.name].many else None, **text, **how})


def word_of(name: str):
    """What argparse asks for the value of one word after the flag ``name``."""

    def read(word: str):
        try:
            return typed(word, KINDS[name].type)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{word}: {error}") from None

    return read


def flags_table(settings: type = SPRConfig, named: str = "flag", dashes: str = "--") -> str:
    """The table of docs/flags.md, or of a recipe's own settings, which `python docs/generate.py` writes."""
    rows = [f"| {named} | default | meaning | default from |", "|---|---|---|---|"]
    for f in dataclasses.fields(settings):
        value = default_of(f)
        value = " ".join(value) or None if isinstance(value, list) else value
        shown = "" if value is None or value is False else f"`{value}`"
        rows.append(f"| `{dashes}{f.name}` | {shown} | {f.metadata['help']} | {f.metadata['origin']} |")
    return "\n".join(rows)
