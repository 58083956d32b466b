"""Flags: defaults, refusals and what binds a run."""

import dataclasses
import re
from pathlib import Path

import pytest

from spr_plugin.config import SPRConfig
from spr_plugin.config.candidates import CandidatesFlags
from spr_plugin.config.dpo import DPOFlags
from spr_plugin.config.pairs import PairsFlags
from spr_plugin.config.queries import QueriesFlags
from spr_plugin.config.scores import ScoresFlags
from spr_plugin.errors import UserError


@pytest.mark.parametrize(
    "flag, value",
    [
        ("spr_lambda", 1.2),
        ("spr_top_p", -0.1),
        ("spr_top_k", -1),
        ("spr_sampler", "nobody"),
        ("spr_sampler", "openai"),
        ("spr_sampler_concurrency", 0),
        ("spr_prompts", ["plain", "nonsense"]),
        ("spr_prompts", []),
        ("spr_tune", "half"),
        ("spr_beta", 0),
        ("spr_regions", 0),
        ("spr_rounds", 0),
        ("spr_max_pixels", 0),
        ("spr_temperature", 0.0),
        ("spr_learning_rate", float("inf")),
        ("spr_learning_rate", float("nan")),
        ("spr_probe_regions", -1),
        ("spr_more_than", -1),
        ("spr_min_area", float("nan")),
        ("spr_loss_weights", [0.0, 0.0]),
        ("spr_loss_weights", [1.0, -1.0]),
    ],
)
def test_a_senseless_value_is_one_line_with_the_flag(flag, value):
    with pytest.raises(UserError) as caught:
        SPRConfig(spr=True, **{flag: value})
    assert f"--{flag}" in str(caught.value) and "\n" not in str(caught.value)


def test_spr_only_means_spr():
    assert SPRConfig(spr_only=True).spr


def test_whoever_is_given_some_flags_sees_no_others():
    config = SPRConfig(spr=True, spr_beta=0.3, spr_seed=7, spr_max_new_tokens=99, spr_lambda=0.1)
    flags = config.only(DPOFlags)
    assert (flags.spr_beta, flags.spr_seed, flags.spr_max_new_tokens) == (0.3, 7, 99)
    for name in {f.name for f in dataclasses.fields(SPRConfig)} - vars(flags).keys():
        with pytest.raises(AttributeError):
            getattr(flags, name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        flags.spr_beta = 1.0


def test_each_flag_stands_where_the_stage_is_that_it_shapes():
    """In the class of that stage, or in the one of a flag that several read."""
    own = {CandidatesFlags, DPOFlags, PairsFlags, QueriesFlags, ScoresFlags}
    for f in dataclasses.fields(SPRConfig):
        if stage := f.metadata["shapes"]:
            (kind,) = (kind for kind in own if kind.__module__.endswith(f".{stage}"))
            assert f.name in kind.__dataclass_fields__, f.name


def test_training_on_the_chosen_alone_is_a_loss():
    """The pairing says so, and whoever computes the loss knows of no pairing."""
    config = SPRConfig(spr=True, spr_pairing="sft", spr_loss_type=["hinge"], spr_loss_weights=[3.0])
    assert config.only(DPOFlags).losses() == (["sft"], [1.0])


def test_every_flag_has_help_and_an_origin():
    for field in dataclasses.fields(SPRConfig):
        assert field.name.startswith("spr") and field.metadata["help"] and field.metadata["origin"], (
            field.name
        )


def test_every_number_has_a_range():
    numbers = [field for field in dataclasses.fields(SPRConfig) if type(field.default) in (int, float)]
    assert numbers and all(field.metadata["within"] for field in numbers)


def test_every_flag_is_named_by_a_test():
    """What no test names, no test sees the effect of; to be refused by its value is none."""
    here = Path(__file__).parent
    refusing = {*here.glob("*.py"), here.with_name("test_settings.py")}
    files = [path for path in here.parent.rglob("*.py") if path not in refusing]
    named = set(re.findall(r"spr_\w+", "\n".join(path.read_text() for path in files)))
    assert [f.name for f in dataclasses.fields(SPRConfig) if f.name not in {*named, "spr"}] == []
