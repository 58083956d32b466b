"""LVIS: two classes and a place; Ferret's questions are not published, these are ours."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from spr_plugin.boxes import finite
from spr_plugin.errors import UserError
from spr_plugin.eval_tasks.release_records import (
    Record,
    check_file,
    clipped,
    json_of,
    layout,
    refuse_lacking,
    xyxy,
)

SEED = 0


def lvis(source: Path, skipped: Counter) -> Iterator[tuple[str, list[Record]]]:
    refuse_lacking(source, "LVIS v1", "lvis_v1_val.json")
    file = source / "lvis_v1_val.json"
    content = json_of(file)
    with layout(f"{file}: not LVIS v1"):
        check_file(file.name, images=len(content["images"]), annotations=len(content["annotations"]))
        categories = {category["id"]: category for category in content["categories"]}
        by_image = defaultdict(list)
        for annotation in content["annotations"]:
            by_image[annotation["image_id"]].append(annotation)
        images = [image for image in content["images"] if _lvis_path(image).startswith("val2017/")]
        records = [
            record
            for image in images
            for record in _questions(image, by_image[image["id"]], categories, skipped)
        ]
    yield "lvis/val", [{**record, "truth_first": index % 2 == 0} for index, record in enumerate(records)]


def _lvis_path(image: Mapping) -> str:
    """``val2017/….jpg``: LVIS has no file_name, and its val holds pictures of train2017 too."""
    return "/".join(image["coco_url"].split("/")[-2:])


def _questions(
    image: Mapping, annotations: list[dict], categories: Mapping, skipped: Counter
) -> Iterator[Record]:
    """A question a class of the picture, about its largest object; the other class is one that the picture is
    not labelled with.
    """
    largest = {}
    for annotation in annotations:
        if not finite([annotation["area"]]):
            raise UserError(
                f"LVIS annotation {annotation['id']}: its area is no finite number: {annotation['area']}"
            )
        kept = largest.get(annotation["category_id"])
        largest[annotation["category_id"]] = (
            annotation if kept is None or annotation["area"] > kept["area"] else kept
        )
    absent = sorted(categories.keys() - largest.keys() - set(image.get("not_exhaustive_category_ids", ())))
    for category, annotation in sorted(largest.items()):
        of = f"LVIS annotation {annotation['id']}"
        box = clipped(xyxy(annotation["bbox"]), image["width"], image["height"], skipped, of)
        if box is None or not absent:
            continue
        rng = random.Random(f"{SEED} {annotation['id']}")
        own = categories[category]
        yield {
            "id": str(annotation["id"]),
            "image": _lvis_path(image),
            "width": image["width"],
            "height": image["height"],
            "bbox": box,
            "point": point_inside(_polygons(annotation, of), box, rng),
            "name": own["name"],
            "synonyms": [name for name in own.get("synonyms", ()) if name != own["name"]],
            "negative": categories[rng.choice(absent)]["name"],
        }


def _polygons(annotation: Mapping, of: str) -> object:
    """Its segmentation, of finite numbers; UserError, which begins with `of`, for another."""
    polygons = annotation.get("segmentation")
    for polygon in polygons if isinstance(polygons, list) else ():
        if not finite(polygon):
            raise UserError(f"{of}: its segmentation holds a number that is not finite")
    return polygons


def point_inside(polygons: object, box: list[float], rng: random.Random) -> list[float]:
    """A random pixel's centre inside the polygons (flat lists of x, y); the box's centre where there are
    none.
    """
    x1, y1, x2, y2 = box
    if isinstance(polygons, list) and polygons:
        mask = Image.new("1", (int(x2 - x1) + 2, int(y2 - y1) + 2))
        for polygon in polygons:
            if len(polygon) >= 6:
                ImageDraw.Draw(mask).polygon(
                    [(x - x1, y - y1) for x, y in zip(polygon[::2], polygon[1::2])], fill=1
                )
        inside = np.argwhere(np.asarray(mask))
        if len(inside):
            y, x = map(int, inside[rng.randrange(len(inside))])
            return [min(x + x1 + 0.5, x2), min(y + y1 + 0.5, y2)]
    return [(x1 + x2) / 2, (y1 + y2) / 2]
