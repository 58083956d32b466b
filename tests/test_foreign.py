"""What a plugin gives or raises becomes a line that says whose it is."""

import numpy as np
import pytest
import torch

from spr_plugin.errors import UserError
from spr_plugin.foreign import Broken, Foreign, blamed, has, listed, methods, number, of_kind


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (Broken("gives None, no list"), "plugin lab: spr_scorer gives None, no list"),
        (UserError("--spr_clip x: is none"), "--spr_clip x: is none"),
        (KeyError("a\nb"), r"plugin lab: spr_scorer raised KeyError: 'a\nb'"),
        (ValueError("many\n  lines"), "plugin lab: spr_scorer raised ValueError: many lines"),
        (SystemExit(5), "plugin lab: spr_scorer calls sys.exit(5)"),
        (SystemExit("no\nlab"), r"plugin lab: spr_scorer calls sys.exit('no\nlab')"),
        (SystemExit(), "plugin lab: spr_scorer calls sys.exit(None)"),
    ],
)
def test_whatever_is_raised_is_one_line_of_whoever_raised_it(error, line):
    with pytest.raises(UserError) as refused, blamed("plugin lab: spr_scorer"):
        raise error
    assert str(refused.value).startswith(line) and "\n" not in str(refused.value)


def test_the_line_of_a_plugin_s_own_file_is_named(tmp_path):
    file = tmp_path / "lab.py"
    file.write_text("def score():\n    return 1 / 0\n")
    names = {}
    exec(compile(file.read_text(), str(file), "exec"), names)
    with pytest.raises(UserError, match=rf"raised ZeroDivisionError.* \({file}, line 2\)"), blamed("lab"):
        names["score"]()


@pytest.mark.parametrize("given", [[1, 2], (1, 2), np.array([1, 2]), {1: 2, 2: 3}.keys(), iter([1, 2])])
def test_rows_of_any_kind_are_a_list(given):
    assert listed(given, 2, "answers") == [1, 2]


@pytest.mark.parametrize("given", [None, 3, "ab", b"ab", {"a": 1, "b": 2}, [1], [1, 2, 3]])
def test_what_is_no_row_for_each_is_broken(given):
    with pytest.raises(Broken, match="2 answers"):
        listed(given, 2, "answers")


@pytest.mark.parametrize("given", [0.5, np.float32(0.5), torch.tensor(0.5), torch.tensor([0.5])])
def test_a_number_of_any_library_is_a_float(given):
    assert number(given, "a score") == 0.5 and type(number(given, "a score")) is float


@pytest.mark.parametrize("given", ["0.5", b"1", None, [], float("nan"), float("-inf"), torch.ones(2), {}])
def test_what_is_no_finite_number_is_broken(given):
    with pytest.raises(Broken, match="gives a score .*, no finite number"):
        number(given, "a score")


def test_kinds_attributes_and_methods_that_are_missing_are_named():
    assert of_kind("a", (str, type(None))) == "a" and of_kind(None, (str, type(None))) is None
    with pytest.raises(Broken, match="gives a reason: int, no str$"):
        of_kind(3, (str, type(None)), "a reason: ")
    with pytest.raises(Broken, match="gives int, which has no attribute id, truth"):
        has(3, ["real", "id", "truth"])
    with pytest.raises(UserError, match="plugin lab: spr_scorer gives str, which has no method score"):
        Foreign("lab", "spr_scorer", "a", ["upper", "score"])
    with pytest.raises(UserError, match="^plugin lab: spr_scorer, str.upper gives 3"):
        with Foreign("lab", "spr_scorer", "a").checking("upper"):
            raise Broken("gives 3")


def test_a_class_s_own_methods_in_order():
    assert methods(type("A", (), {"b": len, "_c": len, "a": len, "d": 3})) == ["b", "a"]
