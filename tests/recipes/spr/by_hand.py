"""A picture of 100 x 100 with two objects: what can be scored by hand."""

from PIL import Image

from spr_plugin.boxes import Box, Space
from spr_plugin.config import SPRConfig
from spr_plugin.data.annotations import AnnotatedImage, Annotation
from spr_plugin.formats import llava
from spr_plugin.recipes.spr.recipe import SPR
from spr_plugin.recipes.spr.refinement import spr_repair
from spr_plugin.recipes.spr.regions import region_query
from spr_plugin.recipes.spr.scoring import SPRScorer
from tests.paper import PAPER

SPACE = Space.pixels(100, 100)
PICTURE = Image.new("RGB", (100, 100))
FORM = llava("square")


def query(boxes=((0, 0, 20, 20), (40, 40, 60, 60)), region=(0, 0, 100, 100)):
    annotations = tuple(Annotation(n, f"thing {n}", Box(*box, SPACE)) for n, box in enumerate(boxes))
    return region_query(AnnotatedImage("7", "/a.jpg", 100, 100, annotations), Box(*region, SPACE), 0)


class WordCount:
    """A similarity that can be computed by hand: s_crop is 0.1 a word, s_local 0.2 a word."""

    def __init__(self):
        self.asked = []

    def score(self, picture, asked):
        self.asked += asked
        return [(0.1 * len(text.split()), 0.2 * len(text.split())) for _, text in asked]


class Finder:
    """A detector that finds a fixed box for every "cat"."""

    def __init__(self):
        self.asked = []

    def detect(self, image, phrases):
        self.asked.append(list(phrases))
        return [("cat", Box(70, 70, 90, 90, SPACE), 0.8)] if "cat" in phrases else []


class Finds:
    """A detector that returns what it is told, whatever is asked."""

    def __init__(self, *rows):
        self.rows = rows

    def detect(self, picture, phrases):
        return [(phrases[0], Box(*box, SPACE), value) for box, value in self.rows]


def recipe(similarity=None, detector=None, lam=0.8, local=True, **flags):
    config = SPRConfig(**{**PAPER, **flags})
    scorer = SPRScorer(similarity or WordCount(), lam, local)
    return SPR(config, FORM, spr_repair(config), scorer, detector)


def judge(recipe, texts, asked=None, pooled=True):
    """One region's answers, judged."""
    [judged] = recipe.judge([PICTURE], [asked or query()], [texts], pooled)
    return judged


TEXTS = ["a dog [0.0, 0.0, 0.2, 0.2]", "a dog [0.0, 0.0, 0.2, 0.2] and a cat [0.9, 0.0, 1.0, 0.1]"]
