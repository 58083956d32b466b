"""The picture of a pair on README's first page, from a finished run:

    python docs/pair_picture.py demo/llava-spr/spr NUMBER

NUMBER counts the pairs that the run's report shows, from 0. Written is docs/pair.png: the chosen answer's
boxes beside the rejected one's, annotated boxes thin and blue beneath.
"""

import base64
import io
import sys
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from spr_plugin import runs
from spr_plugin.drawing import COLORS
from spr_plugin.report.page import summary

EDGE, LINE, LETTERS, COLOURS = 12, 17, 58, 96
TITLES = {"chosen": "chosen: its boxes repaired", "rejected": "rejected: as the model wrote it"}


def picture(pair: dict) -> Image.Image:
    """Both sides of a pair as the report has them: picture, title and text."""
    sides = pair["sides"]
    images = [Image.open(io.BytesIO(base64.b64decode(side["pictures"][0].split(",")[1]))) for side in sides]
    texts = [textwrap.wrap(side["text"], LETTERS) for side in sides]
    width, height = images[0].size
    below = LINE * (2 + max(map(len, texts)))
    whole = Image.new("RGB", (2 * width + 3 * EDGE, height + below + 2 * EDGE), "white")
    draw, font, bold = ImageDraw.Draw(whole), ImageFont.load_default(12), ImageFont.load_default(15)
    for place, (side, image, lines) in enumerate(zip(sides, images, texts)):
        left = EDGE + place * (width + EDGE)
        whole.paste(image, (left, EDGE))
        title = f"{TITLES[side['side']]}, S = {side['score']}"
        draw.text((left, height + EDGE + 4), title, COLORS[side["side"]], bold)
        draw.multiline_text(
            (left, height + EDGE + 4 + LINE + 5), "\n".join(lines), "#1c1c1e", font, spacing=4
        )
    return whole.quantize(COLOURS)


if __name__ == "__main__":
    run, number = sys.argv[1:]
    picture(summary(runs.open(run))["pairs"][int(number)]).save(
        Path(__file__).with_name("pair.png"), optimize=True
    )
