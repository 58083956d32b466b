"""The families in tests: their formats, and answers as they write them."""

import pytest
from hypothesis import strategies as st

from spr_plugin.boxes import Box, Space
from spr_plugin.formats import cogvlm, ferret, internvl, kosmos2, llava, qwen2_5_vl, qwen3_vl, qwen_vl, shikra

SENTENCES = [llava("pad"), llava("square"), ferret(), shikra(), cogvlm(), qwen_vl(), internvl(), kosmos2()]


LISTS = [qwen2_5_vl(), qwen3_vl()]


FORMATS = SENTENCES + LISTS


every_format = pytest.mark.parametrize("form", FORMATS, ids=lambda form: f"{form.family}-{form.aspect}")


SIZES = st.tuples(st.integers(1, 3000), st.integers(1, 3000))


WORDS = st.sampled_from(["dog", "red circle", "man in black", "cup", "the old tree", "an elephant"])


STEPS = st.tuples(*[st.integers(0, 999)] * 4).map(
    lambda v: (*map(min, v[:2], v[2:]), *map(max, v[:2], v[2:]))
)


def answer(form, rows, between=", ", size=(1000, 1000)):
    """Phrases with boxes, at thousandths of a picture of this size, as the family answers: prose, or a
    list.
    """
    boxes = [Box(*(value / 1000 for value in steps), Space.normalized(*size)) for _, steps in rows]
    if form in LISTS:
        return "Here they are:\n" + form.render([(phrase, box) for (phrase, _), box in zip(rows, boxes)])
    before, after = getattr(form, "phrase_tags", ("", " "))
    return (
        between.join(before + phrase + after + form.write(box) for (phrase, _), box in zip(rows, boxes)) + "."
    )
