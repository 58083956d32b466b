"""``spr sample``: regions and their candidates from a server, on a machine that holds no trainer; ``--spr_candidates`` takes them up."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path

from spr_plugin.config import SPRConfig, fingerprint
from spr_plugin.errors import UserError
from spr_plugin.outputs import refuse_unwritable
from spr_plugin.pictures import limit_pixels
from spr_plugin.region_source import find_regions, held_regions, log_regions
from spr_plugin.regions import RegionQuery
from spr_plugin.store import Log, check_manifest, lock, read_manifest

# What shapes regions and prompts: a training run that takes candidates up must agree on it.
SHARED = """spr_min_objects spr_min_area spr_keep_crowd spr_regions spr_regions_per_image spr_more_than spr_seed spr_prompts
    spr_samples""".split()  # fmt: skip
FLAGS = [*SHARED, *"""spr_plugin spr_annotations spr_exclude spr_image_folder spr_allow_outside spr_max_pixels
    spr_box_format spr_temperature spr_top_p spr_top_k spr_max_new_tokens spr_sample_batch
    spr_sampler_url spr_sampler_model spr_sampler_concurrency spr_sampler_timeout
    spr_max_empty""".split()]  # fmt: skip


def sample_alone(directory: str, config: SPRConfig, box_format) -> int:
    """Fill ``directory`` with regions and candidates; the same call goes on after any interruption. The number of candidates."""
    from spr_plugin.sampling import sample

    folder = Path(directory)
    refuse_unwritable({"--out": directory}, folders=True)
    limit_pixels(config.spr_max_pixels)
    queries, skipped = find_regions(folder, config, box_format, None, None)
    check_candidates(config, box_format, queries, folder if skipped is None else None)
    lock(folder, "--out")
    known = {name: value for name, value in fingerprint(config).items() if name in FLAGS}
    inputs = {"spr_annotations": config.spr_annotations}
    check_manifest(folder, {**known, "box": box_format.describe()}, False, inputs, folder_flag="--out")
    if skipped is not None:
        log_regions(folder, queries, skipped)
    sample(
        None, held_regions(folder), box_format, config, Log(folder / "candidates"), Log(folder / "batches")
    )
    return len(Log(folder / "candidates").read())


def wanted_of(config: SPRConfig, regions: int) -> int:
    """How many candidates so many regions have."""
    return regions * len(config.spr_prompts) * config.spr_samples


def check_candidates(
    config: SPRConfig, box_format, queries: list[RegionQuery], directory: Path | None
) -> None:
    """UserError where those that ``directory`` lacks could not come: ``--spr_candidates`` does not fit, or
    the server does not answer.

    Args:
        directory: of the run, None where it holds nothing yet.
    """
    if not config.spr_candidates and config.spr_sampler != "openai":
        return
    if directory and len(Log(directory / "candidates").read()) == wanted_of(config, len(queries)):
        return
    if config.spr_candidates:
        candidates_of(config, box_format, {query.id for query in queries})
    else:
        from spr_plugin.server import Server

        Server(config)


def adopt(config: SPRConfig, box_format, directory: Path) -> None:
    """Take the candidates of ``--spr_candidates`` as those of ``directory``, whose regions are written already; a second call does nothing.
    UserError as :func:`candidates_of`."""
    log, regions = Log(directory / "candidates"), Log(directory / "regions").read()
    if len(log.read()) != wanted_of(config, len(regions)):
        log.write(candidates_of(config, box_format, regions.keys()).values())


def candidates_of(config: SPRConfig, box_format, regions: Set[str]) -> Mapping[str, dict]:
    """The candidates of ``--spr_candidates`` for the regions of these ids.

    Raises:
        UserError: they are not whole, or answer other regions: other flags, boxes, annotations or pictures.
    """
    source, wanted = Path(config.spr_candidates), wanted_of(config, len(regions))
    manifest = read_manifest(source)
    if manifest is None:
        raise UserError(f"--spr_candidates {source}: no manifest.json there; give a folder of `spr sample`, or OUTPUT_DIR/spr of a run")
    theirs, ours = manifest["config"], {**fingerprint(config), "box": box_format.describe()}
    changed = [f"{name} was {theirs[name]}, is {ours[name]}" for name in [*SHARED, "box"] if theirs[name] != ours[name]]
    if changed:
        raise UserError(f"--spr_candidates {source} was sampled otherwise ({', '.join(changed)}); give the same flags")
    # A region's id is a hash of its picture, box and objects: equal ids, equal questions, whatever paths the files have here.
    answered = Log(source / "regions").read()
    if others := max(len(answered.keys() - regions), len(regions - answered.keys())):
        raise UserError(
            f"--spr_candidates {source} and this run differ in {others} of {len(regions)} regions: give both the same annotations or --data_path, "
            "--spr_exclude and pictures"
        )
    candidates = Log(source / "candidates").read()
    if len(candidates) != wanted:
        raise UserError(f"--spr_candidates {source} holds {len(candidates)} of {wanted} candidates; let that run sample to its end first")
    return candidates
