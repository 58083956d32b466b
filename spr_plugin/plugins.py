"""The plugin manager: built-in implementations, installed plugins, and files named by ``--spr_plugin``."""

import functools
import importlib
import importlib.util
import sys
from pathlib import Path

import pluggy

from spr_plugin import hookspecs
from spr_plugin.errors import UserError

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
    try:
        plugins.load_setuptools_entrypoints("spr_plugin")
        plugins.check_pending()
    except (ImportError, SyntaxError, pluggy.PluginValidationError) as error:
        raise UserError(f"an installed plugin is broken: {' '.join(str(error).split())}") from None
    return plugins


def claim(name: str, **arguments):
    """What the hook ``name`` answers, or None. UserError where two plugins, neither of them ours, claim the request."""
    claims = []
    for implementation in reversed(getattr(manager().hook, name).get_hookimpls()):
        answer = implementation.function(*(arguments[argument] for argument in implementation.argnames))
        if answer is not None:
            claims.append((implementation.plugin_name, answer))
    outside = [plugin for plugin, _ in claims if plugin not in BUILT_IN]
    if len(outside) > 1:
        asked = ", ".join(f"{key} {value}" for key, value in arguments.items() if value is not None)
        raise UserError(f"two plugins answer {name} for {asked}: {' and '.join(outside)}; uninstall one")
    return claims[0][1] if claims else None


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
    spec = importlib.util.spec_from_file_location(f"spr_plugin_file_{file.stem}", file)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # there pickle looks for its classes
    try:
        spec.loader.exec_module(module)
        manager().register(module, name)
        manager().check_pending()
    except (ImportError, SyntaxError, pluggy.PluginValidationError) as error:
        _forget(name)
        raise UserError(f"--spr_plugin {path}: {' '.join(str(error).split())}") from None
    if not manager().get_hookcallers(module):
        _forget(name)
        raise UserError(f"--spr_plugin {path}: has no hook; mark functions named as in spr_plugin/hookspecs.py with @hookimpl")


def loaded_files() -> list[str]:
    """The files that :func:`load_file` has registered."""
    return [name for name, module in manager().list_name_plugin() if name == getattr(module, "__file__", None)]


def _forget(name: str) -> None:
    if manager().has_plugin(name):
        manager().unregister(name=name)
