"""Files of scene graphs: layouts, and what of them is left out and counted."""

import json
from collections import Counter
from random import Random

import pytest
from PIL import Image

from spr_plugin.errors import UserError
from spr_plugin.recipes.spatial_thinker.graph import Triple
from spr_plugin.recipes.spatial_thinker.pictures import GraphImages


def picture(folder, name="a.png", size=(100, 80)):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(folder / name)


def opened(folder, content, name="graphs.json"):
    """(the pictures, what was left out) of a file that holds `content`."""
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    skipped = Counter()
    return list(GraphImages(str(folder / name), str(folder), skipped)), skipped


def own(*objects, relations=()):
    rows = [{"id": id, "bbox": box} for id, box in objects]
    return {
        "objects": rows,
        "relationships": [dict(zip(("subject", "predicate", "object"), r)) for r in relations],
    }


CAT, DOG = ("cat.1", [10, 10, 30, 30]), ("dog.2", [50, 10, 90, 70])


def test_a_table_of_one_s_own(tmp_path):
    picture(tmp_path, "sub/a.png")
    (image,), skipped = opened(
        tmp_path, {"sub/a.png": own(CAT, DOG, relations=[("cat.1", "Left of", "dog.2")])}
    )
    assert (image.id, image.width, image.height) == ("sub/a.png", 100, 80) and not skipped
    assert [(one.id, one.label, one.box.xyxy) for one in image.annotations] == [
        ("cat.1", "cat", (10, 10, 30, 30)),
        ("dog.2", "dog", (50, 10, 90, 70)),
    ]
    assert image.triples == (Triple("cat.1", "left of", "dog.2"),)


def test_the_tiny_world_s_graphs(tiny_world):
    world = tiny_world(spr=3, geometry=True)
    skipped = Counter()
    images = list(GraphImages(str(world / "graphs" / "spr.json"), str(world / "images"), skipped))
    assert len(images) == 3 and not skipped
    truth = json.loads((world / "graphs" / "spr.json").read_text())
    for image in images:
        assert [one.id for one in image.annotations] == [row["id"] for row in truth[image.id]["objects"]]
        assert len(image.triples) == len(truth[image.id]["relationships"]) > 0


def test_single_bad_records_are_counted(tmp_path):
    picture(tmp_path)
    (tmp_path / "text.png").write_text("no picture")
    graph = own(
        CAT,
        ("cat.1", [0, 0, 5, 5]),
        ("dog", [0, 0, 5, 5]),
        ("dog.3", [0, 0, 5]),
        ("off.4", [200, 200, 300, 300]),
        ("flat.5", [5, 5, 5, 9]),
        ("wide.6", [-20, 20, 400, 40]),
        relations=[
            ("cat.1", "on", "gone.9"),
            ("cat.1", "on", "off.4"),
            ("cat.1", "", "wide.6"),
            ("a", "on", "b"),
        ],
    )
    graph["relationships"] += [
        {"subject": "cat.1", "predicate": "on", "object": "cat.1"},
        {"subject": "cat.1", "predicate": "on", "object": "wide.6"},
    ]
    graph["objects"].append("cat.8")
    images, skipped = opened(tmp_path, {"a.png": graph, "gone.png": own(CAT), "text.png": own(CAT)})
    (image,) = images
    assert [one.id for one in image.annotations] == ["cat.1", "wide.6"]
    assert image.annotations[1].box.xyxy == (0, 20, 100, 40)
    assert image.triples == (Triple("cat.1", "on", "wide.6"),)
    assert skipped == {
        "duplicate_id": 1,
        "bad_object": 3,
        "outside": 2,
        "unknown_id": 2,
        "bad_relation": 3,
        "missing_image": 1,
        "unreadable_image": 1,
    }


def test_a_picture_whose_graph_is_none(tmp_path):
    picture(tmp_path)
    picture(tmp_path, "b.png")
    picture(tmp_path, "c.png")
    images, skipped = opened(tmp_path, {"a.png": {"objects": {}}, "b.png": 7, "c.png": own()})
    assert not images and skipped == {"bad_graph": 2, "no_objects": 1}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ("[]", "neither a table of picture"),
        ({}, "neither a table of picture"),
        ({"images": [], "annotations": [], "categories": []}, "neither a table of picture"),
        ([{"image_id": 1}], "neither a table of picture"),
        ("7", "neither a table of picture"),
        ([{"image_id": 1, "objects": []}], "relationships.json is missing"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, content, words):
    with pytest.raises(UserError, match=f"--spr_annotations .*graphs.json.*{words}") as refused:
        opened(tmp_path, content)
    assert "\n" not in str(refused.value)


# --- Visual Genome

OBJECTS = [
    {"object_id": 7, "x": 10, "y": 20, "w": 30, "h": 40, "names": ["traffic light"], "synsets": []},
    {"object_id": 8, "x": 50, "y": 0, "w": 20, "h": 10, "names": ["man's hat [red]"], "synsets": []},
    {"object_id": 9, "x": 50, "y": 0, "w": 20, "h": 10, "names": [], "synsets": []},
]
LINKS = [
    {
        "predicate": "ON",
        "subject": {"object_id": 7, "x": 1},
        "object": {"object_id": 8},
        "relationship_id": 1,
    },
    {"predicate": "has", "subject": {"object_id": 7}, "object": {"object_id": 99}, "relationship_id": 2},
    {"predicate": "of", "subject": 7, "object": None},
]


def assert_genome(image, skipped, id):
    assert image.id == id
    assert [(one.id, one.label, one.box.xyxy) for one in image.annotations] == [
        ("traffic light.1", "traffic light", (10, 20, 40, 60)),
        ("man's hat red.2", "man's hat red", (50, 0, 70, 10)),
    ]
    assert image.triples == (Triple("traffic light.1", "on", "man's hat red.2"),)
    assert skipped == {"bad_object": 1, "unknown_id": 1, "bad_relation": 1}


def test_visual_genome_s_two_files(tmp_path):
    picture(tmp_path, "VG_100K_2/2.jpg")
    (tmp_path / "relationships.json").write_text(json.dumps([{"image_id": 2, "relationships": LINKS}]))
    content = [{"image_id": 2, "image_url": "", "objects": OBJECTS}]
    (image,), skipped = opened(tmp_path, content, "objects.json")
    assert_genome(image, skipped, "VG_100K_2/2.jpg")


def test_visual_genome_s_one_file(tmp_path):
    picture(tmp_path, "2.jpg")
    links = [
        {"predicate": "ON", "subject_id": 7, "object_id": 8},
        {"predicate": "has", "subject_id": 7, "object_id": 99},
        {"predicate": "of", "subject_id": 7},
    ]
    content = [{"image_id": 2, "objects": OBJECTS, "relationships": links}]
    (image,), skipped = opened(tmp_path, content, "scene_graphs.json")
    assert_genome(image, skipped, "2.jpg")


def test_pictures_of_visual_genome_that_are_missing_are_counted(tmp_path):
    content = [{"image_id": n, "objects": OBJECTS, "relationships": []} for n in (1, 2)]
    images, skipped = opened(tmp_path, content, "scene_graphs.json")
    assert not images and skipped == {"missing_image": 2}


@pytest.mark.parametrize("content", [{}, [{"image_id": []}], [7]])
def test_relationships_that_are_none_are_one_line(tmp_path, content):
    (tmp_path / "relationships.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="relationships.json: not Visual Genome's"):
        opened(tmp_path, [{"image_id": 2, "objects": OBJECTS}], "objects.json")


def test_names_are_drawn_from_all_pictures(tmp_path):
    (tmp_path / "g.json").write_text(
        json.dumps(
            {"a.png": own(CAT), "b.png": own(DOG), "c.png": 7, "d.png": own(("a [0].1", [0, 0, 1, 1]))}
        )
    )
    images, rng = GraphImages(str(tmp_path / "g.json"), str(tmp_path), Counter()), Random(0)
    assert {images.some_name(rng) for _ in range(50)} == {"cat", "dog", None}
