"""Each trainer's layout has the fields that it documents, a placeholder a picture, and no null."""

from dataclasses import replace

import pytest

from spr_plugin.pairing import PreferencePair
from spr_plugin.tools.layouts import IMAGE, LAYOUTS

PAIR = PreferencePair("p", "q", "What is it?", ("a.png", "b.png"), "a cat", "a dog", 0.9, 0.1, "c", "r")
NAMES = ["images/a.png", "images/b.png"]
KEYS = {
    "trl": "images_file_names prompt chosen rejected score_chosen score_rejected id",
    "parquet": "images prompt chosen rejected score_chosen score_rejected id",
    "llava": "id image prompt answer chosen rejected",
    "llamafactory": "conversations chosen rejected images id",
    "ms-swift": "messages rejected_response images id",
}


def leaves(value):
    """Every value of plain data."""
    if isinstance(value, (dict, list)):
        return [
            leaf for one in (value.values() if isinstance(value, dict) else value) for leaf in leaves(one)
        ]
    return [value]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_row_has_the_documented_fields_and_nothing_that_is_null(name):
    row = LAYOUTS[name].row(PAIR, NAMES)
    assert row.keys() == set(KEYS[name].split()) and None not in leaves(row)
    told = leaves(row)
    assert {"a cat", "a dog", "p", "images/a.png"} <= set(told)


def test_conversations_say_who_speaks():
    row = LAYOUTS["trl"].row(PAIR, NAMES)
    assert row["prompt"] == [{"role": "user", "content": "What is it?"}]
    assert row["chosen"] == [{"role": "assistant", "content": "a cat"}]
    row = LAYOUTS["llamafactory"].row(PAIR, NAMES)
    assert row["conversations"] == [{"from": "human", "value": "<image><image>What is it?"}]
    assert row["rejected"] == {"from": "gpt", "value": "a dog"}
    row = LAYOUTS["ms-swift"].row(PAIR, NAMES)
    assert [one["role"] for one in row["messages"]] == ["user", "assistant"]
    assert row["messages"][0]["content"].count(IMAGE) == len(row["images"]) == 2


def test_llama_factory_is_told_which_column_is_which():
    beside, row = LAYOUTS["llamafactory"].beside, LAYOUTS["llamafactory"].row(PAIR, NAMES)
    (told,) = beside["dataset_info.json"].values()
    assert told["file_name"] == LAYOUTS["llamafactory"].file and told["ranking"] is True
    assert set(told["columns"].values()) <= row.keys()


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("field", ["prompt", "chosen", "rejected"])
def test_a_text_that_speaks_of_the_placeholder_would_stand_for_a_picture(name, field):
    one = replace(PAIR, pictures=("a.png",), **{field: "an <image> tag"})
    why = LAYOUTS[name].refused(one)
    assert why == (None if name in ("trl", "parquet") else "<image> in its text")


def test_llava_shows_one_picture():
    assert LAYOUTS["llava"].refused(PAIR) == "several pictures"
    assert all(LAYOUTS[name].refused(PAIR) is None for name in LAYOUTS if name != "llava")
