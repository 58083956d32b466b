import subprocess
import sys
import types
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from spr_plugin.eval_tasks import register

TASKS = {"spr_refcoco", "spr_refcoco_val", "spr_refcoco_testA", "spr_refcoco_testB"}


def test_entry_point_is_ours():
    (point,) = [point for point in entry_points(group="lmms_eval.models") if point.name == "spr"]
    assert point.load() is not None and point.value == "spr_plugin.eval_tasks.register:register"


def test_folder_is_added_once_and_the_callers_paths_are_kept():
    class TaskManager:
        def initialize_tasks(self, include_path=None, include_defaults=True):
            return include_path, include_defaults

    tasks = types.SimpleNamespace(TaskManager=TaskManager)
    register._add_folder(tasks)
    register._add_folder(tasks)
    manager = TaskManager()
    assert manager.initialize_tasks() == ([register.FOLDER], True)
    assert manager.initialize_tasks(include_path="mine", include_defaults=False) == (["mine", register.FOLDER], False)
    assert manager.initialize_tasks(include_path=["a", "b"]) == (["a", "b", register.FOLDER], True)


def test_models_are_noted_once(monkeypatch):
    from spr_plugin.eval_tasks import running

    noted = []
    monkeypatch.setattr(running, "note_model", noted.append)

    class lmms:
        def __init__(self, value):
            self.value = value

    module = types.SimpleNamespace(lmms=lmms)
    register._note_models(module)
    register._note_models(module)
    model = lmms(3)
    assert model.value == 3 and noted == [model]


def run_python(code, cwd):
    # -P: a checkout in the current folder must not shadow the installed package
    return subprocess.run([sys.executable, "-P", "-c", code], cwd=cwd, capture_output=True, text=True, check=True).stdout.split()


def test_entry_point_imports_nothing_heavy(tmp_path):
    pytest.importorskip("lmms_eval")
    code = "import sys, lmms_eval.models; print(*[m for m in ('torch', 'datasets', 'transformers', 'lmms_eval.tasks') if m in sys.modules])"
    assert run_python(code, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("first", ["lmms_eval.models", "lmms_eval.evaluator"])
def test_tasks_are_known_without_flags(tmp_path, first):
    pytest.importorskip("lmms_eval")
    code = f"import {first}; from lmms_eval.tasks import TaskManager; print(*[t for t in TaskManager().all_tasks if t.startswith('spr')])"
    assert set(run_python(code, tmp_path)) >= TASKS


@pytest.mark.slow
def test_tasks_are_known_by_include_path(tmp_path):
    pytest.importorskip("lmms_eval")
    code = (
        "from lmms_eval.tasks import TaskManager; "
        f"manager = TaskManager(include_path={register.FOLDER!r}, include_defaults=False); print(*manager.all_tasks)"
    )
    assert set(run_python(code, tmp_path)) == TASKS


def test_every_task_file_is_packaged():
    folder = Path(register.FOLDER)
    names = {file.name for file in folder.glob("refcoco/*")}
    assert {"_default_yaml", "spr_refcoco.yaml", "source_val.json", "source_testA.json", "source_testB.json"} <= names
    assert {f"{task}.yaml" for task in TASKS} <= names
