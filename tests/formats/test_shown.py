"""Characters that stand for others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin.formats.shown import as_shown


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("as it is [1, 2]", "as it is [1, 2]"),
        ("&lt;box&gt; &#91;1&#x5D;", "<box> [1]"),
        ("【1】 （2） «3»", "(1) (2) (3)"),
        ("“a” ‘b’", '"a" "b"'),
        ("１，２", "1,2"),
        ("x₁²", "x12"),
        ("1\u200b2", "1 2"),
        ("a & b; AT&T", "a & b; AT&T"),
        ("&nosuch; é", "&nosuch; é"),
    ],
)
def test_a_text_as_it_is_shown(text, plain):
    assert as_shown(text)[0] == plain


@given(st.text(st.sampled_from("ab1[,&;#x【（é½…“lt\u200b"), max_size=30))
def test_each_character_lies_where_it_came_from(text):
    plain, offsets = as_shown(text)
    assert len(offsets) == len(plain) + 1 and offsets[-1] == len(text)
    assert list(offsets) == sorted(offsets)
    for index, character in enumerate(plain):
        own = text[offsets[index]]
        assert character == own or own == "&" or not own.isascii()


def test_what_would_be_several_characters_stays():
    plain, offsets = as_shown("a½b")
    assert plain == "a½b" and list(offsets) == [0, 1, 2, 3]
    plain, offsets = as_shown("&lt;b&hellip;")
    assert plain == "<b&hellip;" and list(offsets) == [0, 4, *[5] * 8, 13]
