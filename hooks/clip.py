"""CLIP, or SigLIP, as the similarity model of the semantic score: S(I_crop, T) and S_local(I, T), raw
cosines.

A picture passes the vision tower once, whatever the number of its regions and texts: only where the region's
mask begins (the last block's class token; SigLIP's pooling head) is the rest repeated, all regions in one
batch. Crops and texts are batched too.

Runs with transformers 4.37 to 5.x: only module attributes are used that both have. Pictures are squeezed to
CLIP's square, never centre-cropped, so that nothing of a wide region or picture is cut off.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from PIL import Image

from spr_plugin.boxes import Box
from spr_plugin.errors import UserError
from spr_plugin.hooks.checkpoint import refused, whole
from spr_plugin.hookspecs import hookimpl
from spr_plugin.recipes.spr.prompts import crop_corners
from spr_plugin.recipes.spr.scoring import split_text

COVERED = 0.5  # of a patch's area, for the patch to count as part of the region
NAMES = 10_000  # whose embeddings are held
NAMES_AT_ONCE, NAME_TOKENS = 8, 4  # in a batch, always; its width is a multiple of the tokens
CROPS, TEXTS = 32, 64  # in one batch at most: bounds memory for a picture with hundreds of regions


class ClipSimilarity:
    """Cosines of one CLIP checkpoint.

    Args:
        model: with both towers.
        tokenizer: of the text tower.
        mean, std: (3,) of the checkpoint's image processor.
        device: where it runs; always in float32.
    """

    def __init__(
        self, model, tokenizer, mean: np.ndarray, std: np.ndarray, device: torch.device | str = "cpu"
    ):
        self.model, self.tokenizer, self.mean, self.std, self.device = (
            model.float().to(device).eval(),
            tokenizer,
            mean,
            std,
            device,
        )
        vision, text = model.config.vision_config, model.config.text_config
        self.image_size, self.patch_size = vision.image_size, vision.patch_size
        self.text_limit = text.max_position_embeddings - tokenizer.num_special_tokens_to_add()
        self._names: dict[str, torch.Tensor] = {}  # they come again and again
        self._cached: tuple[Image.Image | None, torch.Tensor | None] = (None, None)
        self._take_last_block()

    def _take_last_block(self) -> None:
        """The tower ends before its last block, which `_masked` runs by hand."""
        encoder = self.model.vision_model.encoder
        self.block, encoder.layers = encoder.layers[-1], encoder.layers[:-1]

    @torch.no_grad()
    def score(self, picture: Image.Image, asked: Sequence[tuple[Box, str]]) -> list[tuple[float, float]]:
        """(s_crop, s_local) for each (region on `picture`, text). Texts hold words only, without coordinates,
        at least one word each.

        A text over the limit is split (`spr_plugin.recipes.spr.scoring.split_text`); its cosines are the
        token-weighted means of its parts'.
        """
        regions = {region: index for index, region in enumerate(dict.fromkeys(region for region, _ in asked))}
        views = torch.stack(
            [self.crop_embeddings(picture, list(regions)), self.local_embeddings(picture, list(regions))],
            dim=1,
        )
        means = self._means(text for _, text in asked)
        # (2, d) @ (d,): both cosines of a region at once.
        rows = torch.stack([views[regions[region]] @ means[text] for region, text in asked])
        return list(map(tuple, rows.tolist()))

    @torch.no_grad()
    def likeness(self, first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        """(len(first), len(second)) cosines of texts, at least one word each, with each other."""
        if len(self._names) > NAMES:
            self._names.clear()
        self._embed_names(sorted({*first, *second} - self._names.keys()))
        rows, columns = (torch.stack([self._names[text] for text in texts]) for texts in (first, second))
        return (rows @ columns.T).cpu().numpy()

    def _embed_names(self, texts: Sequence[str]) -> None:
        """Hold unit embeddings (d,) of `texts`. The shape of a name's batch follows from its own length, and
        not from what is asked beside it: no neighbour changes its last bits.
        """
        tokens = {text: self.count_tokens(text) for text in texts}
        ends = self.tokenizer.num_special_tokens_to_add()
        alike: dict[int, list[str]] = defaultdict(list)
        for text in texts:
            if tokens[text] > self.text_limit:
                self._names[text] = _unit(self._means([text])[text])
            else:
                width = -(-(tokens[text] + ends) // NAME_TOKENS) * NAME_TOKENS  # rounded up
                alike[min(width, self.text_limit + ends)].append(text)
        for width, names in alike.items():
            for start in range(0, len(names), NAMES_AT_ONCE):
                batch = names[start : start + NAMES_AT_ONCE]
                # Filled up with its first name, so that all batches have one shape.
                filled = batch + batch[:1] * (NAMES_AT_ONCE - len(batch))
                self._names.update(zip(batch, self._forward(filled, width)))

    def _means(self, texts: Iterable[str]) -> dict[str, torch.Tensor]:
        """Text → (d,) the token-weighted mean of its parts' unit embeddings."""
        parts = {text: split_text(text, self.count_tokens, self.text_limit) for text in texts}
        embeddings = self.text_embeddings([part for split in parts.values() for part, _ in split])
        return dict(zip(parts, _weighted(parts.values(), embeddings)))

    @torch.no_grad()
    def crop_embeddings(self, picture: Image.Image, regions: Sequence[Box]) -> torch.Tensor:
        """Unit image embeddings (r, d) of the crops, each rounded outwards to whole pixels."""
        crops = [picture.crop(crop_corners(region)) for region in regions]
        return torch.cat(
            [self._masked(self._hidden(crops[i : i + CROPS])) for i in range(0, len(crops), CROPS)]
        )

    @torch.no_grad()
    def local_embeddings(self, picture: Image.Image, regions: Sequence[Box]) -> torch.Tensor:
        """Unit embeddings (r, d) of the regions within the whole picture (local attention)."""
        if self._cached[0] is not picture:
            self._cached = (picture, self._hidden([picture]))
        patches = np.stack([covered_patches(region, self.image_size, self.patch_size) for region in regions])
        return torch.cat(
            [
                self._masked(self._cached[1], seen)
                for seen in torch.from_numpy(patches).to(self.device).split(CROPS)
            ]
        )

    @torch.no_grad()
    def text_embeddings(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit embeddings (n, d) of texts within the limit."""
        # Alike lengths together: little padding.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        rows: list[torch.Tensor] = [None] * len(texts)
        for batch in (order[i : i + TEXTS] for i in range(0, len(order), TEXTS)):
            for index, row in zip(batch, self._forward([texts[index] for index in batch])):
                rows[index] = row
        return torch.stack(rows)

    def _forward(self, texts: Sequence[str], width: int | None = None) -> torch.Tensor:
        """Unit embeddings (n, d) of texts padded to `width` tokens, or to the longest."""
        tokens = self.tokenizer(texts, return_tensors="pt", **self._padding(width)).to(self.device)
        return _unit(self._text_features(tokens))

    def count_tokens(self, text: str) -> int:
        """Tokens of `text`, without those that begin and end every text."""
        return len(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _hidden(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """(n, tokens, width): what the tower knows of each picture where the regions' masks begin."""
        pixels = torch.from_numpy(np.stack([self._pixels(picture) for picture in pictures])).to(self.device)
        return self.model.vision_model(pixel_values=pixels).last_hidden_state

    def _pixels(self, picture: Image.Image) -> np.ndarray:
        """(3, s, s) float32: the picture squeezed to CLIP's square and normalized with the checkpoint's mean
        and deviation.
        """
        square = picture.convert("RGB").resize((self.image_size, self.image_size), Image.Resampling.BICUBIC)
        return ((np.asarray(square, dtype=np.float32) / 255.0 - self.mean) / self.std).transpose(2, 0, 1)

    def _masked(self, hidden: torch.Tensor, patches: torch.Tensor | None = None) -> torch.Tensor:
        """Last block for the class token alone, which sees itself and `patches` (r, patches), or all; then
        post-norm and projection.

        `hidden` is (r, 1 + patches, width), or (1, ...) for r masks on one picture, whose keys and values are
        then computed once.
        """
        attention, normed = self.block.self_attn, self.block.layer_norm1(hidden)

        def heads(values: torch.Tensor) -> torch.Tensor:
            return values.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)

        # By hand from the module's four projections: its call differs between transformers versions, and one
        # row is all we need.
        query, key, value = (
            heads(attention.q_proj(normed[:, :1])),
            heads(attention.k_proj(normed)),
            heads(attention.v_proj(normed)),
        )
        logits = query @ key.transpose(2, 3) * attention.scale
        if patches is not None:
            # The class token stands before the patches, and sees itself.
            seen = torch.nn.functional.pad(patches, (1, 0), value=True)
            logits = logits.masked_fill(~seen[:, None, None], float("-inf"))
        token = hidden[:, :1] + attention.out_proj((logits.softmax(-1) @ value).transpose(1, 2).flatten(2))
        token = token + self.block.mlp(self.block.layer_norm2(token))
        return _unit(self.model.visual_projection(self.model.vision_model.post_layernorm(token[:, 0])))

    def _padding(self, width: int | None) -> dict:
        return {"padding": True} if width is None else {"padding": "max_length", "max_length": width}

    def _text_features(self, tokens) -> torch.Tensor:
        out = self.model.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return self.model.text_projection(out.pooler_output)


class SiglipSimilarity(ClipSimilarity):
    """The same of a SigLIP checkpoint: the mask lies on its pooling head; text is padded to the limit, as it
    was trained.
    """

    def _take_last_block(self) -> None:
        """Nothing: SigLIP's tower runs whole."""

    def _masked(self, hidden: torch.Tensor, patches: torch.Tensor | None = None) -> torch.Tensor:
        head = self.model.vision_model.head
        hidden = hidden if patches is None else hidden.expand(len(patches), -1, -1)
        unseen = None if patches is None else ~patches
        token, _ = head.attention(
            head.probe.expand(len(hidden), -1, -1),
            hidden,
            hidden,
            key_padding_mask=unseen,
            need_weights=False,
        )
        return _unit((token + head.mlp(head.layernorm(token)))[:, 0])

    def _padding(self, width: int | None) -> dict:
        return {"padding": "max_length", "max_length": self.model.config.text_config.max_position_embeddings}

    def _text_features(self, tokens) -> torch.Tensor:
        return self.model.text_model(input_ids=tokens["input_ids"]).pooler_output


FAMILIES = {"clip": ClipSimilarity, "siglip": SiglipSimilarity}


def covered_patches(region: Box, image_size: int, patch_size: int) -> np.ndarray:
    """Which ViT patches belong to `region` when its picture is squeezed to `image_size`: (patches,) bool, row
    by row.

    Those of which the region covers at least half of the area; where there is none, the one that it covers
    best.
    """
    x1, y1, x2, y2 = region.pixels()
    columns = _covered_shares(x1 / region.space.width, x2 / region.space.width, image_size, patch_size)
    rows = _covered_shares(y1 / region.space.height, y2 / region.space.height, image_size, patch_size)
    shares = np.outer(rows, columns).ravel()
    # Half a patch may be a hair less in floats.
    covered = shares >= COVERED - 1e-9
    if not covered.any():
        covered[shares.argmax()] = True
    return covered


def _covered_shares(low: float, high: float, image_size: int, patch_size: int) -> np.ndarray:
    """Share of each patch's side that low..high (0-1 of the picture) covers, along one axis."""
    edges = np.arange(image_size // patch_size + 1) * patch_size / image_size
    overlap = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
    return np.clip(overlap, 0.0, None) * image_size / patch_size


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)


def _weighted(parts: Iterable[Sequence[tuple[str, int]]], embeddings: torch.Tensor) -> Iterator[torch.Tensor]:
    """For each text's (part, tokens) the token-weighted mean of its parts' `embeddings`: its dot products are
    the mean cosines.
    """
    start = 0
    for split in parts:
        weights = torch.tensor([float(tokens) for _, tokens in split], device=embeddings.device)
        yield weights @ embeddings[start : start + len(split)] / weights.sum()
        start += len(split)


def load(path: str, device: torch.device | str = "cpu") -> ClipSimilarity:
    """The similarity model of a CLIP or SigLIP checkpoint: a folder or hub id with both towers, tokenizer and
    image processor.

    Raises UserError in one line for anything else.
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer, ImageProcessingMixin

    with refused("--spr_clip", path, "not a CLIP checkpoint with a text tower and a tokenizer"):
        kind = AutoConfig.from_pretrained(path).model_type
        if kind not in FAMILIES:
            raise UserError(
                f"--spr_clip {path}: not a CLIP checkpoint with a text tower (its config says {kind!r})"
            )
        settings, _ = ImageProcessingMixin.get_image_processor_dict(path)
        mean, std = (np.asarray(settings[name], dtype=np.float32) for name in ("image_mean", "image_std"))
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = whole(AutoModel, path, ("position_ids",))
        if kind == "clip":
            _refuse_half_read(path, tokenizer, model.config.text_config.eos_token_id)
    return FAMILIES[kind](model, tokenizer, mean, std, device)


def _refuse_half_read(path: str, tokenizer, eos: int) -> None:
    """UserError where CLIP's text tower does not pool at a text's last token, so that what follows the token
    that it takes counts for nothing.

    transformers takes the first `eos`; for 2, which OpenAI's configs say wrongly, the largest id.
    """
    last, other = (tokenizer(text).input_ids[-1] for text in ("a", "a b"))
    if last != other:
        raise UserError(
            f"--spr_clip {path}: its tokenizer ends texts with no token of their own, at which its text tower"
            " could read them"
        )
    if last != (max(tokenizer.get_vocab().values()) if eos == 2 else eos):
        mend = "" if last == 2 else f"; its text_config's eos_token_id must be {last}, as its tokenizer says"
        raise UserError(
            f"--spr_clip {path}: its text tower does not read texts to their end (its config says"
            f" eos_token_id {eos}, and a text's last token is {last}){mend}"
        )


@hookimpl
def spr_similarity(config, device) -> ClipSimilarity | None:
    """``--spr_clip PATH``; a plugin that brings another image-text model is asked first."""
    return load(config.spr_clip, device) if config.spr_clip else None
