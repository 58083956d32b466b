"""Hugging Face vision-language models for tests: ``python make_vlm.py FAMILY FOLDER`` writes model, processor and chat template.

``llava`` is the embedded tiny world's LLaVA in transformers' own layout: it describes regions. The others have random weights and
the shape of their family in small: they answer nonsense through the real code.
"""

import json
import sys
from pathlib import Path

import torch

TINY = Path(__file__).parents[2] / "examples" / "tiny_world" / "llava"
VICUNA = (
    "{{ bos_token }}A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite "
    "answers to the user's questions. {% for m in messages %}{{ m['role'].upper() + ': ' }}{% for c in m['content'] if c['type'] == 'image' %}"
    "{{ '<image>\n' }}{% endfor %}{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% for c in m['content'] %}{% if c['type'] == 'image' %}PICTURE"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXT = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8, initializer_range=0.2)
PIXELS = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 40}
SPECIAL = "<|endoftext|> <|im_end|> <|im_start|> <image> <|vision_start|> <|vision_end|> <|image_pad|> <|video_pad|> <IMG_CONTEXT> <img> </img>".split()


def tokenizer(image_token: str):
    """Byte-level, 400 pieces, with the families' special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer, pieces.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    pieces.train_from_iterator(["Describe the objects in the region with their bounding boxes. red green blue circle square [0.1, 0.2]"] * 9, trainer)
    names = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    names |= {"image_token": image_token, "video_token": "<|video_pad|>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=2048, extra_special_tokens=names
    )  # fmt: skip


def llava():
    from transformers import AutoConfig, AutoTokenizer, CLIPImageProcessor, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
    from transformers import LlavaImageProcessor, LlavaProcessor

    own = json.loads((TINY / "config.json").read_text())
    tokens = AutoTokenizer.from_pretrained(TINY)
    tokens.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tower = AutoConfig.from_pretrained(TINY / "vision_tower")
    tower = getattr(tower, "vision_config", tower)
    kept = "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads max_position_embeddings rms_norm_eps vocab_size"
    text = LlamaConfig(**{name: own[name] for name in [*kept.split(), "pad_token_id", "bos_token_id", "eos_token_id"]})
    config = LlavaConfig(vision_config=tower, text_config=text, image_token_index=len(tokens) - 1, vision_feature_layer=-2)
    model = LlavaForConditionalGeneration(config)
    missing, unexpected = model.load_state_dict(renamed(model.state_dict().keys()), strict=False)
    assert not unexpected and all("position_ids" in name for name in missing), (missing, unexpected)
    model.resize_token_embeddings(len(tokens))
    theirs = CLIPImageProcessor.from_pretrained(TINY / "vision_tower")
    settings = {name: getattr(theirs, name) for name in ("size", "crop_size", "image_mean", "image_std")}
    processor = LlavaProcessor(
        LlavaImageProcessor(**settings, do_pad=True), tokens, patch_size=tower.patch_size, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=VICUNA,
    )  # fmt: skip
    return model, processor


def renamed(expected) -> dict:
    """The tiny LLaVA's weights under transformers' names."""
    from safetensors.torch import load_file

    places = {
        "model.mm_projector.0.": "model.multi_modal_projector.linear_1.", "model.mm_projector.2.": "model.multi_modal_projector.linear_2.",
        "lm_head.": "lm_head.", "model.": "model.language_model.",
    }  # fmt: skip
    found = {}
    for file in TINY.glob("*.safetensors"):
        for name, value in load_file(file).items():
            old = next(old for old in places if name.startswith(old))
            if "vision_tower" not in name:
                found[places[old] + name[len(old) :]] = value.float()
    for file in (TINY / "vision_tower").glob("*.safetensors"):
        for name, value in load_file(file).items():
            names = f"model.vision_tower.{name}", f"model.vision_tower.{name}".replace("vision_tower.vision_model.", "vision_tower.")
            found |= {new: value.float() for new in names if new in expected}
    return found


def pictures_only(processor_class):
    """A processor class that may lack its video processor, which needs torchvision; all else is transformers' own."""

    def check(self, name, value):
        return None if value is None else processor_class.check_argument_for_proper_class(self, name, value)

    return type(processor_class.__name__, (processor_class,), {"check_argument_for_proper_class": check})


def vision(**more):
    return dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=28, patch_size=14) | more


def qwen2_text(tokens):
    from transformers import Qwen2Config

    return Qwen2Config(vocab_size=len(tokens), eos_token_id=tokens.eos_token_id, bos_token_id=None, **TEXT)


def llava_onevision():
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, LlavaOnevisionImageProcessor, LlavaOnevisionProcessor
    from transformers import SiglipVisionConfig

    tokens = tokenizer("<image>")
    grid = [[28, 28], [28, 56], [56, 28]]
    tower = SiglipVisionConfig(**vision(vision_use_head=False))
    config = LlavaOnevisionConfig(
        vision_config=tower, text_config=qwen2_text(tokens), image_token_index=tokens.convert_tokens_to_ids("<image>"),
        video_token_index=tokens.convert_tokens_to_ids("<|video_pad|>"), image_grid_pinpoints=grid,
    )  # fmt: skip
    images = LlavaOnevisionImageProcessor(size={"height": 28, "width": 28}, image_grid_pinpoints=grid)
    processor = pictures_only(LlavaOnevisionProcessor)(
        images, tokens, num_image_tokens=4, vision_feature_select_strategy="full", chat_template=CHATML.replace("PICTURE", "<image>")
    )  # fmt: skip
    return LlavaOnevisionForConditionalGeneration(config), processor


def qwen(version):
    import transformers as t

    tokens = tokenizer("<|image_pad|>")
    ids = {f"{name}_id": tokens.convert_tokens_to_ids(f"<|{word}|>") for name, word in
           dict(image_token="image_pad", video_token="video_pad", vision_start_token="vision_start", vision_end_token="vision_end").items()}  # fmt: skip
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}}
    text = TEXT | {"vocab_size": len(tokens), "eos_token_id": tokens.eos_token_id, **rope}
    name = {"2_5": "Qwen2_5_VL", "3": "Qwen3VL"}[version]
    tower = dict(hidden_size=32, intermediate_size=64, depth=3, num_heads=4, patch_size=14, out_hidden_size=32)
    deep, windows = dict(deepstack_visual_indexes=[0, 1], num_position_embeddings=64), dict(window_size=56, fullatt_block_indexes=[1])
    tower |= deep if version == "3" else windows
    config = getattr(t, f"{name}Config")(text_config=text, vision_config=tower, **ids)
    images = t.Qwen2VLImageProcessor(size=PIXELS, patch_size=14)
    template = CHATML.replace("PICTURE", "<|vision_start|><|image_pad|><|vision_end|>")
    return getattr(t, f"{name}ForConditionalGeneration")(config), pictures_only(getattr(t, f"{name}Processor"))(images, tokens, chat_template=template)


def internvl():
    from transformers import GotOcr2ImageProcessor, InternVLConfig, InternVLForConditionalGeneration, InternVLProcessor, InternVLVisionConfig

    tokens = tokenizer("<IMG_CONTEXT>")
    tower = InternVLVisionConfig(**vision(image_size=[28, 28], patch_size=[7, 7]))
    config = InternVLConfig(vision_config=tower, text_config=qwen2_text(tokens), image_token_id=tokens.convert_tokens_to_ids("<IMG_CONTEXT>"))
    images = GotOcr2ImageProcessor(size={"height": 28, "width": 28}, crop_to_patches=True, min_patches=1, max_patches=3)
    processor = pictures_only(InternVLProcessor)(images, tokens, image_seq_length=4,
                                  chat_template=CHATML.replace("PICTURE", "<IMG_CONTEXT>"))  # fmt: skip
    return InternVLForConditionalGeneration(config), processor


FAMILIES = {
    "llava": llava,
    "llava_onevision": llava_onevision,
    "qwen2_5_vl": lambda: qwen("2_5"),
    "qwen3_vl": lambda: qwen("3"),
    "internvl": internvl,
}


def make(family: str):
    """(model, processor) of a family, always the same weights."""
    torch.manual_seed(0)
    return FAMILIES[family]()


if __name__ == "__main__":
    model, processor = make(sys.argv[1])
    model.save_pretrained(sys.argv[2])
    processor.save_pretrained(sys.argv[2])
