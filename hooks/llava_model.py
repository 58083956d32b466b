"""LLaVA's model as decoding asks it: a row's pictures expanded by the model's own code, then the decoder."""

import contextlib
import inspect
import math
from collections.abc import Hashable
from typing import Any

import torch

from spr_plugin.imports import replaced
from spr_plugin.training import weights
from spr_plugin.training.host import Answering, positions_of


class LlavaModel(Answering):
    """A model with ``prepare_inputs_labels_for_multimodal``, under any package name.

    Attributes:
        llava: the model, out of any wrapper.
        generation: its generation config.
        tokenizer: its tokenizer.
    """

    llava: Any
    generation: Any
    tokenizer: Any

    @property
    def stop_tokens(self) -> list[int]:
        stops = self.generation.eos_token_id
        stops = self.tokenizer.eos_token_id if stops is None else stops
        return [stops] if isinstance(stops, int) else list(stops or [])

    def prefill(self, rows: list[dict]) -> tuple:
        batch = self.on_device(self.batch(rows))
        expand = self.llava.prepare_inputs_labels_for_multimodal
        known = inspect.signature(expand).parameters
        given = {
            name: batch.get(name)
            for name, parameter in known.items()
            if name in batch or parameter.default is parameter.empty
        }
        # LLaVA-NeXT's `image_newline` lies on the model itself, whose own forward is not called: no hook of
        # ZeRO-3 gathers it.
        with (
            self._pictures_encoded_once(rows),
            weights.gathered(self.llava.get_model().parameters(recurse=False)),
        ):
            *_, mask, _, embeds, _ = expand(**given)
        if embeds is None:  # no row shows a picture
            embeds = self.llava.get_input_embeddings()(batch["input_ids"])
        embeds, mask = flush_right(embeds, mask.long())
        decoder, head = self.language_model()
        positions = positions_of(mask, embeds)
        out = decoder(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            return_dict=True,
        )
        return head(out.last_hidden_state[:, -1]), out.past_key_values, mask

    def texts(self, answers: list[list[int]]) -> list[str]:
        return [text.strip() for text in self.tokenizer.batch_decode(answers, skip_special_tokens=True)]

    @contextlib.contextmanager
    def _pictures_encoded_once(self, rows: list[dict]):
        """Inside, rows that hold one and the same image tensor share what the vision tower makes of it."""
        shown = [tile for row in rows for tile in self.tiles(row)]
        distinct = list(dict.fromkeys(shown))
        first, back = [shown.index(tile) for tile in distinct], [distinct.index(tile) for tile in shown]
        tower = self.llava.get_vision_tower()
        encode = tower.forward

        def once(images):
            return (
                encode(images[first])[back]
                if torch.is_tensor(images) and len(images) == len(shown)
                else encode(images)
            )

        with replaced(tower, "forward", once):
            yield

    def tiles(self, row: dict) -> list:
        """What a row hands the vision tower, told apart by identity."""
        return [id(row["image"])]

    def language_model(self) -> tuple:
        return self.llava.get_model(), self.llava.get_output_embeddings()

    def sharing(self, row: dict) -> tuple[Hashable, int] | None:
        images = (row["input_ids"] < 0).nonzero()
        if not len(images):
            return (), 0
        tiles, patches = self.tiles(row), self.llava.get_vision_tower().num_patches
        longest = len(row["input_ids"]) + len(tiles) * (patches + math.isqrt(patches))  # and a newline a line
        if longest > (getattr(self.llava.config, "tokenizer_model_max_length", None) or math.inf):
            return None  # LLaVA may cut its end off
        return tuple(tiles), int(images[-1]) + 1


def flush_right(embeds: torch.Tensor, mask: torch.Tensor) -> tuple:
    """Rows ``(B, T, H)`` with their mask ``(B, T)`` moved to the right end, where answers go on; LLaVA pads
    right, as training wants it.
    """
    shifts = mask.flip(1).argmax(1).tolist()
    return tuple(
        torch.stack([row.roll(shift, 0) for row, shift in zip(rows, shifts)]) for rows in (embeds, mask)
    )
