import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spr_plugin.errors import UserError
from spr_plugin.eval_tasks import run
from spr_plugin.eval_tasks.catalogue import SPLITS

METRICS = {"Acc@0.5", "Acc@0.6", "Acc@0.7", "Acc@0.8", "Acc@0.9", "mIoU", "parse_failure", "boxes"}
ROOT = Path(__file__).parents[2]
TINY = ROOT / "examples/tiny_world/llava"


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "llava-mine"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llava_llama", "image_aspect_ratio": "pad"}')
    return folder


def pretend(monkeypatch, status=0, results=None, output=""):
    """Stands in for the lmms-eval process: prints `output`, writes `results`, and exits."""

    def process(command, stdout, stderr, env):
        stdout.write(output)
        folder = Path(command[command.index("--output_path") + 1], "model")
        if results is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "20300101_000000_results.json").write_text(json.dumps({"results": results}))
        return subprocess.CompletedProcess(command, status)

    monkeypatch.setattr(run.subprocess, "run", process)


def test_metrics_are_read_without_filters_and_errors(monkeypatch, checkpoint, tmp_path):
    results = {
        "spr_refcoco": {
            "Acc@0.5,none": 0.25,
            "Acc@0.5_stderr,none": "N/A",
            "alias": "spr_refcoco",
            "samples": 8,
            "mIoU,none": 0.5,
        }
    }
    pretend(monkeypatch, results=results)
    assert run.evaluate(checkpoint, tmp_path, tmp_path / "out", device="cpu") == {
        "Acc@0.5": 0.25,
        "mIoU": 0.5,
    }


def test_no_result_is_an_error_although_lmms_eval_exits_with_0(monkeypatch, checkpoint, tmp_path):
    (tmp_path / "out/model").mkdir(parents=True)
    (tmp_path / "out/model/old_results.json").write_text("{}")  # an earlier run's
    pretend(monkeypatch, output="Traceback\nspr: error: picture gone\nRuntimeError: other\n")
    with pytest.raises(
        UserError, match="left no result .*status 0.*picture gone; its output is in .*lmms_eval.log"
    ):
        run.evaluate(checkpoint, tmp_path, tmp_path / "out", device="cpu")


def test_failed_process_is_an_error(monkeypatch, checkpoint, tmp_path):
    pretend(monkeypatch, status=1, results={"spr_refcoco": {}}, output="ValueError: bad\n")
    with pytest.raises(UserError, match="ValueError: bad"):
        run.evaluate(checkpoint, tmp_path, tmp_path / "out", device="cpu")


@pytest.mark.parametrize(
    "output, reason",
    [
        (
            "\x1b[1mERROR\x1b[0m - Error during evaluation: Unknown tower: a/b. Please set `--verbosity`\n",
            "Unknown tower: a/b;",
        ),
        ("ImportError: no torch\n", "ImportError: no torch;"),
        ("Killed\n\n", "Killed;"),
        ("", "it printed nothing;"),
    ],
)
def test_the_reason_of_a_failure_is_found(monkeypatch, checkpoint, tmp_path, output, reason):
    pretend(monkeypatch, output=output)
    with pytest.raises(UserError) as error:
        run.evaluate(checkpoint, tmp_path, tmp_path / "out", device="cpu")
    assert reason in str(error.value)


def test_result_of_another_task_is_an_error(monkeypatch, checkpoint, tmp_path):
    pretend(monkeypatch, results={"pope": {}})
    with pytest.raises(UserError, match="no result of spr_refcoco, only of pope"):
        run.evaluate(checkpoint, tmp_path, tmp_path / "out", device="cpu")


def test_what_cannot_be_loaded_is_refused_first(checkpoint, tmp_path):
    with pytest.raises(UserError, match="no config.json"):
        run.evaluate(tmp_path, tmp_path, tmp_path / "out")
    (checkpoint / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="LoRA"):
        run.evaluate(checkpoint, tmp_path, tmp_path / "out")
    comma = tmp_path / "llava,1"
    comma.mkdir()
    (comma / "config.json").write_text("{}")
    with pytest.raises(UserError, match="splits its arguments"):
        run.evaluate(comma, tmp_path, tmp_path / "out")


ORACLE = '''
import json, sys
from lmms_eval.api.model import lmms
from lmms_eval.evaluator import simple_evaluate

class Config:
    def to_dict(self):
        return {"model_type": "llava_llama", "image_aspect_ratio": "pad"}

class Oracle(lmms):
    """Says the truth for even documents, nothing readable for odd ones."""
    config = Config()
    def generate_until(self, requests):
        answers = []
        for prompt, _, to_visual, number, task, split in (request.args for request in requests):
            document = self.task_dict[task][split][number]
            assert document["expression"] in prompt
            assert to_visual(document)[0].size == (document["width"], document["height"])
            side = max(document["width"], document["height"])
            pads = [(side - document["width"]) // 2, (side - document["height"]) // 2] * 2
            box = [round((value + pad) / side, 6) for value, pad in zip(document["bbox"], pads)]
            answers.append(f"It is at {box}." if number % 2 == 0 else "I cannot see it.")
        return answers
    def loglikelihood(self, requests): ...
    def generate_until_multi_round(self, requests): ...

found = simple_evaluate(model=Oracle(), tasks=["spr_refcoco"], bootstrap_iters=0)
json.dump({"results": found["results"], "samples": found["samples"]}, open(sys.argv[1], "w"), default=str)
'''


@pytest.mark.slow
def test_python_api_aggregates_by_sample(data_root, tmp_path):
    pytest.importorskip("lmms_eval")
    (tmp_path / "oracle.py").write_text(ORACLE)
    subprocess.run(
        [sys.executable, "-I", str(tmp_path / "oracle.py"), str(tmp_path / "found.json")],
        cwd=tmp_path,
        check=True,
    )
    results = json.loads((tmp_path / "found.json").read_text())
    values = {task: results["results"][task]["Acc@0.9,none"] for task in results["results"]}
    assert values["spr_refcoco_val"] == pytest.approx(3 / 6)
    assert values["spr_refcoco_testA"] == values["spr_refcoco_testB"] == pytest.approx(2 / 3)
    # By sample: the mean of the three splits would be 11 / 18.
    assert values["spr_refcoco"] == pytest.approx(7 / 12)
    assert results["results"]["spr_refcoco"]["parse_failure,none"] == pytest.approx(5 / 12)
    assert [sample["mIoU"]["id"] for sample in results["samples"]["spr_refcoco_val"]] == [
        f"val-{number}" for number in range(6)
    ]


@pytest.mark.slow
def test_command_line_refuses_in_one_line(data_root, tmp_path):
    """A missing picture: no traceback, no retries, no exit status 0, and no model is built: there is none."""
    pytest.importorskip("lmms_eval")
    (data_root / "pictures/val2.png").unlink()
    command = [
        sys.executable,
        "-I",
        "-m",
        "lmms_eval",
        "--model",
        "llava",
        "--model_args",
        "pretrained=/nowhere",
    ]
    command += ["--tasks", "spr_refcoco", "--limit", "2"]
    environment = {**os.environ, "SPR_BOX_FORMAT": "llava:pad"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("spr: error:")]
    assert "val2.png is missing (1 of 6 are)" in line and "Traceback" not in done.stdout + done.stderr
    assert "nowhere" not in done.stderr.partition("spr: error:")[2]


@pytest.mark.slow
def test_tiny_llava_through_every_task(all_data, tmp_path, monkeypatch):
    """The real model in the real lmms-eval, two documents a task, by the command that `evaluate` runs."""
    monkeypatch.chdir(ROOT)  # the checkpoint names its vision tower from there
    pytest.importorskip("lmms_eval")
    pytest.importorskip("llava")
    command = run.lmms_eval_command(TINY, tmp_path / "out", "spr,spr_tiny_world", 2, 2, "cpu")
    done = subprocess.run(command, env=run._environment(os.environ, all_data), capture_output=True, text=True)
    (file,) = (tmp_path / "out").rglob("*_results.json")
    results = json.loads(file.read_text())["results"]
    asked = [split for split in SPLITS if "recipe" not in split.options]  # those have their own tests
    assert done.returncode == 0 and {split.task for split in asked} <= set(results)
    for split in asked:
        (samples,) = (tmp_path / "out").rglob(f"*_samples_{split.task}.jsonl")
        assert len(samples.read_text().splitlines()) == 2, split.task
        assert results[split.task]["details,none"], split.task
    assert set(run.read_metrics(file, "spr_rec")) == METRICS


@pytest.mark.slow
def test_evaluate_reads_a_groups_figures(data_root, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    pytest.importorskip("llava")
    results = run.evaluate(TINY, data_root, tmp_path / "out", limit=4, batch_size=3, device="cpu")
    assert set(results) == METRICS and all(
        0 <= value <= 1 for key, value in results.items() if key != "boxes"
    )
    (file,) = (tmp_path / "out").rglob("*_samples_spr_refcoco_val.jsonl")
    samples = [json.loads(line) for line in file.read_text().splitlines()]
    assert [sample["mIoU"]["id"] for sample in samples] == ["val-0", "val-1", "val-2", "val-3"]


BATCHES = """
import sys, torch
from PIL import Image
from spr_plugin.eval_tasks import running
from spr_plugin.hooks import shims
shims.install()
from llava.mm_utils import process_images, tokenizer_image_token
from llava.model.builder import load_pretrained_model

tokenizer, model, processor, _ = load_pretrained_model(sys.argv[1], None, "llava", device_map="auto")
model.float()
asked = ("ring", "large red square on the left", "blue circle")
prompts = [f"USER: <image>\\nWhere is the {words}? ASSISTANT:" for words in asked]
pictures = [Image.new("RGB", (112, 80), (200, 80 * place, 30)) for place in range(3)]

def answers(prompts, pictures):
    ids = [tokenizer_image_token(prompt, tokenizer, -200, return_tensors="pt") for prompt in prompts]
    ids = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=0)
    images = process_images(pictures, processor, model.config).float()
    sizes = [p.size for p in pictures]
    out = model.generate(ids, attention_mask=ids.ne(0), images=images, image_sizes=sizes, do_sample=False,
                         max_new_tokens=24, pad_token_id=0)
    return tokenizer.batch_decode(out, skip_special_tokens=True)

running.note_model(model)
assert model.config.tokenizer_padding_side == "right", "the checkpoint was saved by a training script"
singles = [answers([prompt], [picture])[0] for prompt, picture in zip(prompts, pictures)]
running.pad_left()
assert answers(prompts, pictures) == singles, (answers(prompts, pictures), singles)
"""


@pytest.mark.slow
def test_a_batch_is_answered_like_single_requests(tmp_path):
    pytest.importorskip("llava")
    (tmp_path / "batches.py").write_text(BATCHES)
    subprocess.run([sys.executable, "-I", str(tmp_path / "batches.py"), str(TINY)], cwd=ROOT, check=True)


def test_the_command_works_by_hand_too(tmp_path):
    command = run.lmms_eval_command(tmp_path / "llava", tmp_path / "out", "spr_refcoco", None, 4, "cuda:0")
    assert command[:5] == [sys.executable, "-m", "lmms_eval", "--model", "spr_llava"]
    assert (
        command[command.index("--batch_size") + 1] == "4"
        and command[command.index("--device") + 1] == "cuda:0"
    )
