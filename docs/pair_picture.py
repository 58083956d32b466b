"""The picture of a pair on README's first page, from a finished run:

    python docs/pair_picture.py demo/llava-spr/spr NUMBER

NUMBER counts the run's pairs, from 0. Written is docs/pair.png: the chosen answer's
boxes beside the rejected one's, annotated boxes thin and blue beneath.
"""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from spr_plugin import runs
from spr_plugin.data.pictures import open_image
from spr_plugin.drawing import COLORS, SIDE, drawn, lines_of
from spr_plugin.pairing import answer_of
from spr_plugin.recipes.base import Judged
from spr_plugin.runs import SavedRun

EDGE, LINE, LETTERS, COLOURS = 12, 17, 58, 96
TITLES = {"chosen": "chosen: its boxes repaired", "rejected": "rejected: as the model wrote it"}


def sides(run: SavedRun, number: int) -> Iterator[tuple[str, Image.Image, str, str]]:
    """Chosen and rejected of a pair: side, picture with boxes, title, text."""
    pair = run.pairs[number]
    query, record = run.queries[pair.query], run.records("scores")[pair.query]
    judged = Judged(record["truth"], tuple(answer_of(row) for row in record["candidates"]))
    marked = dict(zip((row["id"] for row in record["candidates"]), run.recipe.draw(query, judged)))
    shown = {"chosen": marked[pair.chosen_candidate][1], "rejected": marked[pair.rejected_candidate][0]}
    for side, marks in shown.items():
        image = drawn(open_image(query.pictures[0].path, query.pictures[0].id), lines_of(marks, side))
        yield side, image, f"{TITLES[side]}, S = {getattr(pair, f'{side}_score'):.3f}", getattr(pair, side)


def picture(run: SavedRun, number: int) -> Image.Image:
    both = list(sides(run, number))
    texts = [textwrap.wrap(text, LETTERS) for *_, text in both]
    height = max(image.height for _, image, *_ in both)
    below = LINE * (2 + max(map(len, texts)))
    whole = Image.new("RGB", (2 * SIDE + 3 * EDGE, height + below + 2 * EDGE), "white")
    draw, font, bold = ImageDraw.Draw(whole), ImageFont.load_default(12), ImageFont.load_default(15)
    for column, ((side, image, title, _), lines) in enumerate(zip(both, texts)):
        left = EDGE + column * (SIDE + EDGE)
        whole.paste(image, (left, EDGE))
        draw.text((left, height + EDGE + 4), title, COLORS[side], bold)
        draw.multiline_text(
            (left, height + EDGE + 4 + LINE + 5), "\n".join(lines), "#1c1c1e", font, spacing=4
        )
    return whole.quantize(COLOURS)


if __name__ == "__main__":
    folder, number = sys.argv[1:]
    picture(runs.open(folder), int(number)).save(Path(__file__).with_name("pair.png"), optimize=True)
