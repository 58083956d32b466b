"""The entry point (group ``lmms_eval.models``) that makes lmms-eval know our tasks and load LLaVA on current libraries.

lmms-eval has no entry points for tasks. It calls those for models before it looks for tasks, so ours adds a folder to where tasks
are looked for. Nothing here may import torch or lmms-eval's heavy modules before lmms-eval itself does.
"""

import functools
from pathlib import Path

FOLDER = str(Path(__file__).resolve().parent)


def register() -> list:
    """Called by lmms-eval when ``lmms_eval.models`` is imported; returns no models of our own. Calling it again changes nothing."""
    from spr_plugin.boot import after_import
    from spr_plugin.hooks import shims

    after_import("lmms_eval.tasks", _add_folder)
    after_import("lmms_eval.api.model", _note_models)
    shims.install()
    return []


def _add_folder(tasks_module) -> None:
    manager = tasks_module.TaskManager
    manager.initialize_tasks = _with_folder(manager.initialize_tasks)


def _with_folder(initialize_tasks):
    """TaskManager.initialize_tasks that also looks in our folder."""
    if hasattr(initialize_tasks, "spr_wrapped"):
        return initialize_tasks

    @functools.wraps(initialize_tasks)
    def wrapper(self, include_path=None, include_defaults=True):
        paths = [include_path] if isinstance(include_path, str) else list(include_path or [])
        return initialize_tasks(self, include_path=[*paths, FOLDER], include_defaults=include_defaults)

    wrapper.spr_wrapped = True
    return wrapper


def _note_models(model_module) -> None:
    base = model_module.lmms
    base.__init__ = _noting(base.__init__)


def _noting(init):
    """lmms.__init__ that also tells :mod:`spr_plugin.eval_tasks.running` of the new model."""
    if hasattr(init, "spr_wrapped"):
        return init

    @functools.wraps(init)
    def wrapper(self, *args, **kwargs):
        from spr_plugin.eval_tasks.running import note_model

        note_model(self)
        init(self, *args, **kwargs)

    wrapper.spr_wrapped = True
    return wrapper
