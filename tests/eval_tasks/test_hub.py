"""Benchmarks from the hub: rows become documents, and anything but the published split is refused."""

import io

import datasets
import pytest
from PIL import Image

from spr_plugin.errors import UserError
from spr_plugin.eval_tasks import data, hub, rec
from spr_plugin.eval_tasks.catalogue import CATALOGUE, SPLITS, Hub, Split

VAL = CATALOGUE["spr_refcoco_val"]
HUB = Split("spr_refcoco_val", "rec", "refcoco", "val", 3, Hub("nobody/nothing", "val", 2))


def source(task="spr_refcoco_val"):
    """The one-record data set that lmms-eval hands over, named by its split."""
    return datasets.Dataset.from_dict({"documents": ["…"]}, split=CATALOGUE[task].key)


def hub_rows(answers):
    """Rows in the hub's layout, one for each list of expressions."""
    rows = []
    for number, expressions in enumerate(answers):
        buffer = io.BytesIO()
        Image.new("RGB", (64 + number, 48), (number, 0, 0)).save(buffer, "PNG")
        rows.append(
            {
                "question_id": str(500 + number),
                "image": {"bytes": buffer.getvalue(), "path": None},
                "question": "Provide the bounding box",
                "answer": expressions,
                "segmentation": [1.0, 2.0],
                "bbox": [10.5, 20.0, 30.0, 8.25],
                "iscrowd": 0,
                "file_name": f"COCO_train2014_{number}.jpg",
            }
        )
    return datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())


def test_unreachable_hub_is_one_line(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(data.datasets, "load_dataset", unreachable)
    with pytest.raises(UserError, match="hub data set nobody/nothing, split val: .*set SPR_DATA_ROOT"):
        hub.read_hub(HUB)


def unreachable(*_, **__):
    raise ConnectionError("no network")


def test_hub_rows_are_exploded():
    documents = hub.explode(hub_rows([["a", "b"], ["c"]]))
    assert documents["id"] == ["500-0", "500-1", "501-0"] and documents["expression"] == ["a", "b", "c"]
    assert documents["bbox"] == [[10.5, 20.0, 40.5, 28.25]] * 3
    assert (documents["width"], documents["height"]) == ([64, 64, 65], [48, 48, 48])
    assert [data.doc_to_visual({**doc, "image_id": ""})[0].size[0] for doc in documents] == [64, 64, 65]
    assert documents["image_id"] == ["COCO_train2014_0.jpg"] * 2 + ["COCO_train2014_1.jpg"]
    # So that lmms-eval leaves it out where no picture is needed.
    assert isinstance(documents.features["image"], datasets.Image)


def test_hub_documents_have_the_columns_of_local_ones(data_root):
    assert set(hub.explode(hub_rows([["a"]])).column_names) == set(
        data.read_folder(str(data_root), VAL).column_names
    )


def test_hub_documents_can_be_used(monkeypatch):
    monkeypatch.setattr(
        data.datasets, "load_dataset", lambda name, split: hub_rows([["a", "b"], ["c"], ["google"]])
    )
    monkeypatch.delenv("SPR_DATA_ROOT", raising=False)
    monkeypatch.setenv("SPR_BOX_FORMAT", "ferret")
    monkeypatch.setitem(data.CATALOGUE, "spr_refcoco_val", HUB)
    documents = data.load_documents(source())
    assert documents["expression"] == ["a", "b", "c"]  # the rows after the published split are left out
    assert data.doc_to_visual(documents[2])[0].size == (65, 48)
    assert (
        rec.process_results(documents.remove_columns("image")[0], ["[164, 416, 632, 588]"])["Acc@0.9"][
            "score"
        ]
        == 1.0
    )


@pytest.mark.parametrize("answers", [[["a", "b"], ["c", "d"], ["e"]], [["a", "b"]], [["a"], ["b"], ["c"]]])
def test_anything_but_the_published_split_is_refused(answers):
    with pytest.raises(UserError, match="first 2 rows should hold 3 expressions"):
        hub.published_rows(hub_rows(answers), 2, 3, "hub data set x")


def test_the_published_sizes_are_stated():
    published = {"val": (3811, 10834), "testA": (1975, 5657), "testB": (1810, 5095)}
    plus = {"val": (3805, 10758), "testA": (1975, 5726), "testB": (1798, 4889)}
    umd = {"val": (2573, 4896), "test": (5023, 9602)}
    for folder, sizes in (("refcoco", published), ("refcoco+", plus), ("refcocog", umd)):
        found = {s.split: (s.hub.rows, s.published) for s in SPLITS if s.folder == folder and s.hub}
        assert found == sizes


@pytest.mark.parametrize("outside", [True, False])
def test_a_hub_row_names_no_file_outside_its_cache(tmp_path, monkeypatch, outside):
    monkeypatch.setattr(data.datasets.config, "HF_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(data.datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache/datasets"))
    path = tmp_path / ("a.jpg" if outside else "cache/hub/a.jpg")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (120, 80)).save(path)
    rows = hub_rows([["a", "b"], ["c"]]).cast_column("image", datasets.Image(decode=False)).to_list()
    rows[1]["image"] = {"bytes": None, "path": str(path)}
    rows = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    monkeypatch.setattr(data.datasets, "load_dataset", lambda name, split: rows)
    if outside:
        with pytest.raises(
            UserError, match="nobody/nothing, split val: picture .*a.jpg lies outside the hub's cache"
        ):
            hub.read_hub(HUB)
    else:
        assert data.doc_to_visual(hub.read_hub(HUB)[2])[0].size == (120, 80)


def test_a_normalized_box_of_a_hub_row_is_refused_by_id():
    rows = [
        {**row, "bbox": [0.1, 0.2, 0.3, 0.4]}
        for row in hub_rows([["a"]]).cast_column("image", datasets.Image(decode=False))
    ]
    with pytest.raises(UserError, match="question 500: bbox .* covers less than a pixel"):
        hub.explode(datasets.Dataset.from_list(rows))
