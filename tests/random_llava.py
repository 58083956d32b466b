"""Write a tiny LLaVA with random weights: ``python random_llava.py FOLDER`` makes llm/, clip/, data.json and
images/.

It answers nonsense, but every host loads, trains and saves it as it would the real one; 2 s on one core.
"""

import io
import json
import random
import sys
from pathlib import Path

import torch
from PIL import Image

COLOURS = ["red", "green", "blue", "yellow"]
SHAPES = ["circle", "square", "ring", "triangle"]
SAMPLES = 12


LANGUAGE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}


def write(folder: Path, language: dict = LANGUAGE, vision: dict = VISION) -> None:
    """Tiny by default; ``language`` and ``vision`` are sizes of the two models' configurations."""
    torch.manual_seed(0)
    random.seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    _write_data(folder)
    _write_tokenizer(folder / "llm")
    _write_language_model(folder / "llm", language)
    _write_vision_tower(folder / "clip", vision)


def _write_data(folder):
    (folder / "images").mkdir(exist_ok=True)
    records = []
    for index in range(SAMPLES):
        pixels = bytes(random.randrange(256) for _ in range(48 * 32 * 3))
        Image.frombytes("RGB", (48, 32), pixels).save(folder / "images" / f"{index}.png")
        phrase, box = f"{random.choice(COLOURS)} {random.choice(SHAPES)}", "[0.1, 0.2, 0.5, 0.75]"
        ask = (
            "<image>\nPlease provide the bounding box coordinate of the region this sentence describes:"
            f" {phrase}."
        )
        turns = [{"from": "human", "value": ask}, {"from": "gpt", "value": box}]
        records.append({"id": str(index), "image": f"{index}.png", "conversations": turns})
    (folder / "data.json").write_text(json.dumps(records))


def _write_tokenizer(folder):
    """A LLaMA tokenizer that knows the prompts' words, with bytes for the rest."""
    import sentencepiece

    text = [
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful,"
        " detailed, and polite answers to the user's questions. USER: Please provide the bounding box"
        " coordinate of the region this sentence describes: red green blue yellow circle square ring"
        " triangle. ASSISTANT: [0.1, 0.2, 0.5, 0.75]"
    ] * 20
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_writer=model, vocab_size=400, model_type="bpe", byte_fallback=True,  # noqa: E501
        hard_vocab_limit=False, normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,  # noqa: E501
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True, **special})
    )


def _write_language_model(folder, sizes):
    from transformers import LlamaConfig, LlamaForCausalLM

    LlamaForCausalLM(
        LlamaConfig(**{"vocab_size": 400, "max_position_embeddings": 2048, **sizes})
    ).save_pretrained(folder)


def _write_vision_tower(folder, sizes):
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    side = sizes["image_size"]
    CLIPVisionModel(CLIPVisionConfig(**sizes)).save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    ).save_pretrained(folder)


def coco_of(folder: Path) -> Path:
    """A COCO file in ``folder`` with four objects on each of the random LLaVA's pictures."""
    images = [{"id": n, "file_name": f"{n}.png", "width": 48, "height": 32} for n in range(12)]
    corners = [(2, 2, 10, 8), (20, 3, 12, 10), (30, 18, 14, 12), (4, 18, 12, 12)]
    rows = [
        {"id": 4 * n + i, "image_id": n, "category_id": 1, "bbox": list(box)}
        for n in range(12)
        for i, box in enumerate(corners)
    ]
    coco = folder / "coco.json"
    coco.write_text(
        json.dumps({"images": images, "annotations": rows, "categories": [{"id": 1, "name": "circle"}]})
    )
    return coco


if __name__ == "__main__":
    write(Path(sys.argv[1]))
