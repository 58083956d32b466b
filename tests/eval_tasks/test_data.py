import io
import json
import os

import pytest
from PIL import Image

datasets = pytest.importorskip("datasets")

from spr_plugin.errors import UserError  # noqa: E402
from spr_plugin.eval_tasks import data, hub  # noqa: E402
from spr_plugin.eval_tasks.catalogue import CATALOGUE  # noqa: E402
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


@pytest.mark.parametrize(
    "text, words",
    [("{", "line 1: not JSON"), ("[1]", "line 1: not a record but list"), ("\n\n", "has no record")],
)
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
            row.update(
                image_id=row["image"], image={"bytes": (root / row["image"]).read_bytes(), "path": None}
            )
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
    assert (
        refusal.value.code == 2 and words in refusal.value.message and "document 7" in refusal.value.message
    )
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.timeout(20)
def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    doc = {"id": "7", "image_id": "a.png", "width": 120, "height": 80, "image": str(tmp_path / "a.png")}
    with pytest.raises(Refusal) as refusal:
        data.doc_to_visual(doc)
    assert "not a regular file" in refusal.value.message


def test_a_picture_of_descriptions_over_the_limit_is_no_smaller_set(all_data, tmp_path, monkeypatch):
    from spr_plugin.data import pictures

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
    (picture,) = data.doc_to_visual(
        {"id": "7", "image_id": "a.png", "width": 120, "height": 80, "image": str(tmp_path / "a.png")}
    )
    assert picture.mode == "RGB" and picture.size == (120, 80)


def test_a_missing_picture_of_descriptions_is_no_smaller_set(all_data, tmp_path):
    import shutil

    shutil.copytree(all_data / "grounded_description", tmp_path / "grounded_description")
    split = CATALOGUE["spr_grounded_description_val"]
    assert len(data.read_folder(str(tmp_path), split)) == 6
    (tmp_path / "grounded_description/images/3.png").write_bytes(b"")
    with pytest.raises(UserError, match="1 of its pictures are missing under .*images or do not open"):
        data.read_folder(str(tmp_path), split)


# --- one decoder for every way in

COLOURS = {"stored": (254, 0, 0), "turned": (90, 120, 60)}


def oriented(path, kind="JPEG", orientation=3):
    """A picture of 120 x 80, red at its top left, grey-green elsewhere, with EXIF's orientation: 3 turns it
    upside down.
    """
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.new("RGB", (120, 80), COLOURS["turned"])
    picture.paste(COLOURS["stored"], (0, 0, 60, 40))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, kind, exif=exif, **({"quality": 100} if kind == "JPEG" else {"lossless": True}))
    return path


def as_hub(path, image):
    row = {
        "question_id": "7",
        "answer": ["red"],
        "bbox": [10.0, 10.0, 40.0, 20.0],
        "file_name": path.name,
        "image": image,
    }
    return hub.explode(datasets.Dataset.from_list([row]).cast_column("image", datasets.Image()))


def as_local(path, image, kind="parquet"):
    row = {
        "id": "7",
        "image": image,
        "width": 120,
        "height": 80,
        "expression": "red",
        "bbox": [10.0, 10.0, 50.0, 30.0],
    }
    root = path.parent / "root"
    (root / "refcoco").mkdir(parents=True, exist_ok=True)
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), root / "refcoco/val.parquet")
    else:
        (root / "refcoco/val.jsonl").write_text(json.dumps(row) + "\n")
    return data.read_folder(str(root), VAL)


WAYS = {
    "path": lambda path: as_local(path, str(path), "jsonl"),
    "path in parquet": lambda path: as_local(path, str(path)),
    "bytes in parquet": lambda path: as_local(path, path.read_bytes()),
    "bytes and path": lambda path: as_local(path, {"bytes": path.read_bytes(), "path": path.name}),
    "bytes None": lambda path: as_local(path, {"bytes": None, "path": str(path)}),
    "bytes None in lines": lambda path: as_local(path, {"bytes": None, "path": str(path)}, "jsonl"),
    "hub, bytes": lambda path: as_hub(path, {"bytes": path.read_bytes(), "path": None}),
    "hub, bytes None": lambda path: as_hub(path, {"bytes": None, "path": str(path)}),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("way", WAYS)
def test_a_picture_has_its_stored_pixels_by_every_way_in(tmp_path, way, kind):
    """The pixel in the true box, and no orientation that a processor would apply later."""
    from PIL import ImageOps

    (document,) = WAYS[way](oriented(tmp_path / "a", kind))
    (picture,) = data.doc_to_visual(document)
    for seen in (picture, ImageOps.exif_transpose(picture)):
        assert max(abs(a - b) for a, b in zip(seen.getpixel((20, 20)), COLOURS["stored"])) < 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("way", ["path", "bytes and path", "hub, bytes"])
def test_no_orientation_turns_a_picture(tmp_path, way, orientation):
    (document,) = WAYS[way](oriented(tmp_path / "a", orientation=orientation))
    assert data.doc_to_visual(document)[0].getpixel((20, 20)) == pytest.approx(COLOURS["stored"], abs=2)


BROKEN = {
    "no picture": (b"no picture", "does not open"),
    "an EPS": (EPS, "does not open"),
    "nothing": (b"", "does not open"),
    "cut off": (None, "does not open"),
    "another size": ((50, 50), "is (50, 50), not (120, 80)"),
    "16 bits": ("I;16", "more than 8 bits"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_an_embedded_picture_is_checked_before_the_model_loads(tmp_path, broken):
    content, words = BROKEN[broken]
    if not isinstance(content, bytes):
        buffer = io.BytesIO()
        kind = content if isinstance(content, str) else "RGB"
        size = content if isinstance(content, tuple) else (120, 80)
        picture = Image.new(kind, size) if content else Image.effect_noise(size, 50)
        picture.save(buffer, "JPEG" if content is None else "PNG")
        content = buffer.getvalue()[: -500 if content is None else None]
    with pytest.raises(UserError) as caught:
        as_local(tmp_path / "a", {"bytes": content, "path": "a.jpg"})
    assert (
        words in str(caught.value)
        and "document 7" in str(caught.value)
        and "val.parquet" in str(caught.value)
    )


def test_an_embedded_picture_over_the_limit_is_refused(tmp_path, monkeypatch):
    from spr_plugin.data import pictures

    monkeypatch.setattr(pictures, "_max_pixels", 1000)
    for way in ("bytes and path", "hub, bytes"):
        with pytest.raises(UserError, match="7.*does not open.*more than 1000 pixels"):
            WAYS[way](oriented(tmp_path / "a"))


@pytest.mark.parametrize("image", [7, "", {"bytes": None, "path": None}, {"bytes": "aGVsbG8=", "path": None}])
def test_what_is_no_picture_is_named(tmp_path, image):
    with pytest.raises(
        UserError, match="line 1: (lacks image|image is neither a path nor the bytes of a picture)"
    ):
        as_local(tmp_path / "a", image, "jsonl")


def test_paths_and_bytes_may_stand_in_one_file(tmp_path):
    content = oriented(tmp_path / "a").read_bytes()
    documents = [
        {"id": str(n), "image": image}
        for n, image in enumerate([str(tmp_path / "a"), {"bytes": content, "path": None}])
    ]
    rows = data._with_pictures(documents)
    assert [row["image"]["bytes"] is None for row in rows] == [True, False]


@pytest.mark.parametrize("way", ["absolute", "..", "link"])
@pytest.mark.parametrize("kind", ["snapshot in the cache", "folder of its own", "local"])
def test_a_downloaded_folder_names_no_picture_outside_it(data_root, tmp_path, monkeypatch, capsys, kind, way):
    """A local one may, as those that `spr data` writes do; that is said."""
    monkeypatch.setattr(data.datasets.config, "HF_CACHE_HOME", str(tmp_path / "hub"))
    root = tmp_path / "hub/datasets--lab--refs/snapshots/1" if kind == "snapshot in the cache" else data_root
    if root != data_root:
        root.parent.mkdir(parents=True)
        data_root.rename(root)
    if kind == "folder of its own":
        (root / ".cache/huggingface").mkdir(parents=True)
    secret = tmp_path / "secret.png"
    Image.new("RGB", (120, 80)).save(secret)
    (root / "pictures/link.png").symlink_to(secret)
    names = {"absolute": str(secret), "..": os.path.relpath(secret, root), "link": "pictures/link.png"}
    rewrite_first(root, image=names[way])
    if kind == "local":
        assert len(data.read_folder(str(root), VAL)) == 6
        err = capsys.readouterr().err
        assert f"1 of 6 pictures of refcoco/val lie outside SPR_DATA_ROOT={root}, such as " in err
    else:
        with pytest.raises(
            UserError, match="1 of 6 pictures of refcoco/val lie outside .*which was downloaded"
        ):
            data.read_folder(str(root), VAL)


def test_a_snapshot_s_links_into_its_cache_are_no_way_out(data_root, tmp_path, monkeypatch, capsys):
    """So the hub's library lays out what it downloads."""
    monkeypatch.setattr(data.datasets.config, "HF_CACHE_HOME", str(tmp_path / "hub"))
    root, blobs = tmp_path / "hub/datasets--lab--refs/snapshots/1", tmp_path / "hub/datasets--lab--refs/blobs"
    root.parent.mkdir(parents=True), blobs.mkdir()
    data_root.rename(root)
    for file in (root / "pictures").iterdir():
        file.rename(blobs / file.name)
        file.symlink_to(blobs / file.name)
    assert len(data.read_folder(str(root), VAL)) == 6 and "outside" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bbox": [0.1, 0.1, 0.2, 0.2]}, "annotation 3: its bbox .* boxes are in pixels"),
        ({"bbox": [9000, 10, 20, 20]}, "annotation 3: its bbox .* lies outside the picture"),
        ({"bbox": [10, 10, 9000, 20]}, "annotation 3: its bbox .* lies outside the picture"),
        ({"bbox": [10, 10, -5, 20]}, "annotation 3: its bbox .* is not left, top, right, bottom"),
        ({"image_id": "0"}, "annotation 3: its image_id '0' is no picture's"),
    ],
)
def test_a_description_s_truth_off_its_picture_is_refused_by_its_annotation(
    tmp_path, all_data, change, words
):
    """It was left out or cut in silence, and the figures were those of another truth."""
    import shutil

    shutil.copytree(all_data / "grounded_description", tmp_path / "grounded_description")
    file = tmp_path / "grounded_description/val.json"
    content = json.loads(file.read_text())
    content["annotations"][3].update(change)
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=words):
        data.read_folder(str(tmp_path), CATALOGUE["spr_grounded_description_val"])


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 10**400])
def test_a_description_s_truth_of_numbers_that_are_none_is_refused_by_its_annotation(
    tmp_path, all_data, number
):
    """It was left out of the truth, and the figures were those of a part."""
    import shutil

    shutil.copytree(all_data / "grounded_description", tmp_path / "grounded_description")
    file = tmp_path / "grounded_description/val.json"
    content = json.loads(file.read_text())
    content["annotations"][3]["bbox"][2] = number
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"^{file}, annotation 3: its bbox holds a number that is not finite"):
        data.read_folder(str(tmp_path), CATALOGUE["spr_grounded_description_val"])


@pytest.mark.parametrize(
    "bbox, words",
    [
        ([0.1, 0.2, 0.5, 0.9], "covers less than a pixel of the picture: boxes are in pixels, not in 0-1"),
        ([0.0, 0.0, 1.0, 1.0], "covers less than a pixel"),
        ([100, 200, 900, 950], "lies outside the picture"),
        ([130, 10, 150, 50], "lies outside the picture"),
        ([-40, 10, 50, 50], "lies outside the picture"),
    ],
)
def test_a_box_that_is_not_on_its_picture_is_refused_by_id(data_root, bbox, words):
    rewrite_first(data_root, bbox=bbox)
    with pytest.raises(UserError, match="line 1: bbox .*id val-0") as caught:
        data.read_folder(str(data_root), VAL)
    assert words in str(caught.value)


def test_a_box_that_ends_a_little_off_its_picture_stays_as_published(data_root):
    rewrite_first(data_root, bbox=[-1, 20, 121.5, 70])
    assert data.read_folder(str(data_root), VAL)[0]["bbox"] == [-1, 20, 121.5, 70]


def test_the_boxes_of_phrases_and_the_points_of_classes_are_looked_at_too():
    from spr_plugin.eval_tasks import classification, phrases

    size = (120, 80)
    with pytest.raises(ValueError, match="less than a pixel"):
        phrases.FIELDS["phrases"](
            [{"id": "1", "phrase": "cat", "boxes": [[10, 10, 50, 50], [0.1, 0.1, 0.5, 0.5]]}], size
        )
    with pytest.raises(ValueError, match="outside"):
        classification.FIELDS["point"]([70, 81], size)
