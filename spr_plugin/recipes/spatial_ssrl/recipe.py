"""Spatial-SSRL as a recipe: questions that a picture's own pixels or depth answer, right or wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from spr_plugin.config import SPRConfig, own_settings
from spr_plugin.errors import UserError
from spr_plugin.hookspecs import hookimpl
from spr_plugin.recipes.base import Judged, JudgedAnswer, Mark, Prompt, Query, Recipe, Source, unjudged
from spr_plugin.recipes.spatial_ssrl.answers import boxed, reward, written
from spr_plugin.recipes.spatial_ssrl.meanings import MEANINGS
from spr_plugin.recipes.spatial_ssrl.settings import OF_DEPTH, TASKS, Asking
from spr_plugin.recipes.spatial_ssrl.source import draw_queries

NAME = "spatial_ssrl"
PIECES = 5  # pictures of a cropped patch: the one with the black square, and four pieces


class SpatialSSRL(Recipe[Query]):
    """Nothing is repaired: to write the truth into an answer would be SFT in disguise."""

    name = NAME
    BEST = "exact"
    WATCHED = {"format": 0.2}
    thinks = True
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

    def prompts(self, query: Query) -> list[Prompt]:
        return [Prompt("plain", query.text)]

    def enough(self, query: Query, texts: Sequence[str]) -> bool:
        """Whether some are right and some wrong."""
        return len({boxed(text) == query.truth["answer"] for text in texts}) == 2

    def judge(
        self,
        pictures: Sequence[Image.Image],
        queries: Sequence[Query],
        texts: Sequence[Sequence[str]],
        pooled: bool = True,
    ) -> list[Judged]:
        """Right answers may be chosen, wrong ones rejected; where there is one kind alone, that is why there
        is no pair.
        """
        return [
            Judged(query.truth, tuple(self._judged(text, query, row) for text in row))
            for query, row in zip(queries, texts)
        ]

    def _judged(self, text: str, query: Query, row: Sequence[str]) -> JudgedAnswer:
        if not text.strip():
            return unjudged(text, "empty")
        said = [boxed(one) == query.truth["answer"] for one in row if one.strip()]
        is_right = boxed(text) == query.truth["answer"]
        worth = reward(text, query.truth["answer"], self.ask.partial)
        terms = worth._asdict()
        wrong = None if is_right else ("wrong" if any(said) else "all_wrong")
        right = ("all_right" if all(said) else "right") if is_right else None
        return JudgedAnswer(text, terms, worth.total, None, text, terms, worth.total, wrong, right)

    def measure(self, texts: Sequence[str], queries: Sequence[Query]) -> dict[str, float]:
        """Share of right answers, of well-formed ones, and the mean reward."""
        worth = [reward(text, query.truth["answer"]) for text, query in zip(texts, queries)]
        return {
            "exact": sum(one.exact for one in worth) / len(worth),
            "format": sum(one.format for one in worth) / len(worth),
            "reward": sum(one.total for one in worth) / len(worth),
        }

    def draw(self, query: Query, judged: Judged) -> list[tuple[list[Mark], list[Mark]]]:
        """What was hidden or flipped, and the patch that an answer says was; marked regions are seen as they
        are.
        """
        facts = query.truth
        hidden = [Mark("truth", tuple(facts["square"]))] if query.task == "cropped_patch" else []
        if query.task == "flipped_patch":
            hidden = [Mark("truth", tuple(facts["boxes"][int(facts["answer"].split("-")[0])]))]
        drawn = [[*hidden, *self._said(query, one.text)] for one in judged.answers]
        return [(marks, marks) for marks in drawn]

    def _said(self, query: Query, text: str) -> list[Mark]:
        number = (boxed(text) or "").split("-")[0]
        if query.task != "flipped_patch" or number not in ("0", "1", "2", "3"):
            return []
        return [Mark("written", tuple(query.truth["boxes"][int(number)]))]

    def worked(self, query: Query, short: bool = False) -> str:
        """A right answer with its reason, or with none but a word."""
        return written("So." if short else query.truth["why"], query.truth["answer"])


@hookimpl
def spr_recipe(name: str, config: SPRConfig) -> SpatialSSRL | None:
    """``--spr_recipe spatial_ssrl``."""
    return SpatialSSRL(config) if name == NAME else None
