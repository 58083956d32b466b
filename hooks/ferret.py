"""Ferret (apple/ml-ferret): LLaVA's entry points with region features.

With ``--add_region_feature`` a box in a question is followed by ``<region_fea>``, and the row brings a mask
of the box. Points in the masks are drawn anew at every forward; within the stage every forward draws the same
ones, so that a log-prob is a number.
"""

import contextlib
from collections.abc import Hashable, Sequence

import torch

from spr_plugin.data.pictures import PictureSource, open_image
from spr_plugin.errors import UserError
from spr_plugin.formats import box_format
from spr_plugin.hooks.llava import LlavaHost, expansion_arguments, script_of
from spr_plugin.hookspecs import hookimpl
from spr_plugin.imports import replaced

REGION = " <region_fea>"


class FerretHost(LlavaHost):
    """A script built like ``ferret/train/train.py``."""

    def __init__(self, trainer, namespace: dict, config):
        super().__init__(trainer, namespace, config)
        self.box_format = box_format(config.spr_box_format or "ferret")
        self.image_folder = None  # one for each of its data files
        if config.mines() or not config.spr_image_folder:
            raise UserError(
                "--spr: Ferret keeps boxes apart from the text, so that none are mined; name"
                " --spr_annotations and --spr_image_folder"
            )

    def row(self, sources: Sequence[PictureSource], prompt: str, answer: str) -> dict:
        (source,) = sources
        picture = open_image(source)
        text, masks = self.with_regions(prompt, *picture.size)
        (row,) = self.rows([picture], [(text, answer)])
        return {**row, **masks}

    def questions(self, pictures: Sequence, prompts: list[str]) -> list[dict]:
        (picture,) = pictures
        told = [self.with_regions(prompt, *picture.size) for prompt in prompts]
        return [
            {**row, **masks}
            for row, (_, masks) in zip(super().questions(pictures, [text for text, _ in told]), told)
        ]

    def with_regions(self, prompt: str, width: int, height: int) -> tuple[str, dict]:
        """The prompt with a region token behind each box, and ``{"region_masks": [(W, H), …]}``; unchanged
        without --add_region_feature.
        """
        if not self.dataset.add_region_feature:
            return prompt, {}
        masks, end, pieces = [], 0, []
        for mention in self.box_format.parse(prompt, width, height).mentions:
            for box, span in zip(mention.boxes, mention.brackets):
                x1, y1, x2, y2 = map(int, box.pixels())
                corners = [min(x1, width - 1), min(y1, height - 1), min(x2, width - 1), min(y2, height - 1)]
                masks.append(
                    self.dataset.generate_mask_for_feature(corners, corners, None, raw_w=width, raw_h=height)
                )
                pieces.append(prompt[end : span[1]] + REGION)
                end = span[1]
        return "".join(pieces) + prompt[end:], {"region_masks": masks}

    def sharing(self, row: dict) -> tuple[Hashable, int] | None:
        return None if row.get("region_masks") else super().sharing(row)

    def prefill(self, rows: list[dict]) -> tuple:
        with self._regions_drawn_alike():
            return super().prefill(rows)

    @contextlib.contextmanager
    def labels_overheard(self):
        with self._regions_drawn_alike(), super().labels_overheard() as heard:
            yield heard

    @contextlib.contextmanager
    def _regions_drawn_alike(self):
        """Inside, a row's region features depend on its picture and masks alone."""
        sampler = getattr(self.llava.get_model(), "region_geo_sampler", None)
        owner, name = (self.llava, "extract_region_feature") if sampler is None else (sampler, "forward")
        draw = getattr(owner, name)

        def row_by_row(maps, masks, **dtypes):
            features = []
            for index in range(len(masks)):
                with torch.random.fork_rng():
                    torch.manual_seed(0)
                    features += draw(maps[index : index + 1], masks[index : index + 1], **dtypes)
            return features

        with replaced(owner, name, row_by_row):
            yield

    def image_encoder(self) -> tuple:
        # Encode_images returns three things, of which one is for the regions.
        tower = self.llava.get_vision_tower()
        return tower, "forward", (tower,)


@hookimpl
def spr_host(trainer, namespace, config):
    if not script_of(trainer, namespace) or "region_masks" not in expansion_arguments(trainer.model):
        return None
    return FerretHost(trainer, namespace, config)
