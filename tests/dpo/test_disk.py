"""What docs/output.md says that ``spr/entry`` takes of LLaVA-1.5-7B: added up over LLaVA's own classes at
their published sizes, on the meta device."""

import re
from pathlib import Path

import pytest
import torch

from spr_plugin.training import weights

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGE = " ".join((ROOT / "docs" / "output.md").read_text().split())
VICUNA_7B = dict(
    vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
    num_attention_heads=32, num_key_value_heads=32, max_position_embeddings=4096,
)  # fmt: skip
CLIP_L = dict(
    mm_hidden_size=1024,
    mm_projector_type="mlp2x_gelu",
    mm_vision_select_layer=-2,
    mm_vision_select_feature="patch",
)


@pytest.fixture
def llava_7b():
    """LLaVA-1.5-7B in bf16, without its frozen vision tower."""
    from spr_plugin.hooks import shims

    shims.install()
    from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaForCausalLM

    config = LlavaConfig(
        **VICUNA_7B,
        mm_vision_tower=str(ROOT / "examples" / "tiny_world" / "llava" / "vision_tower"),
        **CLIP_L,
    )
    with torch.device("meta"):
        return LlavaLlamaForCausalLM(config).to(torch.bfloat16)


def gigabytes(model) -> float:
    """Of what follow.train writes to ``entry``."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return (
        sum(tensors[name].nbytes for name in [*weights.trainable(model), *weights.persistent_buffers(model)])
        / 1e9
    )


def stated(words: str) -> float:
    return float(re.search(rf"{words} ([\d.]+) GB", PAGE).group(1))


def test_full_fine_tuning(llava_7b):
    assert gigabytes(llava_7b) == pytest.approx(stated(r"fully trained in bf16"), abs=0.05)


def test_lora(llava_7b):
    """As finetune_lora.sh has it: rank 128 on every linear layer of the language model, the projector beside
    it."""
    from llava.train.train import find_all_linear_names
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        llava_7b, LoraConfig(r=128, lora_alpha=256, target_modules=find_all_linear_names(llava_7b))
    )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name or "mm_projector" in name)
    assert gigabytes(model.float()) == pytest.approx(stated(r"in fp32"), abs=0.05)
    assert gigabytes(model.to(torch.bfloat16)) == pytest.approx(
        stated(r"with LoRA of rank 128 in bf16"), abs=0.005
    )
