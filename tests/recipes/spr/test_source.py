"""The flags of the annotation source: which pictures and boxes regions are made of, and what is said of the
rest."""

import pytest

from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.formats import llava
from spr_plugin.recipes.base import Source
from spr_plugin.recipes.spr.source import draw_regions

from .annotated import grounded, three_pictures


@pytest.fixture
def source(tmp_path):
    return three_pictures(tmp_path)


@pytest.fixture
def regions(source):
    """``regions(**flags)`` → picture id → number of objects in the pictures that regions were made of, and
    the counts.
    """

    def made(aspect="pad", data="data.json", **flags):
        of = Source(data and str(source / data), str(source))
        queries = draw_regions(SPRConfig(spr=True, spr_more_than=3, **flags), llava(aspect), of)
        return {query.image.id: len(query.image.annotations) for query in queries}, dict(of.skipped)

    return made


def test_without_a_data_file_to_mine_annotations_are_asked_for(regions):
    """A plugin's host may have none."""
    with pytest.raises(UserError, match="^--spr_annotations: name .* no LLaVA --data_path"):
        regions(data=None)


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
    regions(spr_annotations=str(source / "coco.json"), spr_regions=3)
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


def test_a_file_that_nobody_reads_is_named(source, regions):
    (source / "boxes.xyz").write_text("none of ours")
    with pytest.raises(UserError, match="boxes.xyz has no .*--spr_annotations wants COCO JSON"):
        regions(spr_annotations=str(source / "boxes.xyz"))


def test_pictures_without_a_usable_region_are_a_line_that_says_why(source, regions):
    file = str(source / "coco.json")
    with pytest.raises(UserError, match=rf"^--spr_annotations {file} gives no usable region \(crowd 3, "):
        regions(spr_annotations=file, spr_min_objects=9)
