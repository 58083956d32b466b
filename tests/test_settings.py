"""One check of type and range, wherever a value comes from."""

import dataclasses
import sys
from types import ModuleType

import pytest

from spr_plugin.command_line import parse
from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.settings import kinds_of


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"spr_regions": "many"}, "--spr_regions many"),
        ({"spr_regions": None}, "--spr_regions None"),
        ({"spr_regions": 4.5}, "must be a whole number"),
        ({"spr_regions": True}, "must be a whole number"),
        ({"spr_learning_rate": None}, "--spr_learning_rate None"),
        ({"spr_prompts": {"plain": 1}}, "must be a list"),
        ({"spr_keep_best": "perhaps"}, "neither true nor false"),
        ({"spr_clip": 5}, "--spr_clip 5"),
        ({"spr_seed": 2**64}, "--spr_seed"),
        ({"spr_feature_cache": float("inf")}, "and finite"),
        ({"spr_min_gap": float("nan")}, "--spr_min_gap nan"),
    ],
)
def test_a_value_of_the_wrong_kind_is_one_line_wherever_it_comes_from(given, says):
    """JSON and YAML files, dicts and notebooks hand over what they like."""
    with pytest.raises(UserError) as refused:
        SPRConfig(spr=True, **given)
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_words_that_mean_a_value_are_that_value(tmp_path):
    config = SPRConfig(
        spr="yes",
        spr_learning_rate="5e-5",
        spr_regions="4",
        spr_keep_best="False",
        spr_only="no",
        spr_clip=tmp_path,
    )
    assert (
        config.spr,
        config.spr_learning_rate,
        config.spr_regions,
        config.spr_keep_best,
        config.spr_only,
    ) == (True, 5e-5, 4, False, False)
    assert config.spr_clip == str(tmp_path)


@pytest.mark.parametrize("word", ["1e3", "1000", "1000.0"])
def test_a_word_of_a_command_line_means_what_it_means_in_a_file(word):
    assert parse(["--spr_regions", word], ["spr_regions"], "prog").spr_regions == 1000
    assert SPRConfig(spr_regions=word).spr_regions == 1000


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--spr_batch_size", "4.5"], "whole number"),
        (["--spr_seed", "1e20"], "below 2 to the 63"),
        (["--spr_seed", "abc"], "whole number"),
        (["--spr_beta", "yes"], "no number"),
        (["--spr_epochs", "inf"], "finite"),
        (["--spr_keep_best", "perhaps"], "neither true nor false"),
        (["--spr_loss_weights", "1", "x"], "no number"),
    ],
)
def test_and_is_refused_as_there(words, says):
    name = words[0].removeprefix("--")
    with pytest.raises(UserError, match=f"{words[0]}.*{says}"):
        parse(words, [name], "prog")
    with pytest.raises(UserError, match=f"{words[0]}.*{says}"):
        SPRConfig(spr=True, **{name: words[1:] if len(words) > 2 else words[1]})


@pytest.mark.parametrize(
    "value",
    [10**30, 10**5000, [None], {"a": 1}, [[1]], b"x", float("-inf")],
    ids=lambda value: str(type(value)),
)
def test_no_value_of_any_flag_is_a_traceback(value):
    for field in dataclasses.fields(SPRConfig):
        try:
            SPRConfig(**{"spr": True, field.name: value})
        except UserError as error:
            assert f"--{field.name}" in str(error) and len(str(error)) < 400


PLUGIN = """
from __future__ import annotations
from dataclasses import dataclass
from spr_plugin.settings import POSITIVE, setting

@dataclass
class Weights:
    weights: list[float] = setting([1.0], "of the terms")
    names: list[str] = setting([], "of the terms")
    depth: int | None = setting(None, "of the graph")
    share: float = setting(1, "of what is kept", within=POSITIVE)
"""


def test_a_setting_is_of_the_type_that_its_annotation_says():
    """A plugin's too, which may be put off and is a text then; the default may be None, or a whole number."""
    module = ModuleType("lab_settings")
    sys.modules["lab_settings"] = module
    try:
        exec(compile(PLUGIN, "lab_settings.py", "exec"), vars(module))
        kinds = kinds_of(module.Weights)
    finally:
        del sys.modules["lab_settings"]
    assert kinds["weights"].read(["2", 3], "weights") == [2.0, 3.0]
    assert kinds["names"].read(["a"], "names") == ["a"]
    assert kinds["depth"].read(None, "depth") is None and kinds["depth"].read(3, "depth") == 3
    assert kinds["share"].read(0.5, "share") == 0.5
    with pytest.raises(UserError, match="share -1.*greater than 0"):
        kinds["share"].check(kinds["share"].read("-1", "share"), "share")
    with pytest.raises(UserError, match="weights x: is no number"):
        kinds["weights"].read(["x"], "weights")
