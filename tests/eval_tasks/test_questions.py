"""The words of each family's question."""

import pytest

from spr_plugin.eval_tasks import questions
from spr_plugin.formats import FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_asked_in_words_that_hold_the_expression(family):
    asked = questions.ask(questions.EXPRESSION, family, None, expression="the {cat} on, top")
    assert "the {cat} on, top" in asked and "{expression}" not in asked


def test_the_yamls_prompt_comes_before_the_familys():
    assert (
        questions.ask(questions.EXPRESSION, "ferret", {"prompt": "Where is {expression}?"}, expression="x")
        == "Where is x?"
    )
    assert (
        questions.ask(questions.EXPRESSION, "ferret", {"prompt": ""}, expression="x")
        == "What is the location of x in the image?"
    )
    assert questions.ask(questions.EXPRESSION, "llava:pad", None, expression="x").startswith(
        "Please provide the bounding box coordinate"
    )


def test_a_family_without_words_of_its_own_gets_llavas():
    for table in (questions.EXPRESSION, questions.PHRASES, questions.CLASS, questions.CAPTION):
        assert questions.ask(table, "unheard-of", None) == table["llava"]
