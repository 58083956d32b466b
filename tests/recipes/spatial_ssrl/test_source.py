"""Questions about a folder of pictures: how many, about what, what is left out and why."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spr_plugin.config import SPRConfig
from spr_plugin.data.pictures import open_image
from spr_plugin.errors import UserError
from spr_plugin.recipes.base import Source
from spr_plugin.recipes.find import find_recipe
from spr_plugin.recipes.spatial_ssrl.settings import TASKS


@pytest.fixture
def ask(tmp_path, scene):
    """``ask(number, section, **flags)`` → (queries, what was left out) about six pictures."""
    (tmp_path / "pictures" / "inner").mkdir(parents=True)
    (tmp_path / "depth" / "inner").mkdir(parents=True)
    for seed in range(6):
        name = f"inner/{seed}" if seed % 2 else f"{seed}"
        of = scene(seed=seed)
        of.picture.save(tmp_path / "pictures" / f"{name}.png")
        Image.fromarray((of.depth * 60000 + 1).astype(np.uint16)).save(tmp_path / "depth" / f"{name}.png")

    def asked(number, section, most_pictures=1, **flags):
        file = tmp_path / "recipe.yaml"
        file.write_text(json.dumps({"spatial_ssrl": section}))
        flags = dict(spr_recipe="spatial_ssrl", spr_recipe_config=str(file), spr_regions=number) | flags
        skipped = Counter()
        recipe = find_recipe(SPRConfig(spr=True, **flags), None)
        folder = str(tmp_path / "pictures")
        queries = recipe.queries(Source(image_folder=folder, most_pictures=most_pictures, skipped=skipped))
        return list(queries), skipped

    asked.depth = {"depth": str(tmp_path / "depth"), "distance": "code"}
    asked.folder = tmp_path
    return asked


def test_tasks_in_turn(ask):
    queries, _ = ask(60, ask.depth)
    tasks = Counter(query.task for query in queries)
    assert len(queries) == 60 and tasks.keys() == set(TASKS) and max(tasks.values()) <= 20
    assert Counter(len({q.task for q in queries if q.pictures[0].id == f"{n}.png"}) for n in (0, 2, 4)) == {
        5: 3
    }
    assert len({query.id for query in queries}) == 60
    assert all(query.pictures[0].path.startswith(str(ask.folder)) for query in queries)
    for query in queries:
        for picture in query.pictures:
            assert open_image(picture.source).size == (picture.width, picture.height)


def test_the_same_seed_asks_the_same_wherever_the_pictures_lie(ask):
    queries, _ = ask(40, ask.depth)
    ids = [query.id for query in queries]
    assert ids == [query.id for query in ask(40, ask.depth)[0]]
    assert not set(ids) <= {query.id for query in ask(40, ask.depth, spr_seed=1)[0]}
    (ask.folder / "pictures").rename(ask.folder / "moved")
    (ask.folder / "pictures").symlink_to(ask.folder / "moved")
    assert [query.id for query in ask(40, ask.depth)[0]] == ids
    assert [query.id for query in ask(20, ask.depth)[0]] == ids[:20]


def test_without_depth_three_tasks(ask):
    queries, skipped = ask(30, {})
    assert {query.task for query in queries} == set(TASKS[:3]) and not skipped["missing_depth"]
    with pytest.raises(
        UserError, match=r"recipe\.yaml: spatial_ssrl: tasks position: of depth, whose folder `depth`"
    ):
        ask(3, {"tasks": ["patch_order", "position"]})
    with pytest.raises(
        UserError, match=r"spatial_ssrl: tasks \['order'\]|tasks order: choose from patch_order"
    ):
        ask(3, {"tasks": ["order"]})
    with pytest.raises(UserError, match=r"spatial_ssrl: depth /nowhere: no such folder"):
        ask(3, {"depth": "/nowhere"})


def test_a_host_of_several_pictures_is_shown_the_pieces(ask):
    one, several, montage = (
        ask(4, {"tasks": ["cropped_patch"], "montage": way}, most)[0]
        for most, way in ((1, False), (5, False), (5, True))
    )
    assert [len(query.pictures) for query in (*one, *several, *montage)] == [1] * 4 + [5] * 4 + [1] * 4
    assert [query.id for query in one] == [query.id for query in montage] != [query.id for query in several]
    assert len(ask(2, {"tasks": ["cropped_patch"]}, 4)[0][0].pictures) == 1


def test_what_cannot_be_used_is_counted(ask):
    """Flat, small, broken, of 16 bits; depth that is missing, of another size, or all the same."""
    pictures, depths = ask.folder / "pictures", ask.folder / "depth"
    Image.new("RGB", (96, 72), "gray").save(pictures / "flat.png")
    Image.new("RGB", (96, 20), "gray").save(pictures / "small.png")
    (pictures / "broken.jpg").write_bytes(b"no picture")
    Image.fromarray(np.ones((50, 50), np.uint16)).save(pictures / "deep.png")
    (depths / "0.png").unlink()
    Image.fromarray(np.ones((96, 72), np.uint16)).save(depths / "2.png")
    Image.fromarray(np.full((72, 96), 7, np.uint16)).save(depths / "4.png")
    queries, skipped = ask(200, ask.depth)
    assert len(queries) == 200
    reasons = (
        "hardly_changed small_picture unreadable_image more_than_8_bits missing_depth depth_of_another_size"
    )
    assert {*reasons.split(), "flat_depth"} <= skipped.keys(), skipped
    assert not {"flat.png", "small.png", "broken.jpg", "deep.png"} & {q.pictures[0].id for q in queries}
    assert not {q.task for q in queries if q.pictures[0].id in ("0.png", "2.png", "4.png")} & set(TASKS[3:])


def test_where_no_question_is_left_it_ends(ask):
    """A handful of questions there are, then none that is new; all too flat: none, and the run says so."""
    queries, skipped = ask(1000, {"tasks": ["flipped_patch"]})
    assert 30 <= len(queries) <= 48 and skipped["asked_already"] >= 6
    for file in (ask.folder / "pictures").rglob("*.png"):
        Image.new("RGB", (96, 72), "gray").save(file)
    queries, skipped = ask(1000, {})
    assert not queries and skipped == {"hardly_changed": 18}


def test_pictures_are_left_out_by_spr_exclude(ask):
    names = ask.folder / "names.txt"
    names.write_text("0.png\n1.png\n")
    queries, skipped = ask(30, {}, spr_exclude=[str(names)])
    assert skipped["excluded"] == 2
    assert {query.pictures[0].id for query in queries} == {"2.png", "4.png", "inner/3.png", "inner/5.png"}
    names.write_text("\n".join(f"{number}.png" for number in range(6)))
    with pytest.raises(UserError, match="holds no picture, but for 6 that --spr_exclude names"):
        ask(30, {}, spr_exclude=[str(names)])


def test_depths_in_the_pictures_folder_are_no_pictures(ask):
    (ask.folder / "depth").rename(ask.folder / "pictures" / "depth")
    queries, skipped = ask(30, {**ask.depth, "depth": str(ask.folder / "pictures" / "depth")})
    assert len(queries) == 30 and not skipped["more_than_8_bits"]
    assert {query.task for query in queries} == set(TASKS)


def test_photographs_and_a_real_stereo_pair(ask):
    """scikit-image's: three tasks about any of them, all five about the one whose disparity is known."""
    data = Path(pytest.importorskip("skimage").__file__).with_name("data")
    shutil.rmtree(ask.folder / "pictures")
    for name in ("chelsea.png", "coffee.png", "motorcycle_left.png"):
        (ask.folder / "pictures").mkdir(exist_ok=True)
        shutil.copy(data / name, ask.folder / "pictures" / name)
    with np.load(data / "motorcycle_disp.npz") as content:
        np.save(ask.folder / "depth" / "motorcycle_left.npy", content["arr_0"])
    queries, skipped = ask(24, {"depth": str(ask.folder / "depth"), "disparity": True})
    of_depth = [query for query in queries if query.task in TASKS[3:]]
    assert {query.task for query in queries} == set(TASKS) and skipped["missing_depth"]
    assert {query.pictures[0].id for query in of_depth} == {"motorcycle_left.png"}
    assert {query.pictures[0].id for query in queries if query.task == "patch_order"} >= {"chelsea.png"}
