"""The rehearsed shapes as plain data, as true as this machine takes them and reduced for tests, and what
:mod:`spr_plugin.forecast` says of them. No torch.

Configurations are by transformers' names: Llama-2-7B and CLIP-L/14-336 of LLaVA-1.5-7B, Qwen2-7B of
LLaVA-OneVision with half of its 28 layers, Qwen2.5-VL-3B. The tower of LLaVA-NeXT's script is CLIP's here
too, the one that our miniature of it knows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from spr_plugin.forecast import FP32, Plan, Shape, Stack

BF16 = 2
REGIONS, SAMPLES, NEW_TOKENS = 10, 2, 8
CLIP_L = {
    "projection_dim": 768,
    "text_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        "projection_dim": 768,
    },
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
        "projection_dim": 768,
    },
}
LLAMA_2_7B = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
}
QWEN2_7B_HALF = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 14,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
}
QWEN2_5_3B = {
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "max_position_embeddings": 128000,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}
QWEN2_5_TOWER = {
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "depth": 32,
    "num_heads": 16,
    "patch_size": 14,
    "out_hidden_size": 2048,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}


@dataclass(frozen=True)
class Rehearsed:
    """One shape.

    Attributes:
        host: whose script runs: "llava", "llava_next" or "transformers".
        language, clip, tower: configurations; `clip` scores, and its vision part is the tower of a host whose
            `tower` is empty.
        image_tokens: of a picture in the language model; `tiles` in the tower, the overview among them.
        rank: of the adapter, which is fp32 as PEFT and the stage have it, on `every_matrix` of a layer or
            on those of queries and values.
        saves_adapter: what the host saves is the adapter alone.
    """

    host: str
    language: Mapping
    clip: Mapping
    tower: Mapping
    image_tokens: int
    tiles: int = 1
    rank: int = 16
    every_matrix: bool = True
    saves_adapter: bool = True

    @property
    def side(self) -> int:
        """Of a tile, in pixels."""
        return self.clip["vision_config"]["image_size"]


TRUE = {
    "llava-1.5-7b": Rehearsed("llava", LLAMA_2_7B, CLIP_L, {}, image_tokens=576),
    "onevision-14-layers": Rehearsed(
        "llava_next", QWEN2_7B_HALF, CLIP_L, {}, image_tokens=3 * 576 + 48, tiles=3, saves_adapter=False
    ),
    "qwen2.5-vl-3b": Rehearsed(
        "transformers", QWEN2_5_3B, CLIP_L, QWEN2_5_TOWER, image_tokens=486, rank=4, every_matrix=False
    ),
}
_SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
_SMALL_CLIP = {
    "projection_dim": 32,
    "text_config": {**CLIP_L["text_config"], **_SMALL, "vocab_size": 600, "projection_dim": 32},
    "vision_config": {**CLIP_L["vision_config"], **_SMALL, "image_size": 56, "projection_dim": 32},
}
_SMALL_TOWER = {
    **QWEN2_5_TOWER,
    "hidden_size": 32,
    "intermediate_size": 64,
    "depth": 3,
    "num_heads": 4,
    "out_hidden_size": 64,
    "fullatt_block_indexes": [1],
}
_LESS = {
    "llava-1.5-7b": {"num_key_value_heads": 4, "vocab_size": 1500},
    "onevision-14-layers": {"num_key_value_heads": 2, "vocab_size": 1500},
    "qwen2.5-vl-3b": {
        "num_key_value_heads": 2,
        "vocab_size": 1500,
        "rope_parameters": {**QWEN2_5_3B["rope_parameters"], "mrope_section": [2, 3, 3]},
    },
}
# The same, two layers deep and narrow: every path of the true one in seconds.
REDUCED = {
    name: replace(
        one,
        language={**one.language, **_SMALL, **_LESS[name]},
        clip=_SMALL_CLIP,
        tower=_SMALL_TOWER if one.tower else {},
        image_tokens=one.image_tokens * 16 // 576 if not one.tower else one.image_tokens,
    )
    for name, one in TRUE.items()
}


def stack(config: Mapping, products: int = 3) -> Stack:
    """The layers of a configuration; a tower's names may be Qwen's."""
    heads = config.get("num_attention_heads") or config["num_heads"]
    return Stack(
        layers=config.get("num_hidden_layers") or config["depth"],
        width=config["hidden_size"],
        inner=config["intermediate_size"],
        heads=heads,
        key_heads=config.get("num_key_value_heads", heads),
        head_width=config["hidden_size"] // heads,
        products=products,
    )


def shape_of(one: Rehearsed, written: int, scorer: int) -> Shape:
    """What the forecast knows a model by.

    Args:
        written: bytes of its weights in bf16, those of its tower among them.
        scorer: numbers of the CLIP checkpoint that scores.
    """
    language, own = stack(one.language), one.tower or one.clip["vision_config"]
    # CLIP's and its class token; of Qwen's four are merged into one
    patches = one.image_tokens * 4 if one.tower else (one.side // own["patch_size"]) ** 2 + 1
    trained = language.adapter(one.rank)
    if not one.every_matrix:  # q_proj and v_proj
        outs = (language.queries, language.keys)
        trained = language.layers * one.rank * sum(language.width + out for out in outs)
    return Shape(
        language=language,
        tower=stack(own, products=3 if one.tower else 2),
        vocabulary=one.language["vocab_size"],
        weights=written + trained * FP32,
        trained=trained,
        trained_bytes=FP32,
        image_tokens=one.image_tokens,
        patches=one.tiles * patches,
        scorer=scorer * FP32,
        saved=trained * FP32 if one.saves_adapter else written,
    )


def plan_of(one: Rehearsed, prompt: int | None = None, answer: int = 200) -> Plan:
    """How the commands run it; the picture's tokens and 150 of text are the prompt where nobody knows
    more."""
    return Plan(
        compute=BF16,
        loaded=BF16,
        pairs=1,
        prompt=prompt or one.image_tokens + 150,
        answer=answer,
        prompts=1,
        samples=SAMPLES,
        new_tokens=NEW_TOKENS,
        probes=1,
        pictures=0 if one.tower else REGIONS,
        cache=4 << 30,
        checkpointing=True,
    )
