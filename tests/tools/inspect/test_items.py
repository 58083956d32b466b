"""What the page of a query or of its pair shows, of whatever a run's folder still holds."""

import json

import pytest

from spr_plugin.files import write_json
from spr_plugin.tools.inspect.indexed import IndexedRun
from spr_plugin.tools.inspect.items import pair_item, query_item


def without_manifest(folder):
    folder.manifest.unlink()


def without_box_format(folder):
    manifest = json.loads(folder.manifest.read_text())
    write_json(folder.manifest, {**manifest, "config": {**manifest["config"], "box": None}})


@pytest.mark.parametrize(
    "lose, says",
    [(without_manifest, "has no manifest.json"), (without_box_format, "manifest names no box format")],
)
def test_a_run_that_lost_its_box_format_shows_its_questions_and_texts(made_run, lose, says):
    lose(made_run.folder)
    run = IndexedRun(made_run.output)
    assert [line for line in run.notices() if says in line]
    (pair, *_) = made_run.pairs
    one, row = run.pair(pair["id"])
    item = query_item(one, row)
    assert item.question == one.recipe.read(one.records("queries", row.id)[0]).text
    assert {box.kind for box in item.around} == {"region", "truth"}
    assert not [box for answer in item.answers for box in answer.original.boxes]
    item = pair_item(one, row)
    assert item.question == pair["prompt"]
    assert "".join(part.text for part in item.sides[0].parts) == pair["chosen"]
