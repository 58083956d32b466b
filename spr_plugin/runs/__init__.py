"""A run's folder: layout, log, lock, a manifest a stage; and how to open one that is there.

:func:`open` reads a run in any state, without torch and without the process that made it.
"""

from spr_plugin.runs.reading import STATES, SavedRun, open

__all__ = ["STATES", "SavedRun", "open"]
