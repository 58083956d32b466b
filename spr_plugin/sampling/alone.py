"""``spr sample``: queries and their candidates from a server, on a machine that holds no trainer;
``--spr_candidates`` takes them up.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from spr_plugin import runs
from spr_plugin.config import SPRConfig
from spr_plugin.config.candidates import CandidatesFlags
from spr_plugin.data.pictures import limit_pixels
from spr_plugin.errors import UserError
from spr_plugin.outputs import refuse_unwritable
from spr_plugin.queries import log_queries, logged_queries, settled_queries, wanted_of
from spr_plugin.recipes.base import Query, Recipe, Source
from spr_plugin.recipes.find import find_recipe
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.lock import lock
from spr_plugin.runs.manifest import bind, check_layout, settings_of, took

# What shapes queries and prompts: a training run that takes candidates up must agree on it.
SHARED = """spr_min_objects spr_min_area spr_keep_crowd spr_regions spr_regions_per_image spr_more_than
    spr_seed spr_prompts spr_samples spr_recipe spr_recipe_config""".split()
FLAGS = [
    *SHARED,
    *"""spr_plugin spr_annotations spr_exclude spr_image_folder spr_allow_outside
    spr_max_pixels spr_box_format spr_temperature spr_greedy spr_top_p spr_top_k spr_max_new_tokens
    spr_sample_batch spr_sampler_url spr_sampler_model spr_sampler_concurrency spr_sampler_timeout
    spr_max_empty""".split(),
]


def sample_alone(directory: str, config: SPRConfig, box_format) -> int:
    """Fill ``directory`` with queries and candidates; the same call goes on after any interruption. The
    number of candidates.
    """
    from spr_plugin.sampling.stage import sample

    folder = Folder(directory)
    refuse_unwritable({"--out": directory}, folders=True)
    limit_pixels(config.spr_max_pixels)
    check_layout(folder, "--out")
    if folder.stage_manifest("scores").exists():
        raise UserError(
            f"--out {folder} is a training run's: its scores are of its own answers; take another folder"
        )
    asked = settings_of(config, box_format.describe())
    settings = {stage: asked[stage] for stage in ("queries", "candidates")}
    recipe = find_recipe(config, box_format)
    queries, skipped, changed = settled_queries(folder, settings, config, recipe, Source())
    check_candidates(config, recipe, box_format, queries, None if "candidates" in changed.again else folder)
    lock(folder.path, "--out")
    bind(folder, settings, changed)
    if skipped is not None:
        log_queries(folder, recipe, queries, skipped)
    start = time.monotonic()
    queries = logged_queries(folder, recipe)
    sample(
        None, queries, recipe, config.only(CandidatesFlags), folder.log("candidates"), folder.log("batches")
    )
    took(folder, "candidates", time.monotonic() - start)
    return len(folder.log("candidates").read())


def check_candidates(
    config: SPRConfig, recipe: Recipe, box_format, queries: Sequence[Query], folder: Folder | None
) -> None:
    """UserError where those that ``folder`` lacks could not come: ``--spr_candidates`` does not fit, or
    the server does not answer.

    Args:
        folder: the run's, None where it holds none that stay.
    """
    if not config.spr_candidates and config.spr_sampler != "openai":
        return
    if folder and len(folder.log("candidates").read()) >= wanted_of(recipe, queries, config.spr_samples):
        return
    if config.spr_candidates:
        candidates_of(config, recipe, box_format, queries)
    else:
        from spr_plugin.sampling.server import Server

        Server(config, folder.log("candidates").directory if folder else None)


def import_candidates(config: SPRConfig, recipe: Recipe, box_format, folder: Folder) -> None:
    """Take the candidates of ``--spr_candidates`` as those of ``folder``, whose queries are written already;
    a second call does nothing. UserError as :func:`candidates_of`.
    """
    log, queries = folder.log("candidates"), logged_queries(folder, recipe)
    if len(log.read()) < wanted_of(recipe, queries, config.spr_samples):
        log.write(candidates_of(config, recipe, box_format, queries).values())


def candidates_of(
    config: SPRConfig, recipe: Recipe, box_format, queries: Sequence[Query]
) -> Mapping[str, dict]:
    """The candidates of ``--spr_candidates`` for these queries.

    Raises:
        UserError: they are not whole, or answer other queries: other flags, boxes, annotations or pictures.
    """
    assert config.spr_candidates, "asked for only where it is given"
    wanted_ids = {query.id for query in queries}
    try:
        source, wanted = runs.open(config.spr_candidates), wanted_of(recipe, queries, config.spr_samples)
    except UserError as error:
        raise UserError(f"--spr_candidates {error}") from None
    asked = settings_of(config, box_format.describe())
    ours = {**asked["queries"], **asked["candidates"]}
    changed = [
        f"{name} was {source.config.get(name)}, is {ours[name]}"
        for name in [*SHARED, "box"]
        if source.config.get(name) != ours[name]
    ]
    if {*config.recipes()} != {"spr"}:  # its code shapes prompts and answers, wherever its file lies
        files = (one.get("spr_plugin") or {} for one in (source.config, ours))
        if len({file.get("hash") for file in files}) > 1:
            changed.append("--spr_plugin has another content")
    if changed:
        raise UserError(
            f"--spr_candidates {source.folder} was sampled otherwise ({', '.join(changed)}); give the same"
            " flags"
        )
    # A query's id is a hash of all that makes the question: equal ids, equal questions, whatever paths the
    # files have here.
    answered = source.records("queries")
    if others := max(len(answered.keys() - wanted_ids), len(wanted_ids - answered.keys())):
        raise UserError(
            f"--spr_candidates {source.folder} and this run differ in {others} of {len(wanted_ids)} queries:"
            " give both the same annotations or --data_path, --spr_exclude and pictures"
        )
    candidates = source.records("candidates")
    if len(candidates) < wanted:  # more, where the recipe had some queries asked again
        raise UserError(
            f"--spr_candidates {source.folder} holds {len(candidates)} of {wanted} candidates; let that run"
            " sample to its end first"
        )
    return candidates
