"""Questions about the pictures of a folder: task after task in turn, each seeded by itself."""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from spr_plugin.config import SPRConfig
from spr_plugin.data.depth import BadDepth, read_depth, scaled
from spr_plugin.data.pictures import BadImage, MadePicture, open_image
from spr_plugin.data.selection import excluded, keys_of_picture
from spr_plugin.errors import UserError
from spr_plugin.ids import digest
from spr_plugin.progress import counted, listed, progress, say
from spr_plugin.recipes.base import Query, Source
from spr_plugin.recipes.spatial_ssrl.answers import ASKED
from spr_plugin.recipes.spatial_ssrl.samples import Refused, Sample, Scene
from spr_plugin.recipes.spatial_ssrl.settings import OF_DEPTH, Asking
from spr_plugin.recipes.spatial_ssrl.tasks import sample

ENDINGS = frozenset(".jpg .jpeg .png .webp .bmp .gif .tif .tiff .ppm .jp2".split())
LEAST_SIDE = 32  # of a picture, in pixels
GIVES_UP = 2000  # attempts in a row that give none


def draw_queries(config: SPRConfig, ask: Asking, source: Source) -> list[Query]:
    """As many as ``--spr_regions`` asks for, if the pictures give so many; what is refused is counted.
    UserError for a folder that is none.
    """
    folder = source.image_folder or "."
    if ask.depth is not None and not os.path.isdir(ask.depth):
        raise UserError(f"--spr_recipe_config: spatial_ssrl: depth {ask.depth}: no such folder")
    names = list(picture_names(folder, ask.depth))
    left_out = frozenset[int | str]().union(*excluded(config.spr_exclude).values())
    wanted = [name for name in names if not keys_of_picture(name) & left_out]
    if len(wanted) < len(names):
        source.skipped["excluded"] += len(names) - len(wanted)
    if not wanted:
        left = f", but for {len(names)} that --spr_exclude names" if names else ""
        raise UserError(f"--spr_image_folder {folder}: holds no picture{left}")
    number = config.spr_regions
    made = questions(folder, wanted, ask, config.spr_seed, source.skipped)
    queries = list(itertools.islice(progress(made, number, "making questions"), number))
    if queries:
        by_task = listed(counted(query.task for query in queries))
        say(f"{len(queries)} of {number} questions on {len(wanted)} pictures: {by_task}")
    return queries


def picture_names(folder: str, depth: str | None) -> Iterator[str]:
    """Names of the pictures below a folder, in order, without those in the folder of depths."""
    apart = os.path.realpath(depth) if depth else None
    for parent, inner, files in os.walk(folder):
        inner[:] = sorted(one for one in inner if os.path.realpath(os.path.join(parent, one)) != apart)
        for file in sorted(files):
            if os.path.splitext(file)[1].lower() in ENDINGS:
                yield os.path.relpath(os.path.join(parent, file), folder)


def questions(
    folder: str, names: Sequence[str], ask: Asking, seed: int, skipped: Counter[str]
) -> Iterator[Query]:
    """Question after question about picture after picture, in a random order, and again from the first one
    with the next task, until as many in a row are refused as there are pictures for each task.
    """
    order = random.Random(digest([seed, "order"])).sample(names, len(names))
    seen, refused, most = set[str](), 0, min(GIVES_UP, len(names) * len(ask.tasks))
    for turn in itertools.count():
        for index, name in enumerate(order):
            task = ask.tasks[(index + turn) % len(ask.tasks)]
            try:
                query = question(folder, name, task, ask, digest([seed, name, task, turn]))
                if query.id in seen:
                    raise Refused("asked_already")
            except Refused as why:
                skipped[str(why)] += 1
                refused += 1
                if refused >= most:
                    return
                continue
            refused = 0
            seen.add(query.id)
            yield query


def question(folder: str, name: str, task: str, ask: Asking, seed: str) -> Query:
    """One question about a picture, the same for the same arguments. Refused says why there is none."""
    path = os.path.join(folder, name)
    try:
        scene = Scene(open_image(path, name))
        if min(scene.picture.size) < LEAST_SIDE:
            raise Refused("small_picture")
        if task in OF_DEPTH:
            depth = read_depth(Path(ask.depth or folder), name, scene.picture.size, ask.disparity)
            scene = scene._replace(depth=scaled(depth))
    except BadImage as error:
        raise Refused(error.reason) from None
    except BadDepth as error:
        raise Refused(str(error)) from None
    return query_of(sample(task, scene, ask, random.Random(seed)), task, name, path)


def query_of(made: Sample, task: str, name: str, path: str) -> Query:
    """A sample as a query about the picture of that name; where its file lies is not in the id."""
    pictures = tuple(MadePicture(name, path, *view.size, view.steps) for view in made.views)
    truth = {"answer": made.answer, "why": made.why, **made.facts}
    id = digest([name, task, [[view.size, view.steps] for view in made.views], made.question, truth])
    return Query(id, pictures, made.question + ASKED, truth, task, int(id[:8], 16))
