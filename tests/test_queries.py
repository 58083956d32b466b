"""The flags of the annotation source, through the stage that writes the queries."""

import json
from types import SimpleNamespace

import pytest
from PIL import Image

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


@pytest.fixture
def source(tmp_path):
    """Three pictures of 7, 6 and 5 objects, one of them a crowd and one small."""
    names, rows = ["000000000009.jpg", "000000000010.jpg", "c.jpg"], []
    for number, name in enumerate(names):
        Image.new("RGB", (200, 100)).save(tmp_path / name)
        for index in range(7 - number):
            side = 4 if index == 4 else 20
            rows.append(
                {
                    "id": len(rows),
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [28 * index, 30, side, side],
                    "iscrowd": int(index == 3),
                }
            )
    images = [{"id": n, "file_name": name, "width": 200, "height": 100} for n, name in enumerate(names)]
    (tmp_path / "coco.json").write_text(
        json.dumps({"images": images, "annotations": rows, "categories": [{"id": 1, "name": "cup"}]})
    )
    (tmp_path / "val.txt").write_text("COCO_train2014_000000000009.jpg\n")
    return tmp_path


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


def test_without_a_data_file_to_mine_annotations_are_asked_for(source, write_queries):
    """A plugin's host may have none."""
    with pytest.raises(UserError, match="^--spr_annotations: name .* no LLaVA --data_path"):
        write_queries(Folder(source / "spr"), SPRConfig(spr=True), llava(), None, str(source))


@pytest.mark.parametrize(
    ("flags", "objects", "counts"),
    [
        ({}, {"0": 6, "1": 5, "2": 4}, {"crowd": 3}),
        ({"spr_keep_crowd": True}, {"0": 7, "1": 6, "2": 5}, {}),
        ({"spr_min_area": 100}, {"0": 5, "1": 4}, {"crowd": 3, "small": 3, "too_few_objects": 1}),
        ({"spr_min_objects": 5}, {"0": 6, "1": 5}, {"crowd": 3, "few_objects": 1}),
        ({"spr_exclude": ["val.txt"]}, {"1": 5, "2": 4}, {"crowd": 3, "excluded": 1}),
    ],
)
def test_each_flag_changes_what_it_names(source, flags, objects, counts, regions):
    flags = {
        name: [str(source / file) for file in value] if name == "spr_exclude" else value
        for name, value in flags.items()
    }
    assert regions(spr_annotations=str(source / "coco.json"), **flags) == (objects, counts)


def test_pictures_of_coco_are_spoken_of_unless_some_are_excluded(source, capfd, regions):
    regions(spr_annotations=str(source / "coco.json"))
    assert "--spr_exclude" in capfd.readouterr().err


def test_a_roboflow_export_of_an_excluded_picture_is_left_out(source, regions):
    (source / "000000000009.jpg").rename(source / "COCO_train2014_000000000009_jpg.rf.0f3a9c12ab.jpg")
    content = (
        (source / "coco.json")
        .read_text()
        .replace("000000000009.jpg", "COCO_train2014_000000000009_jpg.rf.0f3a9c12ab.jpg")
    )
    (source / "coco.json").write_text(content)
    queries, counts = regions(
        spr_annotations=str(source / "coco.json"), spr_exclude=[str(source / "val.txt")]
    )
    assert set(queries) == {"1", "2"} and counts["excluded"] == 1


def test_exclusions_that_match_nothing_and_regions_that_are_not_there_are_said(source, capfd, regions):
    (source / "other.txt").write_text("000000000077.jpg\n78\n")
    exclude = [str(source / "val.txt"), str(source / "other.txt")]
    regions(spr_annotations=str(source / "coco.json"), spr_exclude=exclude, spr_regions=3)
    err = capfd.readouterr().err
    assert f"--spr_exclude {source}/other.txt: none of the 2 pictures" in err and "val.txt: none" not in err
    assert "2 regions are made of the 3 asked for: the pictures give no more (crowd 3, excluded 1)" in err
    regions(into="all", spr_annotations=str(source / "coco.json"), spr_regions=3)
    assert "asked for" not in capfd.readouterr().err


def test_a_picture_whose_name_has_two_numbers_is_left_out_and_named(source, capfd, regions):
    twice = "000000000123_000000000009.jpg"
    (source / "000000000009.jpg").rename(source / twice)
    (source / "coco.json").write_text((source / "coco.json").read_text().replace("000000000009.jpg", twice))
    queries, counts = regions(
        spr_annotations=str(source / "coco.json"), spr_exclude=[str(source / "val.txt")]
    )
    assert set(queries) == {"1", "2"} and counts["excluded"] == 1
    err = capfd.readouterr().err
    assert (
        f"1 pictures with several numbers in their names, such as {source}/{twice}, are left out for one of"
        " them" in err
    )


def grounded(source, width=9):
    """A --data_path with 24 boxes of this width on one picture."""
    from spr_plugin.boxes import Box, Space

    rows = []
    for index in range(24):
        box = Box(8 * index, 10 + 2 * index, 8 * index + width, 40 + 2 * index, Space.pixels(200, 100))
        question = (
            f"Please provide the bounding box coordinate of the region this sentence describes: cup {index}."
        )
        rows.append({"from": "human", "value": question})
        rows.append({"from": "gpt", "value": llava("pad").write(box)})
    (source / "data.json").write_text(json.dumps([{"id": 1, "image": "c.jpg", "conversations": rows}]))


def test_the_aspect_of_the_data_is_not_the_host_s(source, regions):
    """LLaVA's own data counts padding whatever --image_aspect_ratio the model is trained with."""
    grounded(source)
    with pytest.raises(UserError, match="--spr_data_aspect pad"):
        regions(aspect="square")
    queries, _ = regions(aspect="square", spr_data_aspect="pad")
    assert queries == {"c.jpg": 24}


@pytest.mark.parametrize("aspect", ["sqare", "PAD", "padded_square", ""])
def test_an_aspect_of_the_data_that_nobody_knows_is_refused(source, aspect, regions):
    """Boxes were read as 0-1 of the picture for any word but pad."""
    grounded(source)
    with pytest.raises(UserError, match=f"^--spr_data_aspect {aspect}: llava knows no aspect '{aspect}'"):
        regions(spr_data_aspect=aspect)


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
