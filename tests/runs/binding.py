"""Folders of runs: what a command does to one before it trains, and a whole one."""

from spr_plugin.files import write_json
from spr_plugin.runs.layout import PARTS_OF, Folder
from spr_plugin.runs.manifest import bind, changes, check_layout, took

SEED, OTHER_SEED = {"queries": {"spr_seed": 0}}, {"queries": {"spr_seed": 1}}


def bound(folder, settings=SEED, overwrite=False, restart=frozenset(), stays=frozenset()):
    """What a command does to ``folder`` before it trains."""
    folder = Folder(folder)
    if not overwrite:
        check_layout(folder)
    bind(folder, settings, changes(folder, {} if overwrite else settings, restart, stays), overwrite)


SETTINGS = {
    "queries": {"spr_seed": 0, "data_path": {"path": "a.json", "hash": "x"}},
    "candidates": {"spr_top_p": 1.0},
    "scores": {"spr_lambda": 0.8},
    "pairs": {"spr_min_gap": 0.0},
    "dpo": {"spr_beta": 0.5},
}


def whole_run(path) -> dict[str, set]:
    """A finished run; stage → its parts."""
    bound(path, SETTINGS)
    folder = Folder(path)
    for stage in ("queries", "batches", "candidates", "scores", "pairs", "lengths", "reference"):
        log = folder.log(stage)
        log.append({"id": stage})
        log.close()
    for weights in (folder.entry, folder.policy, folder.dpo, folder.bad_pairs):
        write_json(weights / "index.json", {})
    write_json(folder.exit, {})
    bound(folder.round(2).path, SETTINGS)
    took(folder, "candidates", 7200.0)
    return {stage: {folder.path / part for part in parts} for stage, parts in PARTS_OF.items()}


def tree(folder) -> list[str]:
    """What is in ``folder`` beside a lock and the manifests of a run that has made nothing yet."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != "lock"}
    return sorted(
        names - ({"queries", "queries/manifest.json"} if "queries/rank-00000.jsonl" not in names else set())
    )
