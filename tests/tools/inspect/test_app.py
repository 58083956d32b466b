"""The pages of a run, as a browser without JavaScript gets them: what they show, what they refuse, and that
the run's own files stay as they are."""

import asyncio
import functools
import json
import math
import re
from pathlib import Path

import pytest

pytest.importorskip("starlette")  # not in the environments of older transformers

from PIL import Image

from spr_plugin.files import write_json
from spr_plugin.marks import read_marks
from spr_plugin.runs.layout import LAYOUT
from spr_plugin.tools.inspect.app import HEADERS, LONGEST_FORM, application
from spr_plugin.tools.inspect.choosing import MOST_NAMES
from spr_plugin.tools.inspect.indexed import IndexedRun
from spr_plugin.tools.inspect.pictures import THUMBNAIL
from tests.tools.inspect.page import Page

ROOT = Path(__file__).parents[3]
OURS = {"origin": "http://127.0.0.1:8765"}


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


def test_a_newer_run_shows_what_is_known_of_it(made_run, pages):
    manifest = json.loads(made_run.folder.manifest.read_text())
    write_json(made_run.folder.manifest, {**manifest, "layout": LAYOUT + 1, "version": "9.9"})
    (pair, *_), log = made_run.pairs, made_run.folder.log("pairs")
    log.write({**record, "new": 1} for record in log.read().values())
    assert "chosen" in Page(pages(made_run.output).get(f"/pair/{pair['id']}")).text


def test_what_failed_is_said_on_the_list(made_run, pages):
    write_json(made_run.folder.failed, {"stage": "dpo", "error": "no room\nleft", "rank": 0, "time": "now"})
    assert "The run failed in dpo: no room\\nleft" in Page(pages(made_run.output).get("/")).text


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
