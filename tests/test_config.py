"""Flags: defaults, refusals and what binds a run."""

import dataclasses
import re

import pytest
from click.testing import CliRunner

from spr_plugin.cli import commands
from spr_plugin.config import SPRConfig, shaping, flags_table, parse
from spr_plugin.errors import UserError
from spr_plugin.ids import digest


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


def test_one_candidate_a_region_cannot_make_a_pair():
    with pytest.raises(UserError, match="--spr_samples 1"):
        SPRConfig(spr=True, spr_samples=1, spr_prompts=["plain"])


def test_a_server_cannot_answer_for_the_improved_model():
    flags = dict(spr=True, spr_sampler="openai", spr_sampler_url="http://localhost")
    with pytest.raises(UserError, match="--spr_rounds 2 with --spr_sampler openai"):
        SPRConfig(**flags, spr_rounds=2)
    SPRConfig(**flags)


@pytest.mark.parametrize(
    "text", ["learning_rate: 5e-5", "learning_rate: '0.00005'", "learning_rate: 5.0e-05"]
)
def test_numbers_of_a_settings_file_however_yaml_reads_them(tmp_path, text):
    pytest.importorskip("yaml")
    (tmp_path / "dpo.yaml").write_text(
        f"{text}\nloss_type: sigmoid\nloss_weights: 1e0\nseed: '7'\nrun_name: 1e3"
    )
    config = SPRConfig(spr=True, spr_dpo_config=str(tmp_path / "dpo.yaml"))
    assert (config.spr_learning_rate, config.spr_loss_weights, config.spr_seed) == (5e-5, [1], 7)
    assert shaping(config)["dpo"]["spr_dpo_config"] == {"run_name": "1e3"}


@pytest.mark.parametrize(
    "text",
    ["beta: strong", "learning_rate: [1]", "loss_weights: [a]", "logging_steps: true", "max_grad_norm: null"],
)
def test_settings_that_are_no_numbers_are_named(tmp_path, text):
    pytest.importorskip("yaml")
    (tmp_path / "dpo.yaml").write_text(text)
    with pytest.raises(
        UserError, match=rf"--spr_dpo_config .*dpo.yaml: {text.split(':')[0]} .* is no number"
    ) as caught:
        SPRConfig(spr=True, spr_dpo_config=str(tmp_path / "dpo.yaml"))
    assert "\n" not in str(caught.value)


def test_spr_only_means_spr():
    assert SPRConfig(spr_only=True).spr


def test_flags_that_alter_no_record_do_not_bind_a_run():
    bound = {name for flags in shaping(SPRConfig(spr=True)).values() for name in flags}
    assert "spr_beta" in bound and "spr_seed" in bound
    assert not {"spr", "spr_only", "spr_overwrite", "spr_save_base", "spr_rounds"} & bound


def test_every_flag_has_help_and_an_origin():
    for field in dataclasses.fields(SPRConfig):
        assert field.name.startswith("spr") and field.metadata["help"] and field.metadata["origin"], field.name


def test_help_of_our_own_commands():
    """Each command's --help, spr sample's with every flag that it takes; a bare % ends it in a traceback."""
    for words in ([], *([name] for name in commands.commands)):
        shown = CliRunner().invoke(commands, [*words, "--help"])
        assert shown.exit_code == 0, (words, shown.exception)
        assert "sage: " in shown.output and "%%" not in shown.output


def test_help_without_a_host_names_no_flag_of_one():
    """Every flag that spr sample's help names is its own."""
    from spr_plugin.sample_alone import FLAGS

    shown = CliRunner().invoke(commands, ["sample", "--help"]).output
    named = {flag.replace("-", "_").strip("_") for flag in re.findall(r"--([a-z][\w-]*)", shown)}
    assert "spr_annotations" in named and named - {"no_" + flag for flag in FLAGS} <= {*FLAGS, "spr_sampler", "out", "aspect", "help"}
    assert "the host's" not in " ".join(shown.split())


@pytest.mark.parametrize("text", ["10 % warm-up", "100%", "%s of %(prog)s", "50%% and %d"])
def test_any_help_can_be_shown_by_argparse(text, monkeypatch, capsys):
    flag = SPRConfig.__dataclass_fields__["spr_seed"]
    monkeypatch.setattr(flag, "metadata", {**flag.metadata, "help": text})
    with pytest.raises(SystemExit) as stop:
        parse(["--help"], ["spr_seed"], "prog")
    assert stop.value.code == 0 and f"{text} (default: 0)" in capsys.readouterr().out
    assert f"| {text} |" in flags_table()


def test_digest_is_the_same_everywhere():
    assert digest(["a", 1]) == "2657442bb4a48d62"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"spr_regions": "many"}, "--spr_regions many"),
        ({"spr_regions": None}, "--spr_regions None"),
        ({"spr_regions": 4.5}, "must be a whole number"),
        ({"spr_regions": True}, "must be a whole number"),
        ({"spr_learning_rate": None}, "--spr_learning_rate None"),
        ({"spr_prompts": "plain"}, "must be a list"),
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
    config = SPRConfig(spr="yes", spr_learning_rate="5e-5", spr_regions="4", spr_keep_best="False", spr_only="no", spr_clip=tmp_path)
    assert (config.spr, config.spr_learning_rate, config.spr_regions, config.spr_keep_best, config.spr_only) == (True, 5e-5, 4, False, False)
    assert config.spr_clip == str(tmp_path)
