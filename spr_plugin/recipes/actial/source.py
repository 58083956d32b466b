"""Questions about the scenes of a folder: task after task in turn, motions and sides as they are missing."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator

from spr_plugin.config import SPRConfig
from spr_plugin.data.poses import Scene, Scenes
from spr_plugin.data.selection import excluded
from spr_plugin.ids import digest
from spr_plugin.progress import counted, listed, progress, say
from spr_plugin.recipes.actial.pairs import Pair, Refused, Shots
from spr_plugin.recipes.actial.questions import question, reason
from spr_plugin.recipes.actial.settings import ActialSettings, weights
from spr_plugin.recipes.base import Query, Source

SIDES = ("left", "right")


def draw_queries(config: SPRConfig, settings: ActialSettings, source: Source) -> list[Query]:
    """As many as ``--spr_regions`` asks for, if the scenes give so many; what is refused is counted.
    UserError where there is no scene.
    """
    scenes = Scenes(source.image_folder or ".", config.spr_annotations, source.skipped)
    left_out = frozenset[int | str]().union(*excluded(config.spr_exclude, plain_name).values())
    number = config.spr_regions
    made = Questions(settings, config.spr_seed, source.skipped).about(
        _chosen(scenes, left_out, config, source)
    )
    queries = list(itertools.islice(progress(made, number, "making questions"), number))
    if queries:
        facets = (counted(query.truth[what] for query in queries) for what in ("motion", "answer"))
        counts = "; ".join(map(listed, (counted(query.task for query in queries), *facets)))
        say(f"{len(queries)} of {number} questions on {len(scenes.names)} scenes: {counts}")
    return queries


def plain_name(name: int | str) -> frozenset[int | str]:
    """A picture's name with its folders: those of two scenes are often called alike."""
    return frozenset([str(name).replace("\\", "/")])


def _chosen(
    scenes: Scenes, left_out: frozenset[int | str], config: SPRConfig, source: Source
) -> Iterator[Scene]:
    """The scenes by chance, but for those of which --spr_exclude names a picture."""
    names = random.Random(digest([config.spr_seed, "order"])).sample(scenes.names, len(scenes.names))
    for scene in filter(None, map(scenes.scene, names)):
        if any(plain_name(shot.name) & left_out for shot in scene.shots):
            source.skipped["excluded"] += 1
        else:
            yield scene


class Questions:
    """Makes questions, and keeps count of what was asked, so that motions and sides come as often as they
    should.
    """

    def __init__(self, settings: ActialSettings, seed: int, skipped: Counter[str]):
        self._settings, self._seed, self._skipped = settings, seed, skipped
        self._weights = weights(settings)
        self._tasks = itertools.cycle(settings.tasks)
        self._asked = Counter[tuple[str, ...]]()  # (task, motion) and (task, motion, side) → how often

    def about(self, scenes: Iterator[Scene]) -> Iterator[Query]:
        """Questions about scene after scene; where one gives no more, its next task is the next scene's."""
        seen, task = set[str](), next(self._tasks)
        for scene in scenes:
            shots = Shots(scene, self._settings)
            for turn in range(self._settings.per_scene):
                rng = random.Random(digest([self._seed, scene.name, turn]))
                query = self._next(shots, task, rng, seen)
                if query is None:
                    break
                yield query
                task = next(self._tasks)

    def _next(self, shots: Shots, task: str, rng: random.Random, seen: set[str]) -> Query | None:
        """A new question of the motion that is missing most, or of another one; None where there is none."""
        for motion in self._missing(task):
            side = min(SIDES, key=lambda side: self._asked[task, motion, side])
            try:
                query = query_of(shots.pair(motion, task, side, rng), task, motion, rng)
                if query.id in seen:
                    raise Refused("asked_already")
            except Refused as why:
                self._skipped[str(why)] += 1
                continue
            seen.add(query.id)
            self._asked.update([(task, motion), (task, motion, side)])
            return query
        return None

    def _missing(self, task: str) -> list[str]:
        """The motions, of which the first has come the least as often as it should."""
        wanted = {motion: weight for motion, weight in self._weights.items() if weight}
        return sorted(wanted, key=lambda motion: (self._asked[task, motion] + 0.5) / wanted[motion])


def query_of(pair: Pair, task: str, motion: str, rng: random.Random) -> Query:
    """A pair as a query; where its files lie is not in the id."""
    pictures = tuple(view.picture for view in pair.views)
    text = question(task, rng)
    truth = {
        "answer": pair.answers[task],
        "why": reason(task, pair.answers),
        "motion": motion,
        "object": [view.point and [round(value, 1) for value in view.point] for view in pair.views],
    }
    shown = [[one.id, one.width, one.height, getattr(one, "steps", ())] for one in pictures]
    id = digest([shown, task, text, truth])
    return Query(id, pictures, text, truth, task, int(id[:8], 16))
