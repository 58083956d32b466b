"""Flags: defaults, refusals and what binds a run."""

import dataclasses
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from spr_plugin.cli import commands
from spr_plugin.command_line import flags_table, parse
from spr_plugin.config import SPRConfig
from spr_plugin.config_checks import dpo_settings, shaping
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
        assert field.name.startswith("spr") and field.metadata["help"] and field.metadata["origin"], (
            field.name
        )


def test_help_of_our_own_commands():
    """Each command's --help, spr sample's with every flag that it takes; a bare % ends it in a traceback."""
    for words in ([], *([name] for name in commands.commands)):
        shown = CliRunner().invoke(commands, [*words, "--help"])
        assert shown.exit_code == 0, (words, shown.exception)
        assert "sage: " in shown.output and "%%" not in shown.output


def test_help_without_a_host_names_no_flag_of_one():
    """Every flag that spr sample's help names is its own."""
    from spr_plugin.sampling.alone import FLAGS

    shown = CliRunner().invoke(commands, ["sample", "--help"]).output
    named = {flag.replace("-", "_").strip("_") for flag in re.findall(r"--([a-z][\w-]*)", shown)}
    assert "spr_annotations" in named and named - {"no_" + flag for flag in FLAGS} <= {
        *FLAGS,
        "spr_sampler",
        "out",
        "aspect",
        "help",
    }
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


# --- one check of type and range, wherever a value comes from ---------------------------------------------


WRONG = {
    "per_device_train_batch_size: 4.5": "whole number",
    "num_train_epochs: .inf": "finite",
    "num_train_epochs: .nan": "finite",
    "num_train_epochs: 1e9": "at most 100000",
    "per_device_train_batch_size: 1000000000000": "at most 100000",
    "save_steps: 0.1": "whole number",
    "save_steps: 1e400": "whole number",
    "seed: abc": "whole number",
    "seed: 1e20": "below 2 to the 63",
    "seed: -1": "0 or more",
    "seed: 100000000000000000000000000": "below 2 to the 63",
    "gradient_accumulation_steps: 0": "greater than 0",
    "beta: yes": "no number",
    "beta: null": "no number",
    "beta: [0.1]": "no number",
    "beta: {a: 1}": "no number",
    "beta: 2024-01-01": "no number",
    "learning_rate: -5e-7": "greater than 0",
    "loss_type: null": "must be text",
    "loss_type: [[sigmoid]]": "must be text",
    "loss_type: []": "choose from",
    "loss_weights: [1, yes]": "no number",
    "label_smoothing: 0.5": "between 0 and 0.5",
    "weight_decay: -1": "0 or more",
    "warmup_steps: 2.5": "whole number",
    "warmup_steps: .inf": "whole number",
    "max_grad_norm: .inf": "finite",
    "adam_beta1: 1.5": "below 1",
    "logging_steps: 0": "greater than 0",
    "logging_steps: 0.1": "whole number",
    "dataloader_num_workers: 1.5": "whole number",
    "dataloader_pin_memory: perhaps": "neither true nor false",
    "gradient_checkpointing: 2": "neither true nor false",
    "gradient_checkpointing_kwargs: [a]": "must be a table",
    "lr_scheduler_kwargs: {a: {b: 1}}": "must be a table",
    "lr_scheduler_kwargs: &a {a: *a}": "must be a table",
    "lr_scheduler_type: null": "must be text",
    "report_to: {wandb: 1}": "must be text",
    "run_name: 7": "in quotes",
    "beta: 0.1\nbeta: 0.2": "beta stands there twice",
    "lr_scheduler_kwargs: {a: 1, a: 2}": "a stands there twice",
    "1: 2": "key 1 is no text",
    "null: 2": "key None is no text",
    "yes: 2": "key True is no text",
    "? [a]\n: 2": "is no text",
    "beta": "not a table",
    "": "not a table",
    "!!python/object/apply:os.getcwd []": "cannot be read",
    "beta: !!int abc": "cannot be read",
    "beta: 2024-99-99": "cannot be read",
    "beta: " + 30_000 * "[": "nested too deep",
    "beta: " + "9" * 5000: "cannot be read",
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:40])
def test_a_setting_of_a_file_is_checked_by_type_and_range(tmp_path, text):
    pytest.importorskip("yaml")
    (tmp_path / "dpo.yaml").write_text(text)
    with pytest.raises(UserError) as refused:
        SPRConfig(spr=True, spr_dpo_config=str(tmp_path / "dpo.yaml"))
    line = str(refused.value)
    assert (
        line.startswith(f"--spr_dpo_config {tmp_path}/dpo.yaml: ") and WRONG[text] in line and len(line) < 600
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"beta": 0.1, "beta": 0.2}', "beta stands there twice"),
        ('{"beta": NaN}', "greater than 0"),
        ('{"beta": 1e999}', "finite"),
        ('{"seed": ' + "9" * 5000 + "}", "whole number"),
        ('{"beta": null}', "no number"),
        ("[" * 100_000, "nested too deep"),
        ('{"a":' * 100_000, "nested too deep"),
        ("", "cannot be read"),
        ("[]", "not a table"),
    ],
    ids=lambda text: text[:30],
)
def test_so_is_one_in_json(tmp_path, text, says):
    (tmp_path / "dpo.json").write_text(text)
    with pytest.raises(UserError, match=f"--spr_dpo_config {tmp_path}/dpo.json: .*{says}"):
        SPRConfig(spr=True, spr_dpo_config=str(tmp_path / "dpo.json"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32-be"])
def test_numbers_as_yaml_says_them_in_any_encoding(tmp_path, encoding):
    pytest.importorskip("yaml")
    text = (
        'learning_rate: 5e-7\r\nwarmup_steps: 1e1\r\nlr_scheduler_kwargs: {min_lr: 1e-8, kind: "\\ud83d"}\r\n'
    )
    (tmp_path / "dpo.yml").write_bytes(text.encode(encoding))
    config = SPRConfig(spr=True, spr_dpo_config=str(tmp_path / "dpo.yml"))
    assert config.spr_learning_rate == 5e-7
    settings = dpo_settings(config)[1]
    assert settings == {"warmup_steps": 10, "lr_scheduler_kwargs": {"min_lr": 1e-8, "kind": "\ufffd"}}
    assert type(settings["warmup_steps"]) is int


def test_what_a_merge_overrides_stands_there_once(tmp_path):
    pytest.importorskip("yaml")
    merged = (
        "lr_scheduler_kwargs: &a {power: 1, lr_end: 0}\ngradient_checkpointing_kwargs: {<<: *a, power: 2}"
    )
    (tmp_path / "dpo.yaml").write_text(merged)
    config = SPRConfig(spr=True, spr_dpo_config=str(tmp_path / "dpo.yaml"))
    assert dpo_settings(config)[1]["gradient_checkpointing_kwargs"] == {"power": 2, "lr_end": 0}


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


def test_every_number_has_a_range():
    numbers = [field for field in dataclasses.fields(SPRConfig) if type(field.default) in (int, float)]
    assert numbers and all(field.metadata["within"] for field in numbers)


def test_every_flag_is_named_by_a_test():
    """What no test names, no test sees the effect of."""
    files = [path for path in Path(__file__).parent.rglob("*.py") if path != Path(__file__)]
    named = set(re.findall(r"spr_\w+", "\n".join(path.read_text() for path in files)))
    assert [f.name for f in dataclasses.fields(SPRConfig) if f.name not in {*named, "spr"}] == []


# --- --spr_recipe_config


def recipe_file(tmp_path, text: str) -> str:
    (tmp_path / "recipe.yaml").write_text(text)
    return str(tmp_path / "recipe.yaml")


def test_the_section_of_spr_sets_its_flags_and_shapes_as_they_do(tmp_path):
    file = recipe_file(
        tmp_path, "spr: {lambda: 0.3, more_than: 2, prompts: [plain], repair: none}\nother: {x: 1}\n"
    )
    config = SPRConfig(spr=True, spr_recipe_config=file)
    assert (config.spr_lambda, config.spr_more_than, config.spr_prompts) == (0.3, 2, ["plain"])
    plain = SPRConfig(spr=True, spr_lambda=0.3, spr_more_than=2, spr_prompts=["plain"], spr_repair="none")
    # The flags count, not the file: the same run by flags goes on with what this one left.
    shaped, alike = shaping(config), shaping(plain)
    assert (
        shaped["regions"].pop("spr_recipe_config") == {} and alike["regions"].pop("spr_recipe_config") == {}
    )
    assert shaped == alike


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("spr: {lamda: 0.3}", "recipe.yaml: spr: lamda is no setting"),
        ("spr: {lambda: 3}", "recipe.yaml: spr: lambda 3.*between 0 and 1"),
        ("spr: {more_than: many}", "recipe.yaml: spr: more_than many"),
        ("spr: [1]", "recipe.yaml: has no section spr"),
        ("names: {together: 2}", "recipe.yaml: has no section spr"),
        ("spr: {lambda: 0.3", "recipe.yaml: cannot be read"),
    ],
)
def test_a_wrong_section_is_one_line(tmp_path, text, words):
    with pytest.raises(UserError, match=words) as refused:
        SPRConfig(spr=True, spr_recipe_config=recipe_file(tmp_path, text))
    assert "\n" not in str(refused.value)


def test_another_recipe_s_section_is_its_own(tmp_path):
    file = recipe_file(tmp_path, "names: {together: 3}")
    config = SPRConfig(spr=True, spr_recipe="names", spr_recipe_config=file)
    assert shaping(config)["regions"]["spr_recipe_config"] == {"together": 3}
