"""The annotated pictures that responses name."""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache

from spr_plugin.data.annotations import AnnotatedImage
from spr_plugin.data.pictures import MISSING, name_too_large
from spr_plugin.errors import UserError
from spr_plugin.ids import digest
from spr_plugin.plugins import ask
from spr_plugin.progress import listed

PICTURES = 64  # whose annotations are held


class Pictures:
    """The annotated pictures that responses name.

    Attributes:
        used: path → id of each.
        skipped: what of them was left out, by reason.
    """

    def __init__(self, annotations: str, images: str):
        self.used: dict[str, str] = {}
        self._annotations, self._images, self._now = annotations, images, Counter()
        source = ask(
            "spr_annotations", source=annotations, image_folder=images, skipped=self._now, keep_crowd=False
        )
        self._find = self._by_name(source) if hasattr(source, "named") else self._by_path(source)
        self.skipped = Counter(self._now)
        self._unknown = self._now["unknown_image"]
        self._read = lru_cache(PICTURES)(self._reading)

    def of(self, row: dict) -> AnnotatedImage:
        """The picture of a response, which must have an object. UserError says why it cannot be used."""
        name = row["image"]
        try:
            image, why = self._read(name)
        except KeyError:
            raise UserError(
                f"response {row['id']}: {name} is not in --annotations {self._annotations}"
            ) from None
        if image is None:
            raise UserError(
                f"response {row['id']}: {name} of --annotations {self._annotations} cannot be used ({why})"
            )
        return image

    def _reading(self, name: str) -> tuple[AnnotatedImage | None, str]:
        """The picture of this name, and what of it was left out, which is counted once. KeyError if there is
        none.
        """
        self._now.clear()
        image = self._find(name)
        if image and image.path not in self.used:
            self.used[image.path] = image.id
            self.skipped.update(self._now)
        why = listed(self._now)
        name_too_large(self._now, "--max-pixels")
        if self._now[MISSING]:
            why += f": there is no {os.path.join(self._images, name)}"
        elif self._now["no_objects"] and self._unknown:
            why += (
                f': {self._unknown} annotations have an image_id that no picture has; 1 and "1" are two ids'
            )
        return image, why

    def _by_name(self, source) -> Callable[[str], AnnotatedImage | None]:
        """What finds a COCO file's picture by its ``file_name``, or by another spelling of the same path:
        never by the end of a name, which other pictures may have too.
        """

        def find(name: str) -> AnnotatedImage | None:
            path, folder = os.path.abspath(os.path.join(self._images, name)), os.path.abspath(self._images)
            for spelling in (name, path, os.path.relpath(path, folder)):
                with contextlib.suppress(KeyError):
                    return source.named(spelling)
            raise KeyError(name)

        return find

    def _by_path(self, source) -> Callable[[str], AnnotatedImage]:
        """What finds a plugin's pictures by their path in the folder."""
        numbered = hasattr(source, "ids")
        pictures = filter(None, map(source.image, range(len(source.ids))) if numbered else source)
        by_path = {os.path.abspath(image.path): image for image in pictures}
        return lambda name: by_path[os.path.abspath(os.path.join(self._images, name))]


def state_of(pictures: Iterable[str], folder: str) -> str:
    """A hash of which pictures these are, as far as their names in `folder`, sizes and times tell."""
    states = ((os.path.relpath(path, folder), os.stat(path)) for path in sorted(pictures))
    return digest([[name, state.st_size, state.st_mtime_ns] for name, state in states])
