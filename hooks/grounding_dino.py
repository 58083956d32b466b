"""Open-vocabulary detectors of transformers for ``--spr_detector PATH``: Grounding DINO and OWLv2 (OWL-ViT
too).

Both say how well each of their boxes fits each *token* (Grounding DINO) or *query* (OWLv2), and that is what
is read here. The
processors' own post-processing is not used: it renamed its threshold and its labels between versions (4.51),
scales OWLv2's boxes differently in different ones, and gives back pieces of the prompt, where we need the
phrase that was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import torch
from PIL import Image

from spr_plugin.boxes import Box, Space
from spr_plugin.errors import UserError
from spr_plugin.hooks.checkpoint import refused, whole
from spr_plugin.hookspecs import hookimpl
from spr_plugin.recipes.spr.models import Detection
from spr_plugin.recipes.spr.scoring import split_text

ENDS = re.compile(r"[.?]")  # of a phrase within a caption
CAPTIONS = 4  # in one batch at most, each with the picture beside it
Scored = tuple[str, torch.Tensor, torch.Tensor]


class ZeroShotDetector:
    """What both have in common: phrases in, boxes with phrases out.

    Args:
        model: from ``AutoModelForZeroShotObjectDetection``.
        processor: its image processor and tokenizer.
        threshold: a box counts for a phrase from this score (0 to 1) on.
        device: where it runs; in float32.
    """

    text_limit: int  # tokens of one phrase

    def __init__(self, model, processor, threshold: float, device: torch.device | str = "cpu"):
        self.model, self.processor, self.threshold, self.device = (
            model.float().to(device).eval(),
            processor,
            threshold,
            device,
        )

    @torch.no_grad()
    def detect(self, picture: Image.Image, phrases: Sequence[str]) -> list[Detection]:
        """(phrase, box in pixels of the picture, score) of all that is found for `phrases`.

        A phrase over the model's text limit is split at words; what is found for its parts counts for the
        phrase.
        """
        parts = {
            phrase: [part for part, _ in split_text(_plain(phrase), self.count_tokens, self.text_limit)]
            for phrase in phrases
        }
        asked = dict.fromkeys(part for split in parts.values() for part in split)
        by_part = (
            {
                part: self._kept(picture, scores, boxes)
                for part, scores, boxes in self._detected(picture, list(asked))
            }
            if asked
            else {}
        )
        return [
            (phrase, box, score)
            for phrase, split in parts.items()
            for part in split
            for box, score in by_part[part]
        ]

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` without those that begin and end a prompt."""
        return len(self._tokens(text))

    def _tokens(self, text: str) -> list[int]:
        return self.processor.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def _pixels(self, picture: Image.Image) -> dict[str, torch.Tensor]:
        return self.processor.image_processor(images=picture, return_tensors="pt").to(self.device)

    def _detected(self, picture: Image.Image, parts: Sequence[str]) -> Iterator[Scored]:
        """(part, scores (q,), boxes (q, 4) as centre, width and height, 0-1 of what `_sides` says) for each
        part.
        """
        raise NotImplementedError

    def _sides(self, picture: Image.Image) -> tuple[int, int]:
        return picture.size

    def _kept(
        self, picture: Image.Image, scores: torch.Tensor, boxes: torch.Tensor
    ) -> list[tuple[Box, float]]:
        space, sides = (
            Space.pixels(*picture.size),
            torch.tensor(self._sides(picture) * 2, device=boxes.device),
        )
        kept = scores > self.threshold
        centres, half = boxes[kept, :2], boxes[kept, 2:] / 2
        corners = torch.cat([centres - half, centres + half], dim=1) * sides
        return [(Box.of(box, space), score) for box, score in zip(corners.tolist(), scores[kept].tolist())]


class GroundingDino(ZeroShotDetector):
    """Phrases share a caption, "a cat. a dog.", as long as they fit; a phrase's score is that of its best
    token.
    """

    def __init__(self, model, processor, threshold, device="cpu"):
        super().__init__(model, processor, threshold, device)
        self.caption_limit = min(model.config.max_text_len, model.config.text_config.max_position_embeddings)
        self.text_limit = self.caption_limit - 3  # begin, full stop, end

    def _detected(self, picture, parts):
        captions, pixels = list(self._captions(parts)), self._pixels(picture)
        for batch in (captions[i : i + CAPTIONS] for i in range(0, len(captions), CAPTIONS)):
            text = self.processor.tokenizer.pad(
                {"input_ids": [ids for ids, _ in batch]}, return_tensors="pt"
            ).to(self.device)
            out = self.model(
                **{name: values.expand(len(batch), *values.shape[1:]) for name, values in pixels.items()},
                input_ids=text["input_ids"],
                attention_mask=text["attention_mask"],
                token_type_ids=torch.zeros_like(text["input_ids"]),
            )
            for (_, spans), logits, boxes in zip(batch, out.logits, out.pred_boxes):
                for part, (start, end) in spans.items():
                    yield part, logits[:, start:end].sigmoid().amax(dim=1), boxes

    def _captions(self, parts: Iterable[str]) -> Iterator[tuple[list[int], dict[str, tuple[int, int]]]]:
        """(token ids, part → where its tokens lie) of captions within the limit."""
        tokenizer = self.processor.tokenizer
        begin, stop, end = (
            tokenizer.cls_token_id,
            tokenizer.convert_tokens_to_ids("."),
            tokenizer.sep_token_id,
        )
        ids, spans = [begin], {}
        for part in parts:
            tokens = self._tokens(part)
            if len(ids) + len(tokens) + 2 > self.caption_limit:
                yield [*ids, end], spans
                ids, spans = [begin], {}
            spans[part] = (len(ids), len(ids) + len(tokens))
            ids += [*tokens, stop]
        yield [*ids, end], spans


class OwlVit(ZeroShotDetector):
    """Each phrase is a query of its own; the picture is squeezed to a square."""

    def __init__(self, model, processor, threshold, device="cpu"):
        super().__init__(model, processor, threshold, device)
        self.query_limit = model.config.text_config.max_position_embeddings
        self.text_limit = self.query_limit - processor.tokenizer.num_special_tokens_to_add()

    def _detected(self, picture, parts):
        text = self.processor.tokenizer(
            list(parts), padding="max_length", max_length=self.query_limit, return_tensors="pt"
        ).to(self.device)
        pixels = self._pixels(picture)["pixel_values"]
        out = self.model(
            pixel_values=pixels, input_ids=text["input_ids"], attention_mask=text["attention_mask"]
        )
        for index, part in enumerate(parts):
            yield part, out.logits[0, :, index].sigmoid(), out.pred_boxes[0]


class Owlv2(OwlVit):
    """The picture is padded to a square, below or on the right, before it is made small."""

    def _sides(self, picture):
        return (max(picture.size),) * 2


FAMILIES = {
    "grounding-dino": GroundingDino,
    "mm-grounding-dino": GroundingDino,
    "owlvit": OwlVit,
    "owlv2": Owlv2,
}


def _plain(phrase: str) -> str:
    """Lower case, and without the marks that end a phrase within a caption."""
    return " ".join(ENDS.sub(" ", phrase.lower()).split())


def load(path: str, threshold: float, device: torch.device | str = "cpu") -> ZeroShotDetector:
    """The detector of a checkpoint: a folder or hub id. Raises UserError in one line for anything else."""
    from transformers import AutoConfig, AutoModelForZeroShotObjectDetection, AutoProcessor

    with refused("--spr_detector", path, "no detector that transformers loads"):
        kind = AutoConfig.from_pretrained(path).model_type
        if kind not in FAMILIES:
            raise UserError(
                f"--spr_detector {path}: not Grounding DINO or OWLv2 (its config says {kind!r}); a plugin can"
                " bring another detector"
            )
        processor = AutoProcessor.from_pretrained(path)
        model = whole(AutoModelForZeroShotObjectDetection, path, ("position_ids", "special_tokens"))
    return FAMILIES[kind](model, processor, threshold, device)


@hookimpl
def spr_detector(config, device) -> ZeroShotDetector:
    """``--spr_detector PATH``; a plugin that brings another detector is asked first."""
    return load(config.spr_detector, config.spr_detector_threshold, device)
