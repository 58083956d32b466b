import json
from pathlib import Path

import pytest
from PIL import Image

SIZES = [(120, 80), (80, 120), (100, 100)]
BOX = [10.0, 20.0, 50.0, 70.0]


def write_lines(file: Path, records: list[dict]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(record) + "\n" for record in records))


def write_split(root: Path, split: str, count: int, folder: str = "refcoco") -> list[dict]:
    """`count` records in the local layout, their pictures included."""
    (root / "pictures").mkdir(parents=True, exist_ok=True)
    records = []
    for number in range(count):
        width, height = SIZES[number % len(SIZES)]
        name = f"pictures/{split}{number}.png"
        Image.new("RGB", (width, height), (number * 7 % 256, 90, 30)).save(root / name)
        expression = f"red square {number}" + " on the left" * (number % 3)
        records.append(
            {
                "id": f"{split}-{number}",
                "image": name,
                "width": width,
                "height": height,
                "expression": expression,
                "bbox": BOX,
            }
        )
    write_lines(root / folder / f"{split}.jsonl", records)
    return records


def write_all(root: Path) -> None:
    """A small split of every task, all on 640 x 480 pictures with boxes in their middle, so that no format's
    range cuts them.
    """
    (root / "pictures").mkdir(parents=True)
    Image.new("RGB", (640, 480), (30, 90, 30)).save(root / "pictures/a.png")
    common = {"image": "pictures/a.png", "width": 640, "height": 480}
    box, other = [200.0, 120.0, 360.0, 280.0], [300.0, 200.0, 440.0, 360.0]

    def rec(split, count):
        return [
            {"id": f"{split}-{n}", **common, "image_id": f"{n // 2}", "expression": f"cat {n}", "bbox": box}
            for n in range(count)
        ]

    for folder, splits in (
        ("refcoco", ("val", "testA", "testB")),
        ("refcoco+", ("val", "testA", "testB")),
        ("refcocog", ("val", "test")),
    ):
        for index, split in enumerate(splits):
            write_lines(root / folder / f"{split}.jsonl", rec(split, 20 * (index + 1)))
    for folder, split in (("flickr30k", "val"), ("flickr30k", "test"), ("phrases", "val")):
        phrases = [[{"id": f"{n}_0_{p}", "phrase": words, "boxes": boxes} for p, (words, boxes) in
                    enumerate([("A man", [box]), ("two dogs, running", [box, other])])] for n in range(20)]  # fmt: skip  # noqa: E501
        write_lines(
            root / f"{folder}/{split}.jsonl",
            [{"id": f"{n}_0", **common, "caption": "c", "phrases": p} for n, p in enumerate(phrases)],
        )
    write_lines(root / "lvis/val.jsonl", [{"id": str(n), **common, "bbox": box, "point": [280.0, 200.0], "name": "aerosol_can",  # noqa: E501
                                           "synonyms": ["spray_can"], "negative": "dog", "truth_first": n % 2 == 0} for n in range(40)])  # fmt: skip  # noqa: E501
    for folder, split in (("refcocog_refs", "val"), ("vg", "test")):
        texts = [
            ["a red cat on a mat", "the cat"],
            ["two dogs near a big tree", "dogs"],
            ["a man with a hat", "man wearing a hat"],
        ]
        write_lines(
            root / folder / f"{split}.jsonl",
            [{"id": str(n), **common, "bbox": box, "references": texts[n % 3]} for n in range(30)],
        )
    for folder, answers in (("presence", ("Yes.", "No.")), ("color", ("red.", "blue."))):
        rows = [
            {"id": str(n), **common, "question": "Is there a cat in the image?", "answer": answers[n % 2]}
            for n in range(10)
        ]
        write_lines(root / folder / "val.jsonl", rows)
    for folder in (root / "grounded_description", root):  # at the root for the tiny world's
        write_coco(folder)


def write_coco(folder: Path) -> None:
    """Six pictures with six objects in a row each."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for n in range(6):
        Image.new("RGB", (640, 480)).save(folder / f"images/{n}.png")
        images.append({"id": n, "file_name": f"{n}.png", "width": 640, "height": 480})
        annotations += [
            {
                "id": 10 * n + k,
                "image_id": n,
                "category_id": k % 2,
                "bbox": [150 + 55 * k, 150, 50, 90],
                "iscrowd": 0,
            }
            for k in range(6)
        ]
    coco = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
    }
    (folder / "val.json").write_text(json.dumps(coco))


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


@pytest.fixture(scope="session")
def all_data(tmp_path_factory) -> Path:
    """A SPR_DATA_ROOT that holds every benchmark; read only."""
    root = tmp_path_factory.mktemp("all") / "data"
    write_all(root)
    return root
