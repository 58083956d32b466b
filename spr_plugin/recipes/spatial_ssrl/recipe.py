"""Spatial-SSRL as a recipe: questions that a picture's own pixels or depth answer, right or wrong."""

from __future__ import annotations

from dataclasses import replace

from spr_plugin.config import SPRConfig, own_settings
from spr_plugin.errors import UserError
from spr_plugin.hookspecs import hookimpl
from spr_plugin.recipes.base import Judged, Mark, Query, Source
from spr_plugin.recipes.by_text import RightOrWrong, Worth
from spr_plugin.recipes.spatial_ssrl.answers import ASKED, boxed, reward, written
from spr_plugin.recipes.spatial_ssrl.meanings import MEANINGS
from spr_plugin.recipes.spatial_ssrl.settings import OF_DEPTH, TASKS, Asking
from spr_plugin.recipes.spatial_ssrl.source import draw_queries

NAME = "spatial_ssrl"
PIECES = 5  # pictures of a cropped patch: the one with the black square, and four pieces


class SpatialSSRL(RightOrWrong):
    """Five tasks of pixels and depth.

    Args:
        config: the flags.
    """

    name = NAME
    MEANINGS = MEANINGS

    def __init__(self, config: SPRConfig):
        ask = own_settings(config, Asking)
        known = TASKS if ask.depth is not None else [task for task in TASKS if task not in OF_DEPTH]
        if unknown := [task for task in ask.tasks if task not in known]:
            where = f"--spr_recipe_config {config.spr_recipe_config}: {NAME}"
            raise UserError(f"{where}: tasks {', '.join(unknown)}: of depth, whose folder `depth` names")
        self.config, self.ask = config, replace(ask, tasks=ask.tasks or list(known))
        self.again = ask.resample

    def queries(self, source: Source) -> list[Query]:
        montage = self.ask.montage or source.most_pictures < PIECES
        return draw_queries(self.config, replace(self.ask, montage=montage), source)

    def put(self, question: str, width: int, height: int) -> str:
        return question + ASKED

    def answer_in(self, text: str) -> str | None:
        return boxed(text)

    def worth(self, text: str, query: Query) -> Worth:
        return reward(text, query.truth["answer"], self.ask.partial)

    def written(self, why: str, answer: str) -> str:
        return written(why, answer)

    def draw(self, query: Query, judged: Judged) -> list[tuple[list[Mark], list[Mark]]]:
        """What was hidden or flipped, and the patch that an answer says was; marked regions are seen as they
        are.
        """
        facts = query.truth
        hidden = [Mark("truth", tuple(facts["square"]))] if query.task == "cropped_patch" else []
        if query.task == "flipped_patch":
            hidden = [Mark("truth", tuple(facts["boxes"][int(facts["answer"].split("-")[0])]))]
        drawn = [[*hidden, *self._stated(query, one.text)] for one in judged.answers]
        return [(marks, marks) for marks in drawn]

    def _stated(self, query: Query, text: str) -> list[Mark]:
        number = (boxed(text) or "").split("-")[0]
        if query.task != "flipped_patch" or number not in ("0", "1", "2", "3"):
            return []
        return [Mark("written", tuple(query.truth["boxes"][int(number)]))]


@hookimpl
def spr_recipe(name: str, config: SPRConfig) -> SpatialSSRL | None:
    """``--spr_recipe spatial_ssrl``."""
    return SpatialSSRL(config) if name == NAME else None
