"""The photographs of annotations.json, which scikit-image's wheel carries: no download, no copy here."""

from pathlib import Path

from PIL import Image

ANNOTATIONS = Path(__file__).parent / "annotations.json"
NAMES = tuple(f"{name}.png" for name in "astronaut coffee chelsea rocket motorcycle_left".split())


def write(folder: Path) -> Path:
    """All of them in `folder`, by the names of annotations.json."""
    import skimage.data

    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        stem = name.removesuffix(".png")
        left = stem == "motorcycle_left"
        Image.fromarray(skimage.data.stereo_motorcycle()[0] if left else getattr(skimage.data, stem)()).save(
            folder / name
        )
    return folder
