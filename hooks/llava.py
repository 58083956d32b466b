"""LLaVA v1.5 and code bases that kept its entry points, under any package name.

Everything is asked of the running script itself: its dataset class tokenizes and transforms pictures, its
collator pads, its model expands ``<image>`` (facts that differ between forks stay theirs). What a script must
have is listed in ``NEEDED``.
"""

import contextlib
import copy
import inspect
import sys
import uuid
from collections.abc import Sequence

import torch

from spr_plugin.data.pictures import PictureSource, open_image
from spr_plugin.errors import UserError
from spr_plugin.formats import box_format
from spr_plugin.hooks.llava_model import LlavaModel
from spr_plugin.hooks.transformed import TransformedOnce
from spr_plugin.hookspecs import hookimpl
from spr_plugin.imports import replaced
from spr_plugin.training import weights
from spr_plugin.training.host import Host

LORA_SAVERS = ("get_peft_state_maybe_zero_3", "get_peft_state_non_lora_maybe_zero_3")
NEEDED = ("make_supervised_data_module", "LazySupervisedDataset", "safe_save_model_for_hf_trainer", "Image")
PLACEHOLDER = "answer"


class LlavaHost(LlavaModel, Host):
    """A script built like ``llava/train/train.py``."""

    frozen_tower: str | None = (
        "LLaVA-1.5's vision tower computes without gradients, and is loaded from its own path again"
    )

    def __init__(self, trainer, namespace: dict, config):
        self.trainer, self.namespace = trainer, namespace
        self.data_args = trainer.train_dataset.data_args
        self.data_path, self.image_folder = self.data_args.data_path, self.data_args.image_folder
        self.dataset, self.collator = trainer.train_dataset, trainer.data_collator
        self.tokenizer = self.dataset.tokenizer
        self.box_format = box_format(config.spr_box_format or "llava", self.data_args.image_aspect_ratio)
        self.vision_tower = trainer.model.config.mm_vision_tower
        self.llava = next(
            m for m in trainer.model.modules() if hasattr(type(m), "prepare_inputs_labels_for_multimodal")
        )
        self.generation = self.llava.generation_config
        missing = [
            name
            for name in LORA_SAVERS
            if name not in namespace and getattr(trainer.args, "lora_enable", False)
        ]
        if config.spr_save_base and missing:
            raise UserError(
                f"--spr_save_base: this LLaVA-like script lacks {', '.join(missing)}, by which a LoRA model "
                "is saved; leave the flag out"
            )

    def __getstate__(self) -> dict:
        """Without the script's globals, and the records of its data set, which our rows have no use for."""
        state = {name: value for name, value in super().__getstate__().items() if name != "namespace"}
        state["dataset"] = copy.copy(self.dataset)
        state["dataset"].list_data_dict = []
        return state

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self.namespace = vars(sys.modules[type(self.dataset).__module__])

    def row(self, sources: Sequence[PictureSource], prompt: str, answer: str) -> dict:
        (row,) = self.rows([open_image(source) for source in sources], [(prompt, answer)])
        return row

    def rows(self, pictures: Sequence, talks: list[tuple[str, str]]) -> list[dict]:
        """Rows of (question, answer) about the same pictures, by the host's own data set, transformed
        once.
        """
        one = copy.copy(self.dataset)
        one.list_data_dict = []
        self.transform_once(one)
        with pictures_in_memory(self.namespace, pictures) as names:
            shown = names if len(names) > 1 else names[0]
            for asked, answer in talks:
                question = "<image>\n" * len(names) + asked
                turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
                one.list_data_dict.append({"id": "spr", "image": shown, "conversations": turns})
            return [self.item(one, index) for index in range(len(talks))]

    def item(self, dataset, index: int) -> dict:
        """A row of the host's data set."""
        return dataset[index]

    def batch(self, rows: list[dict]) -> dict:
        return self.collator(rows)

    def fits(self, row: dict) -> bool:
        length = len(row["input_ids"]) - 1 + self.llava.get_vision_tower().num_patches
        return bool((row["labels"] != -100).any()) and length <= self.tokenizer.model_max_length

    def questions(self, pictures: Sequence, prompts: list[str]) -> list[dict]:
        rows = self.rows(pictures, [(prompt, PLACEHOLDER) for prompt in prompts])
        for row in rows:
            asked = self.asked(row)
            row.update(
                input_ids=row["input_ids"][:asked], labels=row["labels"][:asked], image=rows[0]["image"]
            )
        return rows

    def transform_once(self, dataset) -> None:
        """Let a copy of the host's data set, which shows one picture, transform it once."""
        dataset.data_args = copy.copy(self.data_args)
        dataset.data_args.image_processor = TransformedOnce(self.data_args.image_processor)

    def asked(self, row: dict) -> int:
        """How many tokens of a row come before its answer."""
        return int((row["labels"] != -100).nonzero()[0])

    @contextlib.contextmanager
    def labels_overheard(self):
        """LLaVA expands ``<image>`` inside its forward; embeddings and labels are last in every fork's return
        value.
        """
        heard = []
        expand = self.llava.prepare_inputs_labels_for_multimodal

        def overhear(*args, **kwargs):
            *others, labels = expand(*args, **kwargs)
            heard[:] = [labels]
            return (*others, None)

        with replaced(self.llava, "prepare_inputs_labels_for_multimodal", overhear):
            yield heard

    def pictures(self, batch: dict) -> list:
        return [
            picture for image in batch["images"] for picture in (image if image.ndim == 4 else image[None])
        ]

    def image_encoder(self) -> tuple:
        tower, projector = self.llava.get_vision_tower(), self.llava.get_model().mm_projector
        if any(p.requires_grad for p in projector.parameters()):
            return tower, "forward", (tower,)
        return self.llava, "encode_images", (tower, projector)

    def language_layers(self) -> list[str]:
        inside = {id(module) for module in self.llava.get_model().layers.modules()}
        return [
            name
            for name, module in self.trainer.model.named_modules()
            if isinstance(module, torch.nn.Linear) and id(module) in inside
        ]

    def part_of(self, parameter_name: str) -> str:
        if "vision_tower" in parameter_name:
            return "vision tower"
        between = ("mm_projector", "image_newline", "vision_resampler", "region_")
        return "projector" if any(part in parameter_name for part in between) else "language model"

    def save(self, directory: str) -> None:
        """As ``llava/train/train.py`` saves: adapter and non-LoRA weights, or the whole model; one tensor at
        a time under ZeRO-3.
        """
        model, trainer = self.trainer.model, self.trainer
        if getattr(trainer.args, "lora_enable", False):
            of_adapter, of_rest = (self.namespace[name] for name in LORA_SAVERS)
            adapter = of_adapter(model.named_parameters(), trainer.args.lora_bias)
            rest = of_rest(model.named_parameters())
            if trainer.args.should_save:
                model.config.save_pretrained(directory)
                model.save_pretrained(directory, state_dict=adapter)
                torch.save(rest, f"{directory}/non_lora_trainables.bin")
            return
        state = dict(weights.tensors(model, list(model.state_dict())))
        if trainer.args.should_save:
            trainer._save(directory, state_dict=state)


class _PicturesInMemory:
    """Stands for PIL's ``Image`` module in the host's script: ``open`` also knows pictures that are in
    memory.
    """

    def __init__(self, module):
        self._module, self.pictures = module, {}

    def __getattr__(self, name):
        return getattr(self._module, name)

    def open(self, path, *args, **kwargs):
        return self.pictures[path] if path in self.pictures else self._module.open(path, *args, **kwargs)


@contextlib.contextmanager
def pictures_in_memory(namespace: dict, pictures: Sequence):
    """Absolute paths under which the script's ``Image.open`` finds these pictures."""
    if not isinstance(namespace["Image"], _PicturesInMemory):
        namespace["Image"] = _PicturesInMemory(namespace["Image"])
    known, own = namespace["Image"].pictures, {f"/{uuid.uuid4().hex}": picture for picture in pictures}
    known.update(own)
    try:
        yield list(own)
    finally:
        for name in own:
            del known[name]


def script_of(trainer, namespace: dict) -> bool:
    """Whether this is a script built like LLaVA's. UserError where one of its entry points is missing."""
    model = trainer.model
    if not hasattr(type(model), "prepare_inputs_labels_for_multimodal") and not hasattr(
        model, "prepare_inputs_labels_for_multimodal"
    ):
        return False
    missing = [name for name in NEEDED if name not in namespace]
    missing += [] if hasattr(trainer.train_dataset, "data_args") else ["data_args of its data set"]
    if missing:
        raise UserError(
            f"--spr: this LLaVA-like script lacks {', '.join(missing)}; supply a spr_host hook"
            " (docs/write-a-host.md)"
        )
    return True


def expansion_arguments(model) -> list[str]:
    """Names of what ``prepare_inputs_labels_for_multimodal`` takes, by which forks differ."""
    return list(inspect.signature(model.prepare_inputs_labels_for_multimodal).parameters)


@hookimpl
def spr_host(trainer, namespace, config):
    return LlavaHost(trainer, namespace, config) if script_of(trainer, namespace) else None
