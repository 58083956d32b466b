"""What is looked at without a command."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from spr_plugin.errors import UserError
from spr_plugin.hooks import shims
from spr_plugin.tools import environment
from spr_plugin.tools.checks import Check


def looked_at() -> dict[str, Check]:
    """The checks by name."""
    checks = environment.environment_checks()
    assert all(check.detail and (check.ok or check.fix) for check in checks)
    assert len({check.name for check in checks}) == len(checks)
    return {check.name: check for check in checks}


@pytest.mark.slow
def test_this_environment(monkeypatch):
    monkeypatch.delitem(sys.modules, "lmms_eval.tasks", raising=False)  # that another test imported
    checks = looked_at()
    for package in environment.PACKAGES:
        assert checks[package].ok and checks[package].detail[0].isdigit()
    applied = {name.removeprefix("shim ") for name in checks if name.startswith("shim ")}
    assert applied == {one.change.__name__ for one in shims.SHIMS if one.needed()} and applied
    assert not [check for check in checks.values() if "``" in check.detail or ":`" in check.detail]
    assert "hooks.llava" in checks["hook spr_host"].detail
    assert {"spr_oracle", "spr_llava", "spr_hf"} <= set(
        checks["lmms-eval tasks and models"].detail.removeprefix("models ").split(";")[0].split(", ")
    )
    assert {"GPU", "gloo", "DeepSpeed ops", "boot file", "disk, models", "offline"} <= checks.keys()
    assert "HF_HUB_OFFLINE" in checks["offline"].detail
    assert "lmms_eval.tasks" not in sys.modules, "which takes as long as all the rest together"


def test_a_package_that_is_missing(little_environment, monkeypatch):
    """One that every training needs fails; one that some flag needs is named with it."""
    monkeypatch.setattr(environment, "_is_there", lambda name: False)
    monkeypatch.setattr(environment, "PACKAGES", {"torch": (("torch",), None), "trl": (("trl",), "TRL")})
    checks = looked_at()
    assert not checks["torch"].ok and "pip install" in checks["torch"].fix
    assert checks["trl"].ok and "TRL needs it" in checks["trl"].detail


def test_a_plugin_that_is_broken_is_a_check(little_environment, monkeypatch):

    def broken():
        raise UserError("installed plugin lab: raised KeyError: 'x' (lab.py, line 3)")

    monkeypatch.setattr(environment, "manager", broken)
    checks = looked_at()
    assert "lab.py, line 3" in checks["plugins"].detail
    assert not any(name.startswith("hook ") for name in checks)


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/a"),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({}, f"{Path.home()}/.cache/huggingface/hub"),
    ],
)
def test_the_models_folder_is_huggingface_s(monkeypatch, variables, folder):
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert environment._cache() == folder


def test_whether_models_are_fetched_is_said(monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", "/a")
    for name in environment.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    assert environment._offline() == "no: what is not in /a is fetched"
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "0")
    monkeypatch.setenv("HF_HUB_OFFLINE", "yes")
    assert environment._offline() == "HF_HUB_OFFLINE: models and data are read from /a and from paths alone"


def test_a_disk_is_that_of_the_next_folder_above(monkeypatch, tmp_path):
    free = shutil.disk_usage(tmp_path).free
    wanted = tmp_path / "not" / "yet"
    monkeypatch.setattr(environment, "LEAST_FREE", free // 2)
    assert environment._disk(str(wanted)).startswith(f"{wanted}: ")
    assert not os.path.exists(tmp_path / "not")
    monkeypatch.setattr(environment, "LEAST_FREE", free * 2)
    with pytest.raises(UserError, match=f"^{wanted}: [0-9.]+ GiB free$"):
        environment._disk(str(wanted))
