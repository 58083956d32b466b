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


def test_the_lambda_of_a_score_stands_beside_it(made_run):
    """Where the recipe knows its terms, and the manifest says which it was."""

    def of_score():
        run = IndexedRun(made_run.output)
        (meaning,) = [one[1] for one in pair_item(*run.pair(made_run.pairs[0]["id"])).terms if one[0] == "S"]
        return meaning

    assert "Here λ" not in of_score()  # the terms are of another scorer
    log = made_run.folder.log("scores")
    terms = {"s_sem": 0.2, "s_loc": 0.4}
    log.write(
        {**one, "candidates": [{**row, "terms": terms, "repaired_terms": terms} for row in one["candidates"]]}
        for one in log.read().values()
    )
    assert of_score().endswith("higher is better. Here λ is 0.8.")
    without_manifest(made_run.folder)
    assert "Here λ" not in of_score()
