"""What lmms-eval's requests ask, as plain data, and which are answered together. Knows no model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from spr_plugin.errors import UserError
from spr_plugin.sampling.plan import dealt

# Of requests whose pictures are in memory together, while those of the next are opened.
WINDOW = 256
PIXELS = 1 << 27
IMAGE = "<image>"  # where a prompt says that a picture stands
LONGEST = 1024  # tokens of an answer where a task does not say: as lmms-eval's own models
GREEDY = {"temperature": 0, "num_beams": 1}
NO_END = "\n\n"  # lmms-eval's own, where a task names none; its models do not stop at it


@dataclass(frozen=True)
class Ask:
    """One request: its index among them, its prompt, how long its answer may be, the texts that end it, and
    what opens its pictures.
    """

    index: int
    task: str
    text: str
    max_new_tokens: int
    until: tuple[str, ...]
    open: Callable[[], Sequence]


def asked(index: int, arguments: tuple, documents: Mapping) -> Ask:
    """What a request asks whose ``arguments`` these are, of task → split → documents. UserError where its
    ``generation_kwargs`` want no greedy answer.
    """
    text, given, pictures_of, number, task, split = arguments
    wrong = {name: given[name] for name, greedy in GREEDY.items() if given.get(name) not in (None, greedy)}
    if wrong:
        settings = ", ".join(f"{name} {value}" for name, value in wrong.items())
        needed = ",".join(f"{name}={GREEDY[name]}" for name in wrong)
        raise UserError(f"{task} asks for {settings}, and answers are greedy: give --gen_kwargs {needed}")
    until = given.get("until") or ()
    until = (until,) if isinstance(until, str) else tuple(until)
    longest = given.get("max_new_tokens")
    return Ask(
        index,
        task,
        text,
        LONGEST if longest is None else int(longest),
        tuple(end for end in until if end and end != NO_END),
        lambda: pictures_of(documents[task][split][number]),
    )


@dataclass(frozen=True)
class Shown:
    """A request with its pictures, which those of equal pixels share; ``key`` tells them apart."""

    ask: Ask
    key: tuple[str, ...]
    pictures: tuple


def windows(asks: Iterable[Ask]) -> Iterator[list[Shown]]:
    """In their order, those of equally long answers together, so many at a time that their pictures fit in
    memory. UserError for what is no picture: a video, a sound.
    """
    alike: dict[int, list[Ask]] = {}
    for ask in asks:
        alike.setdefault(ask.max_new_tokens, []).append(ask)
    for group in alike.values():
        window: list[Shown] = []
        known: dict[tuple[str, ...], tuple] = {}
        pixels = 0
        for ask in group:
            pictures = tuple(one for one in ask.open() or () if one is not None)
            if strange := [one for one in pictures if not isinstance(one, Image.Image)]:
                kind = type(strange[0]).__name__
                raise UserError(f"{ask.task} shows a {kind}: this model knows pictures alone")
            key = tuple(map(fingerprint, pictures))
            pixels += 0 if key in known else sum(one.width * one.height for one in pictures)
            window.append(Shown(ask, key, known.setdefault(key, pictures)))
            if len(window) == WINDOW or pixels > PIXELS:
                yield window
                window, known, pixels = [], {}, 0
        if window:
            yield window


def fingerprint(picture: Image.Image) -> str:
    """Of all that a model sees of it."""
    kind = f"{picture.mode} {picture.size} ".encode()
    return hashlib.blake2b(kind + picture.tobytes(), digest_size=16).hexdigest()


def batches(window: Sequence[Shown], size: int) -> list[list[Shown]]:
    """Up to ``size`` together; those of the same pictures stay so, and a text alone meets no picture."""
    families: dict[tuple[str, ...], list[Shown]] = {}
    for shown in window:
        families.setdefault(shown.key, []).append(shown)
    kinds = ([family for key, family in families.items() if bool(key) == some] for some in (True, False))
    return [batch for kind in kinds if kind for batch in dealt(kind, lambda one: len(one.ask.text), size)]


def ended(text: str, until: Iterable[str]) -> str:
    """What stands before the first of the texts that end an answer."""
    for end in until:
        text = text.partition(end)[0]
    return text
