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
    if isinstance(settings.get("loss_type"), str):
        settings["loss_type"] = [settings["loss_type"]]
    flags = {FLAGS[name]: value for name, value in settings.items() if name in FLAGS}
    return flags, {name: value for name, value in settings.items() if name in TRAINER}


def _yaml(text: str):
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(error) from None
