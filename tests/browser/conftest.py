"""Pages in a real browser, as a user opens them; ``make test-browser`` runs these. Whatever a page does
beyond what it should (ask elsewhere, break its own policy, open a dialog, stumble in its script) fails the
test that opened it.
"""

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

from tests.browser import chromium, photographs

SPR = [sys.executable, "-m", "spr_plugin"]
PICTURES = os.environ.get("SPR_PICTURES", "")  # where the docs' pictures are to be put


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        path = chromium.found(playwright)
        assert path, "no browser that starts: `make test-browser` fetches one"
        opened = playwright.chromium.launch(executable_path=path)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def spr():
    """``spr(word, …, within=folder)``: the command, which must end well."""
    return lambda *words, within: subprocess.run([*SPR, *map(str, words)], cwd=within, check=True)


class Visit:
    """A page, and what it did.

    Attributes:
        allowed: beginnings of the addresses that it may ask for.
        failures: what a visit may not do.
    """

    def __init__(self, page, *allowed):
        self.page, self.allowed, self.failures = page, (*allowed, "data:"), []
        page.on(
            "request",
            lambda request: self.noted("asked for", request.url, request.url.startswith(self.allowed)),
        )
        page.on("console", self.said)
        page.on("pageerror", lambda error: self.noted("script", error, False))
        page.on("dialog", lambda dialog: (self.noted("dialog", dialog.message, False), dialog.dismiss()))

    def said(self, line):
        # A picture that is not there is no fault of its page.
        missing = line.text.startswith("Failed to load resource") and "/picture/" in line.location["url"]
        self.noted("console", line.text, missing or line.type not in ("error", "warning"))

    def noted(self, what, text, fine):
        if not fine:
            self.failures.append(f"{what}: {text}")


@pytest.fixture
def visit(browser):
    """``visit(address, width=1280, zoom=1, …)`` → a page of its own; `zoom` as a browser's, and the rest as
    playwright's contexts take it."""
    visits, contexts = [], contextlib.ExitStack()

    def open_page(address, width=1280, height=900, zoom=1.0, **more):
        size = {"width": round(width / zoom), "height": round(height / zoom)}
        context = contexts.enter_context(browser.new_context(viewport=size, device_scale_factor=zoom, **more))
        page = context.new_page()
        visits.append(Visit(page, re.match(r"\w+://[^/]*/", address)[0] if "://127" in address else address))
        page.goto(address)
        return page

    with contexts:
        yield open_page
        failures = [line for one in visits for line in one.failures]
    assert not failures


@contextlib.contextmanager
def served(output, *words):
    """The address of a run's pages, as the command serves them."""
    command = [*SPR, "inspect", output.name, "--port", "0", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=output.parent) as server:
        try:
            yield server.stdout.readline().split()[0].rstrip("/")
        finally:
            server.terminate()


@pytest.fixture(scope="session")
def output(tmp_path_factory) -> Path:
    """OUTPUT_DIR of a finished run on photographs."""
    folder = tmp_path_factory.mktemp("photographs")
    return photographs.write(folder / "llava-spr", folder / "images")


@pytest.fixture(scope="session")
def site(output):
    """The address of its pages."""
    with served(output) as address:
        yield address


@pytest.fixture(scope="session")
def serve_run():
    """``with serve_run(output, …) as address``"""
    return served


@pytest.fixture
def photograph():
    """``photograph(page, name, …)``: one of the docs' pictures, where ``make test-browser
    PICTURES=docs/pictures`` asks for them."""

    def take(page, name, **more):
        if PICTURES:
            Image.open(io.BytesIO(page.screenshot(**more))).convert("RGB").save(
                f"{PICTURES}/{name}", quality=82
            )

    return take
