"""Settings beside each other: what files hold, whether all make sense together, which stage each shapes."""

import dataclasses
from urllib.parse import urlsplit

from spr_plugin.config import KINDS, STAGES, SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.redaction import shown
from spr_plugin.settings import Kind, kinds_of, weighed

# What `spr:` of --spr_recipe_config may set.
SPR_FLAGS = """data_aspect exclude min_objects min_area keep_crowd regions_per_image more_than prompts clip
    detector detector_threshold no_detector scorer lambda no_local repair match match_threshold
    count_duplicates reject_vague add_missed min_kept pairing min_gap""".split()


def dpo_settings(config: SPRConfig) -> tuple[dict, dict]:
    """(flags, arguments of transformers' Trainer) that ``--spr_dpo_config`` sets."""
    if config.spr_dpo_config is None:
        return {}, {}
    from spr_plugin.trl_settings import read_dpo_config

    return read_dpo_config(config.spr_dpo_config, KINDS)


def recipe_settings(config: SPRConfig) -> tuple[dict, dict]:
    """(flags, settings that are no flags) of the recipe's section of ``--spr_recipe_config``."""
    if config.spr_recipe_config is None:
        return {}, {}
    if isinstance(config.spr_recipe_config, dict):  # of a run that is opened: what its manifest holds
        return {}, config.spr_recipe_config
    from spr_plugin.loading import read_settings

    file = f"--spr_recipe_config {config.spr_recipe_config}"
    given = read_settings(
        config.spr_recipe_config, file, yaml=not config.spr_recipe_config.lower().endswith(".json")
    )
    section = given.get(config.spr_recipe) or {} if config.spr_recipe in given else None
    if not isinstance(section, dict):
        raise UserError(
            f"{file}: has no section {config.spr_recipe} with settings of --spr_recipe {config.spr_recipe}"
        )
    if config.spr_recipe != "spr":
        return {}, section
    return {f"spr_{name}": value for name, value in _read(section, SPR_KINDS, f"{file}: spr").items()}, {}


def own_settings(config: SPRConfig, settings: type):
    """The settings of a recipe other than SPR: a dataclass, whose fields are each a `setting`, made of the
    recipe's section of ``--spr_recipe_config``. UserError names what is unknown or makes no sense.
    """
    where = f"--spr_recipe_config {config.spr_recipe_config}: {config.spr_recipe}"
    return settings(**_read(recipe_settings(config)[1], kinds_of(settings), where))


SPR_KINDS = {name: KINDS[f"spr_{name}"] for name in SPR_FLAGS}


def _read(section: dict, kinds: dict[str, Kind], where: str) -> dict:
    """A section's values by their kinds, checked like flags."""
    if unknown := sorted(map(str, section.keys() - kinds.keys())):
        raise UserError(f"{where}: {', '.join(unknown)} is no setting; it takes {', '.join(sorted(kinds))}")
    values = {name: kinds[name].read(value, f"{where}: {name}") for name, value in section.items()}
    for name, value in values.items():
        kinds[name].check(value, f"{where}: {name}")
    return values


def shaping(config: SPRConfig) -> dict[str, dict]:
    """Stage → flag → value of what shapes its records, in the order of the stages."""
    values = {f: getattr(config, f.name) for f in dataclasses.fields(config)}
    files = {"spr_dpo_config": dpo_settings(config)[1], "spr_recipe_config": recipe_settings(config)[1]}
    values |= {f: files[f.name] for f in values if f.name in files}
    return {
        stage: {f.name: value for f, value in values.items() if f.metadata["shapes"] == stage}
        for stage in STAGES
    }


def check(config: SPRConfig) -> None:
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
    if "sft" in weighed(config.spr_pairing) and len(config.spr_pairing) > 1:
        raise UserError(
            f"--spr_pairing {' '.join(config.spr_pairing)}: sft is a way to train on all pairs, and cannot be"
            " mixed; take it alone"
        )
    weights = {"words": 1.0, "coordinates": 1.0, "changed": 1.0, "unchanged": 1.0} | config.token_weights()
    if not max(weights["words"], weights["coordinates"]) * max(weights["changed"], weights["unchanged"]):
        raise UserError(
            f"--spr_token_weight {' '.join(config.spr_token_weight)}: no token would count at all"
        )
    if config.spr_dpop_lambda != 50.0 and "dpop" not in config.spr_loss_type:
        raise UserError("--spr_dpop_lambda does nothing without --spr_loss_type dpop")
    if set(config.spr_loss_type) == {"kl_words"}:
        raise UserError(
            "--spr_loss_type kl_words: alone it only keeps the model as it is; name what is to be learned too"
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
