"""What the stage will ask of the host, asked once before anything trains: a host that cannot make a row
fails here, not hours later.

Everything but the forward, which under ZeRO-3 all ranks would have to make together, and for which the model
is often not on its device yet.
"""

import contextlib
import random

import numpy as np
import torch

from spr_plugin.config import SPRConfig
from spr_plugin.dpo.pairs import collate, maximum_of
from spr_plugin.dpo.rows import IGNORED
from spr_plugin.errors import UserError
from spr_plugin.host import Host
from spr_plugin.progress import say
from spr_plugin.recipes.spr.prompts import plain_question, prompts_for
from spr_plugin.recipes.spr.regions import RegionQuery
from spr_plugin.sampling import readable


def rehearse(host: Host, queries: list[RegionQuery], config: SPRConfig) -> None:
    """Questions, rows and a batch about the first region whose picture can be read, with made-up answers. No
    random number is drawn.

    Raises:
        UserError: the host cannot make them, no short answer would fit its maximum length, or its tokenizer
        loses the boxes of an answer.
    """
    query, picture = _first_readable(queries)
    what = f"--spr: {type(host).__name__} fails on region {query.id} of {query.image.path}"
    with _no_draws(), _named(what):
        _check_stops(host)
        for prompt in prompts_for(query, host.box_format, config.spr_prompts):
            host.questions(picture.crop(prompt.crop) if prompt.crop else picture, [prompt.text])
        short, whole = rows = [_row(host, query, text) for text in made_up(query, host.box_format)]
        _check_length(host, short, whole, query, config)
        _check_boxes(host, short, query)
        collate(host, [{"id": query.id, "rows": rows, "weight": 1.0, "reference": [0.0, 0.0]}])
        host.image_encoder()


def made_up(query: RegionQuery, box_format) -> tuple[str, str]:
    """An answer that names the region's first object, and one that names all of them."""
    objects = [(annotation.label, annotation.box) for annotation in query.truth]
    return box_format.render(objects[:1]), box_format.render(objects)


def _first_readable(queries: list[RegionQuery]) -> tuple:
    for query in queries:
        if (picture := readable(query.image.path, query.image.id)) is not None:
            return query, picture
    raise UserError(
        f"no picture of the {len(queries)} regions can be read ({queries[0].image.path}): mend the files or "
        "take others"
    )


def _check_stops(host: Host) -> None:
    stops = host.stop_tokens
    if not stops or None in stops:
        raise UserError(
            "--spr: the tokenizer has no end-of-sequence token, so that no answer would end: set its "
            "eos_token"
        )


def _row(host: Host, query: RegionQuery, answer: str) -> dict:
    row = host.row(query.image.path, plain_question(query.region, host.box_format), answer)
    ids, labels = row["input_ids"], row["labels"]
    if ids.ndim != 1 or labels.shape != ids.shape:
        raise ValueError(
            f"input_ids {tuple(ids.shape)} and labels {tuple(labels.shape)} of a row, which are 1-D and of "
            "one length"
        )
    return row


def _answer(row: dict) -> list[int]:
    return row["labels"][row["labels"] != IGNORED].tolist()


def _check_length(host: Host, short: dict, whole: dict, query: RegionQuery, config: SPRConfig) -> None:
    flag, most = maximum_of(host)
    if not host.fits(short):
        raise UserError(
            f"{flag} is too short: no answer with a single box fits behind a question "
            f"({len(short['input_ids'])} tokens and a picture); raise it"
        )
    if most and config.spr_max_new_tokens >= most:
        raise UserError(
            f"--spr_max_new_tokens {config.spr_max_new_tokens}: no answer that long fits {flag} {most}; "
            "lower it"
        )
    if not host.fits(whole):
        say(
            f"a description of region {query.id} with all of its {len(query.truth)} objects does not fit "
            f"{flag}: pairs that are too long are left out"
        )
    if len(_answer(short)) > config.spr_max_new_tokens:
        say(
            f"--spr_max_new_tokens {config.spr_max_new_tokens}: an answer with a single box takes "
            f"{len(_answer(short))} tokens"
        )


def _check_boxes(host: Host, row: dict, query: RegionQuery) -> None:
    """What is sampled is read as `texts` gives it: tokens of boxes must not be special ones, which it leaves
    out."""
    (text,) = host.texts([_answer(row)])
    if not host.box_format.parse(text, query.image.width, query.image.height).boxes:
        raise UserError(
            f"--spr_box_format {host.box_format.family}: the host's tokenizer loses the box of an answer, "
            f"which comes back as {text[:80]!r}; "
            "take a family whose box text it keeps"
        )


@contextlib.contextmanager
def _no_draws():
    """Leave the generators as they are: the host's training draws from them."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(python)
    np.random.set_state(numpy)


@contextlib.contextmanager
def _named(what: str):
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the host's data set, collator and processor are foreign code
        why = next(iter(str(error).strip().splitlines()), "")
        raise UserError(f"{what}: {type(error).__name__}: {why}") from error
