"""Flags beside each other: whether all make sense together."""

from urllib.parse import urlsplit

from spr_plugin.config.all_flags import KINDS, AllFlags
from spr_plugin.config.dpo import TOKEN_KINDS
from spr_plugin.errors import UserError
from spr_plugin.redaction import shown
from spr_plugin.settings import weighed


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
    for flag, given in (
        ("--spr_rounds", config.spr_rounds > 1),
        ("--spr_candidates", config.spr_candidates),
        ("--spr_sampler openai", config.spr_sampler != "live"),
    ):
        if config.spr_pairs and given:
            raise UserError(f"--spr_pairs with {flag}: given pairs need no sampling; leave one out")
    _check_losses(config)
    if "sft" in weighed(config.spr_pairing) and len(config.spr_pairing) > 1:
        raise UserError(
            f"--spr_pairing {' '.join(config.spr_pairing)}: sft is a way to train on all pairs, and cannot be"
            " mixed; take it alone"
        )
    # An answer that is paired with itself needs no other.
    several = {*weighed(config.spr_pairing)} != {"repaired"} and "spr" in config.recipes()
    if several and len(config.spr_prompts) * config.spr_samples < 2:
        raise UserError(
            "--spr_samples 1 with one prompt variant: a preference pair needs at least two candidates"
        )


def _check_losses(config: AllFlags) -> None:
    """The same of the flags of the loss."""
    if config.spr_loss_weights and len(config.spr_loss_weights) != len(config.spr_loss_type):
        raise UserError(
            f"--spr_loss_weights: {len(config.spr_loss_weights)} weights for {len(config.spr_loss_type)}"
            " losses of --spr_loss_type"
        )
    if config.spr_label_smoothing and "robust" not in config.spr_loss_type:
        raise UserError("--spr_label_smoothing does nothing without --spr_loss_type robust")
    if config.spr_dpop_lambda != 50.0 and "dpop" not in config.spr_loss_type:
        raise UserError("--spr_dpop_lambda does nothing without --spr_loss_type dpop")
    if {*config.spr_loss_type} == {"kl_words"}:
        raise UserError(
            "--spr_loss_type kl_words: alone it only keeps the model as it is; name what is to be learned too"
        )
    weights = dict.fromkeys(TOKEN_KINDS, 1.0) | config.token_weights()
    if not max(weights["words"], weights["coordinates"]) * max(weights["changed"], weights["unchanged"]):
        raise UserError(
            f"--spr_token_weight {' '.join(config.spr_token_weight)}: no token would count at all"
        )


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port, or of brackets
        return False
