"""Filters, orders and pages: each against what is meant by it."""

import pytest

from spr_plugin.tools.inspect.choosing import PAGE, Wanted, around, categories_like, chosen, facets, page_of
from spr_plugin.tools.inspect.rows import Row

ROWS = [
    Row("a", 1, "spr", categories=("cup", "dog"), sizes=("small",), answers=2, judged=True, best=0.9,
        pair="p", chosen=0.9, rejected=0.1, reasons=frozenset({"no_box"})),
    Row("b", 1, "spr", categories=("dog",), sizes=("large",), answers=2, judged=True, best=0.4,
        skip="none_worse", reasons=frozenset({"none_worse", "no_box"})),
    Row("c", 2, "lab", answers=1),
    Row("d", 2, "lab", answers=2, judged=True, best=0.8, pair="q", chosen=0.7, rejected=0.65),
    Row("e", 1, "spr"),
]  # fmt: skip


def ids(**asked):
    wanted = Wanted.of(asked)
    named = categories_like(wanted.category, {name for row in ROWS for name in row.categories})
    return "".join(row.id for row in chosen(ROWS, wanted, {"q"}, named=named))


@pytest.mark.parametrize(
    "asked, line",
    [
        ({"low": "abc"}, "score from: abc is no number; it is not looked at."),
        ({"high": " nan "}, "score to: nan is no number; it is not looked at."),
        ({"page": "two"}, "page: two is no number; it is not looked at."),
        (
            {"sort": "best"},
            "sort: best is no order, as widest, narrowest, highest, lowest are; the list is as in the logs.",
        ),
        ({"lo": "0.5"}, "lo: no filter has this name; it is not looked at."),
    ],
)  # fmt: skip
def test_what_of_an_address_is_not_followed_is_told(asked, line):
    assert Wanted.strange(asked) == [line]


def test_what_is_followed_is_not_told():
    assert Wanted.strange({"low": "0,5", "high": "", "sort": "lowest", "page": "2", "text": "abc"}) == []
    assert Wanted.strange({}) == []


@pytest.mark.parametrize(
    "asked, found",
    [
        ({}, "abecd"),
        ({"state": "pair"}, "ad"),
        ({"state": "skipped"}, "b"),
        ({"state": "answered"}, "c"),
        ({"state": "asked"}, "e"),
        ({"reason": "no_box"}, "ab"),
        ({"reason": "none_worse"}, "b"),
        ({"category": "dog", "size": "large"}, "b"),
        ({"recipe": "lab", "round": "2"}, "cd"),
        ({"low": "0.65"}, "ad"),
        ({"low": "0,65", "high": "0.8"}, "d"),
        ({"high": "nan", "low": "much"}, "abecd"),
        ({"marked": "yes"}, "d"),
        ({"sort": "widest"}, "adbec"),
        ({"sort": "narrowest"}, "dabec"),
        ({"sort": "highest"}, "adbec"),
        ({"sort": "lowest"}, "bdaec"),
        ({"sort": "nonsense", "nobody": "knows"}, "abecd"),
        ({"category": "cat"}, ""),
        ({"category": "U"}, "a"),
        ({"category": "o"}, "ab"),
    ],
)
def test_what_is_asked_for_is_found_in_order(asked, found):
    assert ids(**asked) == found


def test_a_category_s_whole_name_is_that_category_alone():
    names = {"car", "carrot", "old Car"}
    assert categories_like("car", names) == {"car"} and categories_like("Car", names) == names
    assert categories_like("old", names) == {"old Car"} and categories_like("bus", names) == set()
    assert categories_like("", names) is None


def test_only_what_was_found_is_shown_where_a_text_is_looked_for():
    assert [row.id for row in chosen(ROWS, Wanted(), with_text={"c", "x"})] == ["c"]


def test_an_address_says_what_is_wanted_and_no_more():
    wanted = Wanted.of({"category": "a&b=c", "text": '"<x>', "page": "7"})
    assert wanted.address == "?category=a%26b%3Dc&text=%22%3Cx%3E" and not Wanted().address


@pytest.mark.parametrize("asked, page", [("1", 1), ("2", 2), ("99", 3), ("-4", 1), ("x", 1), ("1e999", 1)])
def test_a_page_is_the_nearest_one(asked, page):
    rows = [Row(f"{number:03}", 1) for number in range(2 * PAGE + 1)]
    found, pages, here = page_of(rows, asked)
    assert (found, pages) == (page, 3) and list(here) == rows[(page - 1) * PAGE : page * PAGE]
    assert page_of([], asked)[:2] == (1, 1)


def test_the_rows_around():
    place = {row.id: around(ROWS, row.id) for row in ROWS}
    assert place["a"] == (1, None, ROWS[1]) and place["e"] == (5, ROWS[3], None)
    assert place["b"] == (2, ROWS[0], ROWS[2]) and around(ROWS, "x") == (0, None, ROWS[0])


def test_facets_count_rows():
    assert facets(ROWS) == {
        "state": {"pair": 2, "skipped": 1, "answered": 1, "asked": 1},
        "reason": {"no_box": 2, "none_worse": 1},
        "category": {"dog": 2, "cup": 1},
        "size": {"small": 1, "large": 1},
        "recipe": {"spr": 3, "lab": 2},
        "round": {"1": 3, "2": 2},
    }
