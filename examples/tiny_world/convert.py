"""The tiny LLaVA in two layouts: LLaVA's own, and transformers' ``LlavaForConditionalGeneration`` with its
processor. Weights stay the same to the last bit.

    python examples/tiny_world/convert.py FOLDER  # writes examples/tiny_world/llava as transformers saves it

Transformers' model has one token more, ``<image>``, which its processor writes once for each patch; the way
back drops it.
"""

import json
import shutil
import sys
from pathlib import Path

TINY = Path(__file__).resolve().parent / "llava"
IMAGE = "<image>"
# LLaVA's conversation "v1".
TEMPLATE = (
    "{{ bos_token }}A chat between a curious user and an artificial intelligence assistant. The assistant"
    " gives helpful, detailed, and polite answers to the user's questions. {% for m in messages %}{{"
    " m['role'].upper() + ': ' }}{% for c in m['content'] if c['type'] == 'image' %}{{ '<image>\n' }}{%"
    " endfor %}{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }}{% endfor %}{{ eos_token if"
    " m['role'] == 'assistant' else ' ' }}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
# Beginnings of names, LLaVA's → transformers'; the first that fits counts.
NAMES = {
    "model.mm_projector.0.": "model.multi_modal_projector.linear_1.",
    "model.mm_projector.2.": "model.multi_modal_projector.linear_2.",
    "lm_head.": "lm_head.",
    "model.": "model.language_model.",
}
TABLES = ("model.embed_tokens.weight", "lm_head.weight")  # a row a token
NEVER_SAID = 3  # the byte 0 is in no text, so that the model has learned not to say it


def to_transformers(checkpoint=TINY):
    """(model, processor) of a folder in LLaVA's layout with its tower in ``vision_tower/``; fp32."""
    from transformers import (
        AutoConfig,
        AutoTokenizer,
        CLIPImageProcessor,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaImageProcessor,
        LlavaProcessor,
    )

    checkpoint = Path(checkpoint)
    own = json.loads((checkpoint / "config.json").read_text())
    tokens = AutoTokenizer.from_pretrained(checkpoint)
    tokens.add_special_tokens({"additional_special_tokens": [IMAGE]})
    tower = AutoConfig.from_pretrained(checkpoint / "vision_tower")
    tower = getattr(tower, "vision_config", tower)
    kept = (
        "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads"
        " max_position_embeddings rms_norm_eps"
    )
    text = LlamaConfig(
        vocab_size=len(tokens),
        **{name: own[name] for name in [*kept.split(), "pad_token_id", "bos_token_id", "eos_token_id"]},
    )
    config = LlavaConfig(
        vision_config=tower, text_config=text, image_token_index=tokens.convert_tokens_to_ids(IMAGE), vision_feature_layer=own["mm_vision_select_layer"]  # noqa: E501
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config)
    missing, unexpected = model.load_state_dict(renamed(checkpoint, model.state_dict().keys()), strict=False)
    assert not unexpected and all("position_ids" in name for name in missing), (missing, unexpected)
    theirs = CLIPImageProcessor.from_pretrained(checkpoint / "vision_tower")
    settings = {name: getattr(theirs, name) for name in ("size", "crop_size", "image_mean", "image_std")}
    processor = LlavaProcessor(
        LlavaImageProcessor(**settings, do_pad=own["image_aspect_ratio"] == "pad"), tokens, patch_size=tower.patch_size,  # noqa: E501
        vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=TEMPLATE,
    )  # fmt: skip
    return model, processor


def renamed(checkpoint: Path, expected) -> dict:
    """LLaVA's tensors under transformers' names, and a row more for ``<image>``. The tower's prefix differs
    between versions: `expected` tells.
    """
    found = {}
    for name, value in tensors(checkpoint).items():
        if name in TABLES:
            value = value[[*range(len(value)), NEVER_SAID]]
        found[_moved(name, NAMES)] = value
    for name, value in tensors(checkpoint / "vision_tower").items():
        names = (
            f"model.vision_tower.{name}",
            f"model.vision_tower.{name}".replace("vision_tower.vision_model.", "vision_tower."),
        )
        found |= {new: value for new in names if new in expected}
    return found


def to_llava(model, like, out) -> None:
    """Write `model` to the folder `out` as the checkpoint `like`, in LLaVA's layout, is: its language model
    and projector, since the tower lies in a folder of its own. fp32; ``config.json`` comes last, so that
    where it is the rest is.
    """
    from safetensors.torch import save_file

    like, out = Path(like), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    places = {new: old for old, new in NAMES.items()}
    said = json.loads((like / "config.json").read_text())["vocab_size"]
    found = {
        _moved(name, places): value.detach().float()
        for name, value in model.state_dict().items()
        if name.startswith(tuple(places))
    }
    found |= {name: found[name][:said] for name in TABLES}
    save_file(
        {name: value.contiguous() for name, value in found.items()},
        out / "model.safetensors",
        metadata={"format": "pt"},
    )
    for file in (
        "generation_config.json",
        "tokenizer.model",
        "tokenizer.json",
        "tokenizer_config.json",
        "config.json",
    ):
        shutil.copyfile(like / file, out / file)


def tensors(folder: Path) -> dict:
    """All of a checkpoint's own tensors, fp32. A tower that LLaVA saved with the rest is passed over: nothing
    trains it.
    """
    from safetensors.torch import load_file

    files = {
        name: value
        for file in sorted(folder.glob("*.safetensors"))
        for name, value in load_file(file).items()
    }
    return {
        name: value.float() for name, value in files.items() if not name.startswith("model.vision_tower.")
    }


def _moved(name: str, places: dict) -> str:
    old = next(old for old in places if name.startswith(old))
    return places[old] + name[len(old) :]


if __name__ == "__main__":
    for part in to_transformers():
        part.save_pretrained(sys.argv[1])
