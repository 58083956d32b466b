"""Flickr30k Entities."""

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from spr_plugin.errors import UserError
from spr_plugin.eval_tasks.release_records import Record, clipped, layout
from spr_plugin.loading import read_lines, read_text

PHRASE = re.compile(r"\[/EN#(\d+)/[^\s\[\]]+ ([^\[\]]+)\]")


def flickr30k(source: Path, skipped: Counter) -> Iterator[tuple[str, list[Record]]]:
    folder = next(
        (root for root in (source, source / "annotations") if (root / "Annotations").is_dir()), None
    )
    if folder is None or not (folder / "Sentences").is_dir():
        raise UserError(f"--from {source}: holds no Annotations/ and Sentences/ of Flickr30k Entities")
    known = False
    for split in ("val", "test"):
        if (source / f"{split}.txt").is_file():
            known = True
            ids = read_text(source / f"{split}.txt", str(source / f"{split}.txt")).split()
            yield f"flickr30k/{split}", [record for id in ids for record in captions(folder, id, skipped)]
    if not known:
        raise UserError(f"--from {source}: holds no val.txt or test.txt")


def captions(folder: Path, id: str, skipped: Counter) -> Iterator[Record]:
    """A record a caption, its phrases with boxes; a caption without any is left out."""
    width, height, boxes = read_entities(folder / "Annotations" / f"{id}.xml", skipped)
    sentences = folder / "Sentences" / f"{id}.txt"
    for number, line in ((number - 1, line) for number, line in read_lines(sentences, str(sentences))):
        marked = PHRASE.findall(line)
        phrases = [
            {"id": f"{id}_{number}_{index}", "phrase": words, "boxes": boxes[chain]}
            for index, (chain, words) in enumerate(marked)
            if chain in boxes
        ]
        skipped["phrases_without_box"] += len(marked) - len(phrases)
        if phrases:
            base = {"image": f"flickr30k-images/{id}.jpg", "width": width, "height": height}
            yield {"id": f"{id}_{number}", **base, "caption": PHRASE.sub(r"\2", line), "phrases": phrases}
        else:
            skipped["captions_without_box"] += 1


def read_entities(file: Path, skipped: Counter) -> tuple[int, int, dict[str, list[list[float]]]]:
    """(width, height, chain id → boxes xyxy px) of one XML. Its pixels count from 1; whole scenes and objects
    without a box give none.
    """
    try:
        root = ElementTree.parse(file).getroot()
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # also of an encoding that is none
        raise UserError(f"{file}: not an Entities XML ({error})") from None
    boxes: dict[str, list[list[float]]] = defaultdict(list)
    with layout(f"{file}: not an Entities XML"):
        width, height = (int(_text_in(root, f"size/{side}")) for side in ("width", "height"))
        for object in root.iter("object"):
            corners = object.find("bndbox")
            if corners is None:
                continue
            ends = [int(_text_in(corners, key)) - 1 for key in ("xmin", "ymin", "xmax", "ymax")]
            if box := clipped(ends, width, height, skipped, str(file)):
                for name in object.iter("name"):
                    boxes[_text_in(name, ".")].append(box)
    return width, height, dict(boxes)


def _text_in(element: ElementTree.Element, path: str) -> str:
    """The text of a part of an element. KeyError where there is none."""
    part = element.find(path)
    if part is None or not part.text:
        raise KeyError(element.tag if path == "." else path)
    return part.text.strip()
