"""What values a setting takes: one check of type and range, whether a command line's word, a JSON or YAML
file or a notebook says it. Standard library only.
"""

import copy
import dataclasses
import math
import os
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from spr_plugin.errors import UserError
from spr_plugin.redaction import redacted

TOO_LARGE = 1 << 63  # of a whole number: torch and SQLite hold none
Self = TypeVar("Self", bound="Settings")
Some = TypeVar("Some", bound="Settings")
Values = dict[str, Any]  # by the names of settings
LONGEST = 200  # characters of a value that a line shows
TRUE, FALSE = ("yes", "true", "t", "y", "1"), ("no", "false", "f", "n", "0")


@dataclass(frozen=True)
class Range:
    """The values of a kind that make sense; `words` follow one that makes none in a line."""

    words: str
    holds: Callable[[Any], bool]


POSITIVE = Range("must be greater than 0, and finite", lambda value: 0 < value < math.inf)
NOT_NEGATIVE = Range("must be 0 or more, and finite", lambda value: 0 <= value < math.inf)
SHARE = Range("must lie between 0 and 1", lambda value: 0 <= value <= 1)
HALF = Range("must lie between 0 and 0.5", lambda share: 0 <= share < 0.5)
# More is a slip of the finger, and would be found out where the plan of the steps is made, after sampling.
FEW = Range("must be greater than 0, finite, and at most 100000", lambda value: 0 < value <= 100_000)
WEIGHTS = Range(
    "must be 0 or more, not all of them 0", lambda parts: not parts or min(parts) >= 0 < sum(parts) < math.inf
)


def one_of(*names: str) -> Range:
    """One of these names; of a list at least one, and no other."""

    def holds(value) -> bool:
        given = value if isinstance(value, list) else [value]
        return bool(given) and all(name in names for name in given)

    return Range(f"choose from {', '.join(names)}", holds)


def weighed(words: Iterable[str]) -> dict[str, float]:
    """Name → weight of words like ``repaired=0.5``; a name alone weighs 1. ValueError where a name stands
    there twice, or a weight is no number of 0 or more.
    """
    weights: dict[str, float] = {}
    for word in words:
        name, given, weight = word.partition("=")
        number = float(weight) if given else 1.0
        if not name or name in weights or not 0 <= number < math.inf:
            raise ValueError(word)
        weights[name] = number
    return weights


def _weighed(words: str, makes_sense: Callable[[dict[str, float]], bool]) -> Range:
    def holds(value: list[str]) -> bool:
        try:
            return makes_sense(weighed(value))
        except ValueError:
            return False

    return Range(words, holds)


def weights_of(*names: str) -> Range:
    """Weights of these names; one that is not given is 1."""
    words = f"must be NAME=WEIGHT, of {', '.join(names)}, each once, weights 0 or more"
    return _weighed(words, lambda given: given.keys() <= {*names})


SHARES = _weighed(
    "must be NAME or NAME=SHARE, each once, shares 0 or more and not all of them 0",
    lambda given: any(given.values()),
)


@dataclass(frozen=True)
class Kind:
    """The type and range of one setting.

    Attributes:
        type: bool, int, float, str (a path is one too), or dict: a flat table of the other four.
        many: a list of these.
        optional: None is a value.
        within: what its values are.
    """

    type: type
    many: bool = False
    optional: bool = False
    within: Range | None = None

    def read(self, value, name: str):
        """`value` by its type. UserError, which begins with `name` and the value, where it is of another
        one. A setting that takes several may be given as one.
        """
        try:
            if value is None and self.optional:
                return None
            if not self.many:
                return typed(value, self.type)
            if isinstance(value, (str, int, float)):
                return [typed(value, self.type)]
            if not isinstance(value, (list, tuple)):
                raise ValueError("must be a list")
            return [typed(item, self.type) for item in value]
        except ValueError as error:
            raise UserError(f"{name} {_shown(value)}: {error}") from None

    def check(self, value, name: str) -> None:
        """UserError where a value of this type lies outside the range."""
        if value is not None and self.within and not self.within.holds(value):
            raise UserError(f"{name} {_shown(value)}: {self.within.words}")


def typed(value, kind: type):
    """`value`, or the words that mean it, as a `kind`. ValueError says what it must be."""
    if kind is bool:
        return value if isinstance(value, bool) else _truth(value)
    if kind is int:
        return _whole(value)
    if kind is float:
        return _number(value)
    if kind is dict:
        return _table(value)
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    raise ValueError("must be text" if isinstance(value, (dict, list)) else "must be text: put it in quotes")


def _truth(value) -> bool:
    word = str(value).lower()
    if word not in (*TRUE, *FALSE):
        raise ValueError("neither true nor false")
    return word in TRUE


def _number(value) -> float:
    """JSON's and YAML's numbers, and what YAML 1.1, which PyYAML reads, takes for a text (``5e-7``)."""
    try:
        if not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError("is no number")


def _whole(value) -> int:
    number: float
    try:
        number = int(str(value))  # digit by digit: a float would round them
    except ValueError:
        try:
            number = _number(value)
        except ValueError as error:
            raise ValueError(f"{error}: must be a whole number") from None
    if abs(number) >= TOO_LARGE:
        raise ValueError("must be a whole number, and below 2 to the 63")
    if number != number or number != int(number):
        raise ValueError("must be a whole number")
    return int(number)


def _table(value) -> dict:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ValueError("must be a table")
    if not all(isinstance(one, (bool, int, float, str)) for one in value.values()):
        raise ValueError("must be a table of numbers, words, true and false")
    return {name: _plain(one) for name, one in value.items()}


def _plain(value):
    """A text that is a number as that number."""
    if not isinstance(value, str):
        return value
    try:
        number = _number(value)
    except ValueError:
        return value
    return int(number) if number.is_integer() else number


def _shown(value) -> str:
    try:
        text = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    except ValueError:  # Python writes no number of thousands of digits
        text = "of so many digits"
    return redacted(text if len(text) <= LONGEST else text[:LONGEST] + "…")


@dataclass(frozen=True)
class Settings:
    """Of a frozen dataclass of settings: how it is made from files and from another one."""

    def but_for(self: Self, values: Mapping[str, Any]) -> Self:
        """The same flags but for these. `dataclasses.replace` would read files again, which set their own."""
        other = copy.copy(self)
        other._set(values)
        return other

    def only(self, kind: type[Some]) -> Some:
        """Of these flags those of `kind`, one of their classes: whoever is given them sees no others."""
        return kind(**{f.name: getattr(self, f.name) for f in dataclasses.fields(kind)})

    def _set(self, values: Mapping[str, Any]) -> None:
        """For a config in the making: one that is made is never changed."""
        for name, value in values.items():
            object.__setattr__(self, name, value)


def setting(
    default: object,
    help: str,
    origin: str = "ours",
    *,
    within: Range | None = None,
    shapes: str | None = None,
) -> Any:
    """A field with its help, where its default comes from, its range, and the stage whose records it shapes.

    That stage and those behind it are made again where it changes. docs/flags.md is generated from these; a
    recipe's own settings are made of such fields too (:func:`spr_plugin.config.own_settings`).
    """
    metadata = {"help": help, "origin": origin, "within": within, "shapes": shapes}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def default_of(f: dataclasses.Field[Any]) -> Any:
    return f.default if f.default_factory is dataclasses.MISSING else f.default_factory()


def _kind(type_: Any, within: Range | None) -> Kind:
    """Of an annotation: a type, a list of one, or one or None."""
    inner = [one for one in typing.get_args(type_) if one is not type(None)]
    many = typing.get_origin(type_) is list
    return Kind(inner[0] if inner else type_, many, optional=bool(inner) and not many, within=within)


def kinds_of(settings: type) -> dict[str, Kind]:
    """Name → kind of the fields of a dataclass that are each a `setting`."""
    types = typing.get_type_hints(settings)  # a plugin's annotations may be put off: texts
    return {f.name: _kind(types[f.name], f.metadata["within"]) for f in dataclasses.fields(settings)}
