"""A Hugging Face vision-language model as decoding asks it: rows by its processor, positions by the model."""

import dataclasses
import inspect
from collections.abc import Hashable, Sequence
from typing import Any

import torch

from spr_plugin.hooks.transformed import TransformedOnce
from spr_plugin.imports import replaced
from spr_plugin.training.host import IGNORED, Answering, positions_of

# names in a model's config of the tokens that stand where a picture's features go
PICTURE_TOKENS = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")


class VlmModel(Answering):
    """A model and its processor, which has a chat template.

    Attributes:
        vlm: the model, out of any wrapper.
        processor: its processor, with a tokenizer.
        tokenizer: that one.
    """

    vlm: Any
    processor: Any
    tokenizer: Any

    def question(self, pictures: Sequence, prompt: str) -> dict:
        """What the processor makes of pictures and a question, up to where the answer begins; token sequences
        1-D.
        """
        made = self.processor.apply_chat_template(
            [{"role": "user", "content": self.content(pictures, prompt)}],
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        )
        tokens = made["input_ids"].shape
        return {name: value[0] if value.shape == tokens else value for name, value in made.items()}

    def content(self, pictures: Sequence, prompt: str) -> list[dict]:
        """A question as chat templates take it: the pictures, then the text."""
        return [*({"type": "image", "image": one} for one in pictures), {"type": "text", "text": prompt}]

    def questions(self, pictures: Sequence, prompts: list[str]) -> list[dict]:
        """One row for each prompt, all of which hold the same picture tensors: they are made once."""
        once = TransformedOnce(self.processor.image_processor)
        with replaced(self.processor, "image_processor", once):
            rows = [self.question(pictures, prompt) for prompt in prompts]
        along = self._along_tokens(rows[0])
        shown = {name: value for name, value in rows[0].items() if name not in along}
        return [row | shown for row in rows]

    def sharing(self, row: dict) -> tuple[Hashable, int] | None:
        along, config = self._along_tokens(row), self.vlm.config
        shown = tuple(id(value) for name, value in row.items() if name not in along)
        pads = [token for name in PICTURE_TOKENS if (token := getattr(config, name, None)) is not None]
        images = torch.isin(row["input_ids"], torch.tensor(pads)).nonzero()
        if len(images):
            return shown, int(images[-1]) + 1
        return None if shown else ((), 0)

    @staticmethod
    def _along_tokens(row: dict) -> list[str]:
        return [name for name, value in row.items() if value.shape == row["input_ids"].shape]

    def batch(self, rows: list[dict], padding: str = "right") -> dict:
        fill = {"input_ids": self.tokenizer.pad_token_id or 0, "labels": IGNORED}
        along = self._along_tokens(rows[0])
        padded = {name: _padded([row[name] for row in rows], fill.get(name, 0), padding) for name in along}
        return padded | {name: _stacked([row[name] for row in rows]) for name in rows[0] if name not in along}

    @property
    def stop_tokens(self) -> list[int]:
        own = self.vlm.generation_config.eos_token_id
        return list(
            dict.fromkeys([self.tokenizer.eos_token_id, *([own] if isinstance(own, int) else own or [])])
        )

    def texts(self, answers: list[list[int]]) -> list[str]:
        return [text.strip() for text in self.tokenizer.batch_decode(answers, skip_special_tokens=True)]

    def prefill(self, rows: list[dict]) -> tuple:
        batch = self.on_device(self.batch(rows, padding="left"))
        mask, seen = batch["attention_mask"].long(), {}

        def with_positions(module, args, kwargs):
            """One axis of positions counts from a row's first token; the model's own three (M-RoPE) stay."""
            positions = kwargs.get("position_ids")
            if positions is None or positions.ndim < 3:
                positions = positions_of(mask, mask)
            seen["positions"] = positions
            return args, {**kwargs, "position_ids": positions}

        decoder, _ = self.language_model()
        with decoder.register_forward_pre_hook(with_positions, with_kwargs=True):
            out = self.vlm(**batch, use_cache=True, return_dict=True, **self._last_logits())
        offset = seen["positions"][..., -1:] - (mask.sum(1, keepdim=True) - 1)
        return out.logits[:, -1], _Placed(out.past_key_values, offset), mask

    def _last_logits(self) -> dict:
        known = inspect.signature(type(self.vlm).forward).parameters
        return {name: 1 for name in ("logits_to_keep", "num_logits_to_keep") if name in known}

    def step(self, tokens, mask, cache) -> tuple:
        decoder, head = self.language_model()
        positions = positions_of(mask, tokens) + cache.offset
        out = decoder(
            inputs_embeds=self.vlm.get_input_embeddings()(tokens),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache.keys_and_values,
            use_cache=True,
            return_dict=True,
        )
        return head(out.last_hidden_state[:, -1]), _Placed(out.past_key_values, cache.offset)

    def language_model(self) -> tuple:
        return self.vlm.get_decoder(), self.vlm.get_output_embeddings()


@dataclasses.dataclass
class _Placed:
    """A key-value cache, and each row's `offset` ``(…, B, 1)`` from its number of tokens to its next
    position: a picture of many tokens can take few positions (transformers' ``rope_deltas``).
    """

    keys_and_values: Any
    offset: torch.Tensor

    @property
    def layers(self) -> list:
        return getattr(self.keys_and_values, "layers", [])

    def batch_repeat_interleave(self, times: int) -> None:
        self.keys_and_values.batch_repeat_interleave(times)
        self.offset = self.offset.repeat_interleave(times, -2)

    def batch_select_indices(self, rows: torch.Tensor) -> None:
        self.keys_and_values.batch_select_indices(rows)
        self.offset = self.offset[..., rows, :]


def _padded(sequences: list[torch.Tensor], fill: int, side: str) -> torch.Tensor:
    longest = max(map(len, sequences))
    padded = torch.full((len(sequences), longest), fill, dtype=sequences[0].dtype)
    for row, sequence in zip(padded, sequences):
        row[longest - len(sequence) if side == "left" else 0 :][: len(sequence)] = sequence
    return padded


def _stacked(parts: list[torch.Tensor]) -> torch.Tensor:
    """Parts one behind the other, those in fewer tiles filled up with zeros."""
    # The largest of each dimension.
    shape = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts))]
    whole = torch.zeros(sum(map(len, parts)), *shape, dtype=parts[0].dtype)
    start = 0
    for part in parts:
        whole[(slice(start, start := start + len(part)), *map(slice, part.shape[1:]))] = part
    return whole
