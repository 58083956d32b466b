import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from spr_plugin.eval_tasks import register
from spr_plugin.eval_tasks.catalogue import GROUPS, SPLITS
from spr_plugin.tools.demo import WORLD

TASKS = {*GROUPS, *(split.task for split in SPLITS)}


def test_entry_point_is_ours():
    (point,) = [point for point in entry_points(group="lmms_eval.models") if point.name == "spr"]
    assert point.value == "spr_plugin.eval_tasks.register:register"


def test_folder_is_added_once_and_the_callers_paths_are_kept():
    class TaskManager:
        def initialize_tasks(self, include_path=None, include_defaults=True):
            return include_path, include_defaults

    register.add_folder(TaskManager)
    register.add_folder(TaskManager)
    manager = TaskManager()
    assert manager.initialize_tasks() == ([register.FOLDER], True)
    assert manager.initialize_tasks(include_path="mine", include_defaults=False) == (
        ["mine", register.FOLDER],
        False,
    )
    assert manager.initialize_tasks(include_path=["a", "b"]) == (["a", "b", register.FOLDER], True)


@pytest.mark.slow
def test_the_fast_index_is_lmms_eval_s_own():
    """Of all its files and ours: names, kinds, paths and members, in their order."""
    tasks = pytest.importorskip("lmms_eval.tasks")
    yaml, full_load = pytest.importorskip("yaml"), sys.modules["yaml"].full_load
    register.register()
    fast = tasks.TaskManager()
    assert yaml.full_load is full_load
    with pytest.MonkeyPatch.context() as patch:
        own = tasks.TaskManager._get_task_and_group.__wrapped__
        patch.setattr(tasks.TaskManager, "_get_task_and_group", own)
        slow = tasks.TaskManager()
    assert json.dumps(fast.task_index) == json.dumps(slow.task_index) and fast.all_tasks == slow.all_tasks
    assert set(fast.all_tasks) >= {*TASKS, "mme", "refcoco"}


@pytest.mark.slow
def test_without_libyaml_the_index_is_made_as_before(monkeypatch):
    tasks, yaml = pytest.importorskip("lmms_eval.tasks"), pytest.importorskip("yaml")
    register.register()
    monkeypatch.setattr(yaml, "__with_libyaml__", False)
    monkeypatch.delattr(yaml, "CFullLoader", raising=False)
    assert set(tasks.TaskManager(include_defaults=False).all_tasks) == TASKS


class Manager:
    """As far as lmms-eval's command line asks its TaskManager, before it builds the model."""

    def match_tasks(self, task_list):
        return sorted(task_list)


@pytest.fixture
def manager():
    kind = type("Manager", (Manager,), {})
    register.check_documents_first(kind)
    register.check_documents_first(kind)
    return kind()


@pytest.mark.parametrize("task", ["spr_refcoco_val", "spr_refcoco", "spr_rec", "spr"])
@pytest.mark.parametrize("broken", ["picture", "file", "box"])
def test_documents_are_checked_when_a_command_names_their_task(manager, data_root, task, broken, monkeypatch):
    """By the task's name or a group's: then there is no model yet."""
    from spr_plugin.eval_tasks.refusal import Refusal

    file = data_root / "refcoco/val.jsonl"
    if broken == "picture":
        (data_root / "pictures/val2.png").unlink()
    elif broken == "file":
        file.unlink()
    else:
        file.write_text(file.read_text().replace("10.0, 20.0", "0.1, NaN"))
    with pytest.raises(Refusal) as refused:
        manager.match_tasks(["gqa", task])
    assert {"picture": "val2.png is missing", "file": "val.jsonl: no such file", "box": "line 1: bbox"}[
        broken
    ] in refused.value.message
    assert manager.match_tasks(["gqa", "spr_general"]) == ["gqa", "spr_general"]
    monkeypatch.setenv("RANK", "1")  # one of several processes looks
    assert manager.match_tasks([task]) == [task]


def test_a_box_format_that_is_none_is_refused_before_the_model_too(manager, data_root, monkeypatch):
    from spr_plugin.eval_tasks.refusal import Refusal

    monkeypatch.setenv("SPR_BOX_FORMAT", "llava:sqare")
    with pytest.raises(Refusal, match="2"):
        manager.match_tasks(["spr_refcoco_val"])


def test_documents_that_were_read_first_are_read_once(manager, data_root, monkeypatch):
    datasets = pytest.importorskip("datasets")
    from spr_plugin.eval_tasks import data
    from spr_plugin.eval_tasks.catalogue import CATALOGUE

    monkeypatch.setenv("SPR_BOX_FORMAT", "llava:pad")
    assert manager.match_tasks(["spr_refcoco_val"]) == ["spr_refcoco_val"]
    (split,) = [split for split in SPLITS if split.task == "spr_refcoco_val"]
    source = datasets.Dataset.from_dict({"documents": ["…"]}, split=split.key)
    (data_root / "refcoco/val.jsonl").unlink()
    assert len(data.load_documents(source)) == 6 and CATALOGUE[split.key] == split
    with pytest.raises(SystemExit):  # not a second time: the folder may be another by then
        data.load_documents(source)


def test_models_are_noted_once(monkeypatch):
    from spr_plugin.eval_tasks import running

    noted = []
    monkeypatch.setattr(running, "note_model", noted.append)

    class lmms:
        def __init__(self, value):
            self.value = value

    register.note_models(lmms)
    register.note_models(lmms)
    model = lmms(3)
    assert model.value == 3 and noted == [model]


def run_python(code, cwd):
    # -P: a checkout in the current folder must not shadow the installed package
    return subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=cwd, capture_output=True, text=True, check=True
    ).stdout.split()


def test_entry_point_imports_nothing_heavy(tmp_path):
    pytest.importorskip("lmms_eval")
    code = (
        "import sys, lmms_eval.models; print(*[m for m in ('torch', 'datasets', 'transformers',"
        " 'lmms_eval.tasks') if m in sys.modules])"
    )
    assert run_python(code, tmp_path) == []


@pytest.mark.slow
def test_tasks_are_known_without_flags(tmp_path):
    pytest.importorskip("lmms_eval")
    code = (
        "from lmms_eval.evaluator import simple_evaluate; from lmms_eval.tasks import TaskManager; "
        "print(*TaskManager(include_defaults=False).all_tasks)"
    )
    assert set(run_python(code, tmp_path)) == TASKS


@pytest.mark.slow
def test_tasks_are_known_by_include_path_and_to_a_late_registration(tmp_path):
    pytest.importorskip("lmms_eval")
    code = (
        "from lmms_eval.tasks import TaskManager; import sys; assert 'lmms_eval.models' not in sys.modules; "
        "assert not TaskManager(include_defaults=False).all_tasks; "
        f"print(*TaskManager(include_path={register.FOLDER!r}, include_defaults=False).all_tasks); "
        "import lmms_eval.models; print(*TaskManager(include_defaults=False).all_tasks)"
    )
    assert sorted(run_python(code, tmp_path)) == sorted([*TASKS, *TASKS])


def test_no_batch_mixes_tasks():
    """lmms-eval's LLaVA takes the pictures of a whole batch from the first request's task; what differs in
    settings is not batched.
    """
    utils = pytest.importorskip("lmms_eval.utils")
    configs = [
        utils.load_yaml_config(str(file), mode="simple") for file in Path(register.FOLDER).glob("*.yaml")
    ]
    settings = [config["generation_kwargs"] for config in configs if "generation_kwargs" in config]
    requests = [("prompt", setting) for setting in settings for _ in range(3)]
    batches = list(utils.Collator(requests, lambda request: request[0], grouping=True).get_batched(n=8))
    assert len(settings) == len(SPLITS) and {len(batch) for batch in batches} == {3}


@pytest.mark.slow
def test_llava_computes_in_single_precision_on_a_cpu():
    """The answer to half-precision pictures is that of LLaVA's own class in fp32."""
    pytest.importorskip("lmms_eval")
    code = f"""
import torch, lmms_eval.models
from lmms_eval.models.simple.llava import Llava
model = Llava(pretrained={str(WORLD / "llava")!r}, device="cpu", device_map="auto").model
torch.manual_seed(0)
size = model.get_vision_tower().config.image_size
pictures = torch.rand(2, 3, size, size).half()
features = model.encode_images(pictures)
assert torch.equal(features, model.get_model().mm_projector(model.get_vision_tower()(pictures.float())))
print(features.dtype, *{{parameter.dtype for parameter in model.parameters()}})
"""
    assert run_python(code, WORLD.resolve().parents[1])[-2:] == ["torch.float32", "torch.float32"]
