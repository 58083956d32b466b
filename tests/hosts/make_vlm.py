"""Hugging Face vision-language models for tests: ``python make_vlm.py FAMILY FOLDER`` writes model, processor
and chat template.

``llava`` is the embedded tiny world's LLaVA in transformers' own layout: it describes regions. The others
have random weights and
the shape of their family in small: they answer nonsense through the real code.
"""

import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[2] / "examples" / "tiny_world"))
import convert

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% for c in m['content'] %}{% if c['type']"
    " == 'image' %}PICTURE{% else %}{{ c['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}{%"
    " if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXT = dict(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    initializer_range=0.2,
)
PIXELS = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 40}
SPECIAL = """<|endoftext|> <|im_end|> <|im_start|> <image> <|vision_start|> <|vision_end|> <|image_pad|>
    <|video_pad|> <IMG_CONTEXT> <img> </img>""".split()


def tokenizer(image_token: str):
    """Byte-level, 400 pieces, with the families' special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer, pieces.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pieces.train_from_iterator(
        [
            "Describe the objects in the region with their bounding boxes. red green blue circle square [0.1,"
            " 0.2]"
        ]
        * 9,
        trainer,
    )
    names = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
    }
    names |= {"image_token": image_token, "video_token": "<|video_pad|>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=2048, extra_special_tokens=names  # noqa: E501
    )  # fmt: skip


def pictures_only(processor_class):
    """A processor class that may lack its video processor, which needs torchvision; all else is transformers'
    own.
    """

    def check(self, name, value):
        return None if value is None else processor_class.check_argument_for_proper_class(self, name, value)

    name = processor_class.__name__
    # For pickle.
    made = globals()[name] = type(
        name, (processor_class,), {"check_argument_for_proper_class": check, "__module__": __name__}
    )
    return made


def vision(**more):
    return (
        dict(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=28,
            patch_size=14,
        )
        | more
    )


def qwen2_text(tokens):
    from transformers import Qwen2Config

    return Qwen2Config(vocab_size=len(tokens), eos_token_id=tokens.eos_token_id, bos_token_id=None, **TEXT)


def llava_onevision():
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        SiglipVisionConfig,
    )

    tokens = tokenizer("<image>")
    grid = [[28, 28], [28, 56], [56, 28]]
    tower = SiglipVisionConfig(**vision(vision_use_head=False))
    config = LlavaOnevisionConfig(
        vision_config=tower, text_config=qwen2_text(tokens), image_token_index=tokens.convert_tokens_to_ids("<image>"),  # noqa: E501
        video_token_index=tokens.convert_tokens_to_ids("<|video_pad|>"), image_grid_pinpoints=grid,
    )  # fmt: skip
    images = LlavaOnevisionImageProcessor(size={"height": 28, "width": 28}, image_grid_pinpoints=grid)
    processor = pictures_only(LlavaOnevisionProcessor)(
        images, tokens, num_image_tokens=4, vision_feature_select_strategy="full", chat_template=CHATML.replace("PICTURE", "<image>")  # noqa: E501
    )  # fmt: skip
    return LlavaOnevisionForConditionalGeneration(config), processor


def qwen(version):
    import transformers as t

    tokens = tokenizer("<|image_pad|>")
    ids = {f"{name}_id": tokens.convert_tokens_to_ids(f"<|{word}|>") for name, word in
           dict(image_token="image_pad", video_token="video_pad", vision_start_token="vision_start", vision_end_token="vision_end").items()}  # fmt: skip  # noqa: E501
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}}
    text = TEXT | {"vocab_size": len(tokens), "eos_token_id": tokens.eos_token_id, **rope}
    name = {"2_5": "Qwen2_5_VL", "3": "Qwen3VL"}[version]
    tower = dict(
        hidden_size=32, intermediate_size=64, depth=3, num_heads=4, patch_size=14, out_hidden_size=32
    )
    deep, windows = (
        dict(deepstack_visual_indexes=[0, 1], num_position_embeddings=64),
        dict(window_size=56, fullatt_block_indexes=[1]),
    )
    tower |= deep if version == "3" else windows
    config = getattr(t, f"{name}Config")(text_config=text, vision_config=tower, **ids)
    images = t.Qwen2VLImageProcessor(size=PIXELS, patch_size=14)
    template = CHATML.replace("PICTURE", "<|vision_start|><|image_pad|><|vision_end|>")
    return getattr(t, f"{name}ForConditionalGeneration")(config), pictures_only(
        getattr(t, f"{name}Processor")
    )(images, tokens, chat_template=template)


def internvl():
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVisionConfig,
    )

    tokens = tokenizer("<IMG_CONTEXT>")
    tower = InternVLVisionConfig(**vision(image_size=[28, 28], patch_size=[7, 7]))
    config = InternVLConfig(
        vision_config=tower,
        text_config=qwen2_text(tokens),
        image_token_id=tokens.convert_tokens_to_ids("<IMG_CONTEXT>"),
    )
    images = GotOcr2ImageProcessor(
        size={"height": 28, "width": 28}, crop_to_patches=True, min_patches=1, max_patches=3
    )
    processor = pictures_only(InternVLProcessor)(images, tokens, image_seq_length=4,
                                  chat_template=CHATML.replace("PICTURE", "<IMG_CONTEXT>"))  # fmt: skip
    return InternVLForConditionalGeneration(config), processor


FAMILIES = {
    "llava": convert.to_transformers,
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
