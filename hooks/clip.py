"""CLIP as the similarity model of the semantic score: S(I_crop, T) and S_local(I, T), raw cosines.

Runs with transformers 4.37 to 5.x: only module attributes are used that both have. Pictures are squeezed to CLIP's square, never
centre-cropped, so that nothing of a wide region or picture is cut off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image

from spr_plugin.boxes import Box
from spr_plugin.errors import UserError
from spr_plugin.hookspecs import hookimpl
from spr_plugin.prompts import crop_corners
from spr_plugin.scoring import split_text

COVERED = 0.5  # of a patch's area, for the patch to count as part of the region


class ClipSimilarity:
    """Cosines of one CLIP checkpoint.

    Args:
        model_path: folder or hub id of a CLIP checkpoint with both towers, tokenizer and image processor.
        device: where it runs; always in float32.

    Raises:
        UserError: at construction, where `model_path` is no such checkpoint.
    """

    def __init__(self, model_path: str, device: torch.device | str = "cpu"):
        self.model, self.tokenizer, self.mean, self.std = load_clip(model_path)
        self.model = self.model.to(device).eval()
        self.device = device
        self.image_size = self.model.config.vision_config.image_size
        self.text_limit = self.model.config.text_config.max_position_embeddings - 2  # begin and end of text take two
        self._cached: tuple[Image.Image | None, torch.Tensor | None] = (None, None)

    @torch.no_grad()
    def score(self, image: Image.Image, region: Box, texts: Sequence[str]) -> list[tuple[float, float]]:
        """(s_crop, s_local) for each text. `region` lies on `image`; `texts` hold words only, without coordinates, at least one word each.

        A text over CLIP's limit is split (`spr_plugin.scoring.split_text`); its cosines are the token-weighted means of its parts'.
        """
        views = torch.stack([self.crop_embedding(image, region), self.local_embedding(image, region)])
        parts = {text: split_text(text, self._count_tokens, self.text_limit) for text in texts}
        embeddings = iter(self.text_embeddings([part for split in parts.values() for part, _ in split]))
        cosines = {text: _weighted_cosines(views, split, embeddings) for text, split in parts.items()}
        return [cosines[text] for text in texts]

    def crop_embedding(self, image: Image.Image, region: Box) -> torch.Tensor:
        """Unit image embedding (d,) of the crop, rounded outwards to whole pixels."""
        hidden = self._before_last_block(image.crop(crop_corners(region)))
        return self._embedding(hidden, torch.ones(hidden.shape[0] - 1, dtype=torch.bool))

    def local_embedding(self, image: Image.Image, region: Box) -> torch.Tensor:
        """Unit embedding (d,) of the region within the whole picture (local attention)."""
        if self._cached[0] is not image:
            self._cached = (image, self._before_last_block(image))
        patches = covered_patches(region, self.image_size, self.model.config.vision_config.patch_size)
        return self._embedding(self._cached[1], torch.from_numpy(patches))

    def text_embeddings(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit embeddings (n, d) of texts within CLIP's limit."""
        tokens = self.tokenizer(list(texts), padding=True, return_tensors="pt").to(self.device)
        out = self.model.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return _unit(self.model.text_projection(out.pooler_output))

    def _count_tokens(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _before_last_block(self, image: Image.Image) -> torch.Tensor:
        """Hidden states (1 + patches, width) that enter the last ViT block, class token first."""
        pixels = self._pixels(image).unsqueeze(0).to(self.device)
        return self.model.vision_model(pixel_values=pixels, output_hidden_states=True).hidden_states[-2][0]

    def _pixels(self, image: Image.Image) -> torch.Tensor:
        """(3, s, s): the picture squeezed to CLIP's square and normalized with the checkpoint's mean and deviation."""
        square = image.convert("RGB").resize((self.image_size, self.image_size), Image.Resampling.BICUBIC)
        values = (np.asarray(square, dtype=np.float32) / 255.0 - self.mean) / self.std
        return torch.from_numpy(values).permute(2, 0, 1)

    def _embedding(self, hidden: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """Last block for the class token alone, which sees itself and `patches` (bool); then post-norm, projection, unit length."""
        vision = self.model.vision_model
        block = vision.encoder.layers[-1]
        seen = torch.cat([torch.ones(1, dtype=torch.bool), patches]).to(hidden.device)
        token = hidden[:1] + _attend(block.self_attn, block.layer_norm1(hidden[seen]))
        token = token + block.mlp(block.layer_norm2(token))
        return _unit(self.model.visual_projection(vision.post_layernorm(token)))[0]


def _attend(attention: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Attention output (1, width) of the first of `tokens` (n, width) over all of them.

    By hand from the module's four projections: its call differs between transformers versions, and one row is all we need.
    """
    def heads(values: torch.Tensor) -> torch.Tensor:
        return values.view(len(values), attention.num_heads, -1).transpose(0, 1)

    query, key, value = heads(attention.q_proj(tokens[:1])), heads(attention.k_proj(tokens)), heads(attention.v_proj(tokens))
    weights = torch.softmax(query @ key.transpose(1, 2) * attention.scale, dim=-1)
    return attention.out_proj((weights @ value).transpose(0, 1).reshape(1, -1))


def covered_patches(region: Box, image_size: int, patch_size: int) -> np.ndarray:
    """Which ViT patches belong to `region` when its picture is squeezed to `image_size`: (patches,) bool, row by row.

    Those of which the region covers at least half of the area; where there is none, the one that it covers best.
    """
    x1, y1, x2, y2 = region.pixels()
    columns = _covered_shares(x1 / region.space.width, x2 / region.space.width, image_size, patch_size)
    rows = _covered_shares(y1 / region.space.height, y2 / region.space.height, image_size, patch_size)
    shares = np.outer(rows, columns).ravel()
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


def _weighted_cosines(views: torch.Tensor, parts: Sequence[tuple[str, int]], embeddings: Iterator[torch.Tensor]) -> tuple[float, float]:
    """Token-weighted mean over a text's (part, tokens) of the cosines with the two `views`; takes their `embeddings` in turn."""
    weights = torch.tensor([float(tokens) for _, tokens in parts], device=views.device)
    cosines = views @ torch.stack([next(embeddings) for _ in parts]).T
    s_crop, s_local = (cosines @ weights / weights.sum()).tolist()
    return s_crop, s_local


def load_clip(path: str) -> tuple:
    """(model, tokenizer, mean, deviation) of a CLIP checkpoint. Raises UserError in one line for anything else."""
    from transformers import AutoConfig, AutoTokenizer, CLIPModel, ImageProcessingMixin

    try:
        kind = AutoConfig.from_pretrained(path).model_type
        if kind != "clip":
            raise UserError(f"--spr_clip {path}: not a CLIP checkpoint with a text tower (its config says {kind!r})")
        settings, _ = ImageProcessingMixin.get_image_processor_dict(path)
        tokenizer = AutoTokenizer.from_pretrained(path)
        model, loaded = CLIPModel.from_pretrained(path, output_loading_info=True)
        if missing := sorted(name for name in loaded["missing_keys"] if not name.endswith("position_ids")):
            raise ValueError(f"no weights for {missing[0]} and {len(missing) - 1} more")
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = str(error).strip().splitlines()[0]
        raise UserError(f"--spr_clip {path}: not a CLIP checkpoint with a text tower and a tokenizer ({why})") from None
    mean, std = (np.asarray(settings[name], dtype=np.float32) for name in ("image_mean", "image_std"))
    return model.float(), tokenizer, mean, std


@hookimpl
def spr_similarity(config, device) -> ClipSimilarity | None:
    """``--spr_clip PATH``; a plugin that brings another image-text model is asked first."""
    return ClipSimilarity(config.spr_clip, device) if config.spr_clip else None
