"""Questions about the scenes of a folder: how many, in which proportions, what is left out and why."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest

from spr_plugin.data.pictures import open_image
from spr_plugin.errors import UserError
from spr_plugin.recipes.actial.motion import MOTIONS, TASKS
from spr_plugin.recipes.base import Query


def test_sides_and_none_come_as_often_in_every_task(ask):
    """And who takes a turn for a move is right in half of the cases."""
    queries, skipped = ask(120)
    assert len(queries) == 120 == len({query.id for query in queries}) and not skipped
    assert Counter(query.task for query in queries) == dict.fromkeys(TASKS, 40)
    for task in TASKS:
        ours = [query.truth for query in queries if query.task == task]
        answers = Counter(truth["answer"] for truth in ours)
        assert (
            answers.keys() == {"left", "right", "none"} and max(answers.values()) - min(answers.values()) <= 2
        )
        motions = Counter(truth["motion"] for truth in ours)
        assert (
            motions.keys() == MOTIONS.keys() and motions["orbit"] in (16, 17) and motions["still"] in (3, 4)
        )


def test_a_query_holds_its_two_pictures(ask, posed_world):
    queries, _ = ask(60)
    for query in queries:
        assert len(query.pictures) == 2 and all(
            one.path.startswith(str(posed_world(scenes=12, views=24))) for one in query.pictures
        )
        again = Query.from_record(json.loads(json.dumps(query.to_record())))
        assert again == query
        for picture, at in zip(query.pictures, query.truth["object"]):
            assert open_image(picture.source).size == (picture.width, picture.height)
            assert at is None or (0 <= at[0] <= picture.width and 0 <= at[1] <= picture.height)
        options = query.text.partition("Options: ")[2].partition(". ")[0].split(", ")
        assert sorted(options) == ["left", "none", "right"]
    assert len({query.text for query in queries if query.task == "turn"}) > 3


def test_the_same_seed_asks_the_same_wherever_the_pictures_lie(ask, posed_world, tmp_path):
    ids = [query.id for query in ask(40)[0]]
    assert ids == [query.id for query in ask(40)[0]] and ids[:20] == [query.id for query in ask(20)[0]]
    assert not {*ids} & {query.id for query in ask(40, spr_seed=1)[0]}
    shutil.copytree(posed_world(scenes=12, views=24), tmp_path / "moved")
    assert ids == [query.id for query in ask(40, folder=tmp_path / "moved")[0]]


def test_layouts_ask_the_same(ask, posed_world):
    """But for the last digits of a rotation."""
    own, text, binary = (
        [
            (query.task, query.truth)
            for query in ask(30, folder=posed_world(scenes=4, views=12, layout=layout))[0]
        ]
        for layout in ("own", "text", "binary")
    )
    assert own == text == binary


def test_scenes_that_are_excluded_by_one_of_their_pictures(ask, tmp_path, capsys):
    """Pictures of other scenes have the same file name."""
    taken = {query.pictures[0].id for query in ask(20)[0]}
    (tmp_path / "cold.json").write_text(json.dumps([{"file_name": name} for name in taken]))
    queries, skipped = ask(80, spr_exclude=[str(tmp_path / "cold.json")])
    scenes = {name.rpartition("/images/")[0] for name in taken}
    asked = {one.id.rpartition("/images/")[0] for query in queries for one in query.pictures}
    assert len(queries) == 80 and not scenes & asked and skipped == {"excluded": len(scenes)}
    (tmp_path / "cold.json").write_text(json.dumps([{"image": "000.png"}]))
    assert ask(20, spr_exclude=[str(tmp_path / "cold.json")])[1] == {}


def test_fewer_than_are_asked_for(ask, capsys, posed_world):
    """Each scene gives its ten, and no question twice."""
    queries, _ = ask(500, folder=posed_world(scenes=4, views=5))
    assert len(queries) == 40 and len({query.id for query in queries}) == 40
    assert "40 of 500 questions on 4 scenes: move 14" in capsys.readouterr().err
    queries, _ = ask(500, {"per_scene": 3}, posed_world(scenes=4, views=5))
    assert len(queries) == 12


def test_without_a_focal_length_there_are_orbits_and_rests(ask, posed_world, table, tmp_path):
    shutil.copytree(posed_world(scenes=4, views=12), tmp_path / "world")

    def change(content):
        for scene in content.values():
            for row in scene["pictures"].values():
                del row["focal"]

    table(tmp_path / "world", change)
    queries, skipped = ask(30, folder=tmp_path / "world")
    assert {query.truth["motion"] for query in queries} == {"orbit", "still"} and len(queries) == 30
    assert skipped.keys() == {"no_focal_length"} and all(
        query.truth["object"] == [None] * 2 for query in queries
    )


def test_motions_and_tasks_may_be_chosen(ask):
    queries, _ = ask(20, {"tasks": "turn", "motions": ["orbit=0", "shift=0", "still=1", "turn=3"]})
    assert {query.task for query in queries} == {"turn"}
    assert Counter(query.truth["motion"] for query in queries) == {"turn": 15, "still": 5}


def test_scenes_of_nothing_give_none(ask, posed_world, table, tmp_path):
    shutil.copytree(posed_world(scenes=4, views=5), tmp_path / "world")

    def change(content):
        for scene in content.values():
            for row in scene["pictures"].values():
                row["rotation"] = np.diag([1, 1, -1]).tolist()

    table(tmp_path / "world", change)
    queries, skipped = ask(10, folder=tmp_path / "world")
    assert queries == [] and skipped == {"no_rotation": 20, "one_picture": 4}
    with pytest.raises(UserError, match="holds neither poses.json nor a reconstruction of COLMAP's"):
        ask(10, folder=tmp_path / "world" / "0")
    queries, _ = ask(
        10, folder=tmp_path / "world", spr_annotations=str(posed_world(scenes=4, views=5) / "poses.json")
    )
    assert len(queries) == 10
