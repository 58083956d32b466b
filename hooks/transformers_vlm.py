"""Hugging Face vision-language models under a plain ``transformers.Trainer`` or TRL's ``SFTTrainer``.

LLaVA, LLaVA-NeXT, LLaVA-OneVision, Qwen2.5-VL, Qwen3-VL, InternVL and what else
``AutoModelForImageTextToText`` loads together with a processor that has a chat template. The script's data
set and collator are its own and stay so: rows of ours are made by the processor, as ``generate`` would see
them, and end with the tokenizer's end-of-turn token.
"""

import contextlib
import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any

import torch

from spr_plugin.data.pictures import open_image
from spr_plugin.errors import UserError
from spr_plugin.formats import box_format
from spr_plugin.formats.families import FAMILY_OF_TYPE
from spr_plugin.hookspecs import hookimpl
from spr_plugin.training import weights
from spr_plugin.training.host import IGNORED, Host

# of transformers' own ports of LLaVA
LLAVAS = ("llava", "llava_next", "llava_onevision")


class TransformersHost(Host):
    """A script around ``Trainer(model=…, processing_class=processor)``."""

    image_folder = "."
    most_pictures = 5
    data_path = vision_tower = (
        None  # the script's data has a form of its own, and its checkpoint no text tower
    )

    def __init__(self, trainer, processor, config):
        self.trainer, self.processor, self.tokenizer = trainer, processor, processor.tokenizer
        self.vlm = base_model(trainer.model)
        self.box_format = format_of(self.vlm.config, processor, config)
        if not config.spr_annotations:
            raise UserError(
                "--spr: this script has no LLaVA --data_path to mine; name --spr_annotations FILE and"
                " --spr_image_folder DIR"
            )
        if not (getattr(processor, "chat_template", None) or getattr(self.tokenizer, "chat_template", None)):
            raise UserError(
                f"--spr: {type(processor).__name__} has no chat template, so that nobody knows how questions"
                " are put; give it one"
            )

    # --- rows

    def row(self, paths: Sequence[str], prompt: str, answer: str) -> dict:
        row = self.question([open_image(path) for path in paths], prompt)
        ids = self.tokenizer(answer, add_special_tokens=False)["input_ids"] + [self.tokenizer.eos_token_id]
        asked = len(row["input_ids"])
        for name in self._along_tokens(row):
            row[name] = torch.cat([row[name], row[name].new_zeros(len(ids))])
        row["input_ids"][asked:] = torch.tensor(ids)
        row["attention_mask"][asked:] = 1
        row["labels"] = row["input_ids"].clone()
        row["labels"][:asked] = IGNORED
        return row

    def questions(self, pictures: Sequence, prompts: list[str]) -> list[dict]:
        return [self.question(pictures, prompt) for prompt in prompts]

    def question(self, pictures: Sequence, prompt: str) -> dict:
        """What the processor makes of pictures and a question, up to where the answer begins; token sequences
        1-D.
        """
        shown = [{"type": "image", "image": picture} for picture in pictures]
        turn = {"role": "user", "content": [*shown, {"type": "text", "text": prompt}]}
        made = self.processor.apply_chat_template(
            [turn], tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        tokens = made["input_ids"].shape
        return {name: value[0] if value.shape == tokens else value for name, value in made.items()}

    @staticmethod
    def _along_tokens(row: dict) -> list[str]:
        return [name for name, value in row.items() if value.shape == row["input_ids"].shape]

    def batch(self, rows: list[dict], padding: str = "right") -> dict:
        fill = {"input_ids": self.tokenizer.pad_token_id or 0, "labels": IGNORED}
        along = self._along_tokens(rows[0])
        padded = {name: _padded([row[name] for row in rows], fill.get(name, 0), padding) for name in along}
        return padded | {name: _stacked([row[name] for row in rows]) for name in rows[0] if name not in along}

    def fits(self, row: dict) -> bool:
        """The shortest of what the trainer cuts at (TRL), the tokenizer's and the model's maximum."""
        limits = [getattr(self.trainer.args, "max_length", None), self.tokenizer.model_max_length]
        limits += [getattr(self.vlm.config.get_text_config(), "max_position_embeddings", None)]
        return len(row["input_ids"]) <= min(limit for limit in limits if limit)

    # --- answering

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
                positions = (mask.cumsum(1) - 1).clamp(min=0)
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
        positions = mask.sum(1, keepdim=True) - 1 + cache.offset
        out = decoder(
            inputs_embeds=self.vlm.get_input_embeddings()(tokens),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache.keys_and_values,
            use_cache=True,
            return_dict=True,
        )
        return head(out.last_hidden_state[:, -1]), _Placed(out.past_key_values, cache.offset)

    # --- training

    def language_model(self) -> tuple:
        return self.vlm.get_decoder(), self.vlm.get_output_embeddings()

    @contextlib.contextmanager
    def labels_overheard(self):
        """The processor has expanded the picture's tokens already, so that the rows' own labels are what the
        decoder sees.
        """
        heard = []

        def take(module, args, kwargs):
            heard[:] = [kwargs.pop("labels", None)]
            return args, kwargs

        with self.vlm.register_forward_pre_hook(take, with_kwargs=True):
            yield heard

    def pictures(self, batch: dict) -> list:
        return []  # families stack and pack their pictures differently, so that features are not cached here

    def image_encoder(self) -> None:
        return None

    def language_layers(self) -> list[str]:
        decoder, _ = self.language_model()
        inside = {id(module) for module in decoder.modules()}
        return [
            name
            for name, module in self.trainer.model.named_modules()
            if isinstance(module, torch.nn.Linear) and id(module) in inside
        ]

    def part_of(self, parameter_name: str) -> str:
        if any(part in parameter_name for part in ("projector", "merger", "image_newline")):
            return "projector"
        return (
            "vision tower"
            if any(part in parameter_name for part in ("vision_tower", "visual.", "vision_model"))
            else "language model"
        )

    def save(self, directory: str) -> None:
        state = dict(weights.tensors(self.trainer.model, list(self.trainer.model.state_dict())))
        if self.trainer.args.should_save:
            self.trainer._save(directory, state_dict=state)
            self.processor.save_pretrained(directory)


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
    shape = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts))]
    whole = torch.zeros(sum(map(len, parts)), *shape, dtype=parts[0].dtype)
    start = 0
    for part in parts:
        whole[(slice(start, start := start + len(part)), *map(slice, part.shape[1:]))] = part
    return whole


def base_model(model):
    """The model itself, out of PEFT's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def format_of(config, processor, flags):
    """The box format of a checkpoint: of its family, in the space that its image processor makes. UserError
    where nobody knows.
    """
    ours = "llava" if config.model_type in LLAVAS else FAMILY_OF_TYPE.get(config.model_type)
    family = flags.spr_box_format or ours
    if family is None:
        raise UserError(
            f"--spr_box_format: nobody knows how {config.model_type} writes boxes; name a family that it was"
            " trained on"
        )
    images = processor.image_processor
    if family == "qwen2.5-vl":
        made = box_format(family, f"{images.size['shortest_edge']}-{images.size['longest_edge']}")
        return dataclasses.replace(made, factor=images.patch_size * images.merge_size)
    return box_format(
        family, "pad" if getattr(images, "do_pad", False) and config.model_type == "llava" else "square"
    )


def find_processor(trainer, namespace: dict):
    """The script's processor: the Trainer's, its collator's, or the one among the script's globals; None if
    there is none.
    """
    from transformers import ProcessorMixin

    candidates = [
        getattr(trainer, "processing_class", None),
        getattr(trainer.data_collator, "processor", None),
        *namespace.values(),
    ]
    return next(
        (one for one in candidates if isinstance(one, ProcessorMixin) and hasattr(one, "tokenizer")), None
    )


@hookimpl
def spr_host(trainer, namespace, config):
    model = base_model(trainer.model)
    if getattr(getattr(model, "config", None), "vision_config", None) is None:
        return None
    processor = find_processor(trainer, namespace)
    if processor is None:
        raise UserError(
            "--spr: no processor found; write Trainer(…, processing_class=processor) or"
            " spr_plugin.attach(trainer, processor=processor)"
        )
    if not hasattr(model, "get_decoder") or model.get_output_embeddings() is None:
        import transformers

        raise UserError(
            f"--spr: {type(model).__name__} of transformers {transformers.__version__} keeps its language"
            " model where nobody looks; supply a spr_host hook"
        )
    return TransformersHost(trainer, processor, config)
