"""What a notebook shows of answers."""

import re

import pytest

pytest.importorskip("transformers")

import spr_plugin
from spr_plugin.notebook.pages import fragment, of_answers
from tests.notebook.asked import FLAGS, OBJECTS, REGION, TEXTS


def test_a_notebook_shows_every_answer_and_nothing_runs_in_it(picture):
    texts = [*TEXTS, "<script>alert(1)</script> [0.1, 0.1, 0.4, 0.4]"]
    html = spr_plugin.score(picture, REGION, texts, OBJECTS, **FLAGS)._repr_html_()
    assert html.count("<b class=") == 4 + 4  # repaired; of one why it is not chosen
    assert "(no_box)" in html and "(no_box_survived)" in html and "<script" not in html
    assert html.count("data:image/jpeg") == 1 and html.count('class="truth"') == 2 * 8


def test_a_fragment_is_html_of_its_own():
    html = fragment([], more="nothing of it")
    assert isinstance(html, str) and html._repr_html_() == html and type(html._repr_html_()) is str
    assert "<script" not in html and "data:" not in html


def test_a_repaired_text_is_shown_where_it_differs_or_says_why_it_is_not_chosen(picture):
    right, off = TEXTS[0], "a red square [0.12, 0.12, 0.42, 0.4]"
    scored = spr_plugin.score(picture, REGION, [right, off, "Nothing."], OBJECTS, **FLAGS)
    html = of_answers(scored)
    titles = dict.fromkeys(re.findall(r"answer \d(?:, repaired)?", html))
    wanted = []
    for number, answer in enumerate(scored.answers):
        wanted.append(f"answer {number}")
        if answer.repaired != answer.text or answer.not_choosable != answer.reason:
            wanted.append(f"answer {number}, repaired")
    assert list(titles) == wanted and "answer 1, repaired" in wanted
    assert "3 answers" in html and html.count("data:image/jpeg") == 1
