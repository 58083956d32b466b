"""The entry point (group ``lmms_eval.models``) that makes lmms-eval know our tasks and load LLaVA on current
libraries.

lmms-eval has no entry points for tasks. It calls those for models before it looks for tasks, so ours adds a
folder to where tasks are looked for. Nothing heavy is imported here: each change waits until lmms-eval itself
has imported the module in question.
"""

import functools
from pathlib import Path

from spr_plugin.eval_tasks.refusal import refuse
from spr_plugin.hooks import shims
from spr_plugin.imports import after_import, once, replaced
from spr_plugin.lines import say

FOLDER = str(Path(__file__).resolve().with_name("tasks"))


def register() -> list:
    """Called by lmms-eval when ``lmms_eval.models`` is imported; returns the models that we bring. Calling it
    again changes nothing.
    """
    after_import("lmms_eval.tasks", lambda module: add_folder(module.TaskManager))
    after_import("lmms_eval.tasks", lambda module: check_documents_first(module.TaskManager))
    after_import("lmms_eval.tasks", lambda module: leave_out_missing(module.TaskManager))
    after_import("lmms_eval.tasks", lambda module: index_fast(module.TaskManager))
    after_import("lmms_eval.api.model", lambda module: note_models(module.lmms))
    after_import("lmms_eval.models.simple.llava", lambda module: widen_on_cpu(module.Llava))
    shims.install()
    from lmms_eval.models.registry_v2 import ModelManifest

    models = {"spr_oracle": "oracle.Oracle", "spr_llava": "model.Llava", "spr_hf": "model.HuggingFace"}
    return [
        ModelManifest(name, simple_class_path=f"spr_plugin.eval_tasks.{path}")
        for name, path in models.items()
    ]


@once
def add_folder(task_manager) -> None:
    """Let lmms-eval's ``TaskManager`` look for tasks in our folder too."""
    initialize_tasks = task_manager.initialize_tasks

    @functools.wraps(initialize_tasks)
    def with_our_folder(self, include_path=None, include_defaults=True):
        paths = [include_path] if isinstance(include_path, str) else list(include_path or [])
        return initialize_tasks(self, include_path=[*paths, FOLDER], include_defaults=include_defaults)

    task_manager.initialize_tasks = with_our_folder


@once
def leave_out_missing(task_manager) -> None:
    """Let a group of ours over lmms-eval's own tasks hold those that this lmms-eval has; the others are named
    in a line where the group is asked for.
    """
    initialize_tasks, match_tasks = task_manager.initialize_tasks, task_manager.match_tasks

    def members(index, group: str) -> tuple[list[str], list[str]]:
        from spr_plugin.eval_tasks.catalogue import GROUPS

        here = [name for name in GROUPS[group][0] if name in index]
        return here, [name for name in GROUPS[group][0] if name not in index]

    @functools.wraps(initialize_tasks)
    def with_what_is_there(self, *args, **kwargs):
        from spr_plugin.eval_tasks.catalogue import FOREIGN

        index = initialize_tasks(self, *args, **kwargs)
        for group in FOREIGN:
            here, missing = members(index, group)
            if group in index and missing:
                index[group] = {**index[group], "task": here}
        return index

    @functools.wraps(match_tasks)
    def naming(self, task_list):
        from spr_plugin.eval_tasks.catalogue import FOREIGN

        names = match_tasks(self, task_list)
        for group in (name for name in FOREIGN if name in names):
            here, missing = members(self.task_index, group)
            if not here:
                refuse(f"{group}: this lmms-eval has none of {', '.join(missing)}")
            if missing:
                say(f"{group}: this lmms-eval has no {', '.join(missing)}; the others are measured")
        return names

    task_manager.initialize_tasks, task_manager.match_tasks = with_what_is_there, naming


@once
def index_fast(task_manager) -> None:
    """Let lmms-eval's ``TaskManager`` read its thousands of task files with LibYAML, where PyYAML has it: the
    parser in Python takes eight times as long. What is read, and what is made of it, stay lmms-eval's own.
    """
    index = task_manager._get_task_and_group

    @functools.wraps(index)
    def indexing(self, task_dir):
        import yaml

        if not yaml.__with_libyaml__:
            return index(self, task_dir)

        class Loader(yaml.CFullLoader):
            """As lmms-eval's while it indexes: a function is left as it is written."""

        Loader.add_constructor("!function", lambda loader, node: node)
        with replaced(yaml, "full_load", lambda stream: yaml.load(stream, Loader)):
            return index(self, task_dir)

    task_manager._get_task_and_group = indexing


@once
def check_documents_first(task_manager) -> None:
    """Let the documents of our tasks be read when the command line names them: lmms-eval itself builds the
    model before it looks at any. (Where its Python function is called, the model comes first: it is told the
    names of the tasks alone, and hands them to nobody before.)
    """
    match_tasks = task_manager.match_tasks

    @functools.wraps(match_tasks)
    def checking(self, task_list):
        names = match_tasks(self, task_list)
        from spr_plugin.eval_tasks import catalogue

        if splits := catalogue.splits_of(names):
            from spr_plugin.eval_tasks.data import read_first

            read_first(splits)
        return names

    task_manager.match_tasks = checking


@once
def note_models(base) -> None:
    """Let lmms-eval's base class of models tell :mod:`spr_plugin.eval_tasks.running` of each new model."""
    init = base.__init__

    @functools.wraps(init)
    def noting_init(self, *args, **kwargs):
        from spr_plugin.eval_tasks.running import note_model

        note_model(self)
        init(self, *args, **kwargs)

    base.__init__ = noting_init


@once
def widen_on_cpu(llava) -> None:
    """Let lmms-eval's LLaVA compute in fp32 on a CPU, where matrix products in half precision take ten times
    as long. LLaVA's loader knows fp16 alone.
    """
    init = llava.__init__

    @functools.wraps(init)
    def widening_init(self, *args, **kwargs):
        init(self, *args, **kwargs)
        if self.model.device.type == "cpu":
            self.model.float()
            self.model.get_vision_tower().register_forward_pre_hook(_widened)

    llava.__init__ = widening_init


def _widened(tower, args: tuple) -> tuple:
    """lmms-eval makes pictures fp16, and LLaVA's tower answers in what it was given."""
    images, *others = args
    return ([image.float() for image in images] if isinstance(images, list) else images.float(), *others)
