"""Visual Genome's region captions."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from spr_plugin.eval_tasks.release_records import (
    Record,
    by_id,
    check_file,
    clipped,
    json_of,
    layout,
    refuse_lacking,
    xyxy,
)
from spr_plugin.progress import say


def vg(source: Path, skipped: Counter) -> Iterator[tuple[str, list[Record]]]:
    regions, sizes, splits = (
        source / name for name in ("region_descriptions.json", "image_data.json", "densecap_splits.json")
    )
    refuse_lacking(source, "Visual Genome", regions.name, sizes.name)
    with layout(f"--from {source}: not Visual Genome's layout"):
        rows = (
            (image.get("image_id", image.get("id")), (image["width"], image["height"]))
            for image in json_of(sizes)
        )
        size = by_id(rows, sizes)
        chosen = None
        if splits.is_file():
            chosen = set(json_of(splits)["test"])
        else:
            say(f"{splits.name} is not there: every picture becomes part of vg/test")
        described = json_of(regions)
        check_file(
            regions.name, images=len(described), regions=sum(len(image["regions"]) for image in described)
        )
        records = [
            record
            for image in described
            for record in _regions(source, image["regions"], image.get("id"), size, skipped)
            if chosen is None
            or image.get("id", image["regions"][0]["image_id"] if image["regions"] else None) in chosen
        ]
    yield "vg/test", records


def _regions(
    source: Path, regions: list[dict], id: int | None, size: Mapping, skipped: Counter
) -> Iterator[Record]:
    for region in regions:
        image = region.get("image_id", id)
        width, height = size[image]
        corners, of = (
            xyxy([region[key] for key in ("x", "y", "width", "height")]),
            f"region {region['region_id']}",
        )
        box = clipped(corners, width, height, skipped, f"Visual Genome {of}")
        phrase = region["phrase"].strip()
        if box and phrase:
            folder = next(
                (name for name in ("VG_100K", "VG_100K_2") if (source / name / f"{image}.jpg").is_file()),
                "VG_100K",
            )
            yield {
                "id": str(region["region_id"]),
                "image": f"{folder}/{image}.jpg",
                "width": width,
                "height": height,
                "bbox": box,
                "references": [phrase],
            }
        elif box:
            skipped["no_phrase"] += 1
