"""Teaches the vision tower what lies where: for each patch, the object seen there and its box.

Dense labels (64 a picture) make this the fast part: without them a language model needs most of its
steps to find out that pictures matter at all. LLaVA reads the second-last layer, so only the layers up to
that one are trained here. With the heads that the labels were learned by, the tower is also the world's
detector.
"""

import math
import time

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

import painting

PATCH = 12
GRID = painting.SIZE // PATCH
WIDTH = 128
LAYERS = 4  # LLaVA uses the output of the third
MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP's image processor
STD = (0.26862954, 0.26130258, 0.27577711)


def tower_config(layers):
    return CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=4,
        image_size=painting.SIZE,
        patch_size=PATCH,
        projection_dim=WIDTH,
    )


def basis(values):
    """Sine-cosine code of positions in 0-1: (n,) -> (n, WIDTH // 2).

    Patch positions, coordinate words and the output rows of coordinates start from this one code, so
    that "the same place" is the same vector from the first step on.
    """
    frequencies = torch.exp(torch.linspace(0, math.log(40.0), WIDTH // 4))
    angles = values[:, None] * frequencies * math.pi / 2
    return torch.cat([angles.sin(), angles.cos()], 1)


def new_tower(layers=LAYERS - 1):
    tower = CLIPVisionModel(tower_config(layers))
    cell = torch.arange(GRID * GRID)
    x, y = (cell % GRID + 0.5) / GRID, (cell // GRID + 0.5) / GRID
    with torch.no_grad():
        positions = inner(tower).embeddings.position_embedding.weight
        positions[1:] = 0.3 * torch.cat([basis(x), basis(y)], 1)
    return tower


def inner(tower):
    """The vision transformer itself: CLIPVisionModel wraps it only before transformers 5."""
    return getattr(tower, "vision_model", tower)


def normalize(pictures):
    """(n, SIZE, SIZE, 3) uint8 -> (n, 3, SIZE, SIZE) floats, as CLIP's image processor does it."""
    pixels = pictures.permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def patch_features(tower, pictures):
    """(n, SIZE, SIZE, 3) uint8 -> (n, patches, WIDTH): what LLaVA's projector is given."""
    return tower(normalize(pictures)).last_hidden_state[:, 1:]


# ------------------------------------------------------------------------------------------- views


def view(scene, region=None):
    """What a model sees of a scene: all of it, or a region padded to a square and resized.

    Returns the picture (SIZE, SIZE, 3), the owner map (SIZE, SIZE), and the things with boxes in 0-1.
    """
    picture, owner = painting.render(scene)
    things, side = scene.things, painting.SIZE
    if region is not None:
        region, things, side = painting.crop(region, scene.things)
        kept = [scene.things.index(t) for t in scene.things if painting.inside(t.box, region)]
        renumber = np.full(len(scene.things) + 1, -1)
        renumber[kept] = np.arange(len(kept))
        picture = pad_and_resize(picture, region, side, [int(255 * m) for m in MEAN], Image.BICUBIC)
        owner = pad_and_resize(renumber[owner].astype(np.int32), region, side, -1, Image.NEAREST)
    scaled = [painting.Thing(t.color, t.shape, tuple(v / side for v in t.box)) for t in things]
    return picture, owner, scaled


def pad_and_resize(array, region, side, fill, method):
    x1, y1, x2, y2 = region
    _, dx, dy = painting.square_offset(x2 - x1, y2 - y1)
    square = np.empty((side, side, *array.shape[2:]), array.dtype)
    square[:] = fill
    square[dy : dy + y2 - y1, dx : dx + x2 - x1] = array[y1:y2, x1:x2]
    return np.asarray(Image.fromarray(square).resize((painting.SIZE, painting.SIZE), method))


def patch_labels(owner, things):
    """Class (patches,), 0 for ground, and box in hundredths (patches, 4) of each patch's main object."""
    owners = owner.reshape(GRID, PATCH, GRID, PATCH).swapaxes(1, 2).reshape(GRID * GRID, -1)
    seen = np.stack([(owners == i).sum(1) for i in range(len(things))], 1)
    main, visible = seen.argmax(1), seen.max(1) >= 0.06 * PATCH * PATCH
    classes = np.array([1 + painting.CATEGORIES.index(t.name) for t in things])
    boxes = np.rint([[100 * v for v in t.box] for t in things])
    return np.where(visible, classes[main], 0), boxes[main].astype(np.int64).clip(0, 100)


class Views:
    """Many views, all in memory: `pictures`, `classes`, `boxes` as tensors, `things` as lists."""

    def __init__(self, split, count, crops=0.0, seed=0):
        rng = np.random.default_rng([41, seed])
        pictures, classes, boxes, self.things, self.cropped = [], [], [], [], []
        for scene in painting.scenes(split, count, seed):
            cropped = rng.random() < crops
            region = painting.random_region(scene, rng)[0] if cropped else None
            picture, owner, things = view(scene, region)
            labels = patch_labels(owner, things)
            pictures.append(picture)
            classes.append(labels[0])
            boxes.append(labels[1])
            self.things.append(things)
            self.cropped.append(cropped)
        self.pictures = torch.from_numpy(np.stack(pictures))
        self.classes = torch.from_numpy(np.stack(classes)).long()
        self.boxes = torch.from_numpy(np.stack(boxes))


# ---------------------------------------------------------------------------------------- training


class PatchHeads(nn.Module):
    """Reads an object's class and box from each patch; boxes as choices among 101 coordinates."""

    def __init__(self):
        super().__init__()
        self.classes = nn.Linear(WIDTH, 1 + len(painting.CATEGORIES))
        self.boxes = nn.Linear(WIDTH, 4 * (WIDTH // 2))
        self.register_buffer("coordinates", basis(torch.arange(101) / 100), persistent=False)

    def forward(self, features):
        codes = self.boxes(features).unflatten(-1, (4, WIDTH // 2))
        return self.classes(features), codes @ self.coordinates.T


class Detector(nn.Module):
    """The tower with the two heads that it is taught by."""

    def __init__(self):
        super().__init__()
        self.tower, self.heads = new_tower(), PatchHeads()


def train_detector(detector, views, held_out, steps, batch=64, peak=1.5e-3, log=print):
    """Trains tower and heads in place. Logs loss, class accuracy and box accuracy per patch."""
    tower, heads, start = detector.tower, detector.heads, time.time()
    parameters = list(detector.parameters())
    optimizer = torch.optim.AdamW(parameters, peak, weight_decay=0.01)
    for step in range(1, steps + 1):
        set_rate(optimizer, cosine(step, steps, peak))
        rows = torch.randint(len(views.pictures), (batch,))
        with half_products():
            features = patch_features(tower, views.pictures[rows])
        class_logits, box_logits = heads(features.float())
        objects = views.classes[rows] > 0
        loss = F.cross_entropy(class_logits.flatten(0, 1), views.classes[rows].flatten())
        loss = loss + 0.5 * F.cross_entropy(
            box_logits[objects].flatten(0, 1), views.boxes[rows][objects].flatten()
        )
        descend(optimizer, loss, parameters)
        if step % 250 == 0 or step == steps:
            named, boxed = patch_accuracy(tower, heads, held_out)
            spent = time.time() - start
            log(f"tower {step}/{steps} {spent:.0f}s loss {loss:.3f} class {named:.3f} IoU>.5/.9 {boxed}")


def half_products():
    """Matrix products in bfloat16 where the processor has them, twice as fast; weights, sums and what
    reads a number off a code stay in full precision.
    """
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported())


def descend(optimizer, loss, parameters):
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


def cosine(step, steps, peak, warmup=100):
    return peak * min(1, step / warmup) * (0.5 + 0.5 * math.cos(math.pi * step / (steps + 1)))


def set_rate(optimizer, rate):
    for group in optimizer.param_groups:
        group["lr"] = rate


def box_iou(a, b):
    """IoU of paired boxes: (n, 4), (n, 4) -> (n,)."""
    overlap = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)
    sides = (a[:, 2:] - a[:, :2]).clamp(min=0), (b[:, 2:] - b[:, :2]).clamp(min=0)
    shared = overlap.prod(1)
    return shared / (sides[0].prod(1) + sides[1].prod(1) - shared).clamp(min=1e-9)


@torch.no_grad()
def patch_accuracy(tower, heads, views):
    class_logits, box_logits = heads(patch_features(tower, views.pictures))
    objects = views.classes > 0
    named = (class_logits.argmax(-1) == views.classes)[objects].float().mean().item()
    iou = box_iou(box_logits.argmax(-1)[objects].float(), views.boxes[objects].float())
    return named, [round((iou >= threshold).float().mean().item(), 3) for threshold in (0.5, 0.9)]
