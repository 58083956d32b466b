"""A checkpoint as questions are put to it: prompts, picture processing and stops are its own, the loop is
:mod:`spr_plugin.sampling.decoding`'s.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence

import torch

from spr_plugin.errors import UserError
from spr_plugin.eval_tasks.asking import IMAGE
from spr_plugin.hooks.llava_model import LlavaModel
from spr_plugin.hooks.vlm_model import VlmModel


class QuestionedLlava(LlavaModel):
    """A LLaVA checkpoint, loaded by LLaVA's own builder and asked as lmms-eval's ``llava`` asks.

    Args:
        device_map: of ``from_pretrained``; one device in the end.
        name: what LLaVA's builder goes by (mistral, mpt, lora); by default the folder's.
        template: of ``llava.conversation.conv_templates``.
    """

    def __init__(self, pretrained: str, device_map, name: str | None, template: str, attention: str):
        from llava.conversation import conv_templates
        from llava.mm_utils import get_model_name_from_path
        from llava.model.builder import load_pretrained_model

        if template not in conv_templates:
            raise UserError(f"conv_template {template} is none of {', '.join(conv_templates)}")
        name = name or get_model_name_from_path(pretrained)
        name = name if "llava" in name.lower() else f"llava-{name}"
        self.tokenizer, self.llava, self.image_processor, _ = load_pretrained_model(
            pretrained, None, name, device_map=device_map, attn_implementation=attention
        )
        if self.llava.device.type == "cpu":
            self.llava.float()  # half precision takes ten times as long there
        self.llava.eval()
        self.generation, self.config = self.llava.generation_config, self.llava.config
        # a Llama 3 template holds its tokenizer, and is copied whole
        whole = functools.partial(copy.deepcopy, conv_templates[template])
        self.template = whole if "llama_3" in template else conv_templates[template].copy
        pad = self.tokenizer.pad_token_id
        self.pad = self.tokenizer.eos_token_id if pad is None else pad

    def prepare(self, given: dict) -> None:
        """What a task's settings change in a model that does not say how it shows pictures."""
        if "image_aspect_ratio" in given and "image_aspect_ratio" not in vars(self.config):
            self.config.image_aspect_ratio = given["image_aspect_ratio"]

    def questions(self, pictures: Sequence, prompts: list[str]) -> list[dict]:
        """One row for each prompt, all of which hold the same picture tensors."""
        from llava.mm_utils import process_images

        # half precision on every device, as lmms-eval's: the same numbers give the same answers
        images = [process_images([one], self.image_processor, self.config)[0].half() for one in pictures]
        return [self._row(images, [one.size for one in pictures], prompt) for prompt in prompts]

    def _row(self, images: list[torch.Tensor], sizes: list, prompt: str) -> dict:
        from llava.constants import IMAGE_TOKEN_INDEX
        from llava.mm_utils import tokenizer_image_token

        if images and IMAGE not in prompt:
            prompt = f"{' '.join([IMAGE] * len(images))}\n{prompt}"
        mentioned = prompt.count(IMAGE)
        if mentioned > len(images):
            raise UserError(f"a prompt with {mentioned} times {IMAGE} comes with {len(images)} pictures")
        talk = self.template()
        talk.append_message(talk.roles[0], prompt)
        talk.append_message(talk.roles[1], None)
        ids = tokenizer_image_token(talk.get_prompt(), self.tokenizer, IMAGE_TOKEN_INDEX, return_tensors="pt")
        # LLaVA drops what is padding, wherever it stands
        return {"input_ids": ids[ids != self.pad], "images": images[:mentioned], "sizes": sizes[:mentioned]}

    def batch(self, rows: list[dict]) -> dict:
        ids = torch.nn.utils.rnn.pad_sequence([row["input_ids"] for row in rows], True, self.pad)
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        images = [image for row in rows for image in row["images"]]
        alike = images and images[0].ndim == 3
        return {
            "input_ids": ids,
            "attention_mask": torch.arange(ids.shape[1])[None] < lengths[:, None],
            "images": torch.stack(images) if alike else images or None,
            "image_sizes": [size for row in rows for size in row["sizes"]],
        }

    def tiles(self, row: dict) -> list:
        return [
            (id(image), index)
            for image in row["images"]
            for index in range(len(image) if image.ndim == 4 else 1)
        ]

    def texts(self, answers: list[list[int]]) -> list[str]:
        return self.tokenizer.batch_decode(answers, skip_special_tokens=True)


class QuestionedVlm(VlmModel):
    """What ``AutoModelForImageTextToText`` loads, asked by its processor's chat template."""

    def __init__(self, pretrained: str, device_map, dtype: str, attention: str | None):
        import transformers

        self.processor = transformers.AutoProcessor.from_pretrained(pretrained)
        self.tokenizer = getattr(self.processor, "tokenizer", None)
        if not (
            getattr(self.processor, "chat_template", None) or getattr(self.tokenizer, "chat_template", None)
        ):
            raise UserError(f"{pretrained} has no chat template, so that nobody knows how questions are put")
        given = {"attn_implementation": attention} if attention else {}
        self.vlm = transformers.AutoModelForImageTextToText.from_pretrained(
            pretrained, device_map=device_map, torch_dtype=dtype, **given
        ).eval()
        self.generation, self.config = self.vlm.generation_config, self.vlm.config
        self.image_processor = self.processor.image_processor

    def prepare(self, given: dict) -> None:
        """A checkpoint's processor knows how it shows pictures, whatever a task says."""

    def content(self, pictures: Sequence, prompt: str) -> list[dict]:
        """The pictures where the prompt says so, else before it."""
        before, *parts = prompt.split(IMAGE)
        if not parts:
            return super().content(pictures, prompt)
        if len(parts) > len(pictures):
            raise UserError(f"a prompt with {len(parts)} times {IMAGE} comes with {len(pictures)} pictures")
        content = [{"type": "text", "text": before}]
        for picture, text in zip(pictures, parts):
            content += [{"type": "image", "image": picture}, {"type": "text", "text": text}]
        return [part for part in content if part.get("text") != ""]

    def texts(self, answers: list[list[int]]) -> list[str]:
        return self.tokenizer.batch_decode(answers, skip_special_tokens=True)
