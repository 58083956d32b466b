"""A plugin's annotated pictures, checked one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from spr_plugin.boxes import Box, Space
from spr_plugin.data.annotations import AnnotatedImage, Annotation, image_size, usable
from spr_plugin.foreign import Broken, Foreign, listed, of_kind

IMAGE_KINDS: dict[str, type | tuple[type, ...]] = {
    "id": (str, int),
    "path": str,
    "width": int,
    "height": int,
    "annotations": (tuple, list),
}
ANNOTATION_KINDS: dict[str, type | tuple[type, ...]] = {"id": (str, int), "label": str, "box": Box}


class CheckedImages(Foreign):
    """A plugin's annotated pictures, each checked when it is asked for."""

    def __init__(self, plugin: str, hook: str, given: Any, arguments: Mapping[str, Any]):
        by_number = hasattr(given, "ids")
        super().__init__(plugin, hook, given, ["image"] if by_number else ["__iter__"])
        self._skipped: Counter[str] = arguments["skipped"]
        if by_number:
            with self.checking("ids"):
                self.ids = [of_kind(id, (str, int)) for id in listed(given.ids)]

    def image(self, number: int) -> AnnotatedImage | None:
        with self.checking("image"):
            image = self.given.image(number)
            return None if image is None else self._as_stored(image)

    def __iter__(self) -> Iterator[AnnotatedImage]:
        with self.checking():
            images = iter(self.given)
        while True:
            with self.checking():
                image = next(images, images)  # itself: the end, as None is a mistake
                if image is images:
                    return
                stored = self._as_stored(image)
            if stored:
                yield stored

    def _as_stored(self, image) -> AnnotatedImage | None:
        """`image` with the boxes that can be used, or None.

        A wrong type is the plugin's mistake, a wrong value one of its data, and counted as a COCO file's is.
        """
        check_types(image)
        size = image_size(image.path)
        if size != (image.width, image.height):
            self._skipped[size if isinstance(size, str) else "size_mismatch"] += 1
            return None
        kept = {}
        for annotation in image.annotations:
            box = usable(annotation.box)
            repeated = "duplicate_id" if annotation.id in kept else None
            reason = ("no_label" if not annotation.label.strip() else repeated) if box else "outside"
            if reason:
                self._skipped[reason] += 1
            else:
                kept[annotation.id] = annotation if box == annotation.box else replace(annotation, box=box)
        return replace(image, annotations=tuple(kept.values()))


def check_types(image) -> None:
    """Raise Broken unless `image` and its annotations are plain data, in pixels of the picture."""
    of_kind(image, AnnotatedImage)
    for name, wanted in IMAGE_KINDS.items():
        of_kind(getattr(image, name), wanted, f"as {name} of an AnnotatedImage ")
    space = Space.pixels(image.width, image.height)
    for annotation in image.annotations:
        of_kind(annotation, Annotation)
        for name, wanted in ANNOTATION_KINDS.items():
            of_kind(getattr(annotation, name), wanted, f"as {name} of an Annotation of {image.id} ")
        theirs = annotation.box.space
        if theirs != space:
            raise Broken(
                f"gives for {image.id} a box in {theirs.name} of {theirs.width} x {theirs.height}, "
                f"not in pixels of {image.width} x {image.height}"
            )
        for value in annotation.box.xyxy:
            of_kind(value, (int, float), f"in a box of {image.id} ")
