"""LLaVA-NeXT and LLaVA-OneVision: LLaVA's entry points with pictures in tiles (anyres), ``modalities`` and
chat templates.

A row's pictures are a list of (tiles, size, modality); of several the host pads each to one tile. Under a
chat template the host also trains on the template's own tokens, in questions too, so that the labels do not
say where an answer begins: its header does.
"""

import functools
import inspect
from collections.abc import Sequence

import torch

from spr_plugin.data.pictures import PictureSource
from spr_plugin.errors import UserError
from spr_plugin.hooks.llava import LlavaHost, expansion_arguments, script_of
from spr_plugin.hookspecs import hookimpl
from spr_plugin.training.host import IGNORED

HEADERS = ("<|im_start|>assistant\n", "<|start_header_id|>assistant<|end_header_id|>\n\n")


class LlavaNextHost(LlavaHost):
    """A script built like LLaVA-NeXT's ``llava/train/train.py``."""

    frozen_tower = None
    most_pictures = 5

    def __init__(self, trainer, namespace: dict, config):
        super().__init__(trainer, namespace, config)
        mined = self.data_path if config.mines() else None
        if mined and ("{" in mined or not mined.endswith(".json")):
            raise UserError(
                f"--data_path {self.data_path}: boxes are mined from one JSON file only; name"
                " --spr_annotations and --spr_image_folder"
            )

    def row(self, sources: Sequence[PictureSource], prompt: str, answer: str) -> dict:
        row = super().row(sources, prompt, answer)
        start = self.asked(row)
        ends = [
            index
            for index, token in enumerate(row["input_ids"].tolist())
            if token in self.stop_tokens and index >= start
        ]
        row["labels"] = row["labels"].clone()
        row["labels"][:start] = IGNORED
        row["labels"][ends[0] + 1 if ends else len(row["labels"]) :] = IGNORED
        return row

    def tower_trains(self) -> None:
        """LLaVA-NeXT's loader takes a tower from the checkpoint only where the config says this."""
        self.llava.config.unfreeze_mm_vision_tower = True

    def item(self, dataset, index: int) -> dict:
        return dataset._get_item(index)  # its __getitem__ sleeps over a bad picture, and takes another one

    def asked(self, row: dict) -> int:
        ids = row["input_ids"].tolist()
        for header in self._headers:
            starts = [index for index in range(len(ids)) if ids[index : index + len(header)] == header]
            if starts:
                return starts[-1] + len(header)
        return super().asked(row)

    @functools.cached_property
    def _headers(self) -> list[list[int]]:
        words = [self.tokenizer(header, add_special_tokens=False).input_ids for header in HEADERS]
        return [
            ids
            for header, ids in zip(HEADERS, words)
            if self.tokenizer.convert_tokens_to_ids(header.split("|>")[0] + "|>") == ids[0]
        ]

    def transform_once(self, dataset) -> None:
        dataset.process_image = functools.lru_cache(dataset.process_image)

    def tiles(self, row: dict) -> list:
        return [
            (id(tiles), index)
            for tiles, *_ in row["image"]
            for index in range(len(tiles) if tiles.ndim == 4 else 1)
        ]

    def fits(self, row: dict) -> bool:
        """The host's own expansion, which cuts, tells how much of the answer is left; a picture's number of
        tokens depends on its shape.
        """
        expand = type(self.llava).prepare_inputs_labels_for_multimodal
        batch = self.batch([row])
        given = {
            name: batch.get(name)
            for name in ("input_ids", "attention_mask", "labels", "images", "modalities", "image_sizes")
        }
        *_, labels = expand(_Counting(self.llava), position_ids=None, past_key_values=None, **given)
        return 0 < int((row["labels"] != IGNORED).sum()) == int((labels != IGNORED).sum())


class _Counting:
    """The model as its expansion sees it, with embeddings one number wide: what is cut is known without the
    weights.
    """

    device = torch.device("cpu")
    image_newline = torch.zeros(1)

    def __init__(self, llava):
        self._llava = llava

    def __getattr__(self, name):
        method = inspect.getattr_static(type(self._llava), name, None)
        return method.__get__(self) if inspect.isfunction(method) else getattr(self._llava, name)

    def get_vision_tower(self):
        return self._llava.get_vision_tower()

    @property
    def model(self):
        return self

    def get_model(self):
        return self

    def embed_tokens(self, ids):
        return torch.zeros(*ids.shape, 1)

    def encode_images(self, images):
        return torch.zeros(len(images), self.get_vision_tower().num_patches, 1)


@hookimpl
def spr_host(trainer, namespace, config):
    if not script_of(trainer, namespace) or "modalities" not in expansion_arguments(trainer.model):
        return None
    return LlavaNextHost(trainer, namespace, config)
