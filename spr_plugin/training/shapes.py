"""What :mod:`spr_plugin.forecast` asks of a live model: its shape, and how long a row is, in numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from spr_plugin.forecast import CLIP_L, FP32, Plan, Shape, Stack
from spr_plugin.training import ranks, weights
from spr_plugin.training.deepspeed_settings import zero_stage
from spr_plugin.training.host import Host, Row
from spr_plugin.training.trainable import ADAPTER

# The names that families of vision towers have for the same number.
TOWER = {
    "layers": ("num_hidden_layers", "depth"),
    "width": ("hidden_size", "embed_dim"),
    "heads": ("num_attention_heads", "num_heads"),
}


def shape_of(host: Host, scorer: str | None = None) -> Shape:
    """The live model, whose trainable parameters were chosen, in numbers; whole, also where ZeRO-3 deals it.

    Args:
        scorer: folder of the CLIP checkpoint that scores; a name of the hub's is taken to be CLIP-L.
    """
    model = host.trainer.model
    decoder, head = host.language_model()
    # (numbers, bytes of each) a parameter.
    every = [(weights.numel(p), p.element_size()) for p in model.parameters()]
    trains = [(weights.numel(p), p.element_size()) for p in model.parameters() if p.requires_grad]
    total, trained = (sum(count * size for count, size in some) for some in (every, trains))
    patches, tower = _tower(model)
    own = getattr(model, "peft_config", None) and not any(
        f".{ADAPTER}." in name for name, _ in model.named_parameters()
    )
    return Shape(
        language=_language(decoder.config),
        tower=tower,
        # Under ZeRO-3 the head is an empty placeholder: its numbers over the width are the vocabulary.
        vocabulary=len(head.weight) or weights.numel(head.weight) // decoder.config.hidden_size,
        weights=total,
        trained=sum(count for count, _ in trains),
        trained_bytes=max((size for _, size in trains), default=FP32),
        image_tokens=patches,
        patches=patches + 1,
        scorer=_bytes_of(scorer),
        saved=trained if own else total,
    )


def _language(config: Any) -> Stack:
    heads = config.num_attention_heads
    return Stack(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        inner=config.intermediate_size,
        heads=heads,
        key_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_width=getattr(config, "head_dim", None) or config.hidden_size // heads,
    )


def _tower(model: Any) -> tuple[int, Stack]:
    """Patches of a picture and the layers of the vision tower; (0, none) where no module says."""
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        if getattr(config, "patch_size", None) and (sizes := _sizes(config)):
            side, patch = _side(getattr(config, "image_size", None)), _side(config.patch_size)
            inner = getattr(config, "intermediate_size", None) or 4 * sizes["width"]
            head_width = sizes["width"] // sizes["heads"]
            stack = Stack(**sizes, inner=inner, key_heads=sizes["heads"], head_width=head_width, products=2)
            return (side // patch) ** 2, stack
    return 0, Stack(0, 0, 0, 0, 0, 0, products=2)


def _side(size: Any) -> int:
    """Of a square: families write one number, two, or none."""
    return int(size[0] if isinstance(size, (list, tuple)) else size or 0)


def _sizes(config: Any) -> dict[str, int]:
    """The tower's numbers by our names; nothing where one is missing."""
    sizes = {
        ours: next((getattr(config, name) for name in names if getattr(config, name, None)), None)
        for ours, names in TOWER.items()
    }
    return {name: size for name, size in sizes.items() if size} if all(sizes.values()) else {}


def _bytes_of(scorer: str | None) -> int:
    files = [*Path(scorer).glob("*.safetensors")] or [*Path(scorer).glob("*.bin")] if scorer else []
    return sum(file.stat().st_size for file in files) if files or not scorer else CLIP_L


def tokens_of(host: Host, row: Row, patches: int) -> int:
    """How many tokens a row is in the language model: a picture that still is one placeholder (below 0) is
    all its tiles' patches there."""
    ids = row["input_ids"]
    holes = int((ids < 0).sum())
    tiles = len(host.pictures(host.batch([row]))) if holes else 0
    return len(ids) - holes + math.ceil(tiles * patches)


def plan_of(host: Host, shape: Shape, rows: list[Row], **of_flags: Any) -> Plan:
    """How the live model is run: what the host says, the longest of `rows` (of answers), and `of_flags`, by
    :class:`spr_plugin.forecast.Plan`'s names."""
    answers = [int((row["labels"] >= 0).sum()) for row in rows]
    prompts = [tokens_of(host, row, shape.image_tokens) - own for row, own in zip(rows, answers)]
    args, own = host.trainer.args, host.language_model()[1].weight.element_size()
    return Plan(
        compute=2 if args.bf16 or args.fp16 else own,
        loaded=own,
        prompt=max(prompts),
        answer=max(answers),
        zero=zero_stage(args.deepspeed),
        ranks=ranks.world(),
        checkpointing=bool(getattr(args, "gradient_checkpointing", False)),
        gpu=args.device.type != "cpu",
        **of_flags,
    )
