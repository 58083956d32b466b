"""Objects of a JSON list in a text, and what goes with one that goes."""

import json

import pytest

from spr_plugin.formats.entries import cuts, entries_in, is_value, label_near, object_around, with_key
from spr_plugin.formats.parsed import apply


def spans(text, *parts):
    return [(text.index(part), text.index(part) + len(part)) for part in parts]


@pytest.mark.parametrize(
    ("text", "entries", "tail"),
    [
        ('[{"a": 1}, {"b": 2}]', ['{"a": 1}', '{"b": 2}'], None),
        ('{"a": "}{"} {"b": 2}', ['{"a": "}{"}', '{"b": 2}'], None),
        ('{"a": "\\"}"} end', ['{"a": "\\"}"}'], None),
        ('{"a": {"b": 2}}', ['{"b": 2}'], None),
        ('{"a": 1}, {"b": 2', ['{"a": 1}'], '{"b": 2'),
        ('{"a": "never', [], '{"a": "never'),
        ("no object", [], None),
        ("}{", [], "{"),
    ],
)
def test_flat_objects_and_where_the_end_cuts_one_off(text, entries, tail):
    assert entries_in(text) == (spans(text, *entries), -1 if tail is None else text.index(tail))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": {', True),
        ('{"a" : {', True),
        ("{'a':{", True),
        ("Here they are: {", False),
        ("[{", False),
        ("{", False),
        (": {", False),
    ],
)
def test_what_stands_behind_a_key_is_a_value(text, value):
    assert is_value(text, text.rindex("{")) == value


def test_the_label_of_a_broken_object():
    text = '{"bbox_2d": [1, "label": "a dog"} {"label": 3}'
    whole, other = spans(text, '{"bbox_2d": [1, "label": "a dog"}', '{"label": 3}')
    assert label_near(text, whole) == "a dog" and label_near(text, other) == ""


@pytest.mark.parametrize(
    ("part", "key"),
    [("[1, 2]", '"a": [1, 2], '), ("[3, 4]", ', "b": [3, 4]'), ('"a": [1, 2]', '"a": [1, 2], ')],
)
def test_a_value_goes_with_its_key_and_one_comma(part, key):
    text = '{"a": [1, 2], "b": [3, 4]}'
    assert with_key(text, *spans(text, part)) == spans(text, key)[0]


def test_what_has_no_key_goes_alone():
    text = "a dog [1, 2] runs"
    assert with_key(text, *spans(text, "[1, 2]")) == spans(text, "[1, 2]")[0]


def test_the_outermost_object_around():
    text = 'x {"a": {"b": [1, 2]}} {"c": 3}'
    own, outer, inner = spans(text, "[1, 2]", '{"a": {"b": [1, 2]}}', '{"b": [1, 2]}')
    assert object_around(text, 0, own, len(text)) == outer
    assert object_around(text, inner[0], own, len(text)) == inner
    assert object_around(text, 0, (0, 1), len(text)) == (0, 1)


LIST = '[\n\t{"n": 0},\n\t{"n": 1},\n\t{"n": 2}\n]'


@pytest.mark.parametrize("gone", [[], [0], [1], [2], [0, 1], [1, 2], [0, 2], [0, 1, 2]])
def test_entries_go_with_one_comma_each(gone):
    entries, _ = entries_in(LIST)
    left = apply(LIST, cuts(LIST, entries, {entries[number] for number in gone}))
    assert [entry["n"] for entry in json.loads(left)] == [n for n in range(3) if n not in gone]


@pytest.mark.parametrize(
    ("text", "left"),
    [('[{"n": 0}, {"n":', '[{"n": 0}\n]'), ('```json\n[{"n": 0}, {"n":', '```json\n[{"n": 0}\n]\n```')],
)
def test_a_list_that_was_cut_off_is_closed(text, left):
    entries, tail = entries_in(text)
    cut = (tail, len(text))
    assert apply(text, cuts(text, [*entries, cut], {cut})) == left
