import io
import json
import os

import pytest
from PIL import Image

datasets = pytest.importorskip("datasets")

from spr_plugin.errors import UserError  # noqa: E402
from spr_plugin.eval_tasks import data, rec  # noqa: E402
from spr_plugin.eval_tasks.catalogue import CATALOGUE, SPLITS, Hub, Split  # noqa: E402
from spr_plugin.eval_tasks.refusal import Refusal  # noqa: E402

VAL = CATALOGUE["spr_refcoco_val"]


def test_folder_gives_a_document_an_expression(data_root):
    documents = data.read_folder(str(data_root), VAL)
    assert len(documents) == 6
    assert documents[0] == {
        "id": "val-0",
        "image": str(data_root / "pictures/val0.png"),
        "image_id": "pictures/val0.png",
        "width": 120,
        "height": 80,
        "expression": "red square 0",
        "bbox": [10.0, 20.0, 50.0, 70.0],
    }


def rewrite_first(root, **changes):
    file = root / "refcoco/val.jsonl"
    first, *rest = file.read_text().splitlines()
    record = {**json.loads(first), **changes}
    record = {key: value for key, value in record.items() if value is not None}
    file.write_text("\n".join([json.dumps(record), *rest]) + "\n")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"bbox": [10, 20, 5, 70]}, "line 1: bbox [10, 20, 5, 70] is not left, top, right, bottom"),
        ({"bbox": [10, 20, 5]}, "line 1: bbox"),
        ({"bbox": "x"}, "line 1: bbox 'x' is not left"),
        ({"bbox": [0, 0, float("nan"), 1]}, "line 1: bbox"),
        ({"width": 0}, "line 1: width and height must be numbers"),
        ({"width": "wide"}, "line 1: width and height must be numbers of pixels, not 'wide' and 80"),
        ({"expression": " "}, "line 1: expression ' ' is no text"),
        ({"expression": None}, "line 1: lacks expression"),
        ({"image": "pictures/gone.png"}, "id val-0: picture"),
        ({"id": "val-1"}, "refcoco/val: id val-1 stands there twice"),
    ],
)
def test_bad_record_is_named(data_root, changes, words):
    rewrite_first(data_root, **changes)
    with pytest.raises(UserError) as error:
        data.read_folder(str(data_root), VAL)
    assert words in str(error.value) and "val" in str(error.value)


@pytest.mark.parametrize("text, words", [("{", "line 1: not JSON"), ("[1]", "line 1: not a record but list"), ("\n\n", "has no record")])
def test_bad_file_is_named(data_root, text, words):
    (data_root / "refcoco/val.jsonl").write_text(text)
    with pytest.raises(UserError, match=words):
        data.read_folder(str(data_root), VAL)


def test_missing_root_and_split_are_named(data_root, tmp_path):
    with pytest.raises(UserError, match="SPR_DATA_ROOT=.*nowhere: no such folder"):
        data.read_folder(str(tmp_path / "nowhere"), VAL)
    (data_root / "refcoco/val.jsonl").unlink()
    with pytest.raises(UserError, match="must hold refcoco/val.jsonl"):
        data.read_folder(str(data_root), VAL)


def source(task="spr_refcoco_val"):
    """The one-record data set that lmms-eval hands over, named by its split."""
    return datasets.Dataset.from_dict({"documents": ["…"]}, split=CATALOGUE[task].key)


HUB = Split("spr_refcoco_val", "rec", "refcoco", "val", 3, Hub("nobody/nothing", "val", 2))


def test_load_documents_adds_the_box_format(data_root, monkeypatch):
    monkeypatch.setenv("SPR_BOX_FORMAT", "llava:pad")
    documents = data.load_documents(source())
    assert set(documents["box_format"]) == {"llava:pad"} and len(documents) == 6


def test_load_documents_refuses_in_one_line_and_is_not_retried(data_root, monkeypatch, capsys):
    monkeypatch.setenv("SPR_DATA_ROOT", str(data_root / "nowhere"))
    with pytest.raises(Refusal) as refusal:
        data.load_documents(source())
    assert refusal.value.code == 2 and not isinstance(refusal.value, Exception)
    line = capsys.readouterr().err
    assert line.startswith("spr: error: SPR_DATA_ROOT=") and line.count("\n") == 1


def test_unreachable_hub_is_one_line(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(data.datasets, "load_dataset", unreachable)
    with pytest.raises(UserError, match="hub data set nobody/nothing, split val: .*set SPR_DATA_ROOT"):
        data.read_hub(HUB)


def unreachable(*_, **__):
    raise ConnectionError("no network")


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


def test_hub_rows_are_exploded():
    documents = data.explode(hub_rows([["a", "b"], ["c"]]))
    assert documents["id"] == ["500-0", "500-1", "501-0"] and documents["expression"] == ["a", "b", "c"]
    assert documents["bbox"] == [[10.5, 20.0, 40.5, 28.25]] * 3
    assert (documents["width"], documents["height"]) == ([64, 64, 65], [48, 48, 48])
    assert [picture.size[0] for picture in documents["image"]] == [64, 64, 65]
    assert documents["image_id"] == ["COCO_train2014_0.jpg"] * 2 + ["COCO_train2014_1.jpg"]
    assert isinstance(documents.features["image"], datasets.Image)  # so that lmms-eval leaves it out where no picture is needed


def test_hub_documents_have_the_columns_of_local_ones(data_root):
    assert set(data.explode(hub_rows([["a"]])).column_names) == set(data.read_folder(str(data_root), VAL).column_names)


def test_hub_documents_can_be_used(monkeypatch):
    monkeypatch.setattr(data.datasets, "load_dataset", lambda name, split: hub_rows([["a", "b"], ["c"], ["google"]]))
    monkeypatch.delenv("SPR_DATA_ROOT", raising=False)
    monkeypatch.setenv("SPR_BOX_FORMAT", "ferret")
    monkeypatch.setitem(data.CATALOGUE, "spr_refcoco_val", HUB)
    documents = data.load_documents(source())
    assert documents["expression"] == ["a", "b", "c"]  # the rows after the published split are left out
    assert data.doc_to_visual(documents[2])[0].size == (65, 48)
    assert rec.process_results(documents.remove_columns("image")[0], ["[164, 416, 632, 588]"])["Acc@0.9"]["score"] == 1.0


@pytest.mark.parametrize("answers", [[["a", "b"], ["c", "d"], ["e"]], [["a", "b"]], [["a"], ["b"], ["c"]]])
def test_anything_but_the_published_split_is_refused(answers):
    with pytest.raises(UserError, match="first 2 rows should hold 3 expressions"):
        data.published_rows(hub_rows(answers), 2, 3, "hub data set x")


def test_the_published_sizes_are_stated():
    published = {"val": (3811, 10834), "testA": (1975, 5657), "testB": (1810, 5095)}
    plus = {"val": (3805, 10758), "testA": (1975, 5726), "testB": (1798, 4889)}
    umd = {"val": (2573, 4896), "test": (5023, 9602)}
    for folder, sizes in (("refcoco", published), ("refcoco+", plus), ("refcocog", umd)):
        found = {s.split: (s.hub.rows, s.published) for s in SPLITS if s.folder == folder and s.hub}
        assert found == sizes


def test_a_task_without_a_hub_says_how_to_get_its_data(monkeypatch, capsys):
    monkeypatch.delenv("SPR_DATA_ROOT", raising=False)
    with pytest.raises(Refusal):
        data.load_documents(source("spr_lvis_box"))
    assert "spr data" in capsys.readouterr().err


def as_parquet(root, embed):
    import pyarrow
    import pyarrow.parquet

    rows = [json.loads(line) for line in (root / "refcoco/val.jsonl").read_text().splitlines()]
    if embed:
        for row in rows:
            row.update(image_id=row["image"], image={"bytes": (root / row["image"]).read_bytes(), "path": None})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), root / "refcoco/val.parquet")


@pytest.mark.parametrize("embed", [False, True])
def test_parquet_gives_the_same_documents(data_root, embed):
    lines = data.read_folder(str(data_root), VAL)
    as_parquet(data_root, embed)
    (data_root / "refcoco/val.jsonl").unlink()
    rows = data.read_folder(str(data_root), VAL)
    assert rows.remove_columns("image").to_list() == lines.remove_columns("image").to_list()
    pictures = [data.doc_to_visual(found)[0].tobytes() for found in (rows[0], lines[0])]
    assert pictures[0] == pictures[1] and isinstance(rows.features["image"], datasets.Image) == embed


def test_broken_parquet_is_named(data_root):
    (data_root / "refcoco/val.parquet").write_bytes(b"no")
    with pytest.raises(UserError, match="val.parquet: not a Parquet file"):
        data.read_folder(str(data_root), VAL)


def test_splits_in_one_are_read_in_turn(data_root):
    documents = data.read_folder(str(data_root), CATALOGUE["spr_tiny_world_rec"])
    assert [id.split("-")[0] for id in documents["id"]] == ["val"] * 6 + ["testA"] * 3 + ["testB"] * 3


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 120 80\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize(
    "content, words",
    [(b"no picture", "does not open"), (EPS, "does not open"), (None, "is (50, 50), not (120, 80)")],
)
def test_picture_that_cannot_be_used_is_refused_in_one_line(tmp_path, capsys, content, words):
    path = tmp_path / "a.png"
    if content is None:
        Image.new("RGB", (50, 50)).save(path)
    else:
        path.write_bytes(content)
    with pytest.raises(Refusal) as refusal:
        data.doc_to_visual({"id": "7", "image_id": "a.png", "width": 120, "height": 80, "image": str(path)})
    assert refusal.value.code == 2 and words in refusal.value.message and "document 7" in refusal.value.message
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.timeout(20)
def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    doc = {"id": "7", "image_id": "a.png", "width": 120, "height": 80, "image": str(tmp_path / "a.png")}
    with pytest.raises(Refusal) as refusal:
        data.doc_to_visual(doc)
    assert "not a regular file" in refusal.value.message


def test_a_picture_of_descriptions_over_the_limit_is_no_smaller_set(all_data, tmp_path, monkeypatch):
    from spr_plugin import pictures

    monkeypatch.setattr(pictures, "_max_pixels", 1000)
    with pytest.raises(UserError, match="6 of its pictures are missing under .*images or do not open"):
        data.read_folder(str(all_data), CATALOGUE["spr_grounded_description_val"])


def test_truncated_jpeg_is_refused(tmp_path):
    path = tmp_path / "a.jpg"
    Image.effect_noise((120, 80), 50).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(Refusal, match="2"):
        data.doc_to_visual({"id": "7", "image_id": "a.jpg", "width": 120, "height": 80, "image": str(path)})


def test_grey_picture_becomes_rgb(tmp_path):
    Image.new("L", (120, 80)).save(tmp_path / "a.png")
    (picture,) = data.doc_to_visual({"id": "7", "image_id": "a.png", "width": 120, "height": 80, "image": str(tmp_path / "a.png")})
    assert picture.mode == "RGB" and picture.size == (120, 80)


def test_a_missing_picture_of_descriptions_is_no_smaller_set(all_data, tmp_path):
    import shutil

    shutil.copytree(all_data / "grounded_description", tmp_path / "grounded_description")
    split = CATALOGUE["spr_grounded_description_val"]
    assert len(data.read_folder(str(tmp_path), split)) == 6
    (tmp_path / "grounded_description/images/3.png").write_bytes(b"")
    with pytest.raises(UserError, match="1 of its pictures are missing under .*images or do not open"):
        data.read_folder(str(tmp_path), split)
