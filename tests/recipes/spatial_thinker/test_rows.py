"""Rows of STVQA-7K's make: what is read, and what is left out."""

import json
from collections import Counter

import pytest
from PIL import Image

from spr_plugin.errors import UserError
from spr_plugin.recipes.spatial_thinker.rows import read_rows

SCENE = {
    "objects": [{"id": "man.1", "bbox": [0, 0, 50, 50]}, {"id": "bench.2", "bbox": [40, 40, 90, 70]}],
    "relationships": [{"subject": "man.1", "predicate": "on", "object": "bench.2"}],
}


def row(letter="B", scene=SCENE, **changes):
    return {
        "image_id": "7",
        "question_only": "Where is the man?",
        "options": ["(A) under the bench", "on the bench"],
        "answer": f"<scene>{json.dumps(scene)}</scene>\n<answer>{letter}</answer>",
        "category": "relation",
        **changes,
    }


def read(folder, *rows, seed=0):
    Image.new("RGB", (100, 80)).save(folder / "7.jpg")
    (folder / "rows.jsonl").write_text(
        "\n".join(one if isinstance(one, str) else json.dumps(one) for one in rows)
    )
    skipped = Counter()
    return list(read_rows(str(folder / "rows.jsonl"), str(folder), seed, skipped)), skipped


@pytest.mark.parametrize("letter", ["B", " (B) on the bench ", "b", "(B)"])
def test_a_row(tmp_path, letter):
    (one,), skipped = read(tmp_path, row(letter))
    assert (one.image.id, one.text, one.options) == (
        "7.jpg",
        "Where is the man?",
        ("under the bench", "on the bench"),
    )
    assert one.right == 1 and one.task == "relation" and not skipped
    assert [a.id for a in one.image.annotations] == ["man.1", "bench.2"] and len(one.triples) == 1


def test_a_picture_by_its_file_name(tmp_path):
    (tmp_path / "sub").mkdir()
    Image.new("RGB", (100, 80)).save(tmp_path / "sub" / "x.png")
    (one,), _ = read(tmp_path, row(image="sub/x.png"))
    assert one.image.id == "sub/x.png"


BAD = {
    "no question": row(question_only=" "),
    "one option": row(options=["on"]),
    "options that are no texts": row(options=[1, 2]),
    "a letter behind the last": row("C"),
    "a text for an answer": row("on the bench"),
    "no scene": row(answer="<answer>B</answer>"),
    "a scene that is no graph": row(scene={"objects": [{"id": "man", "bbox": [1, 2, 3, 4]}]}),
    "no picture": row(image_id=None),
    "no table": [1],
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_row_is_counted_and_a_bad_first_one_ends_it(tmp_path, kind):
    rows, skipped = read(tmp_path, row(), BAD[kind], row("A"))
    assert {one.right for one in rows} == {1, 0} and skipped == {"bad_row": 1}
    with pytest.raises(UserError, match="--spr_annotations .*rows.jsonl, line 1: no question of STVQA"):
        read(tmp_path, BAD[kind], row())


def test_their_order_is_drawn(tmp_path):
    """So that a part of them is a fair sample, and another seed's another one."""
    rows = [row(question_only=f"{number}?") for number in range(30)]
    orders = [[one.text for one in read(tmp_path, *rows, seed=seed)[0]] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2] and set(orders[0]) == set(orders[2]) and len(orders[0]) == 30
    assert orders[0] != sorted(orders[0], key=lambda text: int(text[:-1]))


def test_what_lies_off_the_picture_goes_with_its_relations(tmp_path):
    scene = {**SCENE, "objects": [SCENE["objects"][0], {"id": "bench.2", "bbox": [200, 0, 300, 90]}]}
    (one,), skipped = read(tmp_path, row(scene=scene), row(image_id=9))
    assert [a.id for a in one.image.annotations] == ["man.1"] and not one.triples
    assert skipped == {"outside": 1, "unknown_id": 1, "missing_image": 1}


def test_lines_that_are_no_json(tmp_path):
    with pytest.raises(UserError, match="rows.jsonl, line 2: not JSON"):
        read(tmp_path, row(), "{")
