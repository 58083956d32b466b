"""``--model spr_llava`` and ``--model spr_hf``: lmms-eval's questions answered by the project's own decoding.

    --model_args pretrained=FOLDER,conv_template=vicuna_v1            a LLaVA checkpoint, as `llava` takes it
    --model_args pretrained=FOLDER                                    what AutoModelForImageTextToText loads
    --model_args …,recipe=spatial_ssrl                                lmms-eval's questions put as a recipe's

A picture is encoded once for all that is asked about it, what its prompts begin with is forwarded once, and
prompts of a length share a batch. Prompts, picture processing and stops of ``spr_llava`` are those of
lmms-eval's ``llava``, so that it says the same; ``spr_hf`` puts questions by the checkpoint's chat template.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import groupby, repeat
from operator import attrgetter
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from lmms_eval.api.model import lmms

from spr_plugin.data.pictures import prefetch
from spr_plugin.errors import UserError
from spr_plugin.eval_tasks.asking import Ask, Shown, asked, batches, ended, windows
from spr_plugin.eval_tasks.by_recipe import recipe_of
from spr_plugin.eval_tasks.catalogue import SPLITS
from spr_plugin.eval_tasks.model_format import running_format
from spr_plugin.eval_tasks.questioned import QuestionedLlava, QuestionedVlm
from spr_plugin.eval_tasks.refusal import refuse
from spr_plugin.hooks.checkpoint import refused
from spr_plugin.lines import say
from spr_plugin.progress import progress
from spr_plugin.recipes.base import Recipe
from spr_plugin.sampling.decoding import decode

ROWS = 32  # prompts answered together, unless --batch_size says
OURS = frozenset(split.task for split in SPLITS)  # which ask as their models were trained already
THOUGHT = 1024  # tokens that an answer with its reasons may take, however short the task's own are

# What a generation config may do to greedy answers of transformers' generate, and the value that does nothing
BENT = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "suppress_tokens": None, "bad_words_ids": None}


class Greedy(lmms):
    """Answers greedily.

    Args:
        pretrained: folder or hub id of the checkpoint.
        device: "cpu", "cuda:0"; by default the process's own GPU, if there is one.
        batch_size: prompts answered together; "auto" and lmms-eval's default, the number 1, leave it to us.
        recipe: by which the model was trained: other people's questions are put as that recipe puts its own,
            and of what the model says its answer alone counts.
    """

    is_simple = True
    name: str
    load: Callable[..., Any]  # (pretrained, the rest of --model_args) → what is questioned

    def __init__(
        self,
        pretrained: str = "",
        device=None,
        batch_size=None,
        max_batch_size=None,
        recipe: str | None = None,
        **given,
    ):
        super().__init__()
        self.accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(weeks=52))])
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.device = torch.device(device if device and self._world_size == 1 else self.accelerator.device)
        try:
            self.batch_size, known = rows_together(batch_size), inspect.signature(self.load).parameters
            if unknown := [name for name in given if name not in known]:
                all_known = ", ".join([*known, "device", "recipe"])
                raise UserError(f"--model {self.name}: --model_args {unknown[0]} is none of {all_known}")
            with refused(f"--model {self.name}: pretrained", pretrained, "cannot be loaded"):
                self.questioned = self.load(pretrained, **given)
            parts = self.questioned.language_model()
            if len({weight.device for part in parts for weight in part.parameters()}) > 1:
                raise UserError(f"--model {self.name}: device_map spreads {pretrained} over several devices")
        except UserError as error:
            refuse(str(error))
        self.config, self._image_processor = self.questioned.config, self.questioned.image_processor
        self.put_by = self._recipe(recipe) if recipe else None
        for name, plain in BENT.items():
            if (value := getattr(self.questioned.generation, name, None)) not in (None, plain):
                say(f"{name} {value} of {pretrained}'s generation config is passed over: answers are greedy")

    def generate_until(self, requests) -> list[str]:
        try:
            for request in requests:
                self.questioned.prepare(request.args[1])
            asks = [asked(index, request.args, self.task_dict) for index, request in enumerate(requests)]
            if self.put_by:
                asks = [ask if ask.task in OURS else longer(ask) for ask in asks]
            answered = progress(self._answered(asks), len(asks), "answering", show=self.rank == 0)
            answers = dict(answered)
        except UserError as error:
            refuse(f"--model {self.name}: {error}")
        for index, request in enumerate(requests):
            self.cache_hook.add_partial("generate_until", request.args[:2], answers[index])
        return [answers[index] for index in range(len(requests))]

    def _answered(self, asks: list[Ask]) -> Iterator[tuple[int, str]]:
        """(index, answer) of each; the pictures of what comes next are opened meanwhile."""
        for _, window in prefetch(lambda opened: next(opened, []), repeat(windows(asks))):
            if not window:
                return
            for batch in batches(window, self.batch_size):
                for one, text in zip(batch, self._texts(batch)):
                    yield one.ask.index, self._scored_part(text, one.ask)

    def _recipe(self, name: str) -> Recipe[Any]:
        """UserError, as a refusal, where nobody has it, or the model's box format is not known."""
        try:
            return recipe_of(name, running_format(os.environ))
        except UserError as error:
            refuse(f"--model {self.name}: --model_args recipe={name}: {error}")

    def _put(self, shown: Shown) -> str:
        """The prompt, as the recipe puts it where there is one: of lmms-eval's own tasks, of a picture."""
        ask = shown.ask
        if self.put_by is None or ask.task in OURS or not shown.pictures:
            return ask.text
        return self.put_by.put(ask.text, *shown.pictures[0].size)

    def _scored_part(self, text: str, ask: Ask) -> str:
        """What counts of an answer; one that is not in the recipe's form counts as it is."""
        if self.put_by and ask.task not in OURS and (stated := self.put_by.answer_in(text)) is not None:
            return stated
        return self.cut(text, ask)

    def _texts(self, batch: Sequence[Shown]) -> list[str]:
        """One answer to each; a batch that is too much at once is answered half by half."""
        questioned, rows = self.questioned, []
        for _, same in groupby(batch, attrgetter("key")):
            first, *others = same
            rows += questioned.questions(first.pictures, [self._put(one) for one in (first, *others)])
        try:
            answers = decode(
                questioned, rows, [[0]] * len(rows), None, batch[0].ask.max_new_tokens, share=True
            )
            return questioned.texts([tokens for (tokens,) in answers])
        except torch.cuda.OutOfMemoryError:
            if len(batch) == 1:
                raise UserError(f"out of memory with one prompt of {batch[0].ask.task}") from None
        # outside the handler, whose traceback would keep the tensors alive
        torch.cuda.empty_cache()
        half = (len(batch) + 1) // 2
        if half < self.batch_size:
            self.batch_size = half
            say(f"{len(batch)} prompts do not fit in memory: {half} are answered together from here on")
        return self._texts(batch[:half]) + self._texts(batch[half:])

    def cut(self, text: str, ask: Ask) -> str:
        """The part of what the model said that is its answer."""
        raise NotImplementedError

    def loglikelihood(self, requests):
        self._refuse_others(requests, "likelihoods")

    def generate_until_multi_round(self, requests):
        self._refuse_others(requests, "several rounds")

    def _refuse_others(self, requests, what: str):
        task = next((request.task_name for request in requests), "a task")
        refuse(f"--model {self.name} answers in text, once: {task} asks for {what}; take another --model")

    def clean(self) -> None:
        self.__dict__.pop("questioned", None)
        super().clean()


def longer(ask: Ask) -> Ask:
    """The same, with room for thought."""
    return replace(ask, max_new_tokens=max(ask.max_new_tokens, THOUGHT))


def rows_together(given) -> int:
    """Of ``--batch_size``. lmms-eval's command line gives what was written as text, and the number 1 where
    nothing was.
    """
    if given in (None, 1) or str(given).startswith("auto"):
        return ROWS
    if not str(given).isdecimal() or int(given) < 1:
        raise UserError(f"--batch_size {given}: give a number of prompts, or auto")
    return int(given)


class Llava(Greedy):
    """``spr_llava``: what lmms-eval's ``llava`` says, which stops at the end token, whatever a task says."""

    name = "spr_llava"

    def load(
        self,
        pretrained: str,
        conv_template: str = "vicuna_v1",
        model_name: str | None = None,
        attn_implementation: str = "sdpa",
        device_map: str | None = None,
    ) -> QuestionedLlava:
        where = device_map or str(self.device)
        return QuestionedLlava(pretrained, where, model_name, conv_template, attn_implementation)

    def cut(self, text: str, ask: Ask) -> str:
        return text


class HuggingFace(Greedy):
    """``spr_hf``: a model of transformers with its processor; ``until`` of a task ends an answer."""

    name = "spr_hf"

    def load(
        self,
        pretrained: str,
        dtype: str | None = None,
        attn_implementation: str | None = None,
        device_map: str | None = None,
    ) -> QuestionedVlm:
        # half precision takes ten times as long on a CPU
        kind = dtype or ("float32" if self.device.type == "cpu" else "auto")
        return QuestionedVlm(pretrained, device_map or str(self.device), kind, attn_implementation)

    def cut(self, text: str, ask: Ask) -> str:
        return ended(text, ask.until)
