"""Converters on small releases in exactly the original layouts; what they write is read back by the tasks'
own reader.
"""

import io
import json
import os
import threading

import pyarrow.parquet
import pytest
from PIL import Image

from spr_plugin.cli import commands
from spr_plugin.errors import UserError
from spr_plugin.eval_tasks import data, releases
from tests.eval_tasks.releasing import documents, lvis, picture, refer_tree


def turned_tree(root, kind, exif):
    """refer's tree whose first picture asks to be turned: red where its box is, grey-green elsewhere."""
    refer_tree(root)
    shown = Image.new("RGB", (100, 80), (90, 120, 60))
    shown.paste((254, 0, 0), (0, 0, 50, 80))
    for name in os.listdir(root / releases.REC_PICTURES):
        shown.save(
            root / releases.REC_PICTURES / name,
            kind,
            exif=exif,
            **({"quality": 100} if kind == "JPEG" else {}),
        )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", [3, 2])
def test_an_embedded_picture_has_the_pixels_of_its_file(tmp_path, kind, orientation):
    """Its file's pixels by our decoder, and by any library, since no orientation goes along."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned_tree(tmp_path / "refer", kind, exif)
    pixels = {}
    for embed in (False, True):
        releases.convert("refcoco", str(tmp_path / "refer"), str(tmp_path / f"root{embed}"), embed)
        document = documents(tmp_path / f"root{embed}", "spr_refcoco_val")[0]
        pixels[embed] = data.doc_to_visual(document)[0].tobytes()
    assert pixels[True] == pixels[False]
    with Image.open(io.BytesIO(document["image"]["bytes"])) as embedded:
        assert 0x0112 not in embedded.getexif() and embedded.convert("RGB").tobytes() == pixels[False]


def test_a_picture_that_asks_nothing_is_embedded_as_it_is(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 1, "camera"
    turned_tree(tmp_path / "refer", "JPEG", exif)
    releases.convert("refcoco", str(tmp_path / "refer"), str(tmp_path / "root"), True)
    embedded = documents(tmp_path / "root", "spr_refcoco_val")[0]["image"]["bytes"]
    assert (
        embedded
        == (tmp_path / "refer" / releases.REC_PICTURES / "COCO_train2014_000000000001.jpg").read_bytes()
    )


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0", b"Exif\0\0"])
def test_a_broken_exif_is_not_embedded(tmp_path, exif):
    turned_tree(tmp_path / "refer", "JPEG", exif)
    releases.convert("refcoco", str(tmp_path / "refer"), str(tmp_path / "root"), True)
    document = documents(tmp_path / "root", "spr_refcoco_val")[0]
    assert data.doc_to_visual(document)[0].getpixel((10, 10)) == pytest.approx((254, 0, 0), abs=2)


def test_a_file_that_is_no_picture_is_not_embedded(tmp_path):
    refer_tree(tmp_path / "refer")
    (tmp_path / "refer" / releases.REC_PICTURES / "COCO_train2014_000000000001.jpg").write_bytes(
        b"no picture"
    )
    with pytest.raises(UserError, match="record 0: cannot read .*000000000001.jpg"):
        releases.convert("refcoco", str(tmp_path / "refer"), str(tmp_path / "root"), True)


def test_the_published_size_is_no_difference(tmp_path, capsys, monkeypatch):
    refer_tree(tmp_path / "refer")
    monkeypatch.setitem(releases.PUBLISHED, "refcoco/val", ("expressions", 4))
    counts = releases.convert("refcoco", str(tmp_path / "refer"), str(tmp_path / "root"))
    assert counts["refcoco/val"] == 4 and counts["refcocog_refs/val"] == 2
    said = "".join(capsys.readouterr())
    assert "refcoco/val: 4 expressions\n" in said


def named(root, name):
    """refer's tree whose refs of val are of the picture `name`, which is made if it is not there."""
    refer_tree(root)
    instances = json.loads((root / "refcoco" / "instances.json").read_text())
    instances["images"][0]["file_name"] = name
    (root / "refcoco" / "instances.json").write_text(json.dumps(instances))
    if not (file := root / releases.REC_PICTURES / name).exists():
        picture(file)


@pytest.mark.parametrize("name", ["../secret.jpg", "link.jpg", "linked/secret.jpg", "../train2014x/a.jpg"])
def test_a_picture_outside_its_folder_is_refused(tmp_path, name):
    """Neither its path nor, with --embed, its bytes get into the files."""
    source, target = tmp_path / "refer", tmp_path / "root"
    folder = source / releases.REC_PICTURES
    folder.mkdir(parents=True)
    picture(tmp_path / "secret.jpg")
    (folder / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "linked").symlink_to(tmp_path)
    named(source, name)
    command = ["data", "refcoco", "--from", str(source), "--to", str(target), "--embed"]
    words = f"^record 0: {folder}/{name} lies outside .*train2014, at .*1 such pictures.* --allow-outside"
    with pytest.raises(UserError, match=words) as caught:
        commands(command, standalone_mode=False)
    assert "--spr" not in str(caught.value) and not target.exists()
    commands([*command, "--allow-outside"], standalone_mode=False)
    assert data.doc_to_visual(documents(target, "spr_refcoco_val")[0])[0].size == (100, 80)


def test_the_folder_of_pictures_may_be_a_link(tmp_path):
    refer_tree(tmp_path / "refer")
    (tmp_path / "refer" / releases.REC_PICTURES).rename(tmp_path / "train2014")
    (tmp_path / "refer" / releases.REC_PICTURES).symlink_to(tmp_path / "train2014")
    assert releases.convert("refcoco", str(tmp_path / "refer"), str(tmp_path / "root"))["refcoco/val"] == 4


@pytest.mark.parametrize("embed", [False, True])
def test_a_column_may_be_empty_in_all_rows_that_are_written_first(tmp_path, monkeypatch, embed):
    monkeypatch.setattr(releases, "ROWS_AT_ONCE", 2)
    for name in "abc":
        picture(tmp_path / f"{name}.jpg")
    own = [{"synonyms": [], "area": 4}, {"synonyms": [], "area": 4}, {"synonyms": ["x"], "area": 0.5}]
    records = [{"id": name, "image": f"{name}.jpg", **more} for name, more in zip("abc", own)]
    releases._write(records, tmp_path, tmp_path / "root", "val", embed)
    file = str(tmp_path / "root" / "val.parquet")
    written = pyarrow.parquet.read_table(file).to_pylist()
    assert [row["synonyms"] for row in written] == [[], [], ["x"]]
    assert [row["area"] for row in written] == [4, 4, 0.5] and all(row["image"] for row in written)


def test_where_nothing_can_be_written_is_known_first(tmp_path, monkeypatch):
    refer_tree(tmp_path / "refer")
    (tmp_path / "file").write_text("mine")
    for target in ("file", "file/deep", "refer/refcoco/instances.json"):
        with pytest.raises(UserError, match=f"--to .*{target}: .*is no folder"):
            releases.convert("refcoco", str(tmp_path / "refer"), str(tmp_path / target))
    (tmp_path / "root/refcoco/val.parquet").mkdir(parents=True)
    with pytest.raises(UserError, match="--to .*root: cannot write .*val.parquet"):
        releases.convert("refcoco", str(tmp_path / "refer"), str(tmp_path / "root"))
    assert [path.name for path in (tmp_path / "root/refcoco").iterdir()] == ["val.parquet"]


def test_a_conversion_replaces_a_link_and_not_what_it_points_to(tmp_path):
    refer_tree(tmp_path / "refer")
    (tmp_path / "root/refcoco").mkdir(parents=True)
    before = (tmp_path / "refer/refcoco/instances.json").read_bytes()
    (tmp_path / "root/refcoco/val.parquet").symlink_to(tmp_path / "refer/refcoco/instances.json")
    releases.convert("refcoco", str(tmp_path / "refer"), str(tmp_path / "root"))
    assert (tmp_path / "refer/refcoco/instances.json").read_bytes() == before
    assert len(documents(tmp_path / "root", "spr_refcoco_val")) == 4


@pytest.mark.parametrize(
    "benchmark, files, lacking",
    [
        ("refcoco", [], "neither refcoco/refs(unc).p nor finetune_refcoco_val.json"),
        ("refcoco", ["refcoco/refs(unc).p"], "no refcoco/instances.json of refer's tree"),
        ("flickr30k", [], "no Annotations/ and Sentences/ of Flickr30k Entities"),
        ("flickr30k", ["Annotations/1.xml"], "no Annotations/ and Sentences/ of Flickr30k Entities"),
        ("lvis", [], "no lvis_v1_val.json of LVIS v1"),
        ("vg", [], "no region_descriptions.json and no image_data.json of Visual Genome"),
        ("vg", ["image_data.json"], "no region_descriptions.json of Visual Genome"),
    ],
)
def test_a_folder_without_the_release_is_told_what_it_lacks(tmp_path, benchmark, files, lacking):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("[]")
    with pytest.raises(UserError) as refused:
        releases.convert(benchmark, str(tmp_path), str(tmp_path / "root"))
    assert (
        str(refused.value).startswith(f"--from {tmp_path}: holds {lacking}")
        and not (tmp_path / "root").exists()
    )


def test_what_is_not_there_is_one_line(tmp_path):
    for benchmark in releases.CONVERTERS:
        with pytest.raises(UserError, match="^--from: is empty; name a folder, or . for the current one$"):
            releases.convert(benchmark, "", str(tmp_path / "root"))
        with pytest.raises(UserError, match="no such folder"):
            releases.convert(benchmark, str(tmp_path / "gone"), str(tmp_path / "root"))
    lvis(tmp_path)
    os.remove(tmp_path / "val2017/000000000001.jpg")
    with pytest.raises(
        UserError, match="1 of 1 pictures of lvis/val are missing, such as val2017/000000000001.jpg"
    ):
        releases.convert("lvis", str(tmp_path), str(tmp_path / "root"))
    (tmp_path / "lvis_v1_val.json").write_text("{}")
    with pytest.raises(UserError, match="not LVIS v1"):
        releases.convert("lvis", str(tmp_path), str(tmp_path / "root"))


def test_two_that_convert_at_once_do_not_meet(tmp_path, monkeypatch):
    """Each is process 1 of its own machine."""
    lvis(tmp_path)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    both, host_write = threading.Barrier(2), releases._with_picture

    def with_picture(*args):
        both.wait(10)
        return host_write(*args)

    monkeypatch.setattr(releases, "_with_picture", with_picture)
    found = []
    runs = [
        threading.Thread(
            target=lambda: found.append(releases.convert("lvis", str(tmp_path), str(tmp_path / "root")))
        )
        for _ in "ab"
    ]
    [run.start() for run in runs], [run.join(20) for run in runs]
    assert [dict(counts) for counts in found] == [{"lvis/val": 2}] * 2
    assert [path.name for path in (tmp_path / "root" / "lvis").iterdir()] == ["val.parquet"]
