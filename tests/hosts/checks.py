"""What must hold of every finished run."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from spr_plugin.store import Log, read_json
from spr_plugin.weights import digest


def saved_weights(out: Path) -> dict:
    """name → tensor of a full checkpoint as the host saved it."""
    return {name: tensor for path in sorted(out.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def assert_saved_equals_live(out: Path) -> None:
    live = read_json(out / "spr" / "exit.json")["weights"]
    saved = saved_weights(out)
    assert live and live.keys() <= saved.keys()
    assert {name: digest(saved[name]) for name in live} == live


def assert_whole(out: Path) -> None:
    """Every region has all its candidates once, a score, and a pair or a reason; the logs hold no record twice."""
    spr = out / "spr"
    regions, candidates, scores, pairs = (Log(spr / stage).read() for stage in ("regions", "candidates", "scores", "pairs"))
    assert len(regions) == 12 and scores.keys() == regions.keys()
    assert len(candidates) == 12 * 3 * 2
    assert sorted(record["region"] for record in pairs.values()) == sorted(regions)
    for stage in ("candidates", "scores", "pairs"):
        lines = [line for path in (spr / stage).glob("rank-*.jsonl") for line in path.read_text().splitlines()]
        assert len(lines) == len({json.loads(line)["id"] for line in lines}), stage
    assert (spr / "report.html").stat().st_size > 10_000


def assert_saved_lora_equals_live(out: Path) -> None:
    """Adapter and projector in the two files that LLaVA writes for a LoRA host are the live ones."""
    live = read_json(out / "spr" / "exit.json")["weights"]
    rest = torch.load(out / "non_lora_trainables.bin", weights_only=True)
    adapter = load_file(out / "adapter_model.safetensors")
    assert any("lora_A" in name for name in live) and any("mm_projector" in name for name in live)
    for name, value in live.items():
        saved = rest[name] if "mm_projector" in name else adapter[name.replace(".default", "")]
        assert digest(saved.contiguous()) == value, name
