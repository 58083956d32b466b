"""The plugin manager: built-in implementations, installed plugins, and files named by ``--spr_plugin``."""

import contextlib
import functools
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pluggy

from spr_plugin import hookspecs
from spr_plugin.errors import UserError
from spr_plugin.foreign import Broken, blamed

NO_WORD = re.compile(r"\W")
BUILT_IN = (
    "spr_plugin.hooks.transformers_vlm",
    "spr_plugin.hooks.llava",
    "spr_plugin.hooks.llava_next",
    "spr_plugin.hooks.ferret",
    "spr_plugin.hooks.clip",
    "spr_plugin.hooks.grounding_dino",
    "spr_plugin.formats",
    "spr_plugin.annotations",
    "spr_plugin.scoring",
)


@functools.lru_cache(maxsize=None)
def manager() -> pluggy.PluginManager:
    """The process's plugin manager. pluggy asks the last registered first, so built-ins go in first and lose."""
    plugins = pluggy.PluginManager("spr_plugin")
    plugins.add_hookspecs(hookspecs)
    for name in BUILT_IN:
        plugins.register(importlib.import_module(name), name)
    for name in sorted({entry.name for entry in importlib.metadata.entry_points(group="spr_plugin")}):
        with blamed(f"installed plugin {name}:"):
            plugins.load_setuptools_entrypoints("spr_plugin", name)
            plugins.check_pending()
            _check_implementations(plugins, plugins.get_plugin(name))
    return plugins


def answers(hook: str, **arguments) -> Iterator[tuple[str, object]]:
    """(plugin, answer) of each plugin that knows the request, asked one by one, ours last."""
    for implementation in reversed(getattr(manager().hook, hook).get_hookimpls()):
        plugin, given = implementation.plugin_name, [arguments[name] for name in implementation.argnames]
        with contextlib.nullcontext() if plugin in BUILT_IN else blamed(f"plugin {plugin}: {hook}"):
            answer = implementation.function(*given)
        if answer is not None:
            yield plugin, answer


def claim(hook: str, **arguments) -> tuple[str, object] | tuple[None, None]:
    """(plugin, answer) of the one that knows the request. UserError where two plugins, neither ours, do."""
    claims = list(answers(hook, **arguments))
    outside = [plugin for plugin, _ in claims if plugin not in BUILT_IN]
    if len(outside) > 1:
        asked = ", ".join(f"{key} {value}" for key, value in arguments.items() if value is not None)
        raise UserError(f"two plugins answer {hook} for {asked}: {' and '.join(outside)}; uninstall one")
    return claims[0] if claims else (None, None)


def hook():
    """The hook caller: ``hook().spr_box_format(family=…, aspect=…)``."""
    return manager().hook


def load_file(path: str) -> None:
    """Register the Python file ``path`` (``--spr_plugin``); twice is once. Raises UserError if it is no plugin."""
    file = Path(path).resolve()
    name = str(file)
    if manager().has_plugin(name):
        return
    if not file.is_file():
        raise UserError(f"--spr_plugin {path}: no such file")
    module_name = "spr_plugin_file_" + NO_WORD.sub("_", name)
    loader = importlib.machinery.SourceFileLoader(module_name, name)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(module_name, loader))
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


def loaded_files() -> list[str]:
    """The files that :func:`load_file` has registered."""
    return [name for name, module in manager().list_name_plugin() if name == getattr(module, "__file__", None)]


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
