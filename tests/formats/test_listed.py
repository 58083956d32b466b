"""Families that write a JSON list."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin.formats import qwen2_5_vl, qwen3_vl
from spr_plugin.formats.listed import resized
from tests.formats.written import LISTS, STEPS, WORDS, answer


@pytest.mark.parametrize("form", LISTS, ids=lambda form: form.family)
@given(rows=st.lists(st.tuples(WORDS, STEPS), min_size=1, max_size=6), cut=st.integers(0, 60), data=st.data())
def test_a_list_stays_json_without_some_entries(form, rows, cut, data):
    """Whole, or cut off anywhere in its last entry."""
    whole = answer(form, rows)
    last = whole.rindex("{")
    text = whole[: max(last + 1, len(whole) - cut)] if cut > 7 else whole
    parsed = form.parse(text, 1000, 1000)
    gone = data.draw(st.sets(st.integers(0, len(parsed.boxes) - 1))) if parsed.boxes else set()
    left = form.rewrite(text, parsed, dict.fromkeys(gone), drop_failures=True)
    labels = [entry["label"] for entry in json.loads(left.split("json")[1].split("```")[0])]
    assert labels == [mention.phrase for index, mention in enumerate(parsed.mentions) if index not in gone]
    if labels:
        assert form.words(left, form.parse(left, 1000, 1000)) == ", ".join(labels)


@given(st.integers(30, 4000), st.integers(30, 4000))
def test_qwen_resizes_as_its_processor_does(width, height):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    high, wide = smart_resize(height, width, factor=28, min_pixels=56 * 56, max_pixels=28 * 28 * 1280)
    assert resized(width, height, 28, 56 * 56, 28 * 28 * 1280) == (wide, high)


@pytest.mark.parametrize(
    ("text", "failures"),
    [
        ('[{"bbox_2d": [1, 2, 3], "label": "a dog"}]', {"malformed": 1}),
        ('[{"bbox_2d": [1, 2, 3, 1001], "label": "a dog"}]', {"out_of_range": 1}),
        ('[{"bbox_2d": [1, 2, 3, 4], "label": "a dog"}, {"bbox_2d": [1, 2,', {"truncated": 1}),
        ('[{"bbox_2d": [1, 2, 3, 4], "label": "a do', {"truncated": 1}),
        ('{"answer": 3}', {}),
    ],
)
def test_what_lists_get_wrong_is_counted(text, failures):
    assert qwen3_vl().parse(text, 640, 480).failures == failures


def test_an_aspect_may_name_the_processor_s_pixels():
    """Any other is LLaVA's and means nothing here."""
    assert qwen2_5_vl("pad") == qwen2_5_vl() and qwen2_5_vl().describe()["aspect"] is None
    small = qwen2_5_vl("3136-50176")
    assert small.describe()["aspect"] == "3136-50176"
    space = small.space(640, 480)
    assert small.limits(space) == resized(640, 480, 28, 3136, 50176) == (252, 168)


@pytest.mark.parametrize(
    "value", ['"a"', "[1, 2, 3, true]", "[1, 2, 3, null]", "[[1, 2, 3, 4]]", "[1, 2, 3, 4, 5]"]
)
def test_an_entry_whose_box_is_none_goes_with_its_label(value):
    form, text = (
        qwen3_vl(),
        f'[{{"bbox_2d": {value}, "label": "a dog"}}, {{"bbox_2d": [1, 2, 3, 4], "label": "a cat"}}]',
    )
    parsed = form.parse(text, 1000, 1000)
    assert [mention.phrase for mention in parsed.mentions] == ["a cat"] and parsed.failed
    left = form.rewrite(text, parsed, {}, drop_failures=True)
    assert json.loads(left) == [{"bbox_2d": [1, 2, 3, 4], "label": "a cat"}]
