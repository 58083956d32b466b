"""What the stage shows while it runs, beside what transformers' integrations log: its own bar, and the
answers to held-out queries on their pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from transformers.integrations import TensorBoardCallback, WandbCallback
from transformers.trainer_callback import ProgressCallback

from spr_plugin.data.pictures import read_all
from spr_plugin.drawing import drawn, lines_of
from spr_plugin.progress import Progress, say
from spr_plugin.recipes.base import Judged, Query, Recipe, unjudged

QUERIES = 8  # are shown at each look
TAG = "probe/answers"


class StageProgress(ProgressCallback):
    """Prints what is logged as transformers does; the bar is the stage's."""

    def __init__(self, progress: Progress):
        super().__init__()
        self.progress = self.training_bar = progress

    def on_train_begin(self, args, state, control, **kwargs):
        pass

    on_step_end = on_train_end = on_train_begin


class Shown(NamedTuple):
    """A question, the answer to it, and a picture with what the recipe marks on it."""

    question: str
    answer: str
    picture: Image.Image


def show_answers(
    callbacks: Sequence, recipe: Recipe, queries: Sequence[Query], texts: Sequence[str], state
) -> None:
    """Send answers on their pictures to TensorBoard and W&B, if they are among the callbacks. For rank 0.

    Args:
        state: of the trainer, with the step by which they are shown.
    """
    senders = [sender for one in callbacks if (sender := _sender(one)) is not None]
    if not senders:
        return
    try:
        rows = [row for one in list(zip(queries, texts))[:QUERIES] for row in _shown(recipe, *one)]
        for send in senders:
            send(rows, state.global_step)
    except Exception as error:  # a tracker's code, or a plugin's that draws: it must not cost the stage
        say(f"the answers to held-out queries cannot be shown ({' '.join(str(error).split())})")


def _sender(callback) -> Callable[[Sequence[Shown], int], None] | None:
    """What sends to the tracker of an integration's callback; None where there is none or it does not run."""
    if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
        return lambda rows, step: _to_tensorboard(callback.tb_writer, rows, step)
    if (
        isinstance(callback, WandbCallback)
        and callback._wandb is not None
        and callback._wandb.run is not None
    ):
        return lambda rows, step: _to_wandb(callback._wandb, rows, step)
    return None


def _shown(recipe: Recipe, query: Query, text: str) -> list[Shown]:
    """One row a picture of the query, of those that can be read."""
    pictures = read_all(query.pictures) or []
    marks = recipe.draw(query, Judged(None, (unjudged(text),)))[0][0]
    of_each = [[mark for mark in marks if mark.picture == number] for number in range(len(pictures))]
    return [
        Shown(recipe.question(query), text, drawn(picture.convert("RGB"), lines_of(mine, "chosen")))
        for picture, mine in zip(pictures, of_each)
    ]


def _to_tensorboard(writer, rows: Sequence[Shown], step: int) -> None:
    cells = [[str(number), row.question, row.answer] for number, row in enumerate(rows)]
    lines = ["|".join(cell.replace("|", r"\|").replace("\n", " ") for cell in line) for line in cells]
    writer.add_text(TAG, "\n".join(["picture|question|answer", "---|---|---", *lines]), step)
    for number, row in enumerate(rows):
        writer.add_image(f"{TAG}/{number}", np.asarray(row.picture), step, dataformats="HWC")
    writer.flush()


def _to_wandb(wandb, rows: Sequence[Shown], step: int) -> None:
    data = [[step, row.question, row.answer, wandb.Image(row.picture)] for row in rows]
    table = wandb.Table(columns=["step", "question", "answer", "picture"], data=data)
    wandb.log({TAG: table, "train/global_step": step})
