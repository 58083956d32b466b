"""The tiny world: the same everywhere, split by hash, hard enough for SPR, and readable by its tokenizer."""

import json

import numpy as np
import pytest

from .world import WORLD, load

scenes = load("scenes")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("world")
    scenes.write_world(out, sft=20, spr=10, val=4, test=20)
    return out


@pytest.fixture(scope="module")
def tokenizer():
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(WORLD / "llava", use_fast=False)


def files_of(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_same_seed_writes_the_same_files(tmp_path):
    counts = {"sft": 3, "spr": 2, "val": 1, "test": 5, "seed": 4}
    scenes.write_world(tmp_path / "a", **counts)
    scenes.write_world(tmp_path / "b", **counts)
    scenes.write_world(tmp_path / "c", **{**counts, "seed": 5})
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert files_of(tmp_path / "a") != files_of(tmp_path / "c")


def test_a_scene_is_fixed_for_ever():
    assert scenes.layout(0).key == "1cbeae6c64cb11a517b3e320574c73a1c312d421"


def test_splits_share_no_scene():
    keys = {s: {scene.key for scene in scenes.scenes(s, 60)} for s in scenes.SPLITS}
    assert all(len(found) == 60 for found in keys.values())
    assert len(set.union(*keys.values())) == 60 * len(keys)


def test_most_scenes_give_a_region_of_more_than_four_objects_that_is_not_the_picture():
    rng, good = np.random.default_rng(0), 0
    for seed in range(300):
        boxes = [t.box for t in scenes.layout(seed).things]
        region = scenes.grow_region(boxes, int(rng.integers(len(boxes))))
        good += region is not None and scenes.area(region) <= 0.6 * scenes.SIZE**2
    assert good >= 0.8 * 300


def test_a_grown_region_holds_just_over_the_count_and_its_first_box():
    boxes = [(0, 0, 10, 10), (12, 0, 22, 10), (50, 0, 60, 10)]
    assert scenes.grow_region(boxes, 0, more_than=1) == (0, 0, 22, 10)
    assert scenes.grow_region(boxes, 2, more_than=2) == (0, 0, 60, 10)
    assert scenes.grow_region(boxes, 0, more_than=3) is None


def test_objects_stay_mostly_visible():
    for seed in range(40):
        scene = scenes.layout(seed)
        owner = scenes.render(scene)[1]
        for index, thing in enumerate(scene.things):
            # Rings and crosses fill a good third of their box; what covers them takes some more.
            assert (owner == index).sum() >= 0.15 * scenes.area(thing.box)


def test_coco_files_are_valid(data):
    for split in ("spr", "val"):
        coco = json.loads((data / f"{split}.json").read_text())
        images = {image["id"]: image for image in coco["images"]}
        categories = {category["id"] for category in coco["categories"]}
        assert len({a["id"] for a in coco["annotations"]}) == len(coco["annotations"])
        for image in images.values():
            assert (data / "images" / image["file_name"]).is_file()
        for annotation in coco["annotations"]:
            x, y, w, h = annotation["bbox"]
            image = images[annotation["image_id"]]
            assert annotation["category_id"] in categories
            assert x >= 0 and y >= 0 and w > 0 and h > 0
            assert x + w <= image["width"] + 0.01 and y + h <= image["height"] + 0.01
            assert annotation["area"] == pytest.approx(w * h, abs=0.5)


def test_conversations_are_llava_records(data):
    for record in json.loads((data / "sft.json").read_text()):
        assert (data / "images" / record["image"]).is_file()
        speakers = [turn["from"] for turn in record["conversations"]]
        assert speakers == ["human", "gpt"] * (len(speakers) // 2)
        marks = [turn["value"].startswith("<image>\n") for turn in record["conversations"]]
        assert marks == [True] + [False] * (len(marks) - 1)


def test_rec_rows_are_three_to_one_to_one_of_unshared_scenes(data):
    pictures = []
    for split, count in (("val", 12), ("testA", 4), ("testB", 4)):
        rows = [json.loads(line) for line in (data / "refcoco" / f"{split}.jsonl").open()]
        assert len(rows) == count
        for row in rows:
            x1, y1, x2, y2 = row["bbox"]
            assert 0 <= x1 < x2 <= row["width"] and 0 <= y1 < y2 <= row["height"]
            assert (data / row["image"]).is_file()
        pictures += [row["image"] for row in rows]
    assert len(set(pictures)) == len(pictures)


def test_an_expression_means_one_object():
    thing = scenes.Thing
    twins = [thing("red", "ring", (0, 0, 10, 10)), thing("red", "ring", (60, 0, 80, 20))]
    found = scenes.expressions([*twins, thing("blue", "ring", (30, 30, 40, 40))])
    assert sorted(found) == [
        ("blue ring", 2),
        ("large red ring", 1),
        ("left red ring", 0),
        ("right red ring", 1),
        ("small red ring", 0),
    ]


def test_of_three_alike_only_those_that_stick_out_are_named():
    thing = scenes.Thing
    corners = ((0, 0, 10, 10), (40, 0, 50, 10), (60, 0, 80, 20))
    found = scenes.expressions([thing("red", "ring", box) for box in corners])
    assert sorted(found) == [("large red ring", 2), ("left red ring", 0), ("right red ring", 2)]


def test_every_scene_has_objects_that_only_a_qualifier_tells_apart():
    for seed in range(100):
        names = [t.name for t in scenes.layout(seed).things]
        assert len(set(names)) < len(names) or len(names) < 8  # a twin found no room


def test_numbers_are_written_as_llava_writes_them():
    box = (0, 0.4 * scenes.SIZE, 0.284 * scenes.SIZE, scenes.SIZE)
    assert scenes.box_text(box) == "[0.0, 0.4, 0.28, 1.0]"


def test_the_tokenizer_gives_every_text_back(data, tokenizer):
    for record in json.loads((data / "sft.json").read_text()):
        for turn in record["conversations"]:
            text = turn["value"].removeprefix("<image>")
            ids = tokenizer(text).input_ids
            assert ids[0] == tokenizer.bos_token_id and tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_a_coordinate_is_one_token(tokenizer):
    for i in range(101):
        value = scenes.number(i / 100)
        tokens = tokenizer.tokenize(f"[{value}, {value}]")
        assert tokens == ["▁[", value, ",▁", value, "]"]


def test_the_tokenizer_survives_what_it_never_saw(tokenizer):
    text = "zebra  café 100\n\n你 [0.375, -1]"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_an_answer_begins_where_llava_masks(tokenizer):
    """LLaVA counts the space after `ASSISTANT:` as one token and lets each round begin anew."""
    bare = tokenizer("USER: What is there? ASSISTANT: ").input_ids
    said = tokenizer("USER: What is there? ASSISTANT: a red ring.").input_ids
    assert said[: len(bare) - 1] == bare[:-1]
    both = tokenizer("USER: No. ASSISTANT: Yes.</s>USER: No. ASSISTANT: No.</s>").input_ids
    rounds = [tokenizer(f"USER: No. ASSISTANT: {a}").input_ids[1:] for a in ("Yes.", "No.")]
    assert both == [1, *rounds[0], 2, *rounds[1], 2]
    assert tokenizer.legacy
