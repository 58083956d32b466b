"""A small run as the stages leave it: real pictures, real judging and pairing, and no model."""

import random
from collections import Counter
from dataclasses import asdict

import pytest
from PIL import Image, ImageDraw

from spr_plugin.boxes import Box, Space
from spr_plugin.config import SPRConfig
from spr_plugin.data.annotations import AnnotatedImage, Annotation
from spr_plugin.formats import llava
from spr_plugin.judging import judge_queries
from spr_plugin.pairing import best_over_worst, make_pair
from spr_plugin.queries import log_queries
from spr_plugin.recipes.spr.recipe import SPR
from spr_plugin.recipes.spr.refinement import refine
from spr_plugin.recipes.spr.regions import region_query
from spr_plugin.recipes.spr.scoring import localization_score
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.manifest import Changes, bind, settings_of
from spr_plugin.sampling.plan import candidate_id
from tests.paper import PAPER

FORM = llava("pad")
NAMES = ("cup", "dog", "tall tree", "red car")


class Localization:
    """S_loc and nothing else, so that no CLIP is loaded."""

    def score(self, picture, descriptions):
        scores = [localization_score(one.truth, one.predicted) for one in descriptions]
        return [({"s_loc": score}, score) for score in scores]


RECIPE = SPR(SPRConfig(**PAPER), FORM, repair=refine, scorer=Localization())


class MadeRun:
    """``OUTPUT_DIR/spr`` that grows stage by stage.

    Attributes:
        output: OUTPUT_DIR.
        queries: with different numbers of answers that are right.
    """

    def __init__(self, output, images, count=6, seed=0, **flags):
        self.output, self.folder, self.rng = output, Folder.under(output), random.Random(seed)
        images.mkdir(parents=True, exist_ok=True)
        self.queries = [self._query(images, number, seed) for number in range(count)]
        config = SPRConfig(spr=True, spr_prompts=["plain"], spr_samples=3, **flags)
        bind(self.folder, settings_of(config, FORM.describe()), Changes({}, ()))

    def _query(self, images, number, seed):
        path, width, height = images / f"{number}.png", 320 + 16 * number, 240
        picture, space = Image.new("RGB", (width, height), "white"), Space.pixels(width, height)
        annotations = []
        for place, name in enumerate(NAMES[: 2 + number % 3]):
            left, top = 10 + 75 * place, 20 + 30 * place
            box = Box(left, top, left + 20 + 20 * number, top + 40, space).clip()
            ImageDraw.Draw(picture).rectangle(box.xyxy, fill="gray")
            annotations.append(Annotation(place, name, box, False))
        picture.save(path)
        image = AnnotatedImage(f"picture-{number}", str(path), width, height, tuple(annotations))
        return region_query(image, Box(0, 0, width, height, space), seed)

    def answers(self, query):
        """Right, loose and with one box; or twice without a box."""
        objects = [(one.label, one.box) for one in query.truth]
        if query is self.queries[-1]:
            return ["some things", "nothing here", FORM.render(objects)]
        x1, y1, x2, y2 = objects[0][1].xyxy
        loose = Box(x1 + 4, y1 + 3, x2 + 4, y2 + 3, objects[0][1].space)
        astray = Box(200, 150, 230, 190, loose.space)
        return [
            FORM.render(objects),
            FORM.render([(objects[0][0], loose), *objects[1:]]),
            FORM.render([(objects[0][0], astray)]),
        ]

    def ask(self):
        log_queries(self.folder, RECIPE, self.queries, Counter(missing_image=2, lab_reason=1))
        return self

    def answer(self, *queries):
        for query in queries or self.queries:
            self.folder.log("candidates").append(
                *(
                    {"id": candidate_id(query.id, "plain", index), "query": query.id, "kind": "plain"}
                    | {"index": index, "raw": text, "text": text}
                    for index, text in enumerate(self.answers(query))
                )
            )
        return self

    def judge(self, *queries):
        for query in queries or self.queries:
            rows = [
                {"id": candidate_id(query.id, "plain", index), "text": text}
                for index, text in enumerate(self.answers(query))
            ]
            self.folder.log("scores").append(*judge_queries([query], [rows], RECIPE))
        return self

    def pair(self, *queries):
        scores = self.folder.log("scores").read()
        for query in queries or self.queries:
            made = make_pair(query, RECIPE.question(query), scores[query.id]["candidates"], best_over_worst)
            skip = {"id": query.id, "query": query.id, "skip": made}
            self.folder.log("pairs").append(
                {**(skip if isinstance(made, str) else asdict(made)), "recipe": "spr"}
            )
        return self

    @property
    def pairs(self):
        return [record for record in self.folder.log("pairs").read().values() if "skip" not in record]


@pytest.fixture
def begun_run(tmp_path):
    """A run that has bound its folder; nothing more."""
    return MadeRun(tmp_path / "out", tmp_path / "images")


@pytest.fixture
def made_run(begun_run):
    """One that is through its pairs."""
    return begun_run.ask().answer().judge().pair()


@pytest.fixture
def pages():
    """``pages(run, …)`` → a browser without JavaScript on the run's pages, as the command serves them."""
    from starlette.testclient import TestClient

    from spr_plugin.tools.inspect.app import application
    from spr_plugin.tools.inspect.indexed import IndexedRun

    def browse(directory, images=None, plugins=()):
        app = application(IndexedRun(directory, plugins, images))
        return TestClient(app, base_url="http://127.0.0.1:8765", follow_redirects=True)

    return browse
