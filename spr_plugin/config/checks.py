"""Flags beside each other: whether all make sense together."""

from urllib.parse import urlsplit

from spr_plugin.config.all_flags import KINDS, AllFlags
from spr_plugin.errors import UserError
from spr_plugin.redaction import shown


def check(config: AllFlags) -> None:
    """Raise UserError for the first flag whose value makes no sense, alone or beside the others."""
    for name, kind in KINDS.items():
        kind.check(getattr(config, name), f"--{name}")
    if config.spr_sampler == "openai":
        if not config.spr_sampler_url:
            raise UserError(
                "--spr_sampler_url: give the address of the server that is to answer, such as "
                "http://localhost:8000/v1"
            )
        if not _is_address(config.spr_sampler_url):
            url = shown(config.spr_sampler_url)
            raise UserError(f"--spr_sampler_url {url}: no address such as http://localhost:8000/v1")
    if config.spr_rounds > 1 and config.spr_sampler != "live":
        raise UserError(
            f"--spr_rounds {config.spr_rounds} with --spr_sampler {config.spr_sampler}: a server does not"
            " answer with the improved model"
        )
    if config.spr_loss_weights and len(config.spr_loss_weights) != len(config.spr_loss_type):
        raise UserError(
            f"--spr_loss_weights: {len(config.spr_loss_weights)} weights for {len(config.spr_loss_type)}"
            " losses of --spr_loss_type"
        )
    if config.spr_label_smoothing and "robust" not in config.spr_loss_type:
        raise UserError("--spr_label_smoothing does nothing without --spr_loss_type robust")
    if config.spr_recipe == "spr" and len(config.spr_prompts) * config.spr_samples < 2:
        raise UserError(
            "--spr_samples 1 with one prompt variant: a preference pair needs at least two candidates"
        )


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port, or of brackets
        return False
