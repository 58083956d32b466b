"""Annotated pictures: COCO JSON and boxes mined from LLaVA conversations, with everything that real files get
wrong.
"""

import json
from collections import Counter

import pytest
from PIL import Image

from spr_plugin.data.annotations import CocoImages, spr_annotations
from spr_plugin.data.pictures import BadImage, open_image
from spr_plugin.errors import UserError
from spr_plugin.recipes.spr.regions import region_queries


def coco(folder, annotations, images=None, categories=None):
    content = {
        "images": (
            images if images is not None else [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 50}]
        ),
        "annotations": [
            {"id": index, "image_id": 1, "category_id": 7, **row} for index, row in enumerate(annotations)
        ],
        "categories": categories or [{"id": 7, "name": " traffic \n light"}],
    }
    file = folder / "instances.json"
    file.write_text(json.dumps(content))
    return str(file)


def read(file, folder):
    skipped = Counter()
    return list(CocoImages(file, str(folder), skipped)), skipped


# --- COCO


def test_coco_boxes_become_pixel_corners(folder):
    [image], skipped = read(coco(folder, [{"bbox": [10, 5, 20.5, 30]}]), folder)
    assert (image.id, image.width, image.height) == ("1", 100, 50) and image.path == str(folder / "a.jpg")
    [annotation] = image.annotations
    assert annotation.label == "traffic light" and not annotation.coarse
    assert annotation.box.pixels() == (10, 5, 30.5, 35) and annotation.box.space.name == "pixels"
    assert not skipped


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"bbox": [1, 1, 9, 9], "iscrowd": 1}, "crowd"),
        ({"bbox": [1, 1, 9, 9], "ignore": 1}, "ignored"),
        ({"bbox": [1, 1, 9, 0.0]}, "zero_area"),
        ({"bbox": [9, 9, -4, 5]}, "zero_area"),
        ({"bbox": [-30, -30, 20, 20]}, "outside"),
        ({"bbox": [99.5, 0, 40, 40]}, "outside"),
        ({"bbox": [1, 1, float("nan"), 9]}, "not_finite"),
        ({"bbox": [1, 1, float("inf"), 9]}, "not_finite"),
        ({"bbox": [1, 1, 9]}, "bad_box"),
        ({"bbox": [1, 1, 9, "9"]}, "bad_box"),
        ({"bbox": None}, "bad_box"),
        ({}, "bad_box"),
        ({"bbox": [1, 1, 9, 9], "category_id": 99}, "no_label"),
        ({"bbox": [1, 1, 9, 9], "category_id": [1]}, "no_label"),
        ({"bbox": [1, 1, 9, 9], "image_id": 2}, "unknown_image"),
        ({"bbox": [1, 1, 9, 9], "image_id": None}, "unknown_image"),
        ({"bbox": [1, 1, 9, 9], "id": 0}, "duplicate_id"),
    ],
)
def test_a_bad_annotation_is_counted_and_the_others_stay(folder, row, reason):
    [image], skipped = read(coco(folder, [{"bbox": [10, 5, 20, 30]}, row]), folder)
    assert [annotation.id for annotation in image.annotations] == [0]
    assert skipped == {reason: 1}


def test_boxes_beyond_the_picture_are_clipped(folder):
    [image], _ = read(coco(folder, [{"bbox": [-10, 20, 200, 200]}]), folder)
    assert image.annotations[0].box.pixels() == (0, 20, 100, 50)


def test_an_empty_category_name_is_no_label(folder):
    images, skipped = read(
        coco(folder, [{"bbox": [1, 1, 9, 9]}], categories=[{"id": 7, "name": " "}]), folder
    )
    assert images == [] and skipped == {"no_label": 1, "no_objects": 1}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"file_name": "gone.jpg"}, "missing_image"),
        ({"file_name": "instances.json"}, "unreadable_image"),
        ({"width": 50, "height": 100}, "size_mismatch"),
        ({"width": 0}, "bad_image_record"),
        ({"width": None}, "bad_image_record"),
        ({"file_name": ""}, "bad_image_record"),
        ({"file_name": "a\ud800.jpg"}, "missing_image"),
        ({"file_name": "a\0.jpg"}, "unreadable_image"),
        ({"id": None}, "bad_image_record"),
    ],
)
def test_a_bad_picture_is_counted(folder, record, reason):
    record = {"id": 1, "file_name": "a.jpg", "width": 100, "height": 50, **record}
    images, skipped = read(coco(folder, [{"bbox": [1, 1, 9, 9]}], images=[record]), folder)
    assert images == [] and skipped[reason] == 1


def test_a_repeated_picture_record_is_read_once(folder):
    record = {"id": 1, "file_name": "a.jpg", "width": 100, "height": 50}
    images, skipped = read(coco(folder, [{"bbox": [1, 1, 9, 9]}], images=[record, record]), folder)
    assert len(images) == 1 and skipped == {"duplicate_image_id": 1}


def of(id, name, **more):
    return {"id": id, "file_name": name, "width": 100, "height": 50, **more}


@pytest.mark.parametrize("again", ["a.jpg", "./a.jpg", ".//a.jpg"])
def test_two_records_of_one_file_are_one_picture_with_the_objects_of_both(folder, again, capsys):
    rows = [{"bbox": [1, 1, 9, 9]}, {"bbox": [20, 20, 9, 9], "image_id": 2}]
    [image], skipped = read(coco(folder, rows, images=[of(1, "a.jpg"), of(2, again)]), folder)
    assert image.id == "1" and [annotation.id for annotation in image.annotations] == [0, 1] and not skipped
    assert "1 image records name a file that an earlier one names" in capsys.readouterr().err
    [query] = region_queries([image], seed=0, more_than=1, skipped=skipped)
    assert len(query.truth) == 2


def test_an_object_of_two_records_is_one_and_ids_stay_apart(folder):
    rows = [
        {"bbox": [1, 1, 9, 9]},
        {"bbox": [1, 1, 9, 9], "image_id": 2},
        {"bbox": [40, 20, 9, 9], "image_id": 2, "id": 0},
    ]
    [image], skipped = read(coco(folder, rows, images=[of(1, "a.jpg"), of(2, "a.jpg")]), folder)
    assert [(a.id, a.box.x1) for a in image.annotations] == [(0, 1), ("0 of record 2", 40)] and skipped == {
        "duplicate": 1
    }


def test_of_two_records_only_those_of_the_file_s_size_count(folder):
    rows = [{"bbox": [1, 1, 9, 9]}, {"bbox": [20, 20, 9, 9], "image_id": 2}]
    [image], skipped = read(coco(folder, rows, images=[of(1, "a.jpg", width=200), of(2, "a.jpg")]), folder)
    assert [annotation.id for annotation in image.annotations] == [1] and skipped == {"size_mismatch": 1}


@pytest.mark.parametrize("other", ["{}/a.jpg", "b/../a.jpg"])
def test_one_file_under_two_names_is_refused(folder, other):
    (folder / "b").mkdir()
    file = coco(folder, [{"bbox": [1, 1, 9, 9]}], images=[of(1, "a.jpg"), of(2, other.format(folder))])
    with pytest.raises(UserError, match="a.jpg and .*/a.jpg are one file, .*/a.jpg: name it alike"):
        read(file, folder)


def test_one_id_for_two_files_is_refused(folder):
    """Two exports in one file, both numbered from 1: whose are the objects of picture 1?"""
    file = coco(
        folder,
        [{"bbox": [1, 1, 9, 9]}, {"bbox": [9, 9, 9, 9]}],
        images=[of(1, "sub/a.jpg"), of(1, "b.png", width=40, height=80)],
    )
    with pytest.raises(UserError, match="image id 1 is that of sub/a.jpg and of another file"):
        read(file, folder)


@pytest.mark.parametrize(
    ("names", "found", "missing"),
    [
        (["a.jpg", "cam2/a.jpg"], ["1"], 1),  # the second's is not there, and a.jpg is the first's
        (["cam2/a.jpg", "a.jpg"], ["2"], 1),
        (["cam1/a.jpg", "cam2/a.jpg"], [], 2),  # one of them, but which?
        (["v1/cam1/a.jpg", "v1/cam2/a.jpg", "v1/b.png"], ["3"], 2),
    ],
)
def test_no_picture_is_taken_for_another_of_the_same_name(folder, names, found, missing):
    images = [of(id, name) for id, name in enumerate(names, 1)]
    Image.new("RGB", (100, 50)).save(folder / "b.png")
    rows = [{"bbox": [1, 1, 9, 9], "image_id": record["id"]} for record in images]
    read_images, skipped = read(coco(folder, rows, images=images), folder)
    assert [image.id for image in read_images] == found and skipped == {"missing_image": missing}


def test_a_tail_that_is_the_record_s_own_is_taken(folder):
    """``cam1`` was unpacked beside ``a.jpg``, which is nobody's."""
    (folder / "cam1").mkdir()
    Image.new("RGB", (100, 50)).save(folder / "cam1/a.jpg")
    images = [of(1, "v1/cam1/a.jpg"), of(2, "v1/cam2/a.jpg")]
    [image], skipped = read(coco(folder, [{"bbox": [1, 1, 9, 9]}], images=images), folder)
    assert image.path == str(folder / "cam1/a.jpg") and skipped == {"missing_image": 1}


def test_lvis_names_its_files_by_url(folder):
    (folder / "val2017").mkdir()
    Image.new("RGB", (9, 9)).save(folder / "val2017" / "000000000009.jpg")
    record = {
        "id": 1,
        "coco_url": "http://images.cocodataset.org/val2017/000000000009.jpg",
        "width": 9,
        "height": 9,
    }
    [image], _ = read(coco(folder, [{"bbox": [1, 1, 5, 5]}], images=[record]), folder)
    assert image.path == str(folder / "val2017/000000000009.jpg")


@pytest.mark.parametrize("unpacked", ["images/v1/patch8/a.png", "patch8/a.png", "a.png"])
def test_objects365_is_found_as_it_was_unpacked(folder, unpacked):
    (folder / unpacked).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 9)).save(folder / unpacked)
    record = {
        "id": 1,
        "file_name": "images/v1/patch8/a.png",
        "width": 9,
        "height": 9,
        "license": 5,
        "url": "",
    }
    row = {"bbox": [1, 1, 5, 5], "area": 25, "isfake": 0, "isreflected": 0, "iscrowd": 0}
    [image], skipped = read(coco(folder, [row], images=[record]), folder)
    assert image.path == str(folder / unpacked) and not skipped


@pytest.mark.parametrize(
    "name, phrase",
    [
        ("Moniter/TV", "monitor"),
        ("Tape Measur/ Ruler", "Tape measure"),
        ("Dinning Table", "dining Table"),
        ("bow_(decorative_ribbons)", "bow"),
        ("tea_cup", "tea cup"),
    ],
)
def test_category_names_become_phrases(folder, name, phrase):
    [image], _ = read(coco(folder, [{"bbox": [1, 1, 5, 5]}], categories=[{"id": 7, "name": name}]), folder)
    assert image.annotations[0].label == phrase


@pytest.mark.parametrize("content", ["[]", "{}", '{"images": [], "annotations": {}}', "3"])
def test_a_file_that_is_not_coco_is_refused_in_one_line(folder, content):
    file = folder / "other.json"
    file.write_text(content)
    with pytest.raises(UserError, match=r"other.json has no '\w+' list: --spr_annotations wants COCO JSON"):
        read(str(file), folder)


def test_files_that_are_no_json_or_absent_are_refused(folder):
    (folder / "broken.json").write_text('{"images": [')
    with pytest.raises(UserError, match="broken.json: not JSON"):
        read(str(folder / "broken.json"), folder)
    with pytest.raises(UserError, match="gone.json: No such file"):
        read(str(folder / "gone.json"), folder)


@pytest.mark.parametrize(
    "content, why",
    [
        ('{"images": [{"id": 1, "file_name": ', "near byte 35: the file ends there"),
        ('{"images": [{"id": 1},', "near byte 22: the file ends there"),
        ('{"images": [{"id": 1, "fi', "near byte 22: Unterminated string"),
        ('{"images": [{"id": 1, "width": x}]}', "near byte 31: a value expected"),
        ('{"images": [{"id": 1 "width": 2}]}', "near byte 21: Expecting ',' delimiter"),
    ],
)
def test_where_a_file_is_no_json_and_why_is_said_in_words(folder, content, why):
    (folder / "broken.json").write_text(content)
    with pytest.raises(UserError) as refused:
        read(str(folder / "broken.json"), folder)
    assert str(refused.value).endswith(f"broken.json: not JSON ({why})")


def test_the_hook_reads_coco(folder):
    file = coco(
        folder,
        [{"bbox": [1, 1, 9, 9]}, {"bbox": [1, 1, 9, 9], "iscrowd": 1}, {"bbox": [9, 9, 9, 9], "ignore": 1}],
    )
    for keep_crowd, count in ((False, 1), (True, 3)):
        skipped = Counter()
        [image] = spr_annotations(file, str(folder), skipped, keep_crowd)
        assert len(image.annotations) == count and sum(skipped.values()) == 3 - count


# --- picture files


def test_open_image_gives_rgb_as_stored(folder):
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees", which LLaVA does not
    Image.new("RGB", (30, 10)).save(folder / "turned.jpg", exif=exif)
    assert open_image(str(folder / "turned.jpg"), "7").size == (30, 10)
    assert open_image(str(folder / "b.png"), "7").mode == "RGB"


def test_a_truncated_picture_names_record_and_file(folder):
    whole = (folder / "a.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) - 60])
    with pytest.raises(BadImage, match="record 17: cannot read .*cut.jpg"):
        open_image(str(folder / "cut.jpg"), "17")
    with pytest.raises(BadImage, match="record 17"):
        open_image(str(folder / "gone.jpg"), "17")
