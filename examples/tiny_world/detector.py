"""The tiny world's detector as a plugin: the taught tower with its two heads, which say of every patch what
is there and its box.

--spr_plugin examples/tiny_world/detector.py --spr_detector examples/tiny_world/detector
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from spr_plugin.boxes import Box, Space, iou_matrix
from spr_plugin.errors import UserError
from spr_plugin.hookspecs import hookimpl
from spr_plugin.recipes.spr.scoring import suppressed

sys.path.insert(0, str(Path(__file__).resolve().parent))  # the world's modules are scripts, no package
import painting
import teach_tower

SURE = 0.5  # least probability of a patch's class


class TinyDetector:
    """Reads `folder`/model.safetensors; so small that it stays on the CPU."""

    def __init__(self, folder: Path):
        self.model = teach_tower.Detector().eval()
        self.model.load_state_dict(
            {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
        )

    @torch.no_grad()
    def detect(self, picture: Image.Image, phrases) -> list[tuple[str, Box, float]]:
        """(phrase, box in pixels of the picture, probability) of what each phrase names, after non-maximum
        suppression.
        """
        wanted = {
            phrase: painting.CATEGORIES.index(name)
            for phrase in phrases
            if (name := bare(phrase)) in painting.CATEGORIES
        }
        pixels = torch.from_numpy(np.array(picture.resize((painting.SIZE, painting.SIZE), Image.BICUBIC)))
        classes, places = self.model.heads(teach_tower.patch_features(self.model.tower, pixels[None]))
        probabilities = classes[0].softmax(-1)[:, 1:]
        boxes = places[0].argmax(-1).numpy() / 100 * (picture.size * 2)
        space = Space.pixels(*picture.size)
        return [
            (phrase, Box(*box, space), score)
            for phrase, category in wanted.items()
            for box, score in found(boxes, probabilities[:, category].numpy())
        ]


def detection_hits(detector, pictured):
    """ "found": of the objects those with a box of their name and an IoU of at least a half; "right": of the
    boxes those of an object: name → [(hit, scene)], asked for the names of each (scene, picture).
    """
    hits = {"found": [], "right": []}
    for index, (scene, picture) in enumerate(pictured):
        rows = detector.detect(Image.fromarray(picture), sorted({thing.name for thing in scene.things}))
        overlaps = iou_matrix([thing.box for thing in scene.things], [box.pixels() for _, box, _ in rows])
        same = np.array([[name == thing.name for name, _, _ in rows] for thing in scene.things])
        near = (overlaps >= 0.5) & same
        hits["found"] += [(float(hit), index) for hit in near.any(1)]
        hits["right"] += [(float(hit), index) for hit in near.any(0)]
    return hits


def bare(phrase: str) -> str:
    """ "a red circle" → "red circle"."""
    return " ".join(word for word in phrase.lower().split() if word not in ("a", "an"))


def found(boxes: np.ndarray, scores: np.ndarray) -> list[tuple[tuple[float, ...], float]]:
    """(box, score) of the sure patches (n, 4), (n,), one for each object."""
    order = [place for place in np.argsort(-scores, kind="stable") if scores[place] >= SURE]
    best = {tuple(boxes[place].tolist()): float(scores[place]) for place in reversed(order)}
    return [
        (tuple(box), best[tuple(box)])
        for box in suppressed([tuple(boxes[place]) for place in order]).tolist()
    ]


@hookimpl
def spr_detector(config, device):
    folder = Path(config.spr_detector)
    if folder.resolve() != Path(__file__).resolve().with_suffix(""):
        return None
    if not (folder / "model.safetensors").is_file():
        raise UserError(
            f"--spr_detector {folder}: has no model.safetensors; examples/tiny_world/make.py makes it"
        )
    return TinyDetector(folder)
