"""The pages of ``spr inspect`` where they are used: boxes lie where they should, and all can be done with a
mouse, with keys, without a script, on a telephone.
"""

import json
import re

import pytest

from spr_plugin import runs
from spr_plugin.formats import llava

FORM = llava("pad")
HIDDEN = "element => getComputedStyle(element).display === 'none'"
# Where on a box's edge it is the one that is pointed at, two pixels beside its line: nobody aims better.
POINT = """box => {
    const { left, top, width, height } = box.querySelector(".exact").getBoundingClientRect();
    for (let share = 0.05; share < 1; share += 0.05)
        for (const [x, y] of [[left + 2, top + share * height], [left + share * width, top + 2]])
            if (document.elementFromPoint(x, y)?.closest(".box") === box) return [x, y];
}"""


@pytest.fixture(scope="module")
def run(output):
    return runs.open(output)


def pair_page(run, site, number=0):
    return f"{site}/pair/{run.pairs[number].id}"


def rows_of(page, what="data-query"):
    return page.eval_on_selector_all("#rows tbody tr", f"rows => rows.map(row => row.getAttribute('{what}'))")


def follow(page, act, *words):
    """Do what leads to another page, and wait for it."""
    with page.expect_navigation():
        act(*words)


# --- boxes


@pytest.mark.parametrize("zoom", [1.0, 1.5])
@pytest.mark.parametrize("number", [0, -1])
def test_boxes_lie_on_the_picture_to_a_pixel(run, site, visit, zoom, number):
    """Those of the annotations, and those that the chosen and the rejected text write, read by the format."""
    pair = run.pairs[number]
    query = run.queries[pair.query]
    size = query.image.width, query.image.height
    page = visit(pair_page(run, site, number), zoom=zoom)
    page.wait_for_load_state("networkidle")
    picture = page.locator(".frame img").bounding_box()
    assert page.evaluate("[document.querySelector('.frame img').naturalWidth, devicePixelRatio]") == [
        size[0],
        zoom,
    ]
    scale = picture["width"] / size[0]
    assert picture["height"] == pytest.approx(scale * size[1], abs=1)
    expected = {"truth": [one.box.xyxy for one in query.truth]}
    for side in ("chosen", "rejected"):
        expected[side] = [box.pixels() for box in FORM.parse(getattr(pair, side), *size).boxes]
    for kind, boxes in expected.items():
        drawn = page.eval_on_selector_all(
            f".box.kind-{kind} .exact",
            "all => all.map(one => one.getBoundingClientRect()).map(r => [r.left, r.top, r.right, r.bottom])",
        )
        left, top = picture["x"], picture["y"]
        wanted = [
            [left + x1 * scale, top + y1 * scale, left + x2 * scale, top + y2 * scale]
            for x1, y1, x2, y2 in boxes
        ]
        assert len(wanted) == len(drawn) > 1
        for one, other in zip(sorted(drawn), sorted(wanted)):
            assert one == pytest.approx(other, abs=1)
    # What is seen is the line, a few thousandths of the width beside it, so that it hides no other one.
    apart = page.eval_on_selector_all(
        ".box.kind-chosen, .box.kind-rejected",
        """boxes => boxes.map(box => box.querySelector('.exact').getBoundingClientRect().left
            - box.querySelector('.line').getBoundingClientRect().left)""",
    )
    assert all(0 < abs(one) < 0.01 * picture["width"] for one in apart)


def test_a_tick_hides_its_kind_and_stays_from_page_to_page(run, site, visit):
    page = visit(pair_page(run, site))
    seen = lambda kind: page.locator(f".box.kind-{kind}").evaluate_all(
        f"all => !all.map({HIDDEN}).some(Boolean)"
    )
    assert seen("truth") and seen("chosen") and not seen("said")
    page.locator("label[for=toggle-chosen]").click()
    assert not seen("chosen") and seen("rejected") and seen("truth")
    page.locator("#toggle-truth").focus()
    page.keyboard.press("Space")
    page.locator("#toggle-said").check()
    assert not seen("truth") and seen("said")
    follow(page, page.locator("#next").click)
    assert not page.locator("#toggle-truth").is_checked()
    page.goto(pair_page(run, site, -1))
    assert not seen("truth") and not seen("chosen") and seen("said") and seen("rejected")


def test_kinds_are_told_apart_without_colour_in_the_legend_too(run, site, visit):
    """A sample shows a dash and the next one's beginning, and none is another's."""
    page = visit(pair_page(run, site))
    samples = page.locator("#legend .sample .line").evaluate_all(
        """all => all.map(one => {
            const dashes = getComputedStyle(one).strokeDasharray;
            return [dashes === "none" ? [] : dashes.split(",").map(parseFloat), one.getTotalLength()];
        })"""
    )
    drawn = page.eval_on_selector_all(
        "#legend [data-kind]",
        """all => all.map(one => getComputedStyle(
            document.querySelector(`.box.kind-${one.dataset.kind} rect.line`)).strokeDasharray)""",
    )
    assert len(samples) > 5 and len(set(drawn)) == len(samples)
    for dashes, length in samples:
        assert sum(dashes) < length * 0.75 and all(gap >= 6 for gap in dashes[1::2])


def test_a_phrase_lights_its_box_and_a_box_its_phrase(run, site, visit, photograph):
    page = visit(pair_page(run, site), color_scheme="light")
    page.wait_for_load_state("networkidle")
    lit = "element => element.classList.contains('lit')"
    phrase = page.locator("#side-chosen .phrase").first
    key = phrase.get_attribute("data-boxes").split()[0]
    box = page.locator(f".box[data-box='{key}']")
    width = lambda: box.locator(".line").evaluate("line => parseFloat(getComputedStyle(line).strokeWidth)")
    thin = width()
    phrase.hover()
    assert box.evaluate(lit) and width() > thin
    photograph(
        page, "inspect-pair.webp", clip={"x": 0, "y": 0, "width": 1280, "height": 1120}, full_page=True
    )
    page.mouse.move(0, 0)
    assert not box.evaluate(lit) and width() == thin
    page.mouse.move(*box.evaluate(POINT))
    assert (
        phrase.evaluate(lit) and page.locator(f"[data-boxes~='{key}'].lit").count() >= 2
    )  # name and numbers
    page.mouse.move(0, 0)
    # One of a kind that is not ticked is seen while it is pointed at, by a key too.
    said = page.locator("#side-said .phrase").first
    hidden = page.locator(f".box[data-box='{said.get_attribute('data-boxes').split()[0]}']")
    assert hidden.evaluate(HIDDEN)
    said.focus()
    assert not hidden.evaluate(HIDDEN) and hidden.evaluate(lit)


# --- finding one's way


def test_the_list_filters_searches_and_sorts(run, site, visit, photograph):
    page = visit(site + "/", color_scheme="light")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("Array.from(document.images).every(one => one.naturalWidth)")
    photograph(page, "inspect-list.webp", full_page=True)
    assert sorted(rows_of(page)) == sorted(run.queries)
    page.get_by_label("how far").select_option("pair")
    page.get_by_label("sort").select_option("widest")
    follow(page, page.get_by_role("button", name="Show").click)
    gaps = {pair.id: pair.chosen_score - pair.rejected_score for pair in run.pairs}
    assert rows_of(page, "data-pair") == sorted(gaps, key=lambda id: -gaps[id])
    page.get_by_label("category").fill("tabby cat")
    follow(page, page.keyboard.press, "Enter")
    (cat,) = rows_of(page)
    assert "tabby cat" in {one.label for one in run.queries[cat].truth}
    follow(page, page.get_by_role("link", name="all", exact=True).click)
    page.get_by_label("search").fill("red motorcycle")
    follow(page, page.keyboard.press, "Enter")
    assert {run.queries[id].image.path.rpartition("/")[2] for id in rows_of(page)} == {"motorcycle_left.png"}
    page.get_by_label("search").fill("no such thing")
    follow(page, page.keyboard.press, "Enter")
    assert rows_of(page) == [] and "No query is like that" in page.inner_text("main")
    page.goto(f"{site}/?reason=unparsable")
    assert "none can be read" in page.inner_text("#reason") and len(rows_of(page)) == 1


def test_keys_lead_from_item_to_item_and_leave_what_is_typed_alone(run, site, visit):
    page = visit(f"{site}/?state=pair&sort=widest")
    order = rows_of(page, "data-pair")
    follow(page, page.locator("#rows a").first.click)
    here = lambda: re.search(r"/pair/(\w+)", page.url)[1]
    for id in order[1:3]:
        follow(page, page.keyboard.press, "n")
        assert page.url == f"{site}/pair/{id}?state=pair&sort=widest"
    follow(page, page.keyboard.press, "p")
    assert here() == order[1]
    page.locator("#note").press_sequentially("no n or p")
    page.keyboard.press("Control+n")
    assert here() == order[1] and page.locator("#note").input_value() == "no n or p"
    page.goto(site + "/")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "filter-text"
    assert page.locator("#filter-text").input_value() == ""


def test_keys_alone_reach_everything(run, site, visit):
    """Tab leads from the skip link over the ticks to the phrases, the note and its button."""
    page = visit(pair_page(run, site))
    reached = []
    for _ in range(120):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
        if page.evaluate("document.activeElement.value") == "mark":
            break
    assert reached[0] == "skip" and "note" in reached and "next" in reached
    assert {f"toggle-{kind}" for kind in ("truth", "chosen", "rejected")} <= set(reached)
    phrases = page.eval_on_selector_all("#side-chosen .phrase[id]", "all => all.map(one => one.id)")
    assert phrases and set(phrases) <= set(reached)
    page.goto(pair_page(run, site))
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.url.endswith("#main")


# --- marks


def test_a_bad_pair_is_marked_and_the_mark_taken_back(run, site, visit, output):
    file, pair = output / "spr-marks.jsonl", run.pairs[1].id
    page = visit(f"{site}/pair/{pair}")
    page.get_by_label("Note").fill("the cup's box\nis its saucer's <b>")
    follow(page, page.get_by_role("button", name="Mark as bad").click)
    assert "Marked as bad" in page.inner_text("main")
    assert page.get_by_label("Note").input_value() == "the cup's box\nis its saucer's <b>"
    (line,) = [json.loads(line) for line in file.read_text().splitlines()]
    assert line == {"pair": pair, "note": "the cup's box\nis its saucer's <b>"}
    page.goto(site + "/")
    page.get_by_label("marked (1)").check()
    follow(page, page.get_by_role("button", name="Show").click)
    assert rows_of(page, "data-pair") == [pair]
    follow(page, page.locator("#rows a").first.click)
    follow(page, page.get_by_role("button", name="Take the mark back").click)
    assert "Is this pair bad?" in page.inner_text("main")
    assert json.loads(file.read_text().splitlines()[-1]) == {"pair": pair, "note": None}
    page.goto(site + "/?marked=yes")
    assert rows_of(page) == []
    file.unlink()


# --- any browser


def test_without_a_script_the_pages_read_and_work(run, site, visit, output):
    page = visit(site + "/", java_script_enabled=False)
    assert page.locator("#rows tbody tr").count() == len(run.queries)
    page.locator("summary").first.click()
    assert page.get_by_text("The answer gives no box.").is_visible()
    pair = run.pairs[0]
    page.goto(f"{site}/pair/{pair.id}")
    assert pair.rejected in page.inner_text("#side-rejected") and pair.chosen in page.inner_text(
        "#side-chosen"
    )
    truth = page.locator(".box.kind-truth").first
    assert truth.is_visible()
    page.locator("label[for=toggle-truth]").click()
    assert not truth.is_visible()
    said = page.locator("#side-said .phrase").first
    said.click()
    target = page.locator(f"[id='{page.url.partition('#')[2]}']")
    assert "kind-said" in target.get_attribute("class") and target.is_visible()
    page.get_by_label("Note").fill("without")
    follow(page, page.get_by_role("button", name="Mark as bad").click)
    assert "Marked as bad" in page.inner_text("main")
    follow(page, page.get_by_role("button", name="Take the mark back").click)
    (output / "spr-marks.jsonl").unlink()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_telephone_shows_all_without_scrolling_sideways(run, site, visit, scheme, photograph):
    skipped = next(id for id in run.queries if id not in {pair.query for pair in run.pairs})
    addresses = ["/", f"/pair/{run.pairs[0].id}", f"/query/{run.pairs[0].query}", f"/query/{skipped}"]
    page = visit(site + "/", width=400, height=800, color_scheme=scheme)
    for address in addresses:
        page.goto(site + address)
        for details in page.locator("summary").all():
            details.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, address
        beyond = page.eval_on_selector_all(
            "main *",
            "all => all.filter(one => one.getBoundingClientRect().right > 401).map(one => one.outerHTML)",
        )
        assert beyond == [], address
        colours = page.evaluate(
            "(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))"
        )
        assert contrast(*colours) > 7, colours
        if scheme == "light" and address == "/":
            page.goto(site + address)
            page.wait_for_load_state("networkidle")
            photograph(page, "inspect-phone.webp")


def contrast(*colours) -> float:
    """WCAG's, of two colours as a browser writes them."""

    def luminance(colour):
        shares = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted(map(luminance, colours))
    return (high + 0.05) / (low + 0.05)
