"""``--spr_dpo_config FILE``: settings by the names of TRL's DPOConfig, as far as this stage has them.

The stage is not TRL's DPOTrainer (docs/decisions.md says why), so a setting that it would not honour is refused by name. Standard
library at import: the flags are checked before anything heavy is loaded.
"""

import json
from pathlib import Path

from spr_plugin.errors import UserError

# TRL's name → our flag
FLAGS = {
    "beta": "spr_beta",
    "loss_type": "spr_loss_type",
    "loss_weights": "spr_loss_weights",
    "label_smoothing": "spr_label_smoothing",
    "learning_rate": "spr_learning_rate",
    "num_train_epochs": "spr_epochs",
    "per_device_train_batch_size": "spr_batch_size",
    "gradient_accumulation_steps": "spr_gradient_accumulation",
    "save_steps": "spr_save_steps",
    "seed": "spr_seed",
}
# settings of transformers' Trainer that the stage hands on as they are
TRAINER = frozenset(
    "lr_scheduler_type lr_scheduler_kwargs warmup_steps max_grad_norm weight_decay adam_beta1 adam_beta2 adam_epsilon logging_steps "
    "logging_first_step gradient_checkpointing gradient_checkpointing_kwargs dataloader_num_workers dataloader_pin_memory report_to run_name".split()
)
# those of both whose value is one number
NUMBERS = (FLAGS.keys() - {"loss_type", "loss_weights"}) | frozenset(
    "warmup_steps max_grad_norm weight_decay adam_beta1 adam_beta2 adam_epsilon logging_steps "
    "dataloader_num_workers".split()
)


def read_dpo_config(path: str) -> tuple[dict, dict]:
    """(our flags, the Trainer's arguments) of a YAML or JSON file. UserError names the file and the setting that is not honoured."""
    try:
        text = Path(path).read_text()
        settings = json.loads(text) if path.endswith(".json") else _yaml(text)
    except (OSError, ValueError) as error:
        raise UserError(f"--spr_dpo_config {path}: cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(settings, dict):
        raise UserError(f"--spr_dpo_config {path}: not a table of settings")
    unknown = sorted(settings.keys() - FLAGS.keys() - TRAINER)
    if unknown:
        raise UserError(f"--spr_dpo_config {path}: {', '.join(unknown)} is nothing this stage honours; it takes {', '.join(sorted({*FLAGS, *TRAINER}))}")
    settings |= {
        name: _numbers(settings[name])
        for name in settings.keys() & {*NUMBERS, "loss_weights", "lr_scheduler_kwargs"}
    }
    for name in settings.keys() & {"loss_type", "loss_weights"}:
        settings[name] = settings[name] if isinstance(settings[name], list) else [settings[name]]
    for name in sorted(settings.keys() & {*NUMBERS, "loss_weights"}):
        for value in settings[name] if name == "loss_weights" else [settings[name]]:
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise UserError(f"--spr_dpo_config {path}: {name} {value!r} is no number")
    flags = {FLAGS[name]: value for name, value in settings.items() if name in FLAGS}
    return flags, {name: value for name, value in settings.items() if name in TRAINER}


def _yaml(text: str):
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(error) from None


def _numbers(value):
    """The value with texts that are numbers, such as ``5e-5`` in YAML 1.1, which PyYAML reads, as numbers."""
    if isinstance(value, dict):
        return {name: _numbers(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_numbers(one) for one in value]
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        return value
    return int(number) if isinstance(value, str) and number.is_integer() else number


def check_settings(config) -> None:
    """UserError for values of the Trainer's settings that torch or transformers would refuse once the stage
    trains: they are asked now."""
    path = config.spr_dpo_config
    settings = read_dpo_config(path)[1] if path else {}
    if not settings:
        return
    import torch
    from transformers import get_scheduler
    from transformers.integrations import get_available_reporting_integrations

    given = settings.get
    least_of = {"logging_steps": 1, "warmup_steps": 0, "max_grad_norm": 0, "dataloader_num_workers": 0}
    for name, least in least_of.items():
        if given(name, least) < least:
            raise UserError(f"--spr_dpo_config {path}: {name} {given(name)} is less than {least}")
    try:
        betas = given("adam_beta1", 0.9), given("adam_beta2", 0.999)
        optimizer = torch.optim.AdamW(
            [torch.zeros(1)], 1e-3, betas, given("adam_epsilon", 1e-8), given("weight_decay", 0.0)
        )
        get_scheduler(given("lr_scheduler_type", "cosine"), optimizer, 1, 10, given("lr_scheduler_kwargs"))
    except (ValueError, TypeError) as error:
        raise UserError(f"--spr_dpo_config {path}: {' '.join(str(error).split())}") from None
    report = given("report_to", [])
    names = report if isinstance(report, list) else [report]
    if missing := sorted(set(names) - {"none", "all", *get_available_reporting_integrations()}):
        raise UserError(
            f"--spr_dpo_config {path}: report_to {', '.join(map(str, missing))} is not installed, or not "
            "known to this transformers"
        )
