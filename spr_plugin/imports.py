"""Callbacks after an import, changes of a class that are made once, and changes of an object for a while: how
code that we do not edit is reached. Standard library only."""

import contextlib
import functools
import sys
from collections.abc import Iterator

_callbacks = {}


def after_import(name: str, callback) -> None:
    """Call ``callback(module)`` when the module ``name`` has been executed; at once if it has been."""
    _callbacks.setdefault(name, []).append(callback)
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    if name in sys.modules:
        callback(sys.modules[name])


class _Finder:
    """Lets the other finders find, then sees to it that the callbacks run after the module's code."""

    def find_spec(self, name, path=None, target=None):
        if name not in _callbacks:
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader.exec_module = _then_call_back(spec.loader.exec_module, name)
        return spec


def _then_call_back(execute, name):
    @functools.wraps(execute)
    def exec_module(module):
        execute(module)
        module = sys.modules.get(name, module)  # transformers puts a lazy module in its own place
        for callback in _callbacks[name]:
            callback(module)

    return exec_module


def once(function):
    """Decorator of ``function(cls)``: a class that was changed before is left alone. Its own ``__dict__``
    counts, not its parents'."""
    mark = f"_spr_{function.__name__}"

    @functools.wraps(function)
    def change(cls):
        if mark not in vars(cls):
            setattr(cls, mark, True)
            function(cls)

    return change


@contextlib.contextmanager
def replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """Inside, ``owner.name`` is ``value``; afterwards it is what it was, an attribute of the object's own or
    of its class.
    """
    own = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)
