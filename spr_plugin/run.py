"""``python -m spr_plugin.run COMMAND``: the usual training command where boot files are not read (``python
-S``, zipped environments).

COMMAND is what would follow ``python``: ``script.py ARGS`` or ``-m package.module ARGS``. Under a launcher it
stands between the
launcher and the script: ``torchrun --nproc_per_node 2 -m spr_plugin.run train.py --spr …``.
"""

import os
import runpy
import sys

from spr_plugin import boot

USAGE = "usage: python -m spr_plugin.run script.py ARGS… | -m package.module ARGS…"


def main(command: list) -> None:
    """Run ``command`` as Python would, with the SPR hooks in place if it holds an ``--spr`` flag."""
    if command[:1] == ["python"]:
        command = command[1:]
    as_module = command[:1] == ["-m"]
    command = command[1:] if as_module else command
    if not command or command[0].startswith("-"):
        boot.fail(USAGE)
    boot.check_installation()
    if boot.asked(command):
        boot.wake(command[1:])
    sys.argv = command
    if as_module:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    else:
        if not os.path.exists(command[0]):
            boot.fail(f"{command[0]}: no such file")
        # -m put the working directory first; a script expects its own folder there.
        sys.path[0] = os.path.dirname(os.path.abspath(command[0]))
        runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
