"""Small files of annotated pictures, and of talks that speak of boxes."""

import json

from PIL import Image

from spr_plugin.boxes import Box, Space
from spr_plugin.formats import llava


def three_pictures(folder):
    """Three pictures of 7, 6 and 5 objects, one of them a crowd and one small."""
    names, rows = ["000000000009.jpg", "000000000010.jpg", "c.jpg"], []
    for number, name in enumerate(names):
        Image.new("RGB", (200, 100)).save(folder / name)
        for index in range(7 - number):
            side = 4 if index == 4 else 20
            rows.append(
                {
                    "id": len(rows),
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [28 * index, 30, side, side],
                    "iscrowd": int(index == 3),
                }
            )
    images = [{"id": n, "file_name": name, "width": 200, "height": 100} for n, name in enumerate(names)]
    (folder / "coco.json").write_text(
        json.dumps({"images": images, "annotations": rows, "categories": [{"id": 1, "name": "cup"}]})
    )
    (folder / "val.txt").write_text("COCO_train2014_000000000009.jpg\n")
    return folder


def grounded(source, width=9):
    """A --data_path with 24 boxes of this width on one picture."""
    rows = []
    for index in range(24):
        box = Box(8 * index, 10 + 2 * index, 8 * index + width, 40 + 2 * index, Space.pixels(200, 100))
        question = (
            f"Please provide the bounding box coordinate of the region this sentence describes: cup {index}."
        )
        rows.append({"from": "human", "value": question})
        rows.append({"from": "gpt", "value": llava("pad").write(box)})
    (source / "data.json").write_text(json.dumps([{"id": 1, "image": "c.jpg", "conversations": rows}]))
