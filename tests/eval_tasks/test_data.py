import io
import json
from pathlib import Path

import pytest
from PIL import Image

datasets = pytest.importorskip("datasets")

from spr_plugin.errors import UserError  # noqa: E402
from spr_plugin.eval_tasks import data, rec  # noqa: E402
from spr_plugin.eval_tasks.refusal import Refusal  # noqa: E402

SOURCES = sorted(Path(data.__file__).parent.glob("*/source_*.json"))


def test_folder_gives_a_document_an_expression(data_root):
    documents = data.read_folder(str(data_root), "refcoco", "val")
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
        ({"bbox": "x"}, "line 1: width and height must be numbers"),
        ({"bbox": [0, 0, float("nan"), 1]}, "line 1: bbox"),
        ({"width": 0}, "line 1: bbox"),
        ({"expression": None}, "line 1: lacks expression"),
        ({"image": "pictures/gone.png"}, "id val-0: picture"),
        ({"id": "val-1"}, "id val-1 stands there twice"),
    ],
)
def test_bad_record_is_named(data_root, changes, words):
    rewrite_first(data_root, **changes)
    with pytest.raises(UserError) as error:
        data.read_folder(str(data_root), "refcoco", "val")
    assert words in str(error.value) and "val.jsonl" in str(error.value)


@pytest.mark.parametrize("text, words", [("{", "line 1: not JSON"), ("[1]", "line 1: not a record but list"), ("\n\n", "has no record")])
def test_bad_file_is_named(data_root, text, words):
    (data_root / "refcoco/val.jsonl").write_text(text)
    with pytest.raises(UserError, match=words):
        data.read_folder(str(data_root), "refcoco", "val")


def test_missing_root_and_split_are_named(data_root, tmp_path):
    with pytest.raises(UserError, match="SPR_DATA_ROOT=.*nowhere: no such folder"):
        data.read_folder(str(tmp_path / "nowhere"), "refcoco", "val")
    (data_root / "refcoco/val.jsonl").unlink()
    with pytest.raises(UserError, match="must hold refcoco/val.jsonl"):
        data.read_folder(str(data_root), "refcoco", "val")


def source(**changes):
    record = {"folder": "refcoco", "split": "val", "hub": "nobody/nothing", "hub_split": "val", "rows": 2, "expressions": 3, **changes}
    return datasets.Dataset.from_list([record])


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
        data.read_hub(source()[0])


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
    assert set(data.explode(hub_rows([["a"]])).column_names) == set(data.read_folder(str(data_root), "refcoco", "val").column_names)


def test_hub_documents_can_be_used(monkeypatch):
    monkeypatch.setattr(data.datasets, "load_dataset", lambda name, split: hub_rows([["a", "b"], ["c"], ["google"]]))
    monkeypatch.delenv("SPR_DATA_ROOT", raising=False)
    monkeypatch.setenv("SPR_BOX_FORMAT", "ferret")
    documents = data.load_documents(source())
    assert documents["expression"] == ["a", "b", "c"]  # the rows after the published split are left out
    assert rec.doc_to_visual(documents[2])[0].size == (65, 48)
    assert rec.process_results(documents.remove_columns("image")[0], ["[164, 416, 632, 588]"])["Acc@0.9"]["score"] == 1.0


@pytest.mark.parametrize("answers", [[["a", "b"], ["c", "d"], ["e"]], [["a", "b"]], [["a"], ["b"], ["c"]]])
def test_anything_but_the_published_split_is_refused(answers):
    with pytest.raises(UserError, match="first 2 rows should hold 3 expressions"):
        data.published_rows(hub_rows(answers), 2, 3, "hub data set x")


def test_sources_state_the_published_sizes():
    published = {"val": (3811, 10834), "testA": (1975, 5657), "testB": (1810, 5095)}
    found = {}
    for file in SOURCES:
        record = json.loads(file.read_text())
        found[record["split"]] = (record["rows"], record["expressions"])
    assert found == published
