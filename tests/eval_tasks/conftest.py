import json
from pathlib import Path

import pytest
from PIL import Image

SIZES = [(120, 80), (80, 120), (100, 100)]
BOX = [10.0, 20.0, 50.0, 70.0]


def write_split(root: Path, split: str, count: int) -> list[dict]:
    """`count` records in the local layout, their pictures included."""
    (root / "refcoco").mkdir(parents=True, exist_ok=True)
    (root / "pictures").mkdir(exist_ok=True)
    records = []
    for number in range(count):
        width, height = SIZES[number % len(SIZES)]
        name = f"pictures/{split}{number}.png"
        Image.new("RGB", (width, height), (number * 7 % 256, 90, 30)).save(root / name)
        expression = f"red square {number}" + " on the left" * (number % 3)
        records.append({"id": f"{split}-{number}", "image": name, "width": width, "height": height, "expression": expression, "bbox": BOX})
    (root / "refcoco" / f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return records


@pytest.fixture
def data_root(tmp_path, monkeypatch):
    """A SPR_DATA_ROOT with 6 + 3 + 3 expressions; all caches in a folder of the test."""
    root = tmp_path / "data"
    for split, count in (("val", 6), ("testA", 3), ("testB", 3)):
        write_split(root, split, count)
    monkeypatch.setenv("SPR_DATA_ROOT", str(root))
    monkeypatch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPR_BOX_FORMAT", raising=False)
    return root
