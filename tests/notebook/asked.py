"""What the tests of a notebook ask: a region, its objects, answers about them, flags."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
CLIP = str(ROOT / "examples" / "tiny_world" / "clip")
REGION, OBJECTS = (0, 0, 60, 60), [("red square", (10, 10, 40, 40)), ("<p>dot</p>", (50, 50, 58, 58))]
TEXTS = ["a red square [0.12, 0.12, 0.42, 0.42]", "a red square [0.7, 0.7, 0.8, 0.8]", "Nothing."]
FLAGS = {"spr_box_format": "llava", "spr_clip": CLIP}
