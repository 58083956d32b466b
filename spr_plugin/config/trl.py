"""``--spr_dpo_config FILE``: settings by the names of TRL's DPOConfig, as far as this stage has them.

The stage is not TRL's DPOTrainer (docs/decisions.md says why), so a setting that it would not honour is
refused by name.
"""

from collections.abc import Mapping

from spr_plugin.errors import UserError
from spr_plugin.loading import read_settings
from spr_plugin.settings import NOT_NEGATIVE, POSITIVE, Kind, Range, Values

BELOW_ONE = Range("must be 0 or more, and below 1", lambda value: 0 <= value < 1)
STEPS = Range(
    "must be a whole number of steps, or a share of them below 1",
    lambda value: 0 <= value and (value < 1 or value.is_integer()),
)

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
TRAINER = {
    "lr_scheduler_type": Kind(str),
    "lr_scheduler_kwargs": Kind(dict, optional=True),
    "warmup_steps": Kind(float, within=STEPS),
    "max_grad_norm": Kind(float, within=NOT_NEGATIVE),
    "weight_decay": Kind(float, within=NOT_NEGATIVE),
    "adam_beta1": Kind(float, within=BELOW_ONE),
    "adam_beta2": Kind(float, within=BELOW_ONE),
    "adam_epsilon": Kind(float, within=NOT_NEGATIVE),
    "logging_steps": Kind(int, within=POSITIVE),
    "logging_first_step": Kind(bool),
    "gradient_checkpointing": Kind(bool),
    "gradient_checkpointing_kwargs": Kind(dict, optional=True),
    "dataloader_num_workers": Kind(int, within=NOT_NEGATIVE),
    "dataloader_pin_memory": Kind(bool),
    "report_to": Kind(str, many=True),
    "run_name": Kind(str, optional=True),
}


def read_dpo_config(path: str, flags: Mapping[str, Kind]) -> tuple[Values, Values]:
    """(our flags, the Trainer's arguments) of a YAML or JSON file.

    Args:
        flags: the kinds of ours.

    Raises:
        UserError: names the file and the setting that is not honoured, or whose value makes no sense.
    """
    kinds = {name: flags[flag] for name, flag in FLAGS.items()} | TRAINER
    settings = read_settings(path, f"--spr_dpo_config {path}", yaml=not path.lower().endswith(".json"))
    if unknown := sorted(settings.keys() - kinds.keys()):
        raise UserError(
            f"--spr_dpo_config {path}: {', '.join(unknown)} is nothing this stage honours; "
            f"it takes {', '.join(sorted(kinds))}"
        )
    for name, value in settings.items():
        kind, named = kinds[name], f"--spr_dpo_config {path}: {name}"
        named += f" as --{FLAGS[name]}" if name in FLAGS else ""
        settings[name] = kind.read([value] if kind.many and not isinstance(value, list) else value, named)
        kind.check(settings[name], named)
    if settings.get("warmup_steps", 0) >= 1:
        # Before transformers 5 it takes nothing else.
        settings["warmup_steps"] = int(settings["warmup_steps"])
    ours = {FLAGS[name]: value for name, value in settings.items() if name in FLAGS}
    return ours, {name: value for name, value in settings.items() if name in TRAINER}
