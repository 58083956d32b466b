"""The tiny world: the same everywhere, split by hash, hard enough for SPR, and readable by its tokenizer."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from .world import WORLD, load

scenes = load("scenes")
painting, wording = scenes.painting, scenes.wording


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("world")
    scenes.write_world(out, sft=20, spr=10, val=4, test=20)
    return out


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tokenizer")
    script = "import vocabulary, sys; vocabulary.write_llava(sys.argv[1])"
    subprocess.run([sys.executable, "-c", script, folder], cwd=WORLD, check=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return transformers.AutoTokenizer.from_pretrained(folder, use_fast=False)


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
    assert painting.layout(0).key == "1cbeae6c64cb11a517b3e320574c73a1c312d421"


def test_the_default_world_is_fixed_for_ever(tmp_path):
    """Weights were taught on these scenes, and results were measured on them."""
    keys = "".join(painting.layout(seed).key for seed in range(300))
    assert (
        hashlib.sha256(keys.encode()).hexdigest()
        == "028ce61a698a0e50a0a724ba13949c69d89423599bde1d753ca70110d82bb9a0"
    )
    scenes.write_world(tmp_path, sft=6, spr=4, val=2, test=10, seed=3, noise=0.08, spr_noise=0.05)
    scenes.write_evaluation(tmp_path / "e", "test", 6, 2, 90)
    texts = (
        str(p.relative_to(tmp_path)).encode() + p.read_bytes() for p in sorted(tmp_path.rglob("*.json*"))
    )
    assert (
        hashlib.sha256(b"".join(texts)).hexdigest()
        == "008e56180e484d6b28d556b60b811b3d80371e0f9995a876ea5e8daadc62e4cb"
    )


def hard(**hardness):
    return [painting.layout(seed, painting.Hardness(**hardness)) for seed in range(200)]


@pytest.mark.slow
@pytest.mark.parametrize("wanted", range(7))
def test_so_many_objects_have_a_double(wanted):
    """Of the same colour and shape; fewer where one found no room."""
    doubles = [len(scene.things) - len({t.name for t in scene.things}) for scene in hard(distractors=wanted)]
    assert max(doubles) == (wanted + 1 if wanted else 0)
    assert wanted - 0.4 <= np.mean(doubles) <= wanted + 0.2


def covered(scene):
    """Share of each box's area that the other boxes lie on, each alone; the most of a scene."""
    area, both = painting.area, painting.intersection
    shares = [area(both(a.box, b.box)) / min(area(a.box), area(b.box))
              for a in scene.things for b in scene.things if a is not b]  # fmt: skip
    return max(shares)


@pytest.mark.slow
def test_boxes_overlap_as_much_as_they_may():
    shares = {limit: [covered(scene) for scene in hard(overlap=limit)] for limit in (0.0, 0.1, 0.3, 0.8)}
    assert max(shares[0.0]) == 0
    # Boxes are rounded to hundredths before they are compared.
    assert all(max(found) <= limit + 0.01 for limit, found in shares.items())
    means = [np.mean(found) for found in shares.values()]
    assert means == sorted(means) and means[3] > 2 * means[2] > 2 * means[1]


@pytest.mark.slow
def test_objects_are_as_small_and_as_unlike_as_asked():
    def widths(**hardness):
        return np.array([t.box[2] - t.box[0] for scene in hard(**hardness) for t in scene.things])

    default, small, equal, wide = widths(), widths(smallest=5.0), widths(spread=1.0), widths(spread=5.0)
    for found, low, high in ((default, 9, 28.8), (small, 5, 16), (equal, 9, 9), (wide, 9, 45)):
        assert low - 0.02 <= found.min() < 1.05 * low and 0.95 * high < found.max() <= high + 0.02
    # Large objects find room less often, so that what is drawn moves a little less than the settings.
    assert np.median(small) == pytest.approx(np.median(default) * 5 / 9, rel=0.1)
    assert np.quantile(wide, 0.9) > 1.2 * np.quantile(default, 0.9) and np.quantile(
        wide, 0.1
    ) == pytest.approx(np.quantile(default, 0.1), rel=0.1)
    ratios = [
        (t.box[3] - t.box[1]) / (t.box[2] - t.box[0])
        for scene in hard(smallest=5.0, spread=5.0)
        for t in scene.things
    ]
    assert min(ratios) >= 0.75 and max(ratios) <= 1.32


HARD = {"distractors": 5, "overlap": 0.0, "smallest": 6.0, "spread": 2.0}


@pytest.mark.slow
def test_every_file_of_a_world_is_as_hard_as_its_command_says(tmp_path):
    counts = {"sft": 4, "spr": 4, "val": 4, "test": 10}
    words = [f"--{name}={value}" for name, value in {**counts, **HARD}.items()]
    subprocess.run([sys.executable, WORLD / "scenes.py", tmp_path / "a", *words], check=True)
    scenes.write_world(tmp_path / "b", **counts, **HARD)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    for split in ("spr", "val"):
        coco = json.loads((tmp_path / "a" / f"{split}.json").read_text())
        kinds = {
            image["id"]: [a["category_id"] for a in coco["annotations"] if a["image_id"] == image["id"]]
            for image in coco["images"]
        }
        assert all(len(found) - len(set(found)) >= 2 for found in kinds.values())
        assert all(5.9 <= a["bbox"][2] <= 12.1 for a in coco["annotations"])
    asked = [
        json.loads(line)
        for part in ("val", "testA", "testB")
        for line in (tmp_path / "a/refcoco" / f"{part}.jsonl").open()
    ]
    assert asked and all(5.9 <= row["bbox"][2] - row["bbox"][0] <= 12.1 for row in asked)
    for place, scene in enumerate(painting.scenes("sft", 4, 0, painting.Hardness(**HARD))):
        assert (
            painting.render(scene)[0] == np.asarray(Image.open(tmp_path / f"a/images/sft/{place:06d}.png"))
        ).all()


@pytest.mark.parametrize("wrong", [{"distractors": 7}, {"overlap": 1.5}, {"smallest": 1.0}, {"spread": 6.0}])
def test_what_no_scene_can_be_is_refused(tmp_path, wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name} is {value}; it goes from"):
        scenes.write_world(tmp_path, **wrong)
    done = subprocess.run(
        [sys.executable, WORLD / "scenes.py", tmp_path, f"--{name}={value}"], capture_output=True, text=True
    )
    assert done.returncode == 2 and f"{name} is {value}" in done.stderr and not list(tmp_path.iterdir())


def test_of_a_scene_of_twins_that_no_word_tells_apart_nothing_is_asked(tmp_path, monkeypatch):
    thing = painting.Thing
    twins = painting.Scene(0, (thing("red", "ring", (0, 0, 20, 20)), thing("red", "ring", (5, 50, 25, 70))))
    assert not scenes.asked_expressions(twins, np.random.default_rng(0))
    monkeypatch.setattr(painting, "scenes", lambda *args: iter([twins, painting.layout(0)]))
    scenes.write_evaluation(tmp_path, "test", 2, 0, 0)
    rows = [json.loads(line) for file in sorted((tmp_path / "refcoco").iterdir()) for line in file.open()]
    assert {row["image"] for row in rows} == {"images/test/000001.png"}


@pytest.mark.slow
def test_splits_share_no_scene():
    keys = {s: {scene.key for scene in painting.scenes(s, 60)} for s in painting.SPLITS}
    assert all(len(found) == 60 for found in keys.values())
    assert len(set.union(*keys.values())) == 60 * len(keys)


def test_most_scenes_give_a_region_of_more_than_four_objects_that_is_not_the_picture():
    rng, good = np.random.default_rng(0), 0
    for seed in range(300):
        boxes = [t.box for t in painting.layout(seed).things]
        region = painting.grow_region(boxes, int(rng.integers(len(boxes))))
        good += region is not None and painting.area(region) <= 0.6 * painting.SIZE**2
    assert good >= 0.8 * 300


def test_a_grown_region_holds_just_over_the_count_and_its_first_box():
    boxes = [(0, 0, 10, 10), (12, 0, 22, 10), (50, 0, 60, 10)]
    assert painting.grow_region(boxes, 0, more_than=1) == (0, 0, 22, 10)
    assert painting.grow_region(boxes, 2, more_than=2) == (0, 0, 60, 10)
    assert painting.grow_region(boxes, 0, more_than=3) is None


def test_objects_stay_mostly_visible():
    for seed in range(40):
        scene = painting.layout(seed)
        owner = painting.render(scene)[1]
        for index, thing in enumerate(scene.things):
            # Rings and crosses fill a good third of their box; what covers them takes some more.
            assert (owner == index).sum() >= 0.15 * painting.area(thing.box)


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
        for row in rows:
            x1, y1, x2, y2 = row["bbox"]
            assert 0 <= x1 < x2 <= row["width"] and 0 <= y1 < y2 <= row["height"]
            assert (data / row["image"]).is_file()
        assert len({row["id"] for row in rows}) == len(rows)
        pictures.append({row["image"] for row in rows})
        assert len(pictures[-1]) == count
        assert 5 * count <= len(rows) <= 7 * count  # RefCOCO asks seven about a picture
    assert len(set.union(*pictures)) == 20


def test_of_a_picture_those_expressions_are_asked_first_that_only_a_word_tells_apart():
    for seed in range(50):
        scene = painting.layout(seed)
        asked = scenes.asked_expressions(scene, np.random.default_rng(seed))
        qualified = [e for e in wording.expressions(scene.things) if wording.is_qualified(e[0])]
        assert len(set(asked)) == len(asked) == min(7, len(wording.expressions(scene.things)))
        assert set(asked[: len(qualified)]) <= set(qualified) or len(qualified) > 7


def test_depth_is_the_order_of_painting():
    for seed in range(20):
        scene = painting.layout(seed)
        depth, owner = painting.depth_map(scene), painting.render(scene)[1]
        seen = [depth[owner == i] for i in range(len(scene.things))]
        assert all(len(np.unique(one)) == 1 for one in seen if len(one))
        of_objects = [int(one[0]) for one in seen if len(one)]
        assert of_objects == sorted(of_objects, reverse=True) and len(set(of_objects)) == len(of_objects)
        assert (depth[owner == -1] == 10000).all() and max(of_objects) < 10000


def test_a_graph_says_what_boxes_and_painting_say():
    thing = painting.Thing
    things = (
        thing("red", "ring", (0, 0, 30, 30)),
        thing("blue", "ring", (20, 20, 30, 30)),
        thing("green", "cross", (60, 40, 70, 50)),
    )
    graph = painting.graph(painting.Scene(0, things))
    red, blue, green = (one["id"] for one in graph["objects"])
    assert (red, blue, green) == ("red ring.1", "blue ring.2", "green cross.3")
    assert [one["bbox"] for one in graph["objects"]] == [list(t.box) for t in things]
    assert {tuple(one.values()) for one in graph["relationships"]} == {
        (red, "left of", green),
        (red, "above", green),
        (red, "larger than", blue),
        (red, "larger than", green),
        (blue, "in front of", red),
        (blue, "left of", green),
        (blue, "above", green),
    }


def test_geometry_is_written_on_request(tmp_path):
    scenes.write_world(tmp_path / "a", sft=1, spr=2, val=1, test=2)
    assert not (tmp_path / "a" / "depth").exists() and not (tmp_path / "a" / "graphs").exists()
    scenes.write_world(tmp_path / "b", sft=1, spr=2, val=1, test=2, geometry=True)
    for split in ("spr", "test"):
        graphs = json.loads((tmp_path / "b" / "graphs" / f"{split}.json").read_text())
        for picture, graph in graphs.items():
            assert (tmp_path / "b" / "images" / picture).is_file() and graph["objects"]
            depth = Image.open(tmp_path / "b" / "depth" / picture)
            assert depth.size == (painting.SIZE, painting.SIZE) and np.asarray(depth).dtype == np.uint16
        assert len(graphs) == 2


def test_an_expression_means_one_object():
    thing = painting.Thing
    twins = [thing("red", "ring", (0, 0, 10, 10)), thing("red", "ring", (60, 0, 80, 20))]
    found = wording.expressions([*twins, thing("blue", "ring", (30, 30, 40, 40))])
    assert sorted(found) == [
        ("blue ring", 2),
        ("large red ring", 1),
        ("left red ring", 0),
        ("right red ring", 1),
        ("small red ring", 0),
    ]


def test_of_three_alike_only_those_that_stick_out_are_named():
    thing = painting.Thing
    corners = ((0, 0, 10, 10), (40, 0, 50, 10), (60, 0, 80, 20))
    found = wording.expressions([thing("red", "ring", box) for box in corners])
    assert sorted(found) == [("large red ring", 2), ("left red ring", 0), ("right red ring", 2)]


def test_every_scene_has_objects_that_only_a_qualifier_tells_apart():
    for seed in range(100):
        names = [t.name for t in painting.layout(seed).things]
        assert len(set(names)) < len(names) or len(names) < 8  # a twin found no room


def test_numbers_are_written_as_llava_writes_them():
    box = (0, 0.4 * painting.SIZE, 0.284 * painting.SIZE, painting.SIZE)
    assert wording.box_text(box) == "[0.0, 0.4, 0.28, 1.0]"


def test_the_tokenizer_gives_every_text_back(data, tokenizer):
    for record in json.loads((data / "sft.json").read_text()):
        for turn in record["conversations"]:
            text = turn["value"].removeprefix("<image>")
            ids = tokenizer(text).input_ids
            assert ids[0] == tokenizer.bos_token_id and tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_a_coordinate_is_one_token(tokenizer):
    for i in range(101):
        value = wording.number(i / 100)
        tokens = tokenizer.tokenize(f"[{value}, {value}]")
        assert tokens == ["▁[", value, ",▁", value, "]"]


@pytest.mark.parametrize(
    "text, tokens",
    [
        ("<think> it is left </think>", "▁ <think> ▁it ▁is ▁left ▁ </think>"),
        ("\\boxed{0-2-3-1}", "▁ \\boxed{ 0 - 2 - 3 - 1 }"),
        ("\\boxed{B}", "▁ \\boxed{ B }"),
        ("\\boxed{none}", "▁ \\boxed{ none }"),
        ("<answer> (D) right </answer>", "▁ <answer> ▁ ( D ) ▁right ▁ </answer>"),
        (
            '{"id": "orange ring.1", "bbox": [12, 34, 96, 40]}',
            '▁ { "id": ▁ "orange ▁ring . 1 " ,▁ "bbox": ▁[ 12 ,▁ 34 ,▁ 96 ,▁ 40 ] }',
        ),
        ('"predicate": "left of"', '▁ "predicate": ▁ "left ▁of "'),
    ],
)
def test_what_recipes_write_is_a_token_a_piece(text, tokens, tokenizer):
    assert tokenizer.tokenize(text) == tokens.split(" ")


def test_every_known_word_is_one_token(tokenizer, monkeypatch):
    monkeypatch.syspath_prepend(WORLD)
    vocabulary = load("vocabulary")
    for word in vocabulary.known_words():
        assert tokenizer.tokenize(word) == ["▁" + word]
    for unit in vocabulary.recipe_units():
        assert tokenizer.tokenize("x" + unit)[-1] == unit


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
