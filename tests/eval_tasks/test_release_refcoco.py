"""RefCOCO of refer's tree and of MDETR's files."""

import json
import os
import pickle

import pytest
from click.testing import CliRunner

from spr_plugin.cli import commands
from spr_plugin.errors import UserError
from spr_plugin.eval_tasks import data, release_refcoco, releases
from tests.eval_tasks.releasing import BROKEN, documents, picture, refer_tree


@pytest.mark.parametrize("embed", [False, True])
def test_refers_tree(tmp_path, capsys, embed):
    refer_tree(tmp_path / "refer")
    command = [
        "data",
        "refcoco",
        "--from",
        str(tmp_path / "refer"),
        "--to",
        str(tmp_path / "root"),
        *(["--embed"] if embed else []),
    ]
    done = CliRunner().invoke(commands, command)
    assert done.exit_code == 0, done.exception
    val = documents(tmp_path / "root", "spr_refcoco_val")
    assert val["id"] == ["0", "1", "10", "11"] and val["expression"][0] == "cat 0 0 café"
    assert val["bbox"][0] == [10.5, 20.0, 40.5, 80.0]  # 20 + 65 is cut at the picture's edge
    assert (
        data.doc_to_visual(val[0])[0].size == (100, 80)
        and val["image_id"][0] == "COCO_train2014_000000000001.jpg"
    )
    refs = documents(tmp_path / "root", "spr_region_caption_refcocog")
    assert refs["id"] == ["50", "51"] and refs["references"][1] == ["cat 1 0 café", "cat 1 1 café"]
    assert (
        "refcoco/val: 4 expressions; the published split has 10834" in capsys.readouterr().err + done.output
    )


def test_mdetrs_layout(tmp_path):
    image = {
        "id": 7,
        "original_id": 1,
        "file_name": "COCO_train2014_1.jpg",
        "width": 100,
        "height": 80,
        "caption": "red cat",
        "dataset_name": "refcoco",
    }
    picture(tmp_path / releases.REC_PICTURES / "COCO_train2014_1.jpg")
    content = {
        "images": [image],
        "annotations": [{"id": 1, "image_id": 7, "bbox": [1, 2, 30, 40]}],
        "categories": [],
    }
    (tmp_path / "finetune_refcoco+_testB.json").write_text(json.dumps(content))
    releases.convert("refcoco", str(tmp_path), str(tmp_path / "root"))
    (document,) = documents(tmp_path / "root", "spr_refcocoplus_testB")
    assert (document["id"], document["expression"], document["bbox"]) == (
        "7",
        "red cat",
        [1.0, 2.0, 31.0, 42.0],
    )


def test_an_id_that_stands_for_two_things_is_refused(tmp_path):
    """The later one's box was taken for both."""
    refer_tree(tmp_path / "refer")
    file = tmp_path / "refer" / "refcoco" / "instances.json"
    instances = json.loads(file.read_text())
    instances["annotations"].append({**instances["annotations"][0], "bbox": [1, 2, 30, 40]})
    file.write_text(json.dumps(instances))
    with pytest.raises(UserError, match="instances.json: id 10 stands there twice"):
        releases.convert("refcoco", str(tmp_path / "refer"), str(tmp_path / "root"))
    image = {"id": 7, "file_name": "a.jpg", "width": 100, "height": 80, "caption": "red cat"}
    boxes = [{"id": n, "image_id": 7, "bbox": [n, 2, 30, 40]} for n in (1, 2)]
    (tmp_path / "finetune_refcoco_val.json").write_text(json.dumps({"images": [image], "annotations": boxes}))
    with pytest.raises(UserError, match="finetune_refcoco_val.json: id 7 stands there twice"):
        releases.convert("refcoco", str(tmp_path), str(tmp_path / "root"))


class Evil:
    def __reduce__(self):
        return os.getcwd, ()


@pytest.mark.parametrize(
    "content, words",
    [
        (pickle.dumps([Evil()]), "wants (posix|nt).getcwd"),
        (b"\x80", "not a pickle"),
        (pickle.dumps({"a": 1}), "not a list of refs"),
    ],
)
def test_a_pickle_runs_no_code(tmp_path, content, words):
    (tmp_path / "refs.p").write_bytes(content)
    with pytest.raises(UserError, match=words):
        release_refcoco.load_refs(tmp_path / "refs.p")


@pytest.mark.parametrize("number", BROKEN)
@pytest.mark.parametrize("place", [0, 3])
def test_a_box_of_numbers_that_are_none_is_refused_by_its_annotation(tmp_path, number, place):
    """An infinite one was clipped to the picture, and became the truth of a document."""
    source, target = tmp_path / "refer", tmp_path / "root"
    refer_tree(source)
    file = source / "refcoco" / "instances.json"
    instances = json.loads(file.read_text())
    instances["annotations"][1]["bbox"][place] = number
    file.write_text(json.dumps(instances))
    with pytest.raises(
        UserError, match=f"^{file}, annotation 11: the box .* holds a number that is not finite$"
    ):
        releases.convert("refcoco", str(source), str(target))
    assert not (target / "refcoco/val.parquet").exists()


def test_half_a_character_in_an_expression_is_written(tmp_path):
    refer_tree(tmp_path / "refer")
    for name, by in (("refcoco", "unc"), ("refcocog", "umd")):
        refs = release_refcoco.load_refs(tmp_path / "refer" / name / f"refs({by}).p")
        refs[0]["sentences"][0]["sent"] = "a cat \ud83d"
        (tmp_path / "refer" / name / f"refs({by}).p").write_bytes(pickle.dumps(refs, 2))
    releases.convert("refcoco", str(tmp_path / "refer"), str(tmp_path / "root"))
    assert "a cat \ufffd" in [doc["expression"] for doc in documents(tmp_path / "root", "spr_refcoco_val")]
