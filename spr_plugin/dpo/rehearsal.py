"""What the stage will ask of the host, asked once before anything trains: a host that cannot make a row
fails here, not hours later.

Everything but the forward, which under ZeRO-3 all ranks would have to make together, and for which the model
is often not on its device yet.
"""

import contextlib
import random

import numpy as np
import torch

from spr_plugin.data.pictures import read_all
from spr_plugin.dpo.pairs import collate, item_of, maximum_of
from spr_plugin.errors import UserError
from spr_plugin.progress import say
from spr_plugin.recipes.base import Query, Recipe
from spr_plugin.training.host import IGNORED, Host

ANSWER = "Yes."  # where a recipe has no worked one


def rehearse(host: Host, recipe: Recipe, queries: list[Query], longest: int) -> None:
    """Questions, rows and a batch about the first query whose pictures can be read, with worked answers. No
    random number is drawn.

    Args:
        longest: answer that may be sampled, in tokens.

    Raises:
        UserError: the host cannot make them, no short answer would fit its maximum length, or its tokenizer
        loses a part of an answer.
    """
    query, pictures = _first_readable(queries)
    what = f"--spr: {type(host).__name__} fails on query {query.id} of {query.pictures[0].path}"
    with _no_draws(), _named(what):
        _check_stops(host)
        for prompt in recipe.prompts(query):
            host.questions(prompt.shown(pictures), [prompt.text])
        question, worked = recipe.question(query), recipe.worked(query, short=True)
        short = _row(host, query, question, worked or ANSWER)
        whole = _row(host, query, question, recipe.worked(query) or ANSWER)
        rows = [short, whole]
        _check_length(host, short, whole, query, longest)
        if worked:
            _check_text(host, recipe, short, worked, query)
        collate(host, [item_of(query.id, rows)])
        host.image_encoder()


def _first_readable(queries: list[Query]) -> tuple:
    for query in queries:
        if (pictures := read_all(query.pictures)) is not None:
            return query, pictures
    raise UserError(
        f"no picture of the {len(queries)} queries can be read ({queries[0].pictures[0].path}): mend the"
        " files or take others"
    )


def _check_stops(host: Host) -> None:
    stops = host.stop_tokens
    if not stops or None in stops:
        raise UserError(
            "--spr: the tokenizer has no end-of-sequence token, so that no answer would end: set its "
            "eos_token"
        )


def _row(host: Host, query: Query, question: str, answer: str) -> dict:
    row = host.row(query.sources, question, answer)
    ids, labels = row["input_ids"], row["labels"]
    if ids.ndim != 1 or labels.shape != ids.shape:
        raise ValueError(
            f"input_ids {tuple(ids.shape)} and labels {tuple(labels.shape)} of a row, which are 1-D and of "
            "one length"
        )
    return row


def _answer(row: dict) -> list[int]:
    return row["labels"][row["labels"] != IGNORED].tolist()


def _check_length(host: Host, short: dict, whole: dict, query: Query, longest: int) -> None:
    flag, most = maximum_of(host)
    if not host.fits(short):
        raise UserError(
            f"{flag} is too short: not even the shortest answer fits behind a question "
            f"({len(short['input_ids'])} tokens and a picture); raise it"
        )
    if most and longest >= most:
        raise UserError(f"--spr_max_new_tokens {longest}: no answer that long fits {flag} {most}; lower it")
    if not host.fits(whole):
        say(f"a whole answer to query {query.id} does not fit {flag}: pairs that are too long are left out")
    if len(_answer(short)) > longest:
        say(f"--spr_max_new_tokens {longest}: the shortest answer takes {len(_answer(short))} tokens")


def _check_text(host: Host, recipe: Recipe, row: dict, worked: str, query: Query) -> None:
    """What is sampled is read as `texts` gives it: tokens of boxes must not be special ones, which it leaves
    out."""
    (text,) = host.texts([_answer(row)])
    right, back = (recipe.measure([answer], [query])[recipe.BEST] for answer in (worked, text))
    if not back >= right / 2:
        raise UserError(
            f"--spr_box_format {host.box_format.family}: the host's tokenizer loses a part of an answer, "
            f"which comes back as {text[:80]!r}; "
            "take a family whose text it keeps"
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
