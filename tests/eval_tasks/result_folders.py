"""Folders of results as lmms-eval leaves them."""

import json
import random
from functools import cache

from spr_plugin.eval_tasks import rec

BOX = [20.0, 20.0, 60.0, 60.0]


def write_run(folder, records, task="spr_refcoco_val", stamp="20300101_000000"):
    """A samples file as lmms-eval writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stamp}_samples_{task}.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in records)
    )
    return folder


def rec_run(folder, noise, picture=None, count=300, **more):
    """Answers whose box is off by up to `noise` of its side, the same documents in each run."""
    return write_run(folder, rec_records(noise, picture, count), **more)


@cache
def rec_records(noise, picture, count):
    records = []
    for number in range(count):
        rng = random.Random(f"{number} {noise}")
        shift = rng.uniform(-noise, noise) * 40
        doc = {
            "id": str(number),
            "image_id": str(number // 3),
            "image": picture,
            "width": 100,
            "height": 100,
            "bbox": BOX,
            "box_format": "llava:square",
        }
        x1, y1, x2, y2 = BOX[0] + shift, BOX[1], BOX[2] + shift, BOX[3]
        answer = (
            f"[{x1 / 100:.4f}, {y1 / 100}, {x2 / 100:.4f}, {y2 / 100}]" if rng.random() > 0.02 else "nothing"
        )
        logged = {"input": f"Where is number {number}?", "filtered_resps": answer}
        records.append({"doc_id": number, **logged, **rec.process_results(doc, [answer])})
    return records


def changed(tmp_path, name, change):
    """The samples of nine documents, after `change` of the list of records."""
    folder = rec_run(tmp_path / name, 0.1, count=9)
    file = next(folder.glob("*.jsonl"))
    records = [json.loads(line) for line in file.read_text().splitlines()]
    change(records)
    file.write_text(
        "".join((record if isinstance(record, str) else json.dumps(record)) + "\n" for record in records)
    )
    return folder
