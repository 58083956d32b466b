"""What recipes share that judge by words alone: made of one of two lines, so that nothing but the shared is
tried.
"""

import pytest

from spr_plugin.pairing import best_over_worst, make_pair
from spr_plugin.recipes.base import JudgedAnswer, Query
from spr_plugin.recipes.by_text import ByText, RightOrWrong, Worth


class Length(ByText[Query]):
    """An answer is worth its letters' share of all of its query's."""

    name, BEST, WATCHED = "length", "letters", {}

    def queries(self, source):
        return []

    def prompts(self, query):
        return []

    def measure(self, texts, queries):
        return {"letters": sum(map(len, texts)) / len(texts)}

    def judged(self, query, texts):
        for text in texts:
            score = len(text) / sum(map(len, texts))
            yield JudgedAnswer(text, {"n": score}, score, None, text, {"n": score}, score, None, None)


class Capital(RightOrWrong):
    """The first word is the answer; the form is a full stop."""

    name = "capital"

    def queries(self, source):
        return []

    def answer_in(self, text):
        return (text.split() or [None])[0]

    def worth(self, text, query):
        right, formed = float(self.is_right(text, query)), float(text.endswith("."))
        return Worth(right, formed, 0.7 * right + 0.3 * formed)

    def written(self, why, answer):
        return f"{answer} {why}"


def query(answer="Oslo"):
    return Query("q", (), "Which?", {"answer": answer, "why": "It is."}, "t", 0)


def test_every_answer_is_judged_among_its_own():
    judged = Length().judge([], [query(), query()], [["ab", " ", "cd"], ["e"]])
    assert [[one.score for one in row.answers] for row in judged] == [[0.5, None, 0.5], [1.0]]
    assert judged[0].answers[1].reason == "empty" and judged[0].truth == query().truth


@pytest.mark.parametrize(
    "texts, words, skip",
    [
        (["Oslo.", "Rome."], [(None, "right"), ("wrong", None)], None),
        (["Oslo.", "Oslo"], [(None, "all_right")] * 2, "all_right"),
        (["Rome.", "Bonn"], [("all_wrong", None)] * 2, "all_wrong"),
        (
            ["Oslo is it.", "", "Oslo."],
            [(None, "all_right"), ("empty", "empty"), (None, "all_right")],
            "all_right",
        ),
    ],
)
def test_right_is_chosen_and_wrong_rejected(texts, words, skip):
    """ "Oslo." is another word than "Oslo": what an answer says is the recipe's to read."""
    recipe = Capital()
    recipe.answer_in = lambda text: text.replace(".", "").split()[0] if text else None
    (judged,) = recipe.judge([], [query()], [texts])
    assert [(one.not_choosable, one.not_rejectable) for one in judged.answers] == words
    rows = [{"id": id, **vars(one)} for id, one in zip("abc", judged.answers)]
    made = make_pair(query(), "Which?", rows, best_over_worst)
    assert made == skip if skip else (made.chosen, made.rejected) == ("Oslo.", "Rome.")
    assert recipe.enough(query(), texts) == (not skip or "" in texts)


def test_an_answer_is_read_as_often_whatever_its_group():
    read, recipe = [], Capital()
    recipe.answer_in = lambda text: read.append(text) or "Oslo"
    recipe.judge([], [query()], [["Oslo."]])
    once = len(read)
    recipe.judge([], [query()], [[f"{number}" for number in range(20)]])
    assert len(read) - once == 20 * once


def test_measure_counts_right_ones_whatever_they_earn():
    asked = [query("Oslo"), query("Rome"), query("Bonn")]
    assert Capital().measure(["Oslo .", "Oslo .", "Bonn"], asked) == pytest.approx(
        {"exact": 2 / 3, "format": 2 / 3, "reward": (1.0 + 0.3 + 0.7) / 3}
    )


def test_worked_answers():
    assert Capital().worked(query()) == "Oslo It is." and Capital().worked(query(), True) == "Oslo So."
    assert [prompt.text for prompt in Capital().prompts(query())] == ["Which?"]
