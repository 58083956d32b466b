"""``report.html`` and ``compare.html`` as files: they ask for nothing, read on a telephone, and print with no
pair and no flip cut in two.
"""

import io
import re
import unicodedata

import pytest
from pypdf import PdfReader

from spr_plugin import runs
from tests.browser import photographs


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
