"""The pages of a run, as a browser without JavaScript gets them: what they show, what they refuse, and that
the run's own files stay as they are."""

import asyncio
import functools
import json
import math
import re
from collections import Counter
from dataclasses import asdict
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("starlette")  # not in the environments of older transformers

from PIL import Image

from spr_plugin.boxes import Box
from spr_plugin.config import SPRConfig
from spr_plugin.files import write_json
from spr_plugin.formats import llava
from spr_plugin.judging import judge_queries
from spr_plugin.marks import read_marks
from spr_plugin.pairing import best_over_worst, make_pair
from spr_plugin.plugins import load_file, manager
from spr_plugin.queries import log_queries
from spr_plugin.recipes.base import Source
from spr_plugin.recipes.find import find_recipe
from spr_plugin.runs.layout import LAYOUT, Folder
from spr_plugin.runs.manifest import Changes, bind, settings_of
from spr_plugin.tools.inspect.app import HEADERS, LONGEST_FORM, application
from spr_plugin.tools.inspect.choosing import MOST_NAMES
from spr_plugin.tools.inspect.indexed import IndexedRun
from spr_plugin.tools.inspect.pictures import THUMBNAIL

ROOT = Path(__file__).parents[3]
OURS = {"origin": "http://127.0.0.1:8765"}
VOID = set("meta link input br img rect line".split())
BLOCKS = set("p li td th dt dd option h1 h2 h3 h4 summary".split())


class Page(HTMLParser):
    """An answer's HTML: elements with their attributes, ids, and whether all that opens closes."""

    def __init__(self, response, status=200):
        super().__init__()
        assert response.status_code == status, response.text[:2000]
        self.found, self.open, self.words = [], [], []
        self.feed(response.text)
        assert not self.open
        self.text = " ".join("".join(self.words).split())
        ids = [attributes["id"] for _, attributes in self.found if "id" in attributes]
        assert len(ids) == len(set(ids))
        self.ids = dict(zip(ids, (one for one in self.found if "id" in one[1])))
        labelled = {attributes.get("for") for tag, attributes in self.found if tag == "label"}
        for tag, attributes in self.found:
            if tag in ("input", "select", "textarea"):
                assert attributes["id"] in labelled
            if tag == "img":
                assert attributes["alt"]
            if tag == "th":
                assert attributes["scope"]
            assert not any(name.startswith("on") or name == "style" for name in attributes)
            address = attributes.get("href", "")
            assert address.startswith(("#", "/")) or not address, address
            if address.startswith("#"):
                assert address[1:] in ids, address

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in BLOCKS:
            self.words.append(" ")

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag, **wanted):
        return [
            attributes
            for name, attributes in self.found
            if name == tag
            and wanted.items() <= {k.replace("-", "_"): v for k, v in attributes.items()}.items()
        ]


def state_of(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))}


def test_every_page_of_a_run_is_whole_and_the_run_stays_as_it_is(made_run, pages):
    before = state_of(made_run.folder.path)
    browser = pages(made_run.output)
    index = Page(browser.get("/"))
    rows = index.all("tr")[1:7]
    assert {row["data-query"] for row in rows} == {query.id for query in made_run.queries}
    assert "missing_image 2 The picture's file is not there." in index.text
    assert "lab_reason 1 (a word of the run's plugin)" in index.text
    assert "no_box too_few_valid" in index.text  # the reasons of one row, apart
    links = [one["href"] for one in index.all("a") if one["href"].startswith(("/pair/", "/query/"))]
    assert len(links) == 6 and sum(link.startswith("/pair/") for link in links) == len(made_run.pairs) == 5
    for link in [*links, *(f"/query/{query.id}" for query in made_run.queries)]:
        response = browser.get(link)
        page = Page(response)
        for image in page.all("img"):
            shown = browser.get(image["src"])
            assert shown.headers["content-type"] == "image/png"
            assert (image["width"], image["height"]) == tuple(map(str, Image.open(shown).size))
        assert response.headers.items() >= {name.lower(): value for name, value in HEADERS.items()}.items()
    for image in index.all("img"):
        assert max(Image.open(browser.get(image["src"])).size) <= THUMBNAIL
    for name in ("inspect.css", "inspect.js", "icon.svg"):
        assert browser.get(f"/static/{name}").status_code == 200
    assert state_of(made_run.folder.path) == before


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


def test_previous_and_next_go_through_what_is_chosen_in_its_order(made_run, pages):
    browser = pages(made_run.output)
    index = Page(browser.get("/?state=pair&sort=widest"))
    order = [row["data-pair"] for row in index.all("tr") if "data-pair" in row]
    gaps = {pair["id"]: pair["chosen_score"] - pair["rejected_score"] for pair in made_run.pairs}
    assert order == sorted(
        gaps, key=lambda id: (-gaps[id], next(p["query"] for p in made_run.pairs if p["id"] == id))
    )
    for place, id in enumerate(order):
        page = Page(browser.get(f"/pair/{id}?state=pair&sort=widest"))
        for name, other in (("previous", place - 1), ("next", place + 1)):
            if 0 <= other < len(order):
                assert page.ids[name][1]["href"] == f"/pair/{order[other]}?state=pair&sort=widest"
            else:
                assert name not in page.ids
    assert "not among the 1 that are chosen" in Page(browser.get(f"/pair/{order[0]}?state=skipped")).text


@pytest.mark.parametrize(
    "text, count", [("RED CAR", 2), ("some things", 1), ("picture-3", 1), ("no such word", 0)]
)
def test_search_finds_texts_names_and_pictures(made_run, pages, text, count):
    page = Page(pages(made_run.output).get("/", params={"text": text}))
    assert page.text.count(f"{count} of 6 queries") == 1
    assert len([row for row in page.all("tr") if "data-query" in row]) == count


# --- marks


def test_a_pair_is_marked_with_a_note_and_the_mark_taken_back(made_run, pages):
    before, browser = state_of(made_run.folder.path), pages(made_run.output)
    (pair, other, *_), file = made_run.pairs, made_run.output / "spr-marks.jsonl"
    address = f"/pair/{pair['id']}"
    assert page_form(browser, address) == (f"{address}/mark", "", ["mark"])
    page = Page(browser.post(f"{address}/mark", data={"note": "two\r\ncups <b>", "do": "mark"}, headers=OURS))
    assert "Marked as bad" in page.text and read_marks(file) == {pair["id"]: "two\ncups <b>"}
    assert [json.loads(line) for line in file.read_text().splitlines()] == [
        {"pair": pair["id"], "note": "two\ncups <b>"}
    ]
    assert page_form(browser, address)[2] == ["mark", "unmark"]
    browser.post(f"/pair/{other['id']}/mark?sort=widest", data={"note": "", "do": "mark"}, headers=OURS)
    marked = Page(browser.get("/?marked=yes"))
    assert {row["data-pair"] for row in marked.all("tr") if "data-pair" in row} == {pair["id"], other["id"]}
    browser.post(f"{address}/mark", data={"do": "unmark"}, headers=OURS)
    assert read_marks(file) == {other["id"]: ""}
    assert state_of(made_run.folder.path) == before


def page_form(browser, address):
    page = Page(browser.get(address))
    return (
        page.ids["mark"][1]["action"],
        re.search(r"<textarea[^>]*>(.*?)</textarea>", browser.get(address).text, re.DOTALL)[1],
        [button["value"] for button in page.all("button")],
    )


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "null"},
        {"origin": "http://127.0.0.1"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://localhost:8765"},
        {"origin": "https://127.0.0.1:8765"},
        {"origin": "http://evil.example"},
        {"origin": "http://evil.example", "host": "evil.example"},
    ],
)
def test_nobody_else_s_page_may_post(made_run, pages, headers):
    browser, address = pages(made_run.output), f"/pair/{made_run.pairs[0]['id']}/mark"
    response = browser.post(address, data={"do": "mark", "note": ""}, headers=headers)
    assert response.status_code in (400, 403) and not (made_run.output / "spr-marks.jsonl").exists()
    assert response.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "0.0.0.0:8765", ""]
)
def test_a_name_that_is_not_ours_reads_nothing(made_run, pages, host):
    browser = pages(made_run.output)
    for address in ("/", f"/pair/{made_run.pairs[0]['id']}", f"/picture/{made_run.queries[0].id}/0"):
        response = browser.get(address, headers={"host": host})
        assert response.status_code == 400 and "spr" not in response.text
    assert browser.get("/", headers={"host": "localhost:1"}).status_code == 200


@pytest.mark.parametrize(
    "data, status", [({"do": "delete"}, 400), ({}, 400), ({"do": "mark", "note": "x" * LONGEST_FORM}, 413)]
)
def test_a_form_that_is_none_of_ours_is_refused_with_a_line(made_run, pages, data, status):
    address = f"/pair/{made_run.pairs[0]['id']}/mark"
    page = Page(pages(made_run.output).post(address, data=data, headers=OURS), status)
    assert "trouble" in page.ids and not (made_run.output / "spr-marks.jsonl").exists()


def test_marks_that_cannot_be_read_or_written_are_a_line_and_the_pages_stay(made_run, pages):
    browser, file = pages(made_run.output), made_run.output / "spr-marks.jsonl"
    address = f"/pair/{made_run.pairs[0]['id']}"
    file.write_text("nonsense\n")
    for page in (Page(browser.get("/")), Page(browser.get(address))):
        assert f"{file}:1: is no mark" in page.text
    file.unlink()
    file.mkdir()
    page = Page(browser.post(f"{address}/mark", data={"do": "mark", "note": ""}, headers=OURS), 503)
    assert f"{file} is no plain file" in page.text


# --- what other people wrote

EVIL = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'</textarea></title>{{ 77771*77773 }}"


def test_hostile_names_texts_notes_and_addresses_are_inert(begun_run, pages):
    """Every text of a run, and of an address, is shown as it is written; nothing of it becomes an element."""
    run = begun_run.ask().answer().judge().pair()
    for stage in ("queries", "candidates", "scores", "pairs"):
        log = run.folder.log(stage)
        text = log.path.read_text()
        for word in ("picture-", "cup", "plain"):
            text = text.replace(word, json.dumps(EVIL)[1:-1] + word)
        records = [json.loads(re.sub(r', "crc": "\w{8}"}$', "}", line)) for line in text.splitlines()]
        for record in records:
            if "skip" in record:
                record["skip"] = EVIL
        log.write(records)
    browser = pages(run.output)
    pair = run.pairs[0]
    browser.post(f"/pair/{pair['id']}/mark", data={"do": "mark", "note": EVIL}, headers=OURS)
    skipped = next(one["id"] for one in run.folder.log("pairs").read().values() if "skip" in one)
    addresses = ["/", f"/pair/{pair['id']}", f"/query/{pair['query']}", f"/query/{skipped}", "/pair/" + EVIL]
    shown = 0
    for address in addresses:
        for params in ({}, dict.fromkeys("state reason category text low sort page".split(), EVIL)):
            response = browser.get(address, params=params)
            page = Page(response, 404 if EVIL in address else 200)
            assert [one["src"] for one in page.all("script")] == ["/static/inspect.js"]
            assert (
                not any(one["src"] == "x" for one in page.all("img")) and str(77771 * 77773) not in page.text
            )
            shown += page.text.count("<script>alert(1)</script>")
    assert shown > 20


def test_ids_of_any_kind_are_addresses(begun_run, pages):
    run = begun_run.ask().answer().judge().pair()
    strange = "a/b?c#d é"
    (record, *others) = run.folder.log("pairs").read().values()
    record = next(one for one in (record, *others) if "skip" not in one)
    run.folder.log("pairs").write(
        [
            {**one, "id": strange} if one is record or one["id"] == record["id"] else one
            for one in (record, *others)
        ]
    )
    browser = pages(run.output)
    (row,) = [row for row in Page(browser.get("/")).all("tr") if row.get("data-pair") == strange]
    link = next(one["href"] for one in Page(browser.get("/")).all("a") if "a%2Fb" in one["href"])
    assert f"Pair {strange}" in Page(browser.get(link)).text and row
    action = Page(browser.get(link)).ids["mark"][1]["action"]
    browser.post(action, data={"do": "mark", "note": "n"}, headers=OURS)
    assert read_marks(run.output / "spr-marks.jsonl") == {strange: "n"}


# --- pictures


def test_pictures_that_moved_are_found_below_images_or_it_is_said_where_they_were_looked_for(
    made_run, pages, tmp_path
):
    (tmp_path / "images").rename(tmp_path / "moved")
    address = f"/query/{made_run.queries[0].id}"
    lost = Page(pages(made_run.output).get(address))
    assert f"looked for at {tmp_path}/images/0.png; name the folder of pictures with --images" in lost.text
    assert not lost.all("img") and len(lost.all("rect", **{"class": "exact"})) > 2
    found = pages(made_run.output, images=str(tmp_path / "moved"))
    assert len(Page(found.get(address)).all("img")) == 4 and "looked for" not in found.get(address).text
    other = Page(pages(made_run.output, images=str(tmp_path)).get(address))
    assert f"{tmp_path}/images/0.png, {tmp_path}/0.png; --images {tmp_path} is not" in other.text


def test_the_list_says_whose_pictures_are_not_there(made_run, pages, tmp_path):
    (tmp_path / "images").rename(tmp_path / "moved")
    (tmp_path / "images").mkdir()
    (tmp_path / "moved" / "1.png").rename(tmp_path / "images" / "1.png")
    answer = pages(made_run.output).get("/")
    lost = Page(answer)
    assert "The pictures of 5 queries on this page are not there; the first was looked for at" in lost.text
    assert (
        "name the folder of pictures with --images DIR" in lost.text and answer.text.count(">not there<") == 5
    )
    assert len(lost.all("img")) == 1
    found = Page(pages(made_run.output, images=str(tmp_path / "moved")).get("/"))
    assert "on this page are not there" not in found.text and len(found.all("img")) == 6


def test_another_picture_in_its_place_is_said(made_run, pages, tmp_path):
    Image.new("RGB", (10, 10)).save(tmp_path / "images" / "0.png")
    (tmp_path / "images" / "1.png").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    browser = pages(made_run.output)
    page = Page(browser.get(f"/query/{made_run.queries[0].id}"))
    assert "is 10 × 10 pixels, and the run saw 320 × 240: is it another picture?" in page.text
    address = f"/query/{made_run.queries[1].id}"
    assert "The picture cannot be shown" in Page(browser.get(address)).text
    assert browser.get(f"/picture/{made_run.queries[1].id}/0").status_code == 404


@pytest.mark.parametrize("address", ["/pair/x", "/query/x", "/picture/x/0", "/nothing", "/static/../app.py"])
def test_what_is_not_there_is_a_page_that_says_so(made_run, pages, address):
    response = pages(made_run.output).get(address)
    assert response.status_code == 404 and "Traceback" not in response.text
    if not address.startswith("/static"):
        assert "trouble" in Page(response, 404).ids


@pytest.mark.parametrize("number", [1, 7, 99999999999999999999])
def test_a_picture_that_a_query_has_not_is_named(made_run, pages, number):
    id = made_run.queries[0].id
    page = Page(pages(made_run.output).get(f"/picture/{id}/{number}"), 404)
    assert f"Query {id} has no picture {number}; they go from 0 to 0." in page.text


def test_what_an_address_asks_and_is_not_followed_is_told(made_run, pages):
    browser, pair = pages(made_run.output), made_run.pairs[0]["id"]
    for address in ("/", f"/pair/{pair}"):
        page = Page(browser.get(address, params={"low": "abc", "sort": "best"}))
        assert "score from: abc is no number" in page.text and "sort: best is no order" in page.text
        assert "no number" not in Page(browser.get(address, params={"low": "", "sort": ""})).text


def test_what_is_asked_about_has_a_light_line_under_its_own(made_run, pages):
    """Grey dots alone are not seen on grey, nor on a dark picture."""
    page = Page(pages(made_run.output).get(f"/pair/{made_run.pairs[0]['id']}"))
    (under,) = page.all("rect", **{"class": "under"})
    lines = [
        {name: one[name] for name in ("x", "y", "width", "height")}
        for one in page.all("rect", **{"class": "line"})
    ]
    assert {name: under[name] for name in ("x", "y", "width", "height")} in lines
    style = (ROOT / "spr_plugin/tools/inspect/static/inspect.css").read_text()
    assert ".under { fill: none; stroke: #fff;" in style


def test_a_mark_is_refused_where_the_marks_cannot_be_read(made_run, pages):
    marks, pair = made_run.output / "spr-marks.jsonl", made_run.pairs[0]["id"]
    marks.write_text("torn")
    answer = pages(made_run.output).post(f"/pair/{pair}/mark", data={"do": "mark", "note": ""}, headers=OURS)
    assert f"not marked: {marks}:1: is no mark" in Page(answer, 503).text and marks.read_text() == "torn"


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


# --- a run that is not whole, or not only ours


def test_a_run_that_is_written_shows_what_is_there_and_then_what_came(begun_run, pages, lock_held):
    browser = pages(begun_run.output)
    assert "No query is in the run's logs yet" in Page(browser.get("/")).text
    first, *others = begun_run.ask().queries
    with lock_held(begun_run.folder.path):
        assert "The run goes on: process" in Page(browser.get("/")).text
    address = f"/query/{first.id}"
    assert "nothing was answered so far" in Page(browser.get(address)).text
    begun_run.answer(first)
    page = Page(browser.get(address))
    assert "the answers are not judged yet" in page.text and len(page.all("article")) == 3
    assert any(box["data-kind"] == "said" for box in page.all("a") if "data-kind" in box)
    begun_run.judge(first)
    assert "the answers are judged, not paired yet" in Page(browser.get(address)).text
    begun_run.answer(*others).judge(*others).pair()
    assert len([row for row in Page(browser.get("/?state=pair")).all("tr") if "data-pair" in row]) == 5
    path = begun_run.folder.log("pairs").path
    path.write_bytes(path.read_bytes()[:-9])  # another process wrote it anew, and died
    page = Page(browser.get("/?state=pair"))
    assert len([row for row in page.all("tr") if "data-pair" in row]) in (4, 5)


def test_a_stage_that_is_made_again_replaces_what_was_shown(made_run, pages):
    browser = pages(made_run.output)
    assert "5 of 6 queries" in Page(browser.get("/?state=pair")).text
    (made_run.folder.path / "pairs").rename(made_run.folder.path / "pairs.replaced")
    page = Page(browser.get("/?state=pair"))
    assert "0 of 6 queries" in page.text and "judged (6)" in page.text and "pair (" not in page.text
    made_run.pair()
    assert "5 of 6 queries" in Page(browser.get("/?state=pair")).text


def test_a_run_that_is_deleted_and_begun_anew_is_said_and_then_shown(made_run, pages):
    browser, there = pages(made_run.output), made_run.folder.path
    there.rename(there.with_name("elsewhere"))
    page = Page(browser.get(f"/pair/{made_run.queries[0].id}"), 503)
    assert f"{made_run.output}: no SPR run here" in page.text.replace("/spr: no", ": no")
    there.mkdir()
    there.joinpath("lock").touch()
    page = Page(browser.get("/"))
    assert "No query is in the run's logs yet" in page.text and "pair (" not in page.text
    there.joinpath("lock").unlink()
    there.rmdir()
    there.with_name("elsewhere").rename(there)
    assert "6 of 6 queries" in Page(browser.get("/")).text


def test_later_rounds_are_shown_with_the_first_as_they_come(made_run, pages, tmp_path):
    browser, first = pages(made_run.output), len(made_run.queries)
    later = (
        type(made_run)(tmp_path / "later", tmp_path / "images", count=2, seed=7).ask().answer().judge().pair()
    )
    later.folder.path.rename(made_run.folder.round(2).path)
    page = Page(browser.get("/?round=2"))
    assert f"2 of {first + 2} queries" in page.text
    for query in later.queries:
        assert "round 2" in Page(browser.get(f"/query/{query.id}")).text


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


@pytest.mark.parametrize(
    "number", [-7, math.nan, math.inf, 1e308, 10**400, "7", None], ids=lambda one: str(one)[:8]
)
@pytest.mark.parametrize("of", ["box", "term", "detector"])
def test_numbers_that_no_run_of_ours_writes_leave_the_rest_to_be_read(made_run, pages, of, number):
    log = made_run.folder.log("queries" if of == "box" else "scores")
    records = log.read()
    for record in (changed := [records[one.id] for one in made_run.queries[:2]]):
        if of == "box":
            record["pictures"][0]["annotations"][0]["xyxy"][2] = number
        elif of == "term":
            record["candidates"][0]["terms"]["s_loc"] = number
        else:
            record["truth"].append([0, 0, number, 9])
    log.write([*changed, *(records[one.id] for one in made_run.queries[2:])])
    browser = pages(made_run.output)
    assert "6 of 6 queries" in Page(browser.get("/")).text
    for query in made_run.queries:
        Page(browser.get(f"/query/{query.id}"))
    for pair in made_run.pairs:
        assert "chosen, S =" in Page(browser.get(f"/pair/{pair['id']}")).text


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


def test_a_newer_run_shows_what_is_known_of_it(made_run, pages):
    manifest = json.loads(made_run.folder.manifest.read_text())
    write_json(made_run.folder.manifest, {**manifest, "layout": LAYOUT + 1, "version": "9.9"})
    (pair, *_), log = made_run.pairs, made_run.folder.log("pairs")
    log.write({**record, "new": 1} for record in log.read().values())
    assert "chosen" in Page(pages(made_run.output).get(f"/pair/{pair['id']}")).text


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


def test_what_failed_is_said_on_the_list(made_run, pages):
    write_json(made_run.folder.failed, {"stage": "dpo", "error": "no room\nleft", "rank": 0, "time": "now"})
    assert "The run failed in dpo: no room\\nleft" in Page(pages(made_run.output).get("/")).text


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


@pytest.mark.parametrize("small", ["", "?small"])
def test_a_browser_keeps_a_picture_for_as_long_as_it_is_the_same(made_run, pages, small):
    browser, query = pages(made_run.output), made_run.queries[0]
    address = f"/picture/{query.id}/0{small}"
    first = browser.get(address)
    assert first.headers["cache-control"] == "private, no-cache"
    known = {"if-none-match": first.headers["etag"]}
    again = browser.get(address, headers=known)
    assert (again.status_code, again.content) == (304, b"")
    Image.new("RGB", (320, 240), "red").save(query.image.path)
    other = browser.get(address, headers=known)
    assert other.status_code == 200 and other.content != first.content


def test_a_page_does_not_wait_for_pictures(made_run):
    """Asked for behind a large one, it is there before."""
    size, query, done = (4000, 3000), made_run.queries[0], []
    Image.effect_noise(size, 90).save(query.image.path)
    app = application(IndexedRun(made_run.output))

    async def ask(path, options=b""):
        scope = {"type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "server": None}
        scope |= {"path": path, "root_path": "", "query_string": options}
        scope |= {"headers": [(b"host", b"127.0.0.1")]}

        async def send(message):
            if message["type"] == "http.response.start":
                done.append((path, message["status"]))

        await app(scope, functools.partial(asyncio.sleep, 0, {"type": "http.request"}), send)

    async def both():
        await asyncio.gather(ask(f"/picture/{query.id}/0", b"small"), ask(f"/query/{query.id}"))

    asyncio.run(both())
    assert done == [(f"/query/{query.id}", 200), (f"/picture/{query.id}/0", 200)]


def test_a_list_names_the_categories_that_are_most_frequent_and_finds_all(made_run, pages):
    """An open vocabulary has as many as objects."""
    log = made_run.folder.log("queries")
    records, many = list(log.read().values()), MOST_NAMES + 50
    own = records[0]["pictures"][0]["annotations"][0]
    rare = [{**own, "id": 1000 + number, "label": f"Thing number {number} of many"} for number in range(many)]
    records[0]["pictures"][0]["annotations"] += rare
    records[0]["truth"] += [one["id"] for one in rare]
    log.write(records)
    browser = pages(made_run.output)
    html = browser.get("/").text
    names = re.findall('<option value="(.*?)">', html[html.index("<datalist") : html.index("</datalist>")])
    assert len(names) == MOST_NAMES and names[:2] == ["cup", "dog"]
    for name in (rare[-1]["label"], "number 249 OF"):
        assert f"1 of {len(records)} queries" in Page(browser.get("/", params={"category": name})).text
