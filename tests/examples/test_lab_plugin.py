"""examples/lab_plugin, installed as a lab installs it, passes its own tests and goes through a whole run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spr_plugin.files import read_json
from spr_plugin.runs.log import Log

ROOT = Path(__file__).parents[2]
# The template's own tests; then a lab's script: its own trainer class around the tiny world's LLaVA.
SCRIPT = """
import sys
from types import SimpleNamespace
import pytest, transformers, spr_plugin
assert pytest.main(["-q", "-p", "no:cacheprovider", "project/test_lab_spr.py"]) == 0
root, world = sys.argv[1:]
sys.path[:0] = [root + "/tests/hosts", root + "/examples"]
import make_vlm
from finetune_vlm import Collator, Conversations

class LabTrainer(transformers.Trainer):
    pass

model, processor = make_vlm.make("llava")
settings = dict(use_cpu=True, report_to=[], remove_unused_columns=False, max_steps=1, learning_rate=1e-6)
arguments = transformers.TrainingArguments("out", **settings)
data = Conversations(SimpleNamespace(data=world + "/sft.json", images=world + "/images"))
trainer = LabTrainer(model, arguments, Collator(processor), data, processing_class=processor)
flags = dict(
    spr_annotations="objects.csv", spr_image_folder=world + "/images", spr_scorer="lab", spr_box_format="lab",
    spr_regions=6, spr_max_new_tokens=100, spr_prompts=["plain"], spr_samples=3,
    spr_batch_size=4, spr_epochs=1.0, spr_min_kept=0.0,
)
spr_plugin.attach(trainer, processor=processor, **flags)
trainer.train()

from PIL import Image
from spr_plugin.config import SPRConfig
from spr_plugin.opening import find_host
host = find_host(trainer, {}, SPRConfig(spr=True, **flags))
(row,) = host.questions([Image.new("RGB", (60, 40))], ["Where?"])
asked = host.tokenizer.decode(row["input_ids"])
print(type(host).__name__, host.box_format.family, "[grounding] Where?" in asked)
"""


@pytest.mark.slow
def test_the_template_project(tiny_world, tmp_path, objects_csv):
    folder = tmp_path
    shutil.copytree(ROOT / "examples" / "lab_plugin", folder / "project")
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        folder / "packages",
        folder / "project",
    ]
    subprocess.run([*map(str, install)], check=True, capture_output=True, timeout=200)
    world = tiny_world(sft=4, spr=8)
    objects_csv(world, folder / "objects.csv")
    settings = {**os.environ, "PYTHONPATH": str(folder / "packages")}
    command = [sys.executable, "-c", SCRIPT, str(ROOT), str(world)]
    ran = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0 and "13 passed" in ran.stdout, ran.stdout[-1500:] + ran.stderr[-3000:]
    assert ran.stdout.split()[-3:] == ["LabHost", "lab", "True"]
    spr = folder / "out" / "spr"
    regions, scores, pairs = (Log(spr / stage).read() for stage in ("queries", "scores", "pairs"))
    assert len(regions) == 6 and all(
        Path(record["pictures"][0]["path"]).name == Path(record["pictures"][0]["id"]).name
        for record in regions.values()
    )
    rows = [row for record in scores.values() for row in record["candidates"] if row["reason"] is None]
    assert rows and {tuple(row["terms"]) for row in rows} == {("s_loc",)}
    made = [record for record in pairs.values() if "skip" not in record]
    assert made and all("[grounding]" not in record["prompt"] for record in made)
    assert read_json(spr / "manifest.json")["config"]["box"] == {
        "family": "lab",
        "space": "normalized",
        "aspect": None,
    }
    assert read_json(spr / "exit.json")["weights"] and (spr / "report.html").exists()
