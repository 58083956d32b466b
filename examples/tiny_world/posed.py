"""Posed scenes of the tiny world: balls and posts on a ground, seen by a camera that walks around them.

Numpy and Pillow only. Each scene has a picture a view, 96 pixels, and cameras in one of three layouts: a
table of one's own (``poses.json``), or COLMAP's files of text or binary ones, as MVImgNet ships them.

    python examples/tiny_world/posed.py OUT [--scenes N --views N --layout own|text|binary --seed S]
"""

import argparse
import json
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIZE, FOCAL = 96, 84.0  # pixels; a view of 60 degrees
COLORS = ["#d62c2c", "#2ca83e", "#304ed6", "#ecd634", "#963cb8", "#f08a24", "#f0f0f0", "#40ced6"]
SKY, GROUND = "#a8c8e8", "#7a8a5a"
RADIUS = 4.0  # of the way around the scene


def camera(angle, height=1.2, radius=RADIUS, at=(0.0, 0.0, 0.4)):
    """(rotation, centre) of a camera on a circle that looks at a point; z is up in the world. Degrees, to the
    right as it sees itself.
    """
    turn = np.radians(angle)
    centre = np.array([radius * np.sin(turn), -radius * np.cos(turn), height])
    ahead = np.array(at) - centre
    ahead /= np.linalg.norm(ahead)
    right = np.cross(ahead, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    return np.array([right, np.cross(ahead, right), ahead]), centre


def things(rng):
    """(place on the ground, size, colour, whether it is a ball) of what stands there: near ones in the
    middle, posts far away all around.
    """
    colors = rng.permutation(len(COLORS))
    near = [(rng.uniform(-0.9, 0.9, 2), rng.uniform(0.25, 0.45), COLORS[one], True) for one in colors[:4]]
    ring = np.radians(np.arange(0, 360, 20) + rng.uniform(0, 20))
    far = [
        (12 * np.array([np.cos(turn), np.sin(turn)]), rng.uniform(0.4, 1.0), rng.choice(COLORS), False)
        for turn in ring
    ]
    return near + far


def render(rotation, centre, scene):
    """What the camera sees, farthest first."""
    picture = Image.new("RGB", (SIZE, SIZE), SKY)
    draw = ImageDraw.Draw(picture)
    # The horizon is where rays ahead are level: level in the world is 0 in the third axis.
    rows = (np.arange(SIZE) + 0.5 - SIZE / 2) / FOCAL
    down = rotation[1, 2] * rows + rotation[2, 2] < 0
    if down.any():
        draw.rectangle([0, int(down.argmax()), SIZE, SIZE], fill=GROUND)
    seen = [(rotation @ (np.array([*place, size]) - centre), size, *how) for place, size, *how in scene]
    for (x, y, z), size, color, ball in sorted(seen, key=lambda one: -one[0][2]):
        if z < 0.1:
            continue
        u, v, r = FOCAL * x / z + SIZE / 2, FOCAL * y / z + SIZE / 2, FOCAL * size / z
        if ball:
            draw.ellipse([u - r, v - r, u + r, v + r], fill=color, outline="black")
        else:
            draw.rectangle([u - r / 3, v - r * 2, u + r / 3, v + r], fill=color, outline="black")
    return picture


def quaternion_of(rotation):
    """(w, x, y, z) of a rotation."""
    (a, b, c), (d, e, f), (g, h, i) = rotation
    square = [[a + e + i, h - f, c - g, d - b], [0, a - e - i, b + d, c + g], [0, 0, e - a - i, f + h]]
    square = np.array([*square, [0, 0, 0, i - a - e]]) / 3
    values, vectors = np.linalg.eigh(square, UPLO="U")
    return vectors[:, values.argmax()]


def write_own(folder, scenes):
    """``poses.json``; scenes: name → {picture: (rotation, centre)}."""
    table = {
        name: {
            "pictures": {
                f"{name}/images/{file}": {
                    "rotation": rotation.tolist(),
                    "centre": centre.tolist(),
                    "focal": FOCAL,
                }
                for file, (rotation, centre) in shots.items()
            }
        }
        for name, shots in scenes.items()
    }
    Path(folder, "poses.json").write_text(json.dumps(table))


def write_text(folder, scenes):
    """COLMAP's files of text."""
    for name, shots in scenes.items():
        model = Path(folder, name, "sparse", "0")
        model.mkdir(parents=True)
        numbers = " ".join(map(str, [FOCAL, SIZE / 2, SIZE / 2, 0]))
        (model / "cameras.txt").write_text(f"# a camera a line\n1 SIMPLE_RADIAL {SIZE} {SIZE} {numbers}\n")
        lines = ["# two lines an image"]
        for number, (file, (rotation, centre)) in enumerate(shots.items(), 1):
            pose = [*quaternion_of(rotation), *(-rotation @ centre)]
            lines += [f"{number} {' '.join(map(str, pose))} 1 {file}", "1.5 2.5 -1"]
        (model / "images.txt").write_text("\n".join(lines) + "\n")


def write_binary(folder, scenes):
    """COLMAP's binary files."""
    for name, shots in scenes.items():
        model = Path(folder, name, "sparse", "0")
        model.mkdir(parents=True)
        numbers = struct.pack("<4d", FOCAL, SIZE / 2, SIZE / 2, 0)
        (model / "cameras.bin").write_bytes(struct.pack("<QiiQQ", 1, 1, 2, SIZE, SIZE) + numbers)
        content = struct.pack("<Q", len(shots))
        for number, (file, (rotation, centre)) in enumerate(shots.items(), 1):
            pose = [*quaternion_of(rotation), *(-rotation @ centre)]
            content += struct.pack("<i7di", number, *pose, 1) + file.encode() + b"\0"
            content += struct.pack("<Q", 1) + struct.pack("<ddq", 1.5, 2.5, -1)
        (model / "images.bin").write_bytes(content)


LAYOUTS = {"own": write_own, "text": write_text, "binary": write_binary}


def write_posed(folder, scenes=12, views=24, layout="own", seed=0):
    """So many scenes, ``CLASS/OBJECT/images/NNN.png``, with their cameras in a layout."""
    rng, known = np.random.default_rng(seed), {}
    for number in range(scenes):
        name = f"{number % 3}/{number:05d}"
        images = Path(folder, name, "images")
        images.mkdir(parents=True)
        scene, start = things(rng), rng.uniform(0, 360)
        height, known[name] = rng.uniform(0.8, 1.6), {}
        for view in range(views):
            angle = start + 180 * view / views + rng.uniform(-1, 1)
            known[name][f"{view:03d}.png"] = shot = camera(angle, height + rng.uniform(-0.1, 0.1))
            render(*shot, scene).save(images / f"{view:03d}.png")
    LAYOUTS[layout](folder, known)
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--views", type=int, default=24)
    parser.add_argument("--layout", choices=LAYOUTS, default="own")
    parser.add_argument("--seed", type=int, default=0)
    wanted = vars(parser.parse_args())
    write_posed(wanted.pop("out"), **wanted)


if __name__ == "__main__":
    main()
