"""Hugging Face vision-language models under a plain ``transformers.Trainer`` or TRL's ``SFTTrainer``.

LLaVA, LLaVA-NeXT, LLaVA-OneVision, Qwen2.5-VL, Qwen3-VL, InternVL and what else
``AutoModelForImageTextToText`` loads together with a processor that has a chat template. The script's data
set and collator are its own and stay so: rows of ours are made by the processor, as ``generate`` would see
them, and end with the tokenizer's end-of-turn token.
"""

import contextlib
import dataclasses
from collections.abc import Sequence

import torch

from spr_plugin.data.pictures import PictureSource, open_image
from spr_plugin.errors import UserError
from spr_plugin.formats import box_format
from spr_plugin.formats.families import FAMILY_OF_TYPE, family_of
from spr_plugin.hooks.vlm_model import VlmModel
from spr_plugin.hookspecs import hookimpl
from spr_plugin.training import weights
from spr_plugin.training.host import IGNORED, Host

# of transformers' own ports of LLaVA
LLAVAS = ("llava", "llava_next", "llava_onevision")


class TransformersHost(VlmModel, Host):
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
        self.saves_adapter_alone = self.vlm is not trainer.model  # PEFT's wrapper
        if config.mines():
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

    def row(self, sources: Sequence[PictureSource], prompt: str, answer: str) -> dict:
        row = self.question([open_image(source) for source in sources], prompt)
        ids = self.tokenizer(answer, add_special_tokens=False)["input_ids"] + [self.tokenizer.eos_token_id]
        asked = len(row["input_ids"])
        for name in self._along_tokens(row):
            row[name] = torch.cat([row[name], row[name].new_zeros(len(ids))])
        row["input_ids"][asked:] = torch.tensor(ids)
        row["attention_mask"][asked:] = 1
        row["labels"] = row["input_ids"].clone()
        row["labels"][:asked] = IGNORED
        return row

    def fits(self, row: dict) -> bool:
        """The shortest of what the trainer cuts at (TRL), the tokenizer's and the model's maximum."""
        limits = [getattr(self.trainer.args, "max_length", None), self.tokenizer.model_max_length]
        limits += [getattr(self.vlm.config.get_text_config(), "max_position_embeddings", None)]
        return len(row["input_ids"]) <= min(limit for limit in limits if limit)

    # --- training

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
    if family_of(family).resized:
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
