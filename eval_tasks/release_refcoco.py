"""RefCOCO, RefCOCO+ and RefCOCOg, of refer's tree or of MDETR's files."""

import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from spr_plugin.errors import UserError
from spr_plugin.eval_tasks.release_records import (
    Record,
    by_id,
    clipped,
    json_of,
    layout,
    refuse_lacking,
    xyxy,
)
from spr_plugin.plain_pickle import load_plain

REC_SPLITS = {
    "refcoco": ("unc", ("val", "testA", "testB")),
    "refcoco+": ("unc", ("val", "testA", "testB")),
    "refcocog": ("umd", ("val", "test")),
}
REC_PICTURES = "images/mscoco/images/train2014"


def load_refs(file: Path) -> list[dict]:
    """A ``refs(….p``, which Python 2 wrote. Raises UserError for one that is no plain data."""
    try:
        refs = load_plain(file)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    except pickle.UnpicklingError as error:
        raise UserError(f"{file}: not a pickle of plain data: {error}") from None
    if not isinstance(refs, list) or not all(
        isinstance(ref, dict) and {"ann_id", "image_id", "split", "sentences"} <= ref.keys() for ref in refs
    ):
        raise UserError(f"{file}: not a list of refs")
    return refs


def refcoco(source: Path, skipped: Counter) -> Iterator[tuple[str, list[Record]]]:
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
                    yield f"{name}/{split}", _mdetr(json_of(file), file, skipped)
    if not known:
        raise UserError(
            f"--from {source}: holds neither refcoco/refs(unc).p nor finetune_refcoco_val.json (nor those of"
            " refcoco+ or refcocog)"
        )


def _refer(
    source: Path, name: str, by: str, splits: Iterable[str], skipped: Counter
) -> Iterator[tuple[str, list[Record]]]:
    refuse_lacking(source, "refer's tree", f"{name}/instances.json")
    refs, file = load_refs(source / name / f"refs({by}).p"), source / name / "instances.json"
    instances = json_of(file)
    with layout(f"{file} does not fit refs({by}).p"):
        images = by_id(((image["id"], image) for image in instances["images"]), file)
        boxes = by_id(
            ((annotation["id"], annotation["bbox"]) for annotation in instances["annotations"]), file
        )
        for split in splits:
            own = [
                (ref, images[ref["image_id"]], boxes[ref["ann_id"]]) for ref in refs if ref["split"] == split
            ]
            cut = (
                clipped(
                    xyxy(xywh),
                    image["width"],
                    image["height"],
                    skipped,
                    f"{file}, annotation {ref['ann_id']}",
                )
                for ref, image, xywh in own
            )
            whole = [(ref, _base(source, image), box) for (ref, image, _), box in zip(own, cut) if box]
            yield (
                f"{name}/{split}",
                [
                    {
                        "id": str(sentence["sent_id"]),
                        **base,
                        "expression": sentence["sent"],
                        "bbox": box,
                        "ref_id": str(ref["ref_id"]),
                    }
                    for ref, base, box in whole
                    for sentence in ref["sentences"]
                ],
            )
            if name == "refcocog":
                yield (
                    f"{name}_refs/{split}",
                    [
                        {
                            "id": str(ref["ref_id"]),
                            **base,
                            "bbox": box,
                            "references": [sentence["sent"] for sentence in ref["sentences"]],
                        }
                        for ref, base, box in whole
                    ],
                )


def _base(source: Path, image: Mapping) -> Record:
    return {
        "image": f"{REC_PICTURES}/{image['file_name']}",
        "width": image["width"],
        "height": image["height"],
    }


def _mdetr(content: Mapping, file: Path, skipped: Counter) -> list[Record]:
    """MDETR's layout: an image record an expression, one annotation each."""
    with layout(f"{file}: not MDETR's layout"):
        boxes = by_id(((one["image_id"], one["bbox"]) for one in content["annotations"]), file)
        records = []
        for image in content["images"]:
            base = {**_base(file.parent, image), "width": int(image["width"]), "height": int(image["height"])}
            of = f"{file}, image {image['id']}"
            box = clipped(xyxy(boxes[image["id"]]), base["width"], base["height"], skipped, of)
            if box:
                records.append({"id": str(image["id"]), **base, "expression": image["caption"], "bbox": box})
        return records
