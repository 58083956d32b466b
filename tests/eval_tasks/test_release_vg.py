"""Visual Genome: a region a record."""

import json

import pytest

from spr_plugin.errors import UserError
from spr_plugin.eval_tasks import releases
from tests.eval_tasks.releasing import BROKEN, documents, picture


def test_visual_genome(tmp_path, capsys):
    region = {
        "region_id": 3,
        "image_id": 1,
        "x": -5,
        "y": 10,
        "width": 30,
        "height": 20,
        "phrase": " red cat ",
    }
    far, thin, mute = (
        {**region, "region_id": id, **more}
        for id, more in ((4, {"x": -904}), (5, {"height": 0}), (6, {"phrase": " "}))
    )
    (tmp_path / "region_descriptions.json").write_text(
        json.dumps(
            [
                {"id": 1, "regions": [region, far, thin, mute]},
                {"id": 2, "regions": [{**region, "image_id": 2}]},
            ]
        )
    )
    (tmp_path / "image_data.json").write_text(
        json.dumps([{"image_id": n, "width": 100, "height": 80, "url": ""} for n in (1, 2)])
    )
    (tmp_path / "densecap_splits.json").write_text(json.dumps({"train": [2], "val": [], "test": [1]}))
    picture(tmp_path / "VG_100K_2/1.jpg")
    releases.convert("vg", str(tmp_path), str(tmp_path / "root"))
    (document,) = documents(tmp_path / "root", "spr_region_caption_vg")
    assert (document["id"], document["references"], document["bbox"]) == (
        "3",
        ["red cat"],
        [0.0, 10.0, 25.0, 30.0],
    )
    said = "".join(capsys.readouterr())
    assert (
        "outside 1, too_small 1, no_phrase 1" in said
        and "region_descriptions.json: 5 regions; the published file has 5408689" in said
    )


@pytest.mark.parametrize("number", BROKEN)
def test_no_region_of_visual_genome_may_have_one(tmp_path, number):
    region = {
        "region_id": 3,
        "image_id": 1,
        "x": 5,
        "y": 10,
        "width": number,
        "height": 20,
        "phrase": "red cat",
    }
    (tmp_path / "region_descriptions.json").write_text(json.dumps([{"id": 1, "regions": [region]}]))
    (tmp_path / "image_data.json").write_text(json.dumps([{"image_id": 1, "width": 100, "height": 80}]))
    with pytest.raises(UserError, match="^Visual Genome region 3: the box .* not finite"):
        releases.convert("vg", str(tmp_path), str(tmp_path / "root"))
