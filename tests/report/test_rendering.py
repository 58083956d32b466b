"""Our templates: pages escape what they show, cards do not; without jinja2 a line says what to install."""

import sys

import pytest

from spr_plugin.errors import UserError
from spr_plugin.report.rendering import template

pytest.importorskip("jinja2")


def test_a_page_escapes_and_a_card_does_not():
    environment = template().environment
    for name, shown in (("a.html", "&lt;b&gt;"), ("a.md", "<b>")):
        autoescape = environment.autoescape(name)
        assert environment.overlay(autoescape=autoescape).from_string("{{ x }}").render(x="<b>") == shown


def test_without_jinja2_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UserError, match="needs jinja2: pip install"):
        template()
