"""A live model in numbers, counted anew, and how long a row is once the model has expanded it."""

from pathlib import Path

import pytest
from PIL import Image

from spr_plugin import forecast
from spr_plugin.dpo import choose_trainable
from spr_plugin.forecast import CLIP_L
from spr_plugin.training.shapes import plan_of, shape_of

CLIP = Path(__file__).parents[2] / "examples" / "tiny_world" / "clip"
FLAGS = dict(pairs=2, prompts=6, samples=2, new_tokens=8)


def numbers(host, *words: str) -> int:
    """Of the matrices whose names hold all words, without adapters'."""
    named = host.trainer.model.named_parameters()
    own = ((name, p) for name, p in named if p.dim() == 2 and "lora_" not in name)
    return sum(p.numel() for name, p in own if all(word in name for word in words))


def test_the_shape_of_a_live_model(live_llava):
    host, config = live_llava()
    choose_trainable(host, config)
    shape = shape_of(host, str(CLIP))
    parameters = [*host.trainer.model.parameters()]
    assert shape.weights == sum(p.nbytes for p in parameters)
    assert shape.trained == sum(p.numel() for p in parameters if p.requires_grad)
    assert shape.trained == shape.language.adapter(config.spr_lora_r)
    tower = numbers(host, "vision_tower", "layers")
    assert shape.tower.weights == tower
    assert shape.language.weights == numbers(host, "layers") - tower
    assert shape.saved == shape.weights, "the host saves the whole model, our adapter merged"
    assert shape.scorer == sum(file.stat().st_size for file in CLIP.glob("*.safetensors")) > 0
    assert shape_of(host, "openai/clip-vit-large-patch14-336").scorer == CLIP_L


def test_a_host_s_own_adapter_is_all_that_it_saves(live_llava):
    host, config = live_llava(lora=True)
    choose_trainable(host, config)
    shape = shape_of(host)
    assert shape.saved == shape.trained * shape.trained_bytes < shape.weights / 2 and shape.scorer == 0


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_a_prompt_is_as_long_as_the_model_makes_it(live_llava, family):
    host, config = live_llava(family=family)
    choose_trainable(host, config)
    path = min(Path(host.image_folder).rglob("*.png"))
    with Image.open(path) as picture:
        asked = host.questions([picture.convert("RGB")], ["Please provide red circle."])
    _, _, mask = host.prefill(asked)
    rows = [host.row((str(path),), "Please provide red circle.", answer) for answer in ("red", "red ring")]
    shape = shape_of(host)
    plan = plan_of(host, shape, rows, **FLAGS)
    assert plan.prompt == mask.shape[1]
    assert plan.answer == int((rows[1]["labels"] >= 0).sum())
    assert (plan.compute, plan.loaded, plan.zero, plan.ranks, plan.gpu) == (4, 4, 0, 1, False)
    assert plan.joined and not plan.checkpointing
    assert set(forecast.memory(shape, plan)) == set(forecast.STAGES)
