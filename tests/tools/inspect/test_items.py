"""What the pages of a query and of its pair show, also of records that are damaged, foreign or gone."""

import json
from collections import Counter
from dataclasses import asdict
from html import unescape
from pathlib import Path

import pytest

pytest.importorskip("starlette")  # not in the environments of older transformers

from spr_plugin.boxes import Box
from spr_plugin.config import SPRConfig
from spr_plugin.files import write_json
from spr_plugin.formats import llava
from spr_plugin.judging import judge_queries
from spr_plugin.pairing import best_over_worst, make_pair
from spr_plugin.plugins import load_file, manager
from spr_plugin.queries import log_queries
from spr_plugin.recipes.base import Source
from spr_plugin.recipes.find import find_recipe
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.manifest import Changes, bind, settings_of
from spr_plugin.tools.inspect.indexed import IndexedRun
from spr_plugin.tools.inspect.items import pair_item, query_item, shown
from tests.tools.inspect.page import Page

ROOT = Path(__file__).parents[3]


def test_a_pair_is_shown_with_every_box_its_phrase_and_what_its_terms_mean(made_run, pages):
    (pair, *_), browser = made_run.pairs, pages(made_run.output)
    query = next(query for query in made_run.queries if query.id == pair["query"])
    page = Page(browser.get(f"/pair/{pair['id']}"))
    assert pair["rejected"] == made_run.answers(query)[2]
    assert pair["chosen"] in page.text and pair["rejected"] in page.text
    boxes = {box["data-box"]: box for box in page.all("a") if "data-box" in box}
    assert sum(box["data-kind"] == "truth" for box in boxes.values()) == len(query.truth)
    exact = [one["data-xyxy"] for one in page.all("rect", **{"class": "exact"})]
    for annotation in query.truth:
        assert " ".join(str(float(value)) for value in annotation.box.xyxy) in exact
    kinds = {box["data-kind"] for box in boxes.values()}
    assert {name for name in page.ids if name.startswith("toggle-")} == {f"toggle-{kind}" for kind in kinds}
    for key, box in boxes.items():
        if box["data-kind"] in ("chosen", "rejected"):
            phrase = page.ids[f"phrase-{key}"][1]
            assert box["href"] == f"#phrase-{key}" and key in phrase["data-boxes"].split()
            assert phrase["href"] == f"#{box['id']}"
    assert "For each true box its best IoU" in page.text and "higher is better" in page.text
    assert len(page.all("mark")) > 2  # chosen and rejected differ in coordinates and in what is named


def test_a_pair_s_page_begins_without_the_boxes_before_and_after_repair(made_run, pages):
    """They are twice as many; a query's page, which is about them, begins with all."""
    pair, browser = made_run.pairs[-1], pages(made_run.output)
    log = made_run.folder.log("scores")
    loose = "cup [0.1, 0.1, 0.2, 0.2]"
    log.write(
        {**one, "candidates": [{**answer, "text": loose, "repaired": loose} for answer in one["candidates"]]}
        for one in log.read().values()
    )
    seen = {}
    for what, address in (("pair", f"/pair/{pair['id']}"), ("query", f"/query/{pair['query']}")):
        ids = Page(browser.get(address)).ids
        seen[what] = {
            name.removeprefix("toggle-"): "checked" in one
            for name, (_, one) in ids.items()
            if name.startswith("toggle-")
        }
    assert seen["pair"]["said"] is seen["pair"]["repaired"] is False
    assert seen["pair"]["truth"] and seen["pair"]["chosen"] and seen["pair"]["rejected"]
    assert seen["query"] and all(seen["query"].values())


def test_all_answers_of_a_skipped_query_with_its_reasons_explained(made_run, pages):
    page = Page(pages(made_run.output).get(f"/query/{made_run.queries[-1].id}"))
    assert "No pair: too_few_valid. Too few of its answers have a score" in page.text
    assert page.text.count("no score, not chosen, not rejected: no_box. The answer gives no box.") == 2
    assert len(page.all("article")) == 3 and "some things" in page.text


def test_a_recipe_of_several_pictures_shows_each_with_its_own_words(tiny_world, objects_csv, pages, tmp_path):
    world, lab = tiny_world(spr=4), str(ROOT / "examples" / "lab_plugin" / "lab_spr.py")
    load_file(lab)
    try:
        objects = objects_csv(world, tmp_path / "objects.csv")
        config = SPRConfig(spr=True, spr_recipe="names", spr_annotations=objects, spr_plugin=[lab])
        recipe, folder = find_recipe(config, None), Folder.under(tmp_path / "out")
        bind(folder, settings_of(config, llava("pad").describe()), Changes({}, ()))
        queries = recipe.queries(Source(None, f"{world}/images"))
        log_queries(folder, recipe, queries, Counter(all_named=2))
        for query in queries:
            texts = [", ".join(query.truth), query.truth[0]]
            rows = [{"id": f"{query.id}-{index}", "text": text} for index, text in enumerate(texts)]
            (scores,) = judge_queries([query], [rows], recipe)
            folder.log("scores").append(scores)
            pair = make_pair(query, query.text, scores["candidates"], best_over_worst)
            folder.log("pairs").append(asdict(pair))
        browser = pages(tmp_path / "out", plugins=(lab,))
        page = Page(browser.get(f"/pair/{pair.id}"))
        assert len(page.all("img")) == 2 and "Share of the objects that are named." in page.text
        assert "all_named 2 It names every object." in Page(browser.get("/")).text
        for image in page.all("img"):
            assert browser.get(image["src"]).headers["content-type"].startswith("image/")
        query_page = Page(browser.get(f"/query/{query.id}"))
        assert "not rejected: all_named. It names every object." in query_page.text
        assert len(query_page.all("img")) == 2 * (1 + len(texts))
    finally:
        manager().unregister(name=lab)


@pytest.mark.parametrize("stage", ["queries", "candidates", "scores", "pairs"])
def test_damaged_logs_and_records_of_another_form_leave_the_rest_to_be_read(made_run, pages, stage):
    log = made_run.folder.log(stage)
    whole = list(log.read().values())
    log.write([{"id": one["id"], "query": one.get("query", one["id"])} for one in whole[:2]] + whole[2:])
    with open(log.path, "ab") as file:
        file.write(b'{"id": "torn"}\n')
    browser = pages(made_run.output)
    index = Page(browser.get("/"))
    assert "1 torn or damaged records are left out." in index.text
    if stage != "candidates":
        assert f"cannot read are shown in part, or not: 2 of {stage}" in index.text
    for query in made_run.queries:
        Page(browser.get(f"/query/{query.id}"))
    for row in index.all("tr"):
        if "data-pair" in row:
            Page(browser.get(f"/pair/{row['data-pair']}"))


@pytest.mark.parametrize("stage", ["queries", "candidates", "scores"])
def test_a_log_that_is_gone_leaves_the_rest_to_be_read(made_run, pages, stage):
    made_run.folder.log(stage).path.unlink()
    browser = pages(made_run.output)
    for row in Page(browser.get("/")).all("tr"):
        if "data-pair" in row:
            page = Page(browser.get(f"/pair/{row['data-pair']}"))
            assert "chosen, S =" in page.text
        if "data-query" in row:
            Page(browser.get(f"/query/{row['data-query']}"))


def test_without_its_plugin_a_run_shows_its_texts_and_says_what_is_missing(made_run, pages):
    manifest = json.loads(made_run.folder.manifest.read_text())
    for change, says in (
        ({"box": {"family": "lab", "aspect": None}}, "No installed plugin knows the box format lab"),
        ({"spr_recipe": ["lab"]}, "No plugin here has the recipe lab"),
    ):
        write_json(made_run.folder.manifest, {**manifest, "config": {**manifest["config"], **change}})
        browser = pages(made_run.output)
        for pair in made_run.pairs:
            for address in (f"/pair/{pair['id']}", f"/query/{pair['query']}"):
                page = Page(browser.get(address))
                assert says in page.text and unescape(pair["rejected"]) in page.text
                assert not [box for box in page.all("a") if box.get("data-kind") == "rejected"]


def test_a_detector_s_boxes_are_told_from_the_annotations(made_run, pages):
    """They stand behind the annotations in the truth of the scores."""
    log = made_run.folder.log("scores")
    added = Box(5, 6, 70, 80, made_run.queries[0].region.space).xyxy
    log.write({**record, "truth": [*record["truth"], added]} for record in log.read().values())
    page = Page(pages(made_run.output).get(f"/query/{made_run.queries[0].id}"))
    kinds = [box["data-kind"] for box in page.all("a") if "data-kind" in box]
    assert "toggle-detector" in page.ids and kinds.count("detector") == 4
    assert kinds.count("truth") == 4 * len(made_run.queries[0].truth)


@pytest.mark.parametrize(
    "change",
    [
        {"terms": {"s_loc": "much"}},
        {"terms": 7},
        {"score": "high"},
        {"text": None},
        {"text": ["a"], "repaired": {}},
        {"reason": 7, "not_choosable": ["x"]},
    ],
)
def test_records_that_hold_anything_are_a_page_all_the_same(made_run, pages, change):
    """Their checksums are right: whoever sent the folder may have made them."""
    log = made_run.folder.log("scores")
    log.write(
        {**record, "candidates": [{**one, **change} for one in record["candidates"]]}
        for record in log.read().values()
    )
    browser = pages(made_run.output)
    assert "queries" in Page(browser.get("/")).text
    for pair in made_run.pairs:
        for address in (f"/pair/{pair['id']}", f"/query/{pair['query']}"):
            response = browser.get(address)
            page = Page(response, response.status_code)
            assert response.status_code == 200 or "none that this version can show" in page.text


def item_of(run, make, query):
    """What `make` says of a query of a run that was made."""
    return make(*IndexedRun(run.output).query(query.id))


def test_answers_are_numbered_with_their_prompts_and_scores(made_run):
    query = made_run.queries[0]
    item = item_of(made_run, query_item, query)
    (pair,) = (one for one in made_run.pairs if one["query"] == query.id)
    assert [one.number for one in item.answers] == [1, 2, 3]
    assert [one.sampled for one in item.answers] == ["plain 0", "plain 1", "plain 2"]
    sides = {one.id: one.side for one in item.answers if one.side}
    assert sides == {pair["chosen_candidate"]: "chosen", pair["rejected_candidate"]: "rejected"}
    records = made_run.folder.log("scores").read()[query.id]["candidates"]
    for one, record in zip(item.answers, records):
        assert one.original.score == shown(record["score"])
        assert "".join(part.text for part in one.original.parts) == record["text"]
        assert (one.repaired is None) == (record["repaired"] == record["text"])
        assert one.terms[-1][0] == "S" and one.terms[-1][2:] == (
            shown(record["score"]),
            shown(record["repaired_score"]),
        )
    assert [box.kind for box in item.around] == ["region", *["truth"] * len(query.truth)]
    assert not item.notes and item.skip is None


def test_a_query_without_a_pair_says_why(made_run):
    item = item_of(made_run, query_item, made_run.queries[-1])
    word, meaning = item.skip
    assert word == "too_few_valid" and meaning and not item.sides
    whys = {word: what for one in item.answers for what, word, _ in one.why}
    assert "not chosen" in whys["no_box"]


def test_a_pair_s_sides_are_its_own_texts(made_run):
    (pair, *_) = made_run.pairs
    query = next(query for query in made_run.queries if query.id == pair["query"])
    item = item_of(made_run, pair_item, query)
    chosen, rejected, *_ = item.sides
    assert item.question == pair["prompt"]
    assert [(one.kind, "".join(part.text for part in one.parts)) for one in (chosen, rejected)] == [
        ("chosen", pair["chosen"]),
        ("rejected", pair["rejected"]),
    ]
    assert item.terms[-1][0] == "S"
    assert item.terms[-1][2:] == (shown(pair["chosen_score"]), shown(pair["rejected_score"]))
    assert set(item.kinds) >= {"truth", "chosen", "rejected"}


def test_answers_that_are_not_judged_yet_show_as_they_are(begun_run):
    query = begun_run.ask().answer().queries[0]
    item = item_of(begun_run, query_item, query)
    assert [one.original.score for one in item.answers] == ["–"] * 3
    assert all(one.repaired is None and not one.why for one in item.answers)
    assert [box.kind for box in item.around] == ["region", *["truth"] * len(query.truth)]


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
