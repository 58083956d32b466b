"""Queries as they are written and read again, and answers of an earlier run to the same ones."""

from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.files import read_json
from spr_plugin.formats import llava
from spr_plugin.opening import queries_of, refuse_impossible
from spr_plugin.recipes.find import find_recipe
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.log import Log
from spr_plugin.runs.manifest import Changes, bind, settings_of
from spr_plugin.sampling.alone import import_candidates
from tests.recipes.spr.annotated import grounded, three_pictures


@pytest.fixture
def source(tmp_path):
    return three_pictures(tmp_path)


@pytest.fixture
def regions(source, write_queries):
    """``regions(**flags)`` → picture id → number of objects in the pictures that regions were made of, and
    the counts.
    """

    def made(aspect="pad", into="spr", **flags):
        folder, form = Folder(source / into), llava(aspect)
        config = SPRConfig(spr=True, spr_more_than=3, **flags)
        write_queries(folder, config, form, str(source / "data.json"), str(source))
        recipe = find_recipe(config, form)
        queries = queries_of(SimpleNamespace(folder=folder, config=config, recipe=recipe))
        if config.spr_candidates:
            import_candidates(config, recipe, form, folder)
        return {query.image.id: len(query.image.annotations) for query in queries}, read_json(folder.skipped)

    return made


def test_queries_that_were_damaged_since_they_were_written_are_a_line(source, write_queries):
    folder, form = Folder(source / "spr"), llava()
    config = SPRConfig(spr=True, spr_annotations=str(source / "coco.json"), spr_image_folder=str(source))
    write_queries(folder, config, form)
    path, entered = folder.log("queries").path, SimpleNamespace(folder=folder, config=config)
    entered.recipe = find_recipe(config, form)
    assert queries_of(entered)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="queries was damaged .* run the same command again"):
        queries_of(entered)


def test_pictures_of_coco_are_spoken_of_unless_some_are_excluded(source, capfd, regions):
    regions(spr_annotations=str(source / "coco.json"))
    assert "--spr_exclude" in capfd.readouterr().err


def bound(folder, config):
    """What a run leaves before it samples."""
    bind(folder, settings_of(config, llava().describe()), Changes({}, ()))


def test_variants_of_scoring_use_the_answers_of_an_earlier_run(source, tmp_path, write_queries):
    """Other flags of scoring, pairing and DPO do not matter; the host's own folder of pictures may have been
    used.
    """
    flags = {
        "spr": True,
        "spr_annotations": str(source / "coco.json"),
        "spr_prompts": ["plain"],
        "spr_more_than": 1,
    }
    config, first = SPRConfig(**flags), Folder(tmp_path / "first" / "spr")
    bound(first, config)
    write_queries(first, config, llava(), None, str(source))
    ids = [
        f"{region}{index}" for region in first.log("queries").read() for index in range(config.spr_samples)
    ]
    first.log("candidates").append(*({"id": id, "text": "a dog"} for id in ids))
    variant = SPRConfig(
        **flags,
        spr_lambda=0.5,
        spr_pairing=["random"],
        spr_repair="none",
        spr_beta=0.3,
        spr_candidates=str(first),
    )
    second = Folder(tmp_path / "second")
    write_queries(second, variant, llava(), None, str(source))
    import_candidates(variant, find_recipe(variant, llava()), llava(), second)
    assert ids and set(second.log("candidates").read()) == set(ids)


def test_answers_to_other_mined_boxes_are_not_taken_up(source, regions):
    """The --data_path may lie elsewhere, but must hold the same boxes."""
    grounded(source)
    flags = {"spr_prompts": ["plain"]}
    regions(into="first", **flags)
    first = source / "first"
    bound(Folder(first), SPRConfig(spr=True, spr_more_than=3, **flags))
    ids = [
        f"{region}{index}"
        for region in Log(first / "queries").read()
        for index in range(SPRConfig().spr_samples)
    ]
    Log(first / "candidates").append(*({"id": id, "text": "a dog"} for id in ids))
    regions(into="same", spr_candidates=str(first), **flags)
    assert ids and set(Log(source / "same" / "candidates").read()) == set(ids)
    grounded(source, width=11)
    with pytest.raises(UserError, match="differ in 1 of 1 queries: .*--data_path"):
        regions(into="other", spr_candidates=str(first), **flags)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"fsdp": True}, "--fsdp"),
        ({"fsdp": "full_shard auto_wrap"}, "--fsdp"),
        ({"n_gpu": 2}, "2 GPUs"),
        ({"tune_mm_mlp_adapter": True}, "--tune_mm_mlp_adapter"),
    ],
)
def test_settings_under_which_the_stage_cannot_run_are_refused_by_name(flags, words):
    with pytest.raises(UserError, match=words):
        refuse_impossible(SimpleNamespace(args=SimpleNamespace(**flags)))
