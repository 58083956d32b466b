"""``spr sample``: regions and their candidates from a server, on a machine that holds no trainer; ``--spr_candidates`` takes them up."""

from __future__ import annotations

from pathlib import Path

from spr_plugin.config import SPRConfig, fingerprint
from spr_plugin.errors import UserError
from spr_plugin.regions import RegionQuery
from spr_plugin.store import Log, check_manifest, lock, read_manifest

# What shapes regions and prompts: a training run that takes candidates up must agree on it.
SHARED = """spr_min_objects spr_min_area spr_keep_crowd spr_regions spr_regions_per_image spr_more_than spr_seed spr_prompts
    spr_samples""".split()  # fmt: skip
FLAGS = [*SHARED, *"""spr_annotations spr_exclude spr_image_folder spr_box_format spr_temperature spr_top_p spr_top_k spr_max_new_tokens spr_sample_batch
    spr_sampler_url spr_sampler_model spr_sampler_concurrency spr_sampler_timeout
    spr_max_empty""".split()]  # fmt: skip


def sample_alone(directory: str, config: SPRConfig, box_format) -> int:
    """Fill ``directory`` with regions and candidates; the same call goes on after any interruption. The number of candidates."""
    from spr_plugin.pipeline import write_regions
    from spr_plugin.sampling import sample

    folder = Path(directory)
    lock(folder, "take another --out")
    known = {name: value for name, value in fingerprint(config).items() if name in FLAGS}
    bound, inputs = {**known, "box": box_format.describe()}, {"spr_annotations": config.spr_annotations}
    check_manifest(folder, bound, False, inputs, may_change=still_open(folder), mend="take another --out")
    write_regions(folder, config, box_format, None, None)
    queries = [RegionQuery.from_json(record) for record in Log(folder / "regions").read().values()]
    sample(None, queries, box_format, config, Log(folder / "candidates"), Log(folder / "batches"))
    return len(Log(folder / "candidates").read())


def still_open(directory: Path) -> frozenset[str]:
    """Flags that another start may set otherwise: a server that lists no models asks for a name, before anything was answered."""
    return frozenset() if any((directory / "candidates").glob("rank-*")) else frozenset({"spr_sampler_model"})


def adopt(config: SPRConfig, box_format, directory: Path) -> None:
    """Take the candidates of ``--spr_candidates`` as those of ``directory``, whose regions are written already; a second call does nothing.

    Raises:
        UserError: they are not whole, or answer other regions: other flags, boxes, annotations or pictures.
    """
    source, log = Path(config.spr_candidates), Log(directory / "candidates")
    regions = Log(directory / "regions").read()
    wanted = len(regions) * len(config.spr_prompts) * config.spr_samples
    if len(log.read()) == wanted:
        return
    manifest = read_manifest(source)
    if manifest is None:
        raise UserError(f"--spr_candidates {source}: no manifest.json there; give a folder of `spr sample`, or OUTPUT_DIR/spr of a run")
    theirs, ours = manifest["config"], {**fingerprint(config), "box": box_format.describe()}
    changed = [f"{name} was {theirs[name]}, is {ours[name]}" for name in [*SHARED, "box"] if theirs[name] != ours[name]]
    if changed:
        raise UserError(f"--spr_candidates {source} was sampled otherwise ({', '.join(changed)}); give the same flags")
    # A region's id is a hash of its picture, box and objects: equal ids, equal questions, whatever paths the files have here.
    answered = Log(source / "regions").read()
    if others := max(len(answered.keys() - regions.keys()), len(regions.keys() - answered.keys())):
        raise UserError(
            f"--spr_candidates {source} and this run differ in {others} of {len(regions)} regions: give both the same annotations or --data_path, "
            "--spr_exclude and pictures"
        )
    candidates = Log(source / "candidates").read()
    if len(candidates) != wanted:
        raise UserError(f"--spr_candidates {source} holds {len(candidates)} of {wanted} candidates; let that run sample to its end first")
    log.write(candidates.values())
