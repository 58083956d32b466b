"""Which pictures and objects regions are grown from."""

import json
import pickle
from collections import Counter

import pytest

from spr_plugin.boxes import Box, Space
from spr_plugin.data.annotations import AnnotatedImage, Annotation
from spr_plugin.data.selection import Selection, excluded, keys_of_picture
from spr_plugin.errors import UserError
from spr_plugin.recipes.spr.regions import region_queries

SPACE = Space.pixels(200, 100)


def image(path="/x/000000000009.jpg", sides=(10,) * 6):
    annotations = tuple(
        Annotation(n, f"thing {n}", Box(30 * n, 0, 30 * n + side, side, SPACE))
        for n, side in enumerate(sides)
    )
    return AnnotatedImage("7", path, 200, 100, annotations)


# --- names


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("COCO_train2014_000000581857.jpg", 581857),
        ("COCO_train2014_000000581857_16.jpg", 581857),
        ("coco/train2017/000000581857.jpg", 581857),
        ("D:\\coco\\000000581857.jpg", 581857),
        (581857, 581857),
        ("581857", 581857),
        ("vg/VG_100K/2335991.jpg", "2335991.jpg"),
        ("images/v1/patch3/objects365_v1_00000009.jpg", "objects365_v1_00000009.jpg"),
        ("000000009.jpg", "000000009.jpg"),
        ("COCO_train2014_000000581857_jpg.rf.0f3a9c12345678901234567890abcdef.jpg", 581857),
        ("000000581857_jpg.rf.123456789012ab34cd56ef7890123456.jpg", 581857),
        ("train-000000581857-crop3.png", 581857),
        ("202401011230_000000581857.jpg", 581857),
        ("000000581857.jpg.webp", 581857),
        ("cocotrain2014000000581857.jpg", 581857),
        ("crops/000000581857/face_3.png", 581857),
        ("202401011230/a.jpg", "a.jpg"),
        ("0000000005818570.jpg", "0000000005818570.jpg"),
    ],
)
def test_a_picture_has_one_key_under_all_its_names(name, key):
    assert key in keys_of_picture(name)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("COCO_train2014_581857.jpg", {581857}),
        ("coco/COCO_val2014_9.jpg", {9}),
        ("COCO_581857.jpg", {581857}),
        ("coco/9.jpg", {"9.jpg"}),
        ("1000092795_jpg.rf.0f3abc.jpg", {"1000092795.jpg"}),
        ("train2014/581857_jpg.rf.0f3a.jpg", {581857}),
        ("coco_train2017-581857_jpg.rf.0f3a9c.jpg", {581857}),
        ("coco/train2017/581857.jpg", {581857}),
        ("train2014_0581857_crop2.png", {581857}),
        ("train2014/objects_581857.jpg", {"objects_581857.jpg"}),
        ("train2014_5818571.jpg", {"train2014_5818571.jpg"}),
        ("train2018_581857.jpg", {"train2018_581857.jpg"}),
        ("COCO_train2014_000000000009_000000581857.jpg", {9, 581857}),
        ("mosaic_000000000009_000000581857_000000000010.png", {9, 10, 581857}),
        ("000000000009/000000581857.jpg", {9, 581857}),
        ("COCO_train2014_9_000000581857.jpg", {9, 581857}),
    ],
)
def test_every_number_of_coco_in_a_name_is_a_key(name, keys):
    assert keys_of_picture(name) == keys


# --- --spr_exclude


REFS = [
    {"ref_id": 1, "image_id": 5, "file_name": "COCO_train2014_000000000005_1.jpg", "split": "val"},
    {"ref_id": 2, "image_id": 6, "file_name": "COCO_train2014_000000000006_1.jpg", "split": "train"},
    {"ref_id": 3, "image_id": 7, "file_name": "COCO_train2014_000000000007_1.jpg", "split": "testA"},
]


def files(folder):
    """One of each kind, and what it excludes."""
    (folder / "refcoco").mkdir()
    (folder / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(REFS, protocol=2))
    (folder / "refcoco" / "instances.json").write_text(
        json.dumps({"images": [{"file_name": "000000000001.jpg"}]})
    )
    (folder / "converted").mkdir()
    (folder / "converted" / "val.jsonl").write_text(
        '{"image": "train2014/COCO_train2014_000000000011.jpg", "bbox": [1, 2, 3, 4]}\n'
    )
    (folder / "mdetr.json").write_text(
        json.dumps({"images": [{"id": 0, "original_id": 12, "file_name": "COCO_train2014_000000000012.jpg"}]})
    )
    (folder / "ids.json").write_text("[13, 14]")
    (folder / "names.txt").write_text("000000000015.jpg\n16\n\n")
    return {
        "refcoco": {5, 7},
        "refcoco/refs(unc).p": {5, 7},
        "converted": {11},
        "mdetr.json": {12},
        "ids.json": {13, 14},
        "names.txt": {15, 16},
    }


def test_every_kind_of_file_names_its_pictures(tmp_path):
    kinds = files(tmp_path)
    for name, keys in kinds.items():
        assert excluded([str(tmp_path / name)]) == {str(tmp_path / name): keys}, name
    assert excluded([str(tmp_path / name) for name in kinds]) == {
        str(tmp_path / name): keys for name, keys in kinds.items()
    }
    assert excluded([]) == {}


@pytest.mark.parametrize("name", ["9" * 5000, "1" * 19, "\u0661" * 3])
def test_a_name_of_many_digits_is_a_name(name):
    assert keys_of_picture(name) == {name} and keys_of_picture(f"{name}.jpg") == {f"{name}.jpg"}


def test_visual_genome_s_copies_of_excluded_pictures_are_excluded(tmp_path):
    rows = [
        {"image_id": 1, "coco_id": None, "url": ""},
        {"image_id": 2335991, "coco_id": 13},
        {"image_id": 13, "coco_id": 99},
    ]
    (tmp_path / "image_data.json").write_text(json.dumps(rows))
    (tmp_path / "ids.json").write_text("[13]")
    data, ids = str(tmp_path / "image_data.json"), str(tmp_path / "ids.json")
    for paths in ([data, ids], [ids, data]):
        assert excluded(paths) == {ids: {13, "2335991.jpg"}}
    assert Selection(excluded([data, ids])).unmatched() == [ids]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.txt", None, "No such file"),
        ("a.json", "{", "not JSON"),
        ("a.json", '{"annotations": []}', "not a list of pictures"),
        ("a.json", '[{"bbox": []}]', "a record names no picture"),
        ("a.jsonl", "[1]\n", "a record names no picture"),
        (
            "image_data.json",
            '[{"image_id": 1, "coco_id": "1e999"}, {"image_id": 1, "coco_id": 1e999}]',
            "names no picture",
        ),
        ("image_data.json", '[{"image_id": 1, "coco_id": [3]}]', "names no picture .looked for coco_id"),
        ("a.json", "[" + "9" * 5000 + "]", "names no picture"),
        ("refs(unc).p", "nonsense", "not a list of pictures"),
    ],
)
def test_what_names_no_pictures_is_refused_in_one_line(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=words) as caught:
        excluded([str(tmp_path / name)])
    assert (
        "--spr_exclude" in str(caught.value) and name in str(caught.value) and "\n" not in str(caught.value)
    )


def test_a_folder_without_lists_is_refused(tmp_path):
    with pytest.raises(UserError, match="the folder holds neither"):
        excluded([str(tmp_path)])


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Runs:
        def __reduce__(self):
            return print, ("run",)

    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps([Runs()]))
    with pytest.raises(UserError, match="only plain data"):
        excluded([str(tmp_path)])


# --- what is left


def test_excluded_pictures_are_left_out_and_counted():
    skipped, images = Counter(), [image(), image("/y/COCO_val2014_000000000010.jpg"), image("/vg/9.jpg")]
    kept = [found for one in images if (found := Selection({"list": frozenset({9})})(one, skipped))]
    assert kept == images[1:] and skipped == {"excluded": 1}


def test_exclusions_that_match_nothing_are_known():
    select = Selection({"refcoco": frozenset({9, 10}), "refcoco+": frozenset({9}), "other": frozenset({11})})
    assert select.unmatched() == ["refcoco", "refcoco+", "other"]
    assert select(
        image("COCO_train2014_000000000009_jpg.rf.ab12.jpg"), Counter()
    ) is None and select.unmatched() == ["other"]


@pytest.mark.parametrize("number", [9, 581857])
def test_a_picture_with_two_numbers_is_left_out_for_either_and_known_as_doubtful(number):
    """A mosaic, or a copy whose second number counts nothing: nobody knows which."""
    select, skipped = Selection({"list": frozenset({number})}), Counter()
    both = "/x/COCO_train2014_000000000009_000000581857.jpg"
    assert select(image(both), skipped) is None and select(image(f"/x/{number:012d}.jpg"), skipped) is None
    assert select(image(f"/x/202401011230_{number:012d}.jpg"), skipped) is None  # a date is no picture's
    assert skipped == {"excluded": 3} and select.doubtful == [both] and select.unmatched() == []


def test_a_translation_that_translates_nothing_is_unmatched(tmp_path):
    """Visual Genome's list alone leaves out nothing, which nobody was told."""
    (tmp_path / "image_data.json").write_text(json.dumps([{"image_id": 2335991, "coco_id": 13}]))
    (tmp_path / "ids.json").write_text("[99]")
    data, ids = str(tmp_path / "image_data.json"), str(tmp_path / "ids.json")
    assert Selection(excluded([data])).unmatched() == [data]
    assert Selection(excluded([data, ids])).unmatched() == [data, ids]


def test_small_objects_and_poor_pictures_are_left_out_and_counted():
    skipped = Counter()
    [left] = [Selection(min_area=100)(image(sides=(9, 10, 9.99, 11)), skipped)]
    assert [annotation.id for annotation in left.annotations] == [1, 3] and skipped == {"small": 2}
    assert Selection(min_objects=6)(image(), skipped) == image()
    assert Selection(min_objects=7)(image(), skipped) is None and skipped["few_objects"] == 1
    assert Selection(min_area=1e6)(image(), skipped) is None


def test_regions_grow_from_what_is_selected():
    skipped = Counter()
    images = [
        image(),
        image("/x/000000000010.jpg", sides=(10, 10, 10, 3, 10, 10)),
        image("/x/000000000011.jpg", sides=(10,) * 5 + (3,)),
    ]
    chosen = Selection({"list": frozenset({9})}, min_objects=5, min_area=50)
    queries = list(region_queries(images, seed=0, select=chosen, skipped=skipped))
    assert [len(query.image.annotations) for query in queries] == [5, 5]
    assert all(annotation.box.area >= 50 for query in queries for annotation in query.truth)
    assert skipped == {"excluded": 1, "small": 2}


def test_refs_that_python_2_wrote_may_hold_any_bytes(tmp_path):
    record = (
        b"(dS'file_name'\nS'COCO_train2014_000000000009_1.jpg'\nsS'split'\nS'val'\nsS'raw'\nS'caf\\xe9'\ns"
    )
    (tmp_path / "refs(unc).p").write_bytes(b"(l" + record + b"a.")
    assert excluded([str(tmp_path)]) == {str(tmp_path): {9}}
