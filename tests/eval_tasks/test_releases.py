"""Converters on small releases in exactly the original layouts; what they write is read back by the tasks'
own reader.
"""

import io
import json
import os
import pickle
import random
import threading
import time
from collections import Counter

import pytest
from click.testing import CliRunner
from PIL import Image

pytest.importorskip("datasets")
import pyarrow.parquet

from spr_plugin.cli import commands
from spr_plugin.errors import UserError
from spr_plugin.eval_tasks import (
    data,
    release_flickr30k,
    release_lvis,
    release_records,
    release_refcoco,
    releases,
)
from spr_plugin.eval_tasks.catalogue import CATALOGUE


class Python2Pickler(pickle._Pickler):
    """Writes text as Python 2 wrote its ``str``: bytes under the opcode U."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_str(self, text):
        content = text.encode()
        self.write(b"U" + bytes([len(content)]) + content)
        self.memoize(text)

    dispatch[str] = save_str


def python2_pickle(value):
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()


def picture(file, size=(100, 80)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(file)


def refer_tree(root):
    """refer's layout: two refs of val, one of testA, one of train; one picture has a box over its edge."""
    names = [f"COCO_train2014_{n:012d}.jpg" for n in (1, 2)]
    for name in names:
        picture(root / releases.REC_PICTURES / name)
    images = [
        {"id": n, "file_name": name, "width": 100, "height": 80, "license": 1}
        for n, name in enumerate(names, 1)
    ]
    annotations = [
        {"id": 10 + n, "image_id": 1 + n % 2, "bbox": [10.5, 20, 30, 65], "category_id": 1, "iscrowd": 0}
        for n in range(4)
    ]
    for name, by, splits in (
        ("refcoco", "unc", ("val", "val", "testA", "train")),
        ("refcocog", "umd", ("val", "val", "test", "train")),
    ):
        refs = []
        for n, split in enumerate(splits):
            sentences = [
                {"raw": f"Cat {n}!", "sent": f"cat {n} {k} café", "sent_id": 10 * n + k, "tokens": ["cat"]}
                for k in range(2)
            ]
            refs.append({"ref_id": 50 + n, "ann_id": 10 + n, "category_id": 1, "image_id": 1 + n % 2, "split": split, "sent_ids": [1, 2],  # noqa: E501
                         "file_name": names[n % 2].replace(".jpg", f"_{n}.jpg"), "sentences": sentences})  # fmt: skip  # noqa: E501
        refs.append({**refs[0], "ref_id": 60, "split": "testB" if name == "refcoco" else "none"})
        (root / name).mkdir(parents=True)
        (root / name / f"refs({by}).p").write_bytes(python2_pickle(refs))
        (root / name / "instances.json").write_text(
            json.dumps({"images": images, "annotations": annotations, "categories": []})
        )


def documents(root, task):
    return data.read_folder(str(root), CATALOGUE[task])


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


XML = """<annotation><filename>7.jpg</filename><size><width>100</width><height>80</height><depth>3</depth></size>
<object><name>11</name><name>12</name><bndbox><xmin>1</xmin><ymin>11</ymin><xmax>50</xmax><ymax>80</ymax></bndbox></object>
<object><name>12</name><bndbox><xmin>60</xmin><ymin>11</ymin><xmax>90</xmax><ymax>40</ymax></bndbox></object>
<object><name>13</name><nobndbox>1</nobndbox></object>
<object><name>14</name><scene>1</scene><nobndbox>0</nobndbox></object></annotation>"""  # noqa: E501
SENTENCES = """[/EN#11/people A man] and [/EN#12/animals two dogs] in [/EN#14/scene a park] , [/EN#0/notvisual it] seems .
[/EN#13/other Nothing] boxed here .
[/EN#12/animals The dogs] run .
"""  # noqa: E501


@pytest.mark.parametrize(
    "part, broken, why",
    [
        ("<width>100</width>", "<width/>", "size/width"),
        ("<size>", "<measure>", "mismatched tag"),
        ("<xmin>1</xmin>", "<xmin></xmin>", "xmin"),
        ("<xmin>1</xmin>", "<xmin>one</xmin>", "one"),
        ("<ymax>80</ymax>", "", "ymax"),
        ("<ymax>80</ymax>", f"<ymax>1{'0' * 400}</ymax>", "too large"),
        ("<name>11</name>", "<name/>", "name"),
    ],
)
def test_broken_entities_are_a_line(tmp_path, part, broken, why):
    (tmp_path / "7.xml").write_text(XML.replace(part, broken, 1))
    with pytest.raises(UserError, match=f"7.xml: not an Entities XML.*{why}"):
        release_flickr30k.read_entities(tmp_path / "7.xml", Counter())


def test_flickr30k_entities(tmp_path):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Sentences").mkdir()
    (tmp_path / "Annotations/7.xml").write_text(XML)
    (tmp_path / "Sentences/7.txt").write_text(SENTENCES)
    (tmp_path / "val.txt").write_text("7\n")
    picture(tmp_path / "flickr30k-images/7.jpg")
    releases.convert("flickr30k", str(tmp_path), str(tmp_path / "root"))
    first, second = documents(tmp_path / "root", "spr_flickr30k_val")
    assert first["caption"] == "A man and two dogs in a park , it seems ." and second["id"] == "7_2"
    man, dogs = first["phrases"]
    # The XML counts from 1.
    assert (man["id"], man["phrase"], man["boxes"]) == ("7_0_0", "A man", [[0.0, 10.0, 49.0, 79.0]])
    assert dogs["id"] == "7_0_1" and dogs["boxes"] == [[0.0, 10.0, 49.0, 79.0], [59.0, 10.0, 89.0, 39.0]]


def lvis(tmp_path):
    images = [{"id": n, "coco_url": f"http://images.cocodataset.org/{part}/{n:012d}.jpg", "width": 100, "height": 80, "neg_category_ids": [3],  # noqa: E501
               "not_exhaustive_category_ids": [4]} for n, part in ((1, "val2017"), (2, "train2017"))]  # fmt: skip  # noqa: E501
    square = [10, 10, 50, 10, 50, 50, 10, 50]
    annotations = [
        {
            "id": 5,
            "image_id": 1,
            "category_id": 1,
            "bbox": [10, 10, 40, 40],
            "area": 1600,
            "segmentation": [square],
        },
        {
            "id": 6,
            "image_id": 1,
            "category_id": 1,
            "bbox": [60, 10, 10, 10],
            "area": 100,
            "segmentation": [square],
        },
        {"id": 7, "image_id": 1, "category_id": 2, "bbox": [60, 10, 20, 20], "area": 400, "segmentation": []},
        {"id": 8, "image_id": 2, "category_id": 2, "bbox": [60, 10, 20, 20], "area": 400, "segmentation": []},
    ]
    categories = [
        {"id": n, "name": name, "synonyms": [name, name + "_x"]}
        for n, name in ((1, "tea_cup"), (2, "dog"), (3, "cat"), (4, "sky"))
    ]
    (tmp_path / "lvis_v1_val.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    picture(tmp_path / "val2017/000000000001.jpg")


def test_lvis_asks_about_the_largest_object_of_a_class(tmp_path, capsys, monkeypatch):
    lvis(tmp_path)
    monkeypatch.setitem(release_records.PUBLISHED_FILES["lvis_v1_val.json"], "images", 2)
    releases.convert("lvis", str(tmp_path), str(tmp_path / "root"))
    said = "".join(capsys.readouterr())
    assert (
        "lvis_v1_val.json: 4 annotations; the published file has 244707" in said
        and "images; the published" not in said
    )
    cup, dog = documents(tmp_path / "root", "spr_lvis_point")
    # Neither its own, dog nor sky.
    assert (cup["id"], cup["name"], cup["synonyms"], cup["negative"]) == (
        "5",
        "tea_cup",
        ["tea_cup_x"],
        "cat",
    )
    assert (cup["truth_first"], dog["truth_first"]) == (True, False) and dog["point"] == [70.0, 20.0]
    assert all(10 <= value <= 50 for value in cup["point"])


def test_a_point_lies_inside_the_object():
    # An open frame: its box's centre is outside.
    ring = [[0, 0, 90, 0, 90, 10, 10, 10, 10, 80, 90, 80, 90, 90, 0, 90]]
    for seed in range(50):
        x, y = release_lvis.point_inside(ring, [0.0, 0.0, 90.0, 90.0], random.Random(seed))
        assert x <= 11 or y <= 11 or y >= 79


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


BROKEN = [float("nan"), float("inf"), -float("inf"), 10**400]


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


@pytest.mark.parametrize("number", BROKEN)
@pytest.mark.parametrize("field", ["bbox", "area", "segmentation"])
def test_no_number_of_lvis_may_be_none(tmp_path, number, field):
    lvis(tmp_path)
    file = tmp_path / "lvis_v1_val.json"
    content = json.loads(file.read_text())
    content["annotations"][0][field] = {
        "bbox": [1, 1, number, 9],
        "area": number,
        "segmentation": [[1, 1, number, 1, 9, 9]],
    }[field]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="^LVIS annotation 5: .*finite"):
        releases.convert("lvis", str(tmp_path), str(tmp_path / "root"))


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


# --- what others wrote, however they saved it -------------------------------------------------------------


@pytest.mark.parametrize(
    "encode",
    [lambda text: text.encode("utf-8-sig"), lambda text: text.replace("\n", "\r\n").encode("utf-16")],
)
def test_captions_are_read_however_they_are_saved(tmp_path, encode):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Sentences").mkdir()
    (tmp_path / "Annotations/7.xml").write_text(XML)
    (tmp_path / "Sentences/7.txt").write_bytes(
        encode("\n" + SENTENCES.replace("A man", "A\u2028man") + "\n\n")
    )
    (tmp_path / "val.txt").write_bytes(encode("7\n"))
    picture(tmp_path / "flickr30k-images/7.jpg")
    releases.convert("flickr30k", str(tmp_path), str(tmp_path / "root"))
    first, second = documents(tmp_path / "root", "spr_flickr30k_val")
    assert (first["id"], second["id"]) == ("7_1", "7_3") and first["phrases"][0]["phrase"] == "A\u2028man"


def test_a_caption_of_open_brackets_is_read_in_time(tmp_path):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Sentences").mkdir()
    (tmp_path / "Annotations/7.xml").write_text(XML)
    start = time.perf_counter()
    for text in (
        "[/EN#11/a " * 10_000,
        "[/EN#11/" * 12_000,
        "[/EN#11/a" + "b" * 100_000 + " ",
        "[/EN#" + "1" * 100_000,
    ):
        (tmp_path / "Sentences/7.txt").write_text(text)
        assert list(release_flickr30k.captions(tmp_path, "7", Counter())) == []
    assert time.perf_counter() - start < 1


def test_half_a_character_in_an_expression_is_written(tmp_path):
    refer_tree(tmp_path / "refer")
    for name, by in (("refcoco", "unc"), ("refcocog", "umd")):
        refs = release_refcoco.load_refs(tmp_path / "refer" / name / f"refs({by}).p")
        refs[0]["sentences"][0]["sent"] = "a cat \ud83d"
        (tmp_path / "refer" / name / f"refs({by}).p").write_bytes(pickle.dumps(refs, 2))
    releases.convert("refcoco", str(tmp_path / "refer"), str(tmp_path / "root"))
    assert "a cat \ufffd" in [doc["expression"] for doc in documents(tmp_path / "root", "spr_refcoco_val")]


WRONG_VALUES = [
    "1e999",
    "9" * 5000,
    '"wide"',
    "null",
    "[]",
    "{}",
    "-1e999",
    "NaN",
    '"\\ud83d"',
    "[" * 5000 + "]" * 5000,
]


@pytest.mark.parametrize("value", WRONG_VALUES, ids=lambda value: value[:8])
@pytest.mark.parametrize("key", ["width", "bbox", "coco_url", "category_id", "segmentation"])
def test_a_wrong_value_of_a_release_is_one_line(tmp_path, key, value):
    lvis(tmp_path)
    file = tmp_path / "lvis_v1_val.json"
    text = json.dumps(
        json.loads(
            file.read_text(), object_hook=lambda record: {**record, key: "VALUE"} if key in record else record
        )
    )
    file.write_text(text.replace('"VALUE"', value))
    try:
        releases.convert("lvis", str(tmp_path), str(tmp_path / "root"))
    except UserError as refused:
        assert len(str(refused)) < 400


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
