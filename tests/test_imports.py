"""Callbacks after an import."""

import sys

import pytest

from spr_plugin.imports import after_import

pytestmark = pytest.mark.legacy


def test_callbacks_run_after_the_module(tmp_path, monkeypatch):
    (tmp_path / "late_module.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    seen = []
    after_import("late_module", lambda module: seen.append(module.value))
    assert seen == []
    import late_module  # noqa: F401

    assert seen == [1]
    after_import("late_module", lambda module: seen.append("at once"))
    assert seen == [1, "at once"]
