"""``spr data``: a benchmark's original release → SPR_DATA_ROOT/FOLDER/SPLIT.parquet, the one layout that the tasks read.

refcoco     refer's tree: ``refcoco/refs(unc).p``, ``refcoco/instances.json`` (so too ``refcoco+``; ``refcocog`` with ``refs(umd).p``), or
            MDETR's ``finetune_refcoco_val.json`` …; pictures in ``images/mscoco/images/train2014``.
            Writes refcoco, refcoco+, refcocog and, for region captions, refcocog_refs (not from MDETR's files).
flickr30k   Entities: ``Annotations/*.xml``, ``Sentences/*.txt``, ``val.txt``, ``test.txt``; pictures in ``flickr30k-images``
lvis        ``lvis_v1_val.json``; pictures in ``val2017``. Ferret's questions are not published: these are ours, with seeded wrong classes.
vg          ``region_descriptions.json``, ``image_data.json``, ``densecap_splits.json``; pictures in ``VG_100K`` and ``VG_100K_2``

Boxes become xyxy in pixels, clipped to the picture; what is left out is counted under a reason. The counts are compared with the published
ones, and a difference is said, not refused: small sets convert too. Knows nothing about models and tasks.
"""

import contextlib
import os
import pickle
import random
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from spr_plugin.boxes import finite
from spr_plugin.data.loading import read_json, read_lines, read_text
from spr_plugin.data.pictures import refuse_outside, stored_bytes
from spr_plugin.errors import UserError
from spr_plugin.files import draft_of, put
from spr_plugin.outputs import refuse_unwritable
from spr_plugin.plain_pickle import load_plain
from spr_plugin.progress import say

# folder/split → (what, published count)
PUBLISHED = {
    "refcoco/val": ("expressions", 10834), "refcoco/testA": ("expressions", 5657), "refcoco/testB": ("expressions", 5095),
    "refcoco+/val": ("expressions", 10758), "refcoco+/testA": ("expressions", 5726), "refcoco+/testB": ("expressions", 4889),
    "refcocog/val": ("expressions", 4896), "refcocog/test": ("expressions", 9602), "refcocog_refs/val": ("refs", 2573),
    "refcocog_refs/test": ("refs", 5023), "flickr30k/val": ("captions", 5000), "flickr30k/test": ("captions", 5000),
}  # fmt: skip
# The same of releases whose questions are ours or whose split has no published size: file → what → published count
PUBLISHED_FILES = {
    "lvis_v1_val.json": {"images": 19809, "annotations": 244707},
    "region_descriptions.json": {"images": 108077, "regions": 5408689},
}
LICENCES = {"refcoco": "Apache-2.0", "refcoco+": "Apache-2.0", "refcocog": "CC BY 4.0", "flickr30k": "unknown", "lvis": "CC BY 4.0", "vg": "CC BY 4.0"}
REC_SPLITS = {"refcoco": ("unc", ("val", "testA", "testB")), "refcoco+": ("unc", ("val", "testA", "testB")), "refcocog": ("umd", ("val", "test"))}
REC_PICTURES = "images/mscoco/images/train2014"
PICTURES = (REC_PICTURES, "flickr30k-images", "val2017", "VG_100K", "VG_100K_2")  # of the layouts above
SMALLEST = 1.0  # px; a box with a shorter side is no object
SEED = 0

Record = dict[str, object]


def convert(benchmark: str, source: str, target: str, embed=False, allow_outside=False) -> Counter:
    """Convert a release under `source` into Parquet files under `target`.

    Args:
        benchmark: a name of the table above.
        embed: put the pictures into the files, instead of their paths (relative to `target`).
        allow_outside: names in the release may lead out of its folders of pictures.

    Returns:
        ``folder/split`` → documents written. Raises UserError where the release is not there or is broken.
    """
    if not Path(source).is_dir():
        raise UserError(f"--from {source}: no such folder")
    refuse_unwritable({"--to": target}, folders=True)
    counts, skipped = Counter(), Counter()
    for place, records in CONVERTERS[benchmark](Path(source), skipped):
        folder = place.split("/")[0]
        found = [{**record, "licence": LICENCES[folder.removesuffix("_refs")]} for record in records]
        if not found:
            raise UserError(f"--from {source}: {place} came out empty ({_told(skipped)})")
        _check_pictures(found, Path(source), place, allow_outside)
        _write(found, Path(source), Path(target), place, embed)
        counts[place] = len(found)
        what, published = PUBLISHED.get(place, ("documents", None))
        differs = f"; the published split has {published}" if published not in (None, len(found)) else ""
        say(f"{place}: {len(found)} {what}{differs}")
    if skipped:
        say(f"left out: {_told(skipped)}")
    return counts


def _check_file(name: str, **counts: int) -> None:
    """Name what of a release's file has another count than the published one."""
    for what, count in counts.items():
        if count != PUBLISHED_FILES[name][what]:
            say(f"{name}: {count} {what}; the published file has {PUBLISHED_FILES[name][what]}")


def _told(counts: Mapping) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in counts.items())


def _check_pictures(records: list[Record], source: Path, place: str, allow_outside: bool) -> None:
    """UserError where pictures are missing or outside the release's folder of them, which may be a link."""
    names = {str(record["image"]): str(record["id"]) for record in reversed(records)}  # of its first record
    missing = sorted(name for name in names if not (source / name).is_file())
    if missing:
        lost = f"{len(missing)} of {len(names)} pictures of {place}"
        raise UserError(f"--from {source}: {lost} are missing, such as {missing[0]}")
    for folder in () if allow_outside else PICTURES:
        named = ((id, str(source / name)) for name, id in names.items() if name.startswith(f"{folder}/"))
        refuse_outside(named, str(source / folder), "--from", "--allow-outside")


def _write(records: list[Record], source: Path, target: Path, place: str, embed: bool) -> None:
    """One Parquet file; pictures' paths become relative to `target`, or the pictures themselves."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError("spr data needs pyarrow: pip install 'spr-plugin[eval]'") from None
    file = target / f"{place}.parquet"
    rows = (_with_picture(record, source, target, embed) for record in records)
    part, writer = draft_of(file), None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        while batch := list(islice(rows, 500)):
            table = pyarrow.Table.from_pylist(batch, schema=writer.schema if writer else None)
            writer = writer or pyarrow.parquet.ParquetWriter(part, table.schema)
            writer.write_table(table)
        writer.close()
        put(part, file)
    except OSError as error:
        raise UserError(f"--to {target}: cannot write {file} ({error.strerror or error})") from None
    finally:
        part.unlink(missing_ok=True)


def _with_picture(record: Record, source: Path, target: Path, embed: bool) -> Record:
    path = source / str(record["image"])
    picture = os.path.relpath(path, target)
    if embed:
        picture = {"bytes": stored_bytes(str(path), str(record["id"])), "path": path.name}
    return {**record, "image_id": path.name, "image": picture}


def _json(file: Path) -> object:
    return read_json(file, str(file))


@contextlib.contextmanager
def _layout(what: str):
    """Inside, records are read that other people wrote; one that is not as their layout has it is a UserError."""
    try:
        yield
    except KeyError as error:
        raise UserError(f"{what}, it lacks {error}") from None
    except (TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise UserError(f"{what} ({error})") from None


def _by_id(rows: Iterable[tuple[int | str, object]], file: Path) -> dict:
    """The rows as a mapping. UserError for an id that stands for two things, of which one would be lost."""
    found = {}
    for id, value in rows:
        if found.setdefault(id, value) != value:
            raise UserError(f"{file}: id {id} stands there twice, with different contents")
    return found


def clipped(box: Iterable[float], width: int, height: int, skipped: Counter, of: str) -> list[float] | None:
    """xyxy kept on the picture, or None (counted) for one that lies outside or is under a pixel. UserError, which
    begins with `of`, for numbers that are none."""
    x1, y1, x2, y2 = corners = list(map(float, box))
    if not finite([*corners, width, height]):
        raise UserError(f"{of}: the box {corners} in a picture of {width} x {height} holds a number that is not finite")
    inside = [min(max(x1, 0.0), width), min(max(y1, 0.0), height), min(max(x2, 0.0), width), min(max(y2, 0.0), height)]
    if inside[2] - inside[0] >= SMALLEST and inside[3] - inside[1] >= SMALLEST:
        return inside
    skipped["outside" if x2 > x1 + SMALLEST and y2 > y1 + SMALLEST else "too_small"] += 1
    return None


def _xyxy(xywh: Iterable[float]) -> list[float]:
    x, y, width, height = map(float, xywh)
    return [x, y, x + width, y + height]


# --- RefCOCO, RefCOCO+, RefCOCOg


def load_refs(file: Path) -> list[dict]:
    """A ``refs(….p``, which Python 2 wrote. Raises UserError for one that is no plain data."""
    try:
        found = load_plain(file)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    except pickle.UnpicklingError as error:
        raise UserError(f"{file}: not a pickle of plain data: {error}") from None
    if not isinstance(found, list) or not all(isinstance(ref, dict) and {"ann_id", "image_id", "split", "sentences"} <= ref.keys() for ref in found):
        raise UserError(f"{file}: not a list of refs")
    return found


def _refcoco(source: Path, skipped: Counter) -> Iterator[tuple[str, list[Record]]]:
    known = False
    for name, (by, splits) in REC_SPLITS.items():
        if (source / name / f"refs({by}).p").is_file():
            known = True
            yield from _refer(source, name, by, splits, skipped)
        else:
            files = {split: source / f"finetune_{name}_{split}.json" for split in splits}
            for split, file in files.items():
                if file.is_file():
                    known = True
                    yield f"{name}/{split}", _mdetr(_json(file), file, skipped)
    if not known:
        raise UserError(f"--from {source}: holds neither refcoco/refs(unc).p nor finetune_refcoco_val.json (nor those of refcoco+ or refcocog)")


def _refer(source: Path, name: str, by: str, splits: Iterable[str], skipped: Counter) -> Iterator[tuple[str, list[Record]]]:
    refs, file = load_refs(source / name / f"refs({by}).p"), source / name / "instances.json"
    instances = _json(file)
    with _layout(f"{file} does not fit refs({by}).p"):
        images = _by_id(((image["id"], image) for image in instances["images"]), file)
        boxes = _by_id(((annotation["id"], annotation["bbox"]) for annotation in instances["annotations"]), file)
        for split in splits:
            own = [(ref, images[ref["image_id"]], boxes[ref["ann_id"]]) for ref in refs if ref["split"] == split]
            cut = (
                clipped(_xyxy(xywh), image["width"], image["height"], skipped, f"{file}, annotation {ref['ann_id']}")
                for ref, image, xywh in own
            )
            whole = [(ref, _base(source, image), box) for (ref, image, _), box in zip(own, cut) if box]
            yield f"{name}/{split}", [
                {"id": str(sentence["sent_id"]), **base, "expression": sentence["sent"], "bbox": box, "ref_id": str(ref["ref_id"])}
                for ref, base, box in whole for sentence in ref["sentences"]
            ]  # fmt: skip
            if name == "refcocog":
                yield f"{name}_refs/{split}", [
                    {"id": str(ref["ref_id"]), **base, "bbox": box, "references": [sentence["sent"] for sentence in ref["sentences"]]} for ref, base, box in whole
                ]


def _base(source: Path, image: Mapping) -> Record:
    return {"image": f"{REC_PICTURES}/{image['file_name']}", "width": image["width"], "height": image["height"]}


def _mdetr(content: Mapping, file: Path, skipped: Counter) -> list[Record]:
    """MDETR's layout: an image record an expression, one annotation each."""
    with _layout(f"{file}: not MDETR's layout"):
        boxes = _by_id(((one["image_id"], one["bbox"]) for one in content["annotations"]), file)
        found = []
        for image in content["images"]:
            base = {**_base(file.parent, image), "width": int(image["width"]), "height": int(image["height"])}
            of = f"{file}, image {image['id']}"
            box = clipped(_xyxy(boxes[image["id"]]), base["width"], base["height"], skipped, of)
            if box:
                found.append({"id": str(image["id"]), **base, "expression": image["caption"], "bbox": box})
        return found


# --- Flickr30k Entities

PHRASE = re.compile(r"\[/EN#(\d+)/[^\s\[\]]+ ([^\[\]]+)\]")


def _flickr30k(source: Path, skipped: Counter) -> Iterator[tuple[str, list[Record]]]:
    folder = next((found for found in (source, source / "annotations") if (found / "Annotations").is_dir()), None)
    if folder is None:
        raise UserError(f"--from {source}: holds no Annotations/ and Sentences/ of Flickr30k Entities")
    known = False
    for split in ("val", "test"):
        if (source / f"{split}.txt").is_file():
            known = True
            ids = read_text(source / f"{split}.txt", str(source / f"{split}.txt")).split()
            yield f"flickr30k/{split}", [record for id in ids for record in _captions(folder, id, skipped)]
    if not known:
        raise UserError(f"--from {source}: holds no val.txt or test.txt")


def _captions(folder: Path, id: str, skipped: Counter) -> Iterator[Record]:
    """A record a caption, its phrases with boxes; a caption without any is left out."""
    width, height, boxes = read_entities(folder / "Annotations" / f"{id}.xml", skipped)
    sentences = folder / "Sentences" / f"{id}.txt"
    for number, line in ((number - 1, line) for number, line in read_lines(sentences, str(sentences))):
        marked = PHRASE.findall(line)
        phrases = [{"id": f"{id}_{number}_{place}", "phrase": words, "boxes": boxes[chain]} for place, (chain, words) in enumerate(marked) if chain in boxes]
        skipped["phrases_without_box"] += len(marked) - len(phrases)
        if phrases:
            base = {"image": f"flickr30k-images/{id}.jpg", "width": width, "height": height}
            yield {"id": f"{id}_{number}", **base, "caption": PHRASE.sub(r"\2", line), "phrases": phrases}
        else:
            skipped["captions_without_box"] += 1


def read_entities(file: Path, skipped: Counter) -> tuple[int, int, dict[str, list]]:
    """(width, height, chain id → boxes xyxy px) of one XML. Its pixels count from 1; whole scenes and objects without a box give none."""
    try:
        root = ElementTree.parse(file).getroot()
        width, height = (int(root.find(f"size/{side}").text) for side in ("width", "height"))
        boxes: dict[str, list] = defaultdict(list)
        for object in root.iter("object"):
            corners = object.find("bndbox")
            if corners is not None:
                ends = [int(corners.find(key).text) - 1 for key in ("xmin", "ymin", "xmax", "ymax")]
                box = clipped(ends, width, height, skipped, str(file))
                for name in object.iter("name") if box else ():
                    boxes[name.text.strip()].append(box)
        return width, height, dict(boxes)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    except (ElementTree.ParseError, AttributeError, LookupError, ValueError) as error:
        raise UserError(f"{file}: not an Entities XML ({error})") from None


# --- LVIS


def _lvis(source: Path, skipped: Counter) -> Iterator[tuple[str, list[Record]]]:
    file = source / "lvis_v1_val.json"
    content = _json(file)
    with _layout(f"{file}: not LVIS v1"):
        _check_file(file.name, images=len(content["images"]), annotations=len(content["annotations"]))
        categories = {category["id"]: category for category in content["categories"]}
        by_image = defaultdict(list)
        for annotation in content["annotations"]:
            by_image[annotation["image_id"]].append(annotation)
        images = [image for image in content["images"] if _lvis_path(image).startswith("val2017/")]
        found = [record for image in images for record in _questions(image, by_image[image["id"]], categories, skipped)]
    yield "lvis/val", [{**record, "truth_first": place % 2 == 0} for place, record in enumerate(found)]


def _lvis_path(image: Mapping) -> str:
    """``val2017/….jpg``: LVIS has no file_name, and its val holds pictures of train2017 too."""
    return "/".join(image["coco_url"].split("/")[-2:])


def _questions(image: Mapping, annotations: list[dict], categories: Mapping, skipped: Counter) -> Iterator[Record]:
    """A question a class of the picture, about its largest object; the other class is one that the picture is not labelled with."""
    largest = {}
    for annotation in annotations:
        if not finite([annotation["area"]]):
            raise UserError(f"LVIS annotation {annotation['id']}: its area is no finite number: {annotation['area']}")
        kept = largest.get(annotation["category_id"])
        largest[annotation["category_id"]] = annotation if kept is None or annotation["area"] > kept["area"] else kept
    absent = sorted(categories.keys() - largest.keys() - set(image.get("not_exhaustive_category_ids", ())))
    for category, annotation in sorted(largest.items()):
        of = f"LVIS annotation {annotation['id']}"
        box = clipped(_xyxy(annotation["bbox"]), image["width"], image["height"], skipped, of)
        if box is None or not absent:
            continue
        rng = random.Random(f"{SEED} {annotation['id']}")
        own = categories[category]
        yield {
            "id": str(annotation["id"]), "image": _lvis_path(image), "width": image["width"], "height": image["height"], "bbox": box,
            "point": point_inside(_polygons(annotation, of), box, rng), "name": own["name"],
            "synonyms": [name for name in own.get("synonyms", ()) if name != own["name"]], "negative": categories[rng.choice(absent)]["name"],
        }  # fmt: skip


def _polygons(annotation: Mapping, of: str) -> object:
    """Its segmentation, of finite numbers; UserError, which begins with `of`, for another."""
    polygons = annotation.get("segmentation")
    for polygon in polygons if isinstance(polygons, list) else ():
        if not finite(polygon):
            raise UserError(f"{of}: its segmentation holds a number that is not finite")
    return polygons


def point_inside(polygons: object, box: list[float], rng: random.Random) -> list[float]:
    """A random pixel's centre inside the polygons (flat lists of x, y); the box's centre where there are none."""
    x1, y1, x2, y2 = box
    if isinstance(polygons, list) and polygons:
        mask = Image.new("1", (int(x2 - x1) + 2, int(y2 - y1) + 2))
        for polygon in polygons:
            if len(polygon) >= 6:
                ImageDraw.Draw(mask).polygon([(x - x1, y - y1) for x, y in zip(polygon[::2], polygon[1::2])], fill=1)
        inside = np.argwhere(np.asarray(mask))
        if len(inside):
            y, x = map(int, inside[rng.randrange(len(inside))])
            return [min(x + x1 + 0.5, x2), min(y + y1 + 0.5, y2)]
    return [(x1 + x2) / 2, (y1 + y2) / 2]


# --- Visual Genome


def _vg(source: Path, skipped: Counter) -> Iterator[tuple[str, list[Record]]]:
    regions, sizes, splits = (source / name for name in ("region_descriptions.json", "image_data.json", "densecap_splits.json"))
    with _layout(f"--from {source}: not Visual Genome's layout"):
        rows = ((image.get("image_id", image.get("id")), (image["width"], image["height"])) for image in _json(sizes))
        size = _by_id(rows, sizes)
        chosen = None
        if splits.is_file():
            chosen = set(_json(splits)["test"])
        else:
            say(f"{splits.name} is not there: every picture becomes part of vg/test")
        described = _json(regions)
        _check_file(regions.name, images=len(described), regions=sum(len(image["regions"]) for image in described))
        found = [
            record for image in described for record in _regions(source, image["regions"], image.get("id"), size, skipped)
            if chosen is None or image.get("id", image["regions"][0]["image_id"] if image["regions"] else None) in chosen
        ]  # fmt: skip
    yield "vg/test", found


def _regions(source: Path, regions: list[dict], id: int | None, size: Mapping, skipped: Counter) -> Iterator[Record]:
    for region in regions:
        image = region.get("image_id", id)
        width, height = size[image]
        corners, of = _xyxy([region[key] for key in ("x", "y", "width", "height")]), f"region {region['region_id']}"
        box = clipped(corners, width, height, skipped, f"Visual Genome {of}")
        phrase = region["phrase"].strip()
        if box and phrase:
            folder = next((name for name in ("VG_100K", "VG_100K_2") if (source / name / f"{image}.jpg").is_file()), "VG_100K")
            yield {"id": str(region["region_id"]), "image": f"{folder}/{image}.jpg", "width": width, "height": height, "bbox": box, "references": [phrase]}
        elif box:
            skipped["no_phrase"] += 1


CONVERTERS: dict[str, Callable[[Path, Counter], Iterator[tuple[str, list[Record]]]]] = {
    "refcoco": _refcoco,
    "flickr30k": _flickr30k,
    "lvis": _lvis,
    "vg": _vg,
}
