"""The commands for real weights on docs/train.md, README's among them, pass the real argument parsers and
stop where the weights would be loaded: there is no hub here.
"""

import json
import re
import shlex
import shutil

import pytest

from .launch import ROOT, launcher, run
from .tree import run_in, source

pytestmark = pytest.mark.slow
# What a machine without a GPU cannot be asked for; flags given again replace the page's.
NO_GPU = "--use_cpu True --bf16 False --tf32 False".split()


def shown_command(start: str) -> list[str]:
    """The words of the page's command that begins with ``start``, line ends joined."""
    (block,) = [
        b
        for b in re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "train.md").read_text(), re.DOTALL)
        if b.startswith(start)
    ]
    return shlex.split(block.replace("\\\n", " "))


def test_llava_7b(tmp_path):
    _, _, *flags = shown_command("deepspeed llava/train/train_mem.py --deepspeed")
    assert "--spr" in flags and "--lora_enable" in flags
    shutil.copytree(ROOT / "tests" / "deepspeed", tmp_path / "scripts")
    printed = run([*launcher(1, deepspeed=True), *flags, *NO_GPU], expect=1, cwd=tmp_path)
    weights = flags[flags.index("--model_name_or_path") + 1]
    assert "LlavaLlamaForCausalLM.from_pretrained(" in printed and weights in printed, printed[-3000:]
    assert "spr: error" not in printed and "unrecognized" not in printed


def test_ferret_7b(tmp_path):
    """Ferret is no package: its flags are recorded in ferret_flags.py, and the real HfArgumentParser reads
    the page's command with them.

    That script trains nothing, which is an error of its own.
    """
    _, _, *flags = shown_command("deepspeed ferret/train/train_mem.py")
    shutil.copytree(ROOT / "tests" / "deepspeed", tmp_path / "scripts")
    recorded = ROOT / "tests" / "hosts" / "ferret_flags.py"
    *start, _ = launcher(1, deepspeed=True)
    printed = run([*start, str(recorded), *flags, *NO_GPU], expect=2, cwd=tmp_path)
    assert "this command ends without the SPR stage" in printed
    (line,) = [line for line in printed.splitlines() if line.startswith('{"spr"')]
    values = json.loads(line)
    assert (
        values["spr"]["spr_only"]
        and values["spr"]["spr_box_format"] == "ferret"
        and values["spr"]["spr_lambda"] == 0.8
    )
    assert (
        values["model"]["add_region_feature"]
        and values["data"]["image_aspect_ratio"] == "square_nocrop"
        and values["lora_enable"]
    )


def test_onevision_7b(tmp_path):
    """Through LLaVA-NeXT's script; its default attention is one that a machine without a GPU lacks."""
    _, _, _, _, *flags = shown_command("torchrun --nproc_per_node 8 llava/train/train_mem.py")
    assert "--spr_only" in flags and "--deepspeed" in flags
    shutil.copytree(ROOT / "tests" / "deepspeed", tmp_path / "scripts")
    tree = source("llava_next", "llava/model/language_model/llava_qwen.py")
    start = launcher(1, True, tree / "llava" / "train" / "train.py")
    printed = run_in(tree, [*start, *flags, *NO_GPU, "--attn_implementation", "sdpa"], tmp_path, expect=1)
    weights = flags[flags.index("--model_name_or_path") + 1]
    assert "from_pretrained(" in printed and weights in printed, printed[-3000:]
    assert "spr: error" not in printed and "unrecognized" not in printed


def test_a_hugging_face_model(tmp_path):
    _, script, *flags = shown_command("python examples/finetune_vlm.py")
    printed = run([*launcher(1, False, ROOT / script), *flags, *NO_GPU], expect=1, cwd=tmp_path)
    assert "AutoProcessor.from_pretrained(script.model)" in printed and "huggingface.co" in printed, printed[
        -3000:
    ]
    assert "spr: error" not in printed and "unrecognized" not in printed
