"""Settings by TRL's names from a file: one check of type and range, one line for what is wrong."""

import pytest

from spr_plugin.config import SPRConfig, dpo_settings, shaping
from spr_plugin.errors import UserError


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
    "beta: " + 3_000 * "[": "nested too deep",
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
