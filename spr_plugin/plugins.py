"""The plugin manager: built-in implementations, installed plugins, and files named by ``--spr_plugin``."""

import contextlib
import functools
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pluggy

from spr_plugin import hookspecs
from spr_plugin.errors import UserError
from spr_plugin.foreign import Broken, blamed

# Ours, by hook; imported when it is first asked: some need torch, and who opens a run may have none.
BUILT_IN_OF = {
    "spr_host": [
        f"spr_plugin.hooks.{name}" for name in ("transformers_vlm", "llava", "llava_next", "ferret")
    ],
    "spr_annotations": ["spr_plugin.data.annotations"],
    "spr_box_format": ["spr_plugin.formats"],
    "spr_recipe": [
        f"spr_plugin.recipes.{name}.recipe" for name in ("spr", "spatial_ssrl", "spatial_thinker", "actial")
    ],
    "spr_scorer": ["spr_plugin.recipes.spr.scoring"],
    "spr_similarity": ["spr_plugin.hooks.clip"],
    "spr_detector": ["spr_plugin.hooks.grounding_dino"],
    "spr_repair": ["spr_plugin.recipes.spr.refinement"],
    "spr_pairing": ["spr_plugin.pairing"],
}
# How what a plugin gives is tried: (plugin, hook, answer, arguments) → the answer, or what checks its later
# results.
CONTRACTS = {
    "spr_host": "spr_plugin.contracts.host:checked_host",
    "spr_annotations": "spr_plugin.contracts.images:CheckedImages",
    "spr_box_format": "spr_plugin.contracts.box_format:checked_format",
    "spr_recipe": "spr_plugin.contracts.recipe:CheckedRecipe",
    "spr_scorer": "spr_plugin.contracts.models:CheckedScorer",
    "spr_similarity": "spr_plugin.contracts.models:CheckedSimilarity",
    "spr_detector": "spr_plugin.contracts.models:CheckedDetector",
    "spr_repair": "spr_plugin.contracts.models:CheckedRepair",
    "spr_pairing": "spr_plugin.contracts.recipe:CheckedPairing",
}
NO_WORD = re.compile(r"\W")
BUILT_IN = frozenset(name for names in BUILT_IN_OF.values() for name in names)


@functools.cache
def manager() -> pluggy.PluginManager:
    """The process's plugin manager, with the installed plugins."""
    plugins = pluggy.PluginManager("spr_plugin")
    plugins.add_hookspecs(hookspecs)
    for name in sorted({entry.name for entry in importlib.metadata.entry_points(group="spr_plugin")}):
        with blamed(f"installed plugin {name}:"):
            plugins.load_setuptools_entrypoints("spr_plugin", name)
            plugins.check_pending()
            _check_implementations(plugins, plugins.get_plugin(name))
    return plugins


def answers(hook: str, **arguments) -> Iterator[tuple[str, object]]:
    """(plugin, answer) of each plugin that knows the request, asked one by one, ours last."""
    for name in BUILT_IN_OF[hook]:
        if not manager().has_plugin(name):
            manager().register(importlib.import_module(name), name)
    known = reversed(getattr(manager().hook, hook).get_hookimpls())
    for implementation in sorted(known, key=lambda one: one.plugin_name in BUILT_IN):
        plugin, given = implementation.plugin_name, [arguments[name] for name in implementation.argnames]
        with contextlib.nullcontext() if plugin in BUILT_IN else blamed(f"plugin {plugin}: {hook}"):
            answer = implementation.function(*given)
        if answer is not None:
            yield plugin, answer


def ask(hook: str, **arguments: Any) -> Any:
    """What the first plugin that knows the request answers, checked; None where nobody does.

    Raises UserError for a plugin that breaks its contract.
    """
    plugin, answer = next(answers(hook, **arguments), (None, None))
    if plugin is None or plugin in BUILT_IN:
        return answer
    return pkgutil.resolve_name(CONTRACTS[hook])(plugin, hook, answer, arguments)


def load_file(path: str) -> None:
    """Register the Python file ``path`` (``--spr_plugin``); twice is once. Raises UserError if it is no
    plugin.
    """
    file = Path(path).resolve()
    name = str(file)
    if manager().has_plugin(name):
        return
    if not file.is_file():
        raise UserError(f"--spr_plugin {path}: no such file")
    module_name = "spr_plugin_file_" + NO_WORD.sub("_", name)
    loader = importlib.machinery.SourceFileLoader(module_name, name)
    spec = importlib.util.spec_from_loader(module_name, loader)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]  # a loader has one
    sys.modules[module_name] = module  # where dataclasses and pickle look it up
    try:
        with blamed(f"--spr_plugin {path}:"):
            loader.exec_module(module)
            manager().register(module, name)
            manager().check_pending()
            _check_implementations(manager(), module)
    except UserError:
        del sys.modules[module_name]
        if manager().has_plugin(name):
            manager().unregister(name=name)
        raise


def hooks_of(path: str) -> set[str]:
    """Names of the hooks that the file ``path``, loaded before, implements."""
    module = manager().get_plugin(str(Path(path).resolve()))
    return {caller.name for caller in manager().get_hookcallers(module) or []}


def loaded_files() -> list[str]:
    """The files that :func:`load_file` has registered."""
    return [
        name for name, module in manager().list_name_plugin() if name == getattr(module, "__file__", None)
    ]


def _check_implementations(plugins: pluggy.PluginManager, module) -> None:
    """Raise Broken where `module` implements no hook, or one in a way that is not asked for."""
    callers = plugins.get_hookcallers(module) or []
    hooks = {name for name in vars(hookspecs) if name.startswith("spr_")}
    named = {name for name in hooks if callable(getattr(module, name, None))}
    if unmarked := sorted(named - {caller.name for caller in callers}):
        raise Broken(f"has {', '.join(unmarked)} without @hookimpl")
    if not callers:
        raise Broken("has no hook; mark functions named as in spr_plugin/hookspecs.py with @hookimpl")
    for one in (one for caller in callers for one in caller.get_hookimpls() if one.plugin is module):
        if one.wrapper or one.hookwrapper:
            raise Broken(f"has a hook wrapper, {one.function.__name__}; a plugin returns its own answer only")
