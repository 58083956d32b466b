"""README says what is so."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from spr_plugin.config import flags_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_table_of_flags_is_the_generated_one():
    written = README.split("by `python -m spr_plugin.config` -->\n")[1].split("<!-- end of flags")[0]
    assert written.strip() == flags_table().strip()


def test_every_named_flag_exists():
    known = set(re.findall(r"`(--spr\w*)`", flags_table()))
    assert set(re.findall(r"(--spr\w*)", README)) <= known


def test_every_named_module_exists():
    for path in re.findall(r"`((?:spr_plugin|hooks|eval_tasks)/[\w/]+\.py)`", README):
        assert (ROOT / path).exists(), path


@pytest.mark.slow
def test_the_command_for_real_weights_passes_the_real_parsers():
    """Every argument is one that LLaVA's own dataclasses and ours take; what fails in the end is only the missing weights."""
    command = next(block for block in re.findall(r"```\n(.*?)```", README, re.S) if block.startswith("deepspeed llava/"))
    words = shlex.split(command.replace("\\\n", " "))
    arguments = words[words.index("--model_name_or_path") :]
    # a CPU has neither bf16 nor tf32 kernels to validate against
    arguments += ["--bf16", "False", "--tf32", "False", "--use_cpu", "True"]
    script = (
        "import sys; sys.argv = ['train.py'] + sys.argv[1:]\n"
        "from spr_plugin import boot; boot.wake()\n"
        "from llava.train.train import train; train()"
    )
    environment = {"HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin", "HOME": str(ROOT / "nowhere")}
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, env=environment, cwd=ROOT)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode and "liuhaotian/llava-v1.5-7b" in done.stderr and "argument" not in last.lower(), done.stderr[-2000:]
