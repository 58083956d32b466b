"""What was saved, read by the host's own loader: ``python load.py HOST MODEL CLIP OUT``. Prints as JSON how
many numbers the model has, and what the process held (bytes) when it had imported what a run does."""

import json
import sys
from pathlib import Path

import accelerate  # noqa: F401
import peft  # noqa: F401
import psutil
import torch
import transformers.trainer  # noqa: F401

import spr_plugin.pipeline  # noqa: F401
from spr_plugin.hooks import shims


def of_llava(model: str, clip: str, out: str):
    """LLaVA's own: base, projector and adapter, merged."""
    from llava.model.builder import load_pretrained_model

    _, loaded, _, _ = load_pretrained_model(out, model, Path(out).name, device_map="cpu", device="cpu")
    return loaded


def of_llava_next(model: str, clip: str, out: str):
    """The whole model, with the tower that its configuration names: what our miniature's script does before
    it trains, and of the projector what was saved."""
    from types import SimpleNamespace

    from llava.model import LlavaQwenForCausalLM
    from safetensors import safe_open

    loaded, said = LlavaQwenForCausalLM.from_pretrained(out, output_loading_info=True)
    if said["missing_keys"]:
        raise SystemExit(f"{out} lacks {sorted(said['missing_keys'])[0]}")
    kept = SimpleNamespace(vision_tower=clip, mm_patch_merge_type="spatial_unpad", mm_vision_select_layer=-2)
    loaded.get_model().initialize_vision_modules(kept)
    rest = {}
    for path in sorted(Path(out).glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            names = [name for name in file.keys() if "mm_projector" in name or "image_newline" in name]
            rest |= {name: file.get_tensor(name) for name in names}
    unknown = loaded.load_state_dict(rest, strict=False).unexpected_keys
    if unknown or not rest:
        raise SystemExit(f"{out} holds no projector of this model ({unknown})")
    return loaded


def of_transformers(model: str, clip: str, out: str):
    """Base and adapter, by the adapter's folder alone."""
    from transformers import AutoModelForImageTextToText

    loaded = AutoModelForImageTextToText.from_pretrained(out, dtype=torch.bfloat16)
    if not any("lora_" in name for name, _ in loaded.named_parameters()):
        raise SystemExit(f"{out} gave no adapter")
    return loaded


if __name__ == "__main__":
    host, *folders = sys.argv[1:]
    shims.install()
    if host != "transformers":
        import llava.model  # noqa: F401
    imported = psutil.Process().memory_info().rss
    read = {"llava": of_llava, "llava_next": of_llava_next, "transformers": of_transformers}[host](*folders)
    print(json.dumps({"parameters": sum(p.numel() for p in read.parameters()), "imported": imported}))
