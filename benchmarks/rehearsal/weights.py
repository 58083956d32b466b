"""Random weights of a shape, as its checkpoint has them.

Names and sizes are those of transformers' own classes, made without memory; the numbers are drawn tensor by
tensor and written a shard at a time, in bf16, so that no more than a shard is ever held. Tokenizers are those
of the tests and the tiny world, with their vocabularies filled up to the true size: no hub is asked. They
cut a text into more pieces than a trained one would, so that rows are on the long side.
"""

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import shapes
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "tiny_world")]

import vocabulary  # noqa: E402
from spr_plugin.files import read_json, write_json  # noqa: E402
from tests.hosts import make_vlm  # noqa: E402

SHARD = 1 << 30  # bytes of one file
STD = 0.02  # as these models are initialized
IMAGES = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
QWEN_TEMPLATE = make_vlm.CHATML.replace("PICTURE", "<|vision_start|><|image_pad|><|vision_end|>")
DONE = "rehearsed.json"  # the configurations that a folder was written for; written last

Sizes = dict[str, torch.Size]  # tensor → its size


def write(one: shapes.Rehearsed, folder: Path) -> None:
    """``model/`` and ``clip/`` of a shape, unless they are there."""
    wanted = {"language": one.language, "clip": one.clip, "tower": one.tower}
    if read_json(folder / DONE) == json.loads(json.dumps(wanted)):
        return
    write_json(folder / DONE, None)
    model, clip = folder / checkpoint_name(one), folder / "clip"
    for part in (model, clip):
        part.mkdir(parents=True, exist_ok=True)
    write_tensors(clip, clip_sizes(one))
    write_clip(one, clip)
    write_tensors(model, model_sizes(one))
    {"llava": write_llava, "llava_next": write_qwen2, "transformers": write_qwen_vl}[one.host](one, folder)
    write_json(folder / DONE, wanted)


def checkpoint_name(one: shapes.Rehearsed) -> str:
    """Of the folder: scripts tell a model's class by it."""
    return {"llava": "llava-v1.5", "llava_next": "qwen2", "transformers": "qwen2.5-vl"}[one.host]


# --- weights


def model_sizes(one: shapes.Rehearsed) -> Sizes:
    """Tensors of the model's own checkpoint."""
    if one.host == "transformers":
        return sizes_of(_bare("Qwen2_5_VLForConditionalGeneration", qwen_vl_config(one)))
    if one.host == "llava_next":  # its script makes the projector
        return sizes_of(_bare("Qwen2ForCausalLM", language_config(one)))
    projector = [one.clip["vision_config"]["hidden_size"], *[one.language["hidden_size"]] * 2]
    sizes = sizes_of(_bare("LlamaForCausalLM", language_config(one)))
    for layer, given, made in ((0, *projector[:2]), (2, *projector[1:])):
        sizes[f"model.mm_projector.{layer}.weight"] = torch.Size([made, given])
        sizes[f"model.mm_projector.{layer}.bias"] = torch.Size([made])
    return sizes


def clip_sizes(one: shapes.Rehearsed) -> Sizes:
    """Tensors of the checkpoint that scores, both towers."""
    import transformers

    return sizes_of(_bare("CLIPModel", transformers.CLIPConfig(**one.clip)))


def tower_sizes(one: shapes.Rehearsed) -> Sizes:
    """Those of its vision part, which LLaVA loads as its own tower."""
    return {name: size for name, size in clip_sizes(one).items() if name.startswith("vision_model.")}


def numbers(sizes: Sizes) -> int:
    return sum(math.prod(size) for size in sizes.values())


def _bare(name: str, config):
    """A model of a class of transformers' without weights."""
    import transformers

    with torch.device("meta"):
        return getattr(transformers, name)(config)


def sizes_of(model) -> Sizes:
    """What a model's checkpoint holds: no buffer, and of tied weights one."""
    tied = getattr(model.config, "tie_word_embeddings", False)
    return {
        name: parameter.shape
        for name, parameter in model.named_parameters()
        if not (tied and name == "lm_head.weight")
    }


def drawn(name: str, size: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """A tensor as it is before training: norms 1, biases 0, the rest normal."""
    if name.endswith("bias"):
        return torch.zeros(size, dtype=torch.bfloat16)
    if name.endswith("logit_scale") or (len(size) == 1 and "norm" in name):
        return torch.ones(size, dtype=torch.bfloat16)
    return torch.empty(size, dtype=torch.bfloat16).normal_(0, STD, generator=generator)


def shards(sizes: Sizes) -> Iterator[list[str]]:
    """Names of each file's tensors, in their order."""
    names: list[str] = []
    held = 0
    for name, size in sizes.items():
        if names and held + math.prod(size) * shapes.BF16 > SHARD:
            yield names
            names, held = [], 0
        names.append(name)
        held += math.prod(size) * shapes.BF16
    yield names


def write_tensors(folder: Path, sizes: Sizes) -> None:
    generator, parts, places = torch.Generator().manual_seed(0), list(shards(sizes)), {}
    for number, names in enumerate(parts, 1):
        file = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        save_file(
            {name: drawn(name, sizes[name], generator) for name in names}, folder / file, {"format": "pt"}
        )
        places |= dict.fromkeys(names, file)
    total = numbers(sizes) * shapes.BF16
    write_json(
        folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": places}
    )


# --- configurations, processors and tokenizers


def language_config(one: shapes.Rehearsed):
    import transformers

    kind = transformers.LlamaConfig if one.host == "llava" else transformers.Qwen2Config
    return kind(**one.language, dtype="bfloat16")


def qwen_vl_config(one: shapes.Rehearsed):
    import transformers

    tokens = make_vlm.tokenizer("<|image_pad|>")
    ids = {f"{kind}_token_id": tokens.convert_tokens_to_ids(f"<|{kind}_pad|>") for kind in ("image", "video")}
    ids |= {
        f"vision_{side}_token_id": tokens.convert_tokens_to_ids(f"<|vision_{side}|>")
        for side in ("start", "end")
    }
    text = {**one.language, "eos_token_id": tokens.eos_token_id, "bos_token_id": None}
    return transformers.Qwen2_5_VLConfig(
        text_config=text,
        vision_config=dict(one.tower),
        tie_word_embeddings=one.language["tie_word_embeddings"],
        architectures=["Qwen2_5_VLForConditionalGeneration"],
        dtype="bfloat16",
        **ids,
    )


def write_clip(one: shapes.Rehearsed, folder: Path) -> None:
    import transformers

    vocabulary.write_clip(folder)
    fill(folder, one.clip["text_config"]["vocab_size"])
    end = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}  # of that tokenizer
    config = {**one.clip, "text_config": {**one.clip["text_config"], **end}}
    transformers.CLIPConfig(**config, architectures=["CLIPModel"], dtype="bfloat16").save_pretrained(folder)
    square = {"height": one.side, "width": one.side}
    transformers.CLIPImageProcessor(
        size={"shortest_edge": one.side}, crop_size=square, **IMAGES
    ).save_pretrained(folder)


def write_llava(one: shapes.Rehearsed, folder: Path) -> None:
    """LLaVA's own layout, as the tiny world's checkpoint has it, with the tower in a folder of its own."""
    model = folder / checkpoint_name(one)
    vocabulary.write_llava(model)
    fill(model, one.language["vocab_size"])
    like = read_json(ROOT / "examples" / "tiny_world" / "llava" / "config.json")
    width = one.language["hidden_size"] // one.language["num_attention_heads"]
    own = {"head_dim": width, "torch_dtype": "bfloat16", "mm_vision_tower": str((folder / "clip").resolve())}
    own["mm_hidden_size"] = one.clip["vision_config"]["hidden_size"]
    write_json(model / "config.json", {**like, **one.language, **own})


def write_qwen2(one: shapes.Rehearsed, folder: Path) -> None:
    model, tokens = folder / checkpoint_name(one), make_vlm.tokenizer("<image>")
    # As Qwen2's names them, and no others.
    tokens.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokens.save_pretrained(model)
    fill(model, one.language["vocab_size"])
    config = language_config(one)
    config.eos_token_id = config.bos_token_id = tokens.eos_token_id
    config.architectures = ["Qwen2ForCausalLM"]
    config.save_pretrained(model)


def write_qwen_vl(one: shapes.Rehearsed, folder: Path) -> None:
    import transformers

    model, tokens = folder / checkpoint_name(one), make_vlm.tokenizer("<|image_pad|>")
    tokens.chat_template = QWEN_TEMPLATE
    tokens.save_pretrained(model)
    fill(model, one.language["vocab_size"])
    qwen_vl_config(one).save_pretrained(model)
    transformers.Qwen2VLImageProcessor(patch_size=one.tower["patch_size"]).save_pretrained(model)
    settings = read_json(model / "preprocessor_config.json")
    write_json(model / "preprocessor_config.json", {**settings, "processor_class": "Qwen2_5_VLProcessor"})


def fill(folder: Path, size: int) -> None:
    """Give the tokenizer of a folder `size` pieces: those that it lacks are said by nobody but a model of
    random weights."""
    file = folder / "tokenizer.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    known: dict[str, int] = told["model"]["vocab"]
    first = max([*known.values(), *(token["id"] for token in told["added_tokens"])]) + 1
    assert first <= size, f"{file} has {first} pieces, and the model {size}"
    spare = [f"spare{number}" for number in range(first, size)]
    known.update({piece: number for number, piece in enumerate(spare, first)})
    file.write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")
    if (folder / "tokenizer.model").exists():
        _fill_sentencepiece(folder / "tokenizer.model", spare)


def _fill_sentencepiece(file: Path, spare: list[str]) -> None:
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(file.read_bytes())
    for piece in spare:
        kind = sentencepiece_model_pb2.ModelProto.SentencePiece.UNUSED
        proto.pieces.add(piece=piece, score=-float(len(proto.pieces)), type=kind)
    proto.trainer_spec.vocab_size = len(proto.pieces)
    file.write_bytes(proto.SerializeToString())
