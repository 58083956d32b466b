"""Which tests a mutant is asked of (tests/mutate.py)."""

import ast
import sys

import pytest

from tests import mutate

SOURCE = """\
from functools import cache
LIMIT = 3

@cache
def kept(n):
    return n + 1

def outer(n):
    def inner(m):
        return m * 2
    return inner(n)

class Box:
    size = 4

    @property
    def area(self):
        return self.size**2
"""


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        (2, None),  # of the module: every test
        (6, None),  # a result is kept: a test may only meet it
        (9, {"b"}),
        (10, {"b"}),  # in a function of another
        (14, None),  # of the class
        (18, {"a", "b"}),
    ],
)
def test_a_mutant_is_asked_of_the_tests_that_call_its_function(line, asked):
    functions = mutate.outermost(ast.parse(SOURCE))
    calls = [["", [1]], ["a", [16, 17]], ["b", [8, 9, 16]]]
    assert mutate.callers(functions, calls, line) == asked
    # What collecting calls, every test may rest on.
    assert mutate.callers(functions, [["", [8, 16]], *calls], line) is None


def test_calls_of_one_file_are_seen(tmp_path):
    file = tmp_path / "seen.py"
    file.write_text(SOURCE)
    names = {}
    exec(compile(SOURCE, str(file), "exec"), names)
    calls = mutate.Calls(str(file), tmp_path / "calls")
    before = sys.gettrace()
    calls.pytest_configure()
    sys.settrace(None)  # as a test may
    calls.pytest_runtest_logstart()
    try:
        names["outer"](2), names["Box"]().area
    finally:
        sys.settrace(before)
    calls.pytest_runtest_logfinish("a")
    calls.pytest_runtest_logfinish("b")
    assert (tmp_path / "calls").read_text() == '["a", [8, 9, 16]]\n["b", []]\n'
