"""``report.html`` and ``compare.html`` as files: they ask for nothing, read on a telephone, and print with no
pair and no flip cut in two.
"""

import io
import json
import re
import shutil
import unicodedata

import pytest
from pypdf import PdfReader

from spr_plugin import runs
from spr_plugin.files import write_json
from spr_plugin.recipes.base import MOST_PICTURES
from spr_plugin.report.examples import LONGEST, clipped
from tests.browser import photographs

TEXTS = ("prompt", "chosen", "rejected")


@pytest.fixture(scope="module")
def results(output, tmp_path_factory):
    """Result folders of a base and of a better model."""
    folder = tmp_path_factory.mktemp("results")
    noises = {"base": 0.15, "spr": 0.05}
    return [
        photographs.results(folder / name, output.parent / "images", noise) for name, noise in noises.items()
    ]


@pytest.fixture(scope="module")
def report(output, results, spr):
    spr("report", output.name, "--results", *results, within=output.parent)
    return f"{output}/spr/report.html"


@pytest.fixture(scope="module")
def comparison(results, spr):
    base, better = results
    spr("compare", base.name, better.name, "--out", "compared", within=base.parent)
    return f"{base.parent}/compared/compare.html"


def printed(page) -> list[str]:
    """The text of every page of paper."""
    return [plain(sheet.extract_text()) for sheet in PdfReader(io.BytesIO(page.pdf(format="A4"))).pages]


def plain(text: str) -> str:
    """Without blanks, since a line may be broken anywhere, and without ligatures."""
    return re.sub(r"\s", "", unicodedata.normalize("NFKC", text))


def test_the_report_asks_for_nothing_and_reads_anywhere(report, visit, photograph):
    page = visit(f"file://{report}", color_scheme="light")
    photograph(page, "report.webp", clip={"x": 80, "y": 0, "width": 1120, "height": 760}, full_page=True)
    assert page.locator(".pair .picture").count() and page.locator(".chart svg").count() > 6
    narrow = visit(f"file://{report}", width=400)
    assert narrow.evaluate("document.documentElement.scrollWidth") <= 400


def test_the_truth_lies_where_it_should_in_the_report(report, visit, output):
    run = runs.open(output)
    page = visit(f"file://{report}")
    pair = next(pair for pair in run.pairs if page.locator(f"[id='{pair.id}']").count())
    query = run.queries[pair.query]
    picture = page.locator(f"[id='{pair.id}'] .picture").first
    drawn = picture.locator("use").bounding_box()
    scale = drawn["width"] / query.image.width
    boxes = picture.locator("rect.truth").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect()).map(r => [r.left, r.top, r.right, r.bottom])"
    )
    x, y = drawn["x"], drawn["y"]
    corners = [one.box.xyxy for one in query.truth]
    wanted = [[x + x1 * scale, y + y1 * scale, x + x2 * scale, y + y2 * scale] for x1, y1, x2, y2 in corners]
    assert len(boxes) == len(wanted) > 4
    for one, other in zip(sorted(boxes), sorted(wanted)):
        assert one == pytest.approx(other, abs=1)


def test_no_pair_of_the_report_is_cut_by_a_page_s_end(report, visit, output):
    page = visit(f"file://{report}")
    pairs = {pair.id: pair for pair in runs.open(output).pairs}
    shown = [id for id in page.eval_on_selector_all(".pair", "all => all.map(one => one.id)") if id in pairs]
    sheets = printed(page)
    assert len(shown) > 6 and len(sheets) <= 12
    for id in shown:
        (sheet,) = [sheet for sheet in sheets if id in sheet]
        for text in (pairs[id].chosen, pairs[id].rejected):
            assert plain(text) in sheet, id


def test_bars_and_colours_are_printed(report, visit):
    page = visit(f"file://{report}")
    page.emulate_media(media="print")
    adjust = page.locator(".bar").first.evaluate("bar => getComputedStyle(bar).printColorAdjust")
    assert adjust == "exact"


def test_the_comparison_asks_for_nothing_reads_anywhere_and_prints_whole(comparison, visit, photograph):
    page = visit(f"file://{comparison}", color_scheme="light")
    photograph(page, "compare.webp", clip={"x": 80, "y": 0, "width": 1120, "height": 1000}, full_page=True)
    flips = page.eval_on_selector_all(".flips figure", "all => all.map(one => one.innerText)")
    sheets = printed(page)
    assert len(flips) > 6
    for flip in flips:
        assert sum(plain(flip) in sheet for sheet in sheets) == 1, flip
    narrow = visit(f"file://{comparison}", width=400)
    assert narrow.evaluate("document.documentElement.scrollWidth") <= 400


LONG = {"narrow": "and a very long winded description of it, ", "wide": "紅いカップは左にある、"}


@pytest.mark.parametrize("letters", LONG)
@pytest.mark.parametrize("pictures", [1, MOST_PICTURES])
def test_no_pair_is_cut_however_long_its_texts_are(output, visit, spr, tmp_path, letters, pictures):
    """A page shows LONGEST characters of each."""
    written, run = tmp_path / "out" / "spr", runs.open(output)
    shutil.copytree(run.folder.path, written)
    if pictures > 1:  # SPR asks about one
        manifest = json.loads((written / "manifest.json").read_text())
        manifest["config"]["spr_pairs"] = {"path": "pairs.jsonl", "hash": ""}
        write_json(written / "manifest.json", manifest)
    log, fill = runs.open(written).folder.log, LONG[letters] * LONGEST
    log("queries").write(
        {**record, "text": "?", "pictures": record["pictures"] * pictures}
        for record in run.records("queries").values()
    )
    log("pairs").write(
        record if "skip" in record else {**record, **{name: f"{record[name]} {fill}" for name in TEXTS}}
        for record in run.records("pairs").values()
    )
    spr("report", "out", within=tmp_path)
    page = visit(f"file://{written}/report.html")
    shown = [pair for pair in runs.open(written).pairs if page.locator(f"[id='{pair.id}']").count()]
    sheets = printed(page)
    assert len(shown) > 6
    for pair in shown:
        (sheet,) = [sheet for sheet in sheets if pair.id in sheet]
        for text in (pair.prompt, pair.chosen, pair.rejected):
            assert plain(clipped(text)) in sheet, pair.id


def test_tables_are_printed_whole_and_no_word_of_them_is_broken(output, visit, spr, tmp_path):
    """As many categories as a report shows, with names of several words."""
    written, run = tmp_path / "out" / "spr", runs.open(output)
    shutil.copytree(run.folder.path, written)
    records = list(run.records("queries").values())
    rows = [one for record in records for one in record["pictures"][0]["annotations"]]
    for number, row in enumerate(rows):
        row["label"] = f"{row['label']}, number {number % 30} of those in the middle of the picture"
    runs.open(written).folder.log("queries").write(records)
    spr("report", "out", within=tmp_path)
    page = visit(f"file://{written}/report.html")
    tables = page.locator("table:has(th:text-is('mean gap'))").all()
    assert len(tables) == 2
    sheets = printed(page)
    for table in tables:
        lines = [plain(line) for line in table.inner_text().splitlines() if line.strip()]
        assert len(lines) > 3 and any(all(line in sheet for line in lines) for sheet in sheets), lines
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 688, "height": 1000})  # of A4 within the margins
    heads = page.locator("th").evaluate_all(
        """all => all.filter(one => one.getClientRects().length && (() => {
            const range = document.createRange();
            range.selectNodeContents(one);
            const tops = new Set(Array.from(range.getClientRects()).map(one => Math.round(one.top)));
            return tops.size > one.innerText.split(" ").length;
        })()).map(one => one.innerText)"""
    )
    assert heads == []


@pytest.mark.parametrize("letters", LONG)
def test_no_flip_is_cut_however_long_its_texts_are(results, visit, spr, tmp_path, letters):
    for folder in results:
        (file,) = folder.glob("*.jsonl")
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            for name in ("input", "filtered_resps"):
                row[name] += LONG[letters] * 50
        (tmp_path / folder.name).mkdir()
        (tmp_path / folder.name / file.name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    spr("compare", *(folder.name for folder in results), "--out", "compared", within=tmp_path)
    page = visit(f"file://{tmp_path}/compared/compare.html")
    flips = page.eval_on_selector_all(".flips figure", "all => all.map(one => one.innerText)")
    sheets = printed(page)
    assert len(flips) > 6 and "more characters" in flips[0]
    for flip in flips:
        assert sum(plain(flip) in sheet for sheet in sheets) == 1, flip
