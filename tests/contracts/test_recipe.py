"""A recipe and a pairing of a plugin: a wrong shape is one line that names plugin, hook and method."""

import numpy as np
import pytest

from spr_plugin.config import SPRConfig
from spr_plugin.data.pictures import Picture
from spr_plugin.errors import UserError
from spr_plugin.hookspecs import hookimpl
from spr_plugin.pairing import find_pairing
from spr_plugin.plugins import manager
from spr_plugin.recipes.base import Judged, JudgedAnswer, Mark, Prompt, Query, Recipe, Source
from spr_plugin.recipes.find import find_recipe

PICTURE = Picture("a", "a.png", 60, 40)


def query(id="q", pictures=(PICTURE,), text="What?", truth=("cat",), task="names", seed=1):
    return Query(id, pictures, text, list(truth), task, seed)


def answer(text, **given):
    whole = dict(
        terms={"n": 1.0}, score=1.0, reason=None, repaired=text, repaired_terms={}, repaired_score=1.0
    )
    return JudgedAnswer(text, **{**whole, "not_choosable": None, "not_rejectable": None, **given})


class Lab(Recipe):
    """Gives what a test tells it to."""

    name, BEST, WATCHED = "lab", "n", {"n": 0.0}

    def __init__(self, **given):
        self.given = given

    def on(self, device):
        return self.given.get("on", self)

    def queries(self, source):
        return self.given.get("queries", [query()])

    def prompts(self, query):
        return self.given.get("prompts", [Prompt("plain", "What?")])

    def enough(self, query, texts):
        return self.given.get("enough", True)

    def judge(self, pictures, queries, texts, pooled=True):
        judged = self.given.get("judged", lambda text: answer(text))
        return [Judged(self.given.get("truth", []), tuple(map(judged, row))) for row in texts]

    def measure(self, texts, queries):
        return self.given.get("measure", {"n": 1})

    def put(self, question, width, height):
        return self.given.get("put", question)

    def answer_in(self, text):
        return self.given.get("answer_in", text)

    def draw(self, query, judged):
        return self.given.get("draw", [([], [Mark("truth", (1, 2, 3, 4))])] * len(judged.answers))

    def facets(self, query):
        return self.given.get("facets", {"category": ("cat",)})

    def reweighed(self, terms, lam):
        return self.given.get("reweighed", lam * terms["n"])


class Plugin:
    def __init__(self, recipe, pairing):
        self.recipe, self.pairing = recipe, pairing

    @hookimpl
    def spr_recipe(self, name):
        return self.recipe if name == "lab" else None

    @hookimpl
    def spr_pairing(self, name):
        return self.pairing if name == "lab" else None


@pytest.fixture
def plugin():
    """The recipe and the pairing of a plugin that gives so much that is wrong."""

    def made(recipe=None, pairing=None):
        manager().register(Plugin(recipe, pairing), "lab")
        config = SPRConfig(spr=True, spr_recipe="lab", spr_pairing=["lab"])
        return find_recipe(config, None) if recipe else find_pairing(config)

    yield made
    if manager().has_plugin("lab"):
        manager().unregister(name="lab")


def use(recipe):
    """All that a run asks of a recipe."""
    ready = recipe.on("cpu")
    (one,) = ready.queries(Source())
    ready.prompts(one)
    ready.enough(one, ["a", "b"])
    (judged,) = ready.judge([None], [one], [["a", "b"]])
    ready.measure(["a"], [one])
    ready.draw(one, judged)
    ready.facets(one)
    ready.put("What?", 60, 40)
    ready.answer_in("a")
    ready.reweighed(judged.answers[0].terms, 0.5)
    return judged


def test_a_right_one_is_taken_and_its_numbers_are_plain(plugin):
    numbers = dict(terms={"n": np.float32(0.5)}, score=np.float32(0.5), repaired_score=np.int64(1))
    judged = use(plugin(Lab(judged=lambda text: answer(text, **numbers))))
    kinds = [type(value) for value in (judged.answers[0].score, *judged.answers[0].terms.values())]
    assert kinds == [float, float] and type(judged.answers[0].repaired_score) is float


WRONG = {
    "no recipe on a device": (dict(on=None), "on gives None"),
    "a query without text": (dict(queries=[query(text=None)]), "queries gives as text"),
    "a picture without sides": (
        dict(queries=[query(pictures=(Picture("a", "a", None, 4),))]),
        "queries gives as a side",
    ),
    "six pictures": (dict(queries=[query(pictures=(PICTURE,) * 6)]), "queries .*6 pictures"),
    "one id twice": (dict(queries=[query(), query(text="Or?")]), "queries .*two queries"),
    "a question that is none": (dict(put=None), "put gives None"),
    "an answer that is a number": (dict(answer_in=3), "answer_in gives int"),
    "enough without saying": (dict(enough=None), "enough gives None"),
    "a prompt without text": (dict(prompts=[Prompt("plain", None)]), "prompts gives as text"),
    "a crop off the picture": (
        dict(prompts=[Prompt("plain", "?", (30, 30, 10, 10))]),
        "prompts gives the crop",
    ),
    "a truth that is no JSON": (dict(truth=[float("nan")]), "judge gives a truth"),
    "no score and no reason": (
        dict(judged=lambda text: answer(text, score=None)),
        "judge gives the score None",
    ),
    "a score that is none": (dict(judged=lambda text: answer(text, score=float("nan"))), "judge .*nan"),
    "another text": (dict(judged=lambda text: answer(text + "!")), "judge gives .* as text"),
    "no value that is followed": (dict(measure={"m": 1}), "measure gives no n"),
    "a mark with three corners": (dict(draw=[([], [Mark("truth", (1, 2, 3))])] * 2), "draw gives 3"),
    "a mark on no picture": (
        dict(draw=[([], [Mark("truth", (1, 2, 3, 4), 1)])] * 2),
        "draw gives a mark on the picture 1",
    ),
    "facets that are a list": (dict(facets=["cat"]), "facets gives list"),
    "a facet of one word": (dict(facets={"category": "cat"}), "facets gives str, no list"),
    "a facet that is a number": (dict(facets={"size": [3]}), "facets gives as a size int, no str"),
    "a weighed score that is none": (dict(reweighed=float("nan")), "reweighed gives as score  nan"),
    "a mark without a name": (
        dict(draw=[([], [Mark("truth", (1, 2, 3, 4), name=None)])] * 2),
        "draw gives as name of a mark",
    ),
    "half a span": (dict(draw=[([], [Mark("truth", (1, 2, 3, 4), spans=((1,),))])] * 2), "draw gives 1"),
    "a mark that is a tuple": (dict(draw=[([], [("truth", (1, 2, 3, 4))])] * 2), "draw gives tuple"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_shape_is_one_line(plugin, kind):
    given, words = WRONG[kind]
    with pytest.raises(UserError, match=f"plugin lab: spr_recipe, Lab.{words}") as refused:
        use(plugin(Lab(**given)))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("again", [-1, 0.5])
def test_a_number_of_turns_that_is_none_is_refused(plugin, again):
    recipe = Lab()
    recipe.again = again
    with pytest.raises(
        UserError, match="plugin lab: spr_recipe gives (as again float|again -1, less than 0)"
    ):
        plugin(recipe)


def test_a_recipe_of_another_name_is_refused(plugin):
    recipe = Lab()
    recipe.name = "other"
    with pytest.raises(UserError, match="gives the recipe 'other' for lab"):
        plugin(recipe)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"a", "b"}, "gives set"),
        (("a", "x"), "no candidate's id"),
        (("c", "b"), "may not be taken .too_few"),
        (("a", "c"), "may not be taken .right"),
        (("a", "d"), "rejected candidate that has no score"),
    ],
)
def test_a_pairing_takes_what_may_be_taken(plugin, found, words):
    answers = {
        "a": answer("a"),
        "b": answer("b"),
        "c": answer("c", not_choosable="too_few", not_rejectable="right"),
        "d": answer("d", score=None, reason="empty", not_rejectable="empty"),
    }
    with pytest.raises(UserError, match=f"plugin lab: spr_pairing .*{words}"):
        plugin(pairing=lambda query, answers: found)(query(), answers)
