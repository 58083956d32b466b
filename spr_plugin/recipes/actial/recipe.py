"""Actial as a recipe: two pictures of a scene, and which way the camera moved or turned between them."""

from __future__ import annotations

from spr_plugin.config import SPRConfig, own_settings
from spr_plugin.errors import UserError
from spr_plugin.hookspecs import hookimpl
from spr_plugin.recipes.actial.answers import ASKED, answered, reward, written
from spr_plugin.recipes.actial.meanings import MEANINGS
from spr_plugin.recipes.actial.settings import ActialSettings, weights
from spr_plugin.recipes.actial.source import draw_queries
from spr_plugin.recipes.base import Judged, Mark, Query, Source
from spr_plugin.recipes.by_text import RightOrWrong, Worth

NAME = "actial"
AROUND = 0.05  # of a picture's smaller side: half of the box that is drawn around what the scene is about


class Actial(RightOrWrong):
    """Posed pairs.

    Args:
        config: the flags.
    """

    name = NAME
    MEANINGS = MEANINGS

    def __init__(self, config: SPRConfig):
        self.config, self.settings = config, own_settings(config, ActialSettings)
        self.again = self.settings.resample
        least, most = self.settings.least_apart, self.settings.most_apart
        where = f"--spr_recipe_config {config.spr_recipe_config}: {NAME}"
        if least > most:
            raise UserError(f"{where}: least_apart {least:g} is more than most_apart {most:g}")
        if not any(weights(self.settings).values()):
            raise UserError(f"{where}: motions {' '.join(self.settings.motions)}: leave one that weighs more")

    def queries(self, source: Source) -> list[Query]:
        return draw_queries(self.config, self.settings, source)

    def put(self, question: str, width: int, height: int) -> str:
        return question + ASKED

    def answer_in(self, text: str) -> str | None:
        return answered(text)

    def worth(self, text: str, query: Query) -> Worth:
        return reward(text, query.truth["answer"], self.settings.format_half)

    def written(self, why: str, answer: str) -> str:
        return written(why, answer)

    def draw(self, query: Query, judged: Judged) -> list[tuple[list[Mark], list[Mark]]]:
        """What the scene is about, in both pictures."""
        marks = [
            mark
            for number, (picture, at) in enumerate(zip(query.pictures, query.truth["object"]))
            if at and (mark := _around(at, AROUND * min(picture.width, picture.height), number))
        ]
        return [(marks, marks) for _ in judged.answers]

    def facets(self, query: Query) -> dict[str, list[str]]:
        """How the camera moved, and the right answer."""
        return {"motion": [query.truth["motion"]], "answer": [query.truth["answer"]]}


def _around(at: list[float], room: float, picture: int) -> Mark:
    x, y = at
    return Mark("region", (x - room, y - room, x + room, y + room), picture, "object")


@hookimpl
def spr_recipe(name: str, config: SPRConfig) -> Actial | None:
    """``--spr_recipe actial``."""
    return Actial(config) if name == NAME else None
