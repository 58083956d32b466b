"""examples/lab_plugin is installed as a lab installs it, beside this environment, and passes its own tests; its host answers a real model's script."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOST = """
import sys, torch, transformers
sys.path.insert(0, {hosts!r})
import make_vlm
from PIL import Image
from spr_plugin.config import SPRConfig
from spr_plugin.plugins import hook

class LabTrainer(transformers.Trainer):
    pass

model, processor = make_vlm.make("internvl")
arguments = transformers.TrainingArguments("out", use_cpu=True, report_to=[], remove_unused_columns=False)
trainer = LabTrainer(model.eval(), arguments, train_dataset=[0], processing_class=processor)
host = hook().spr_host(trainer=trainer, namespace={{}}, config=SPRConfig(spr=True, spr_annotations="a.csv", spr_box_format="lab"))
(row,) = host.questions(Image.new("RGB", (60, 40)), ["Where?"])
print(type(host).__name__, host.box_format.family, "[grounding] Where?" in host.tokenizer.decode(row["input_ids"]))
"""


@pytest.mark.slow
def test_the_template_project(tmp_path):
    project, packages = tmp_path / "lab", tmp_path / "packages"
    shutil.copytree(ROOT / "examples" / "lab_plugin", project)
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", packages, project]
    subprocess.run([*map(str, install)], check=True, capture_output=True, timeout=200)
    settings = {**os.environ, "PYTHONPATH": str(packages)}

    def python(*words):
        return subprocess.run([sys.executable, *words], cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=300)

    tested = python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(project / "test_lab_spr.py"))
    assert tested.returncode == 0 and "9 passed" in tested.stdout, tested.stdout[-3000:]
    hosted = python("-c", HOST.format(hosts=str(ROOT / "tests" / "hosts")))
    assert hosted.stdout.split()[-3:] == ["LabHost", "lab", "True"], hosted.stderr[-3000:]
