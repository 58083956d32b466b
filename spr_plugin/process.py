"""What one process knows of its SPR run, and the line that it ends with where the stage failed or never ran.

A command with ``--spr`` that ends well must mean that the stage ran. Where it did not, nobody is left to ask
but the end of the process: :func:`end` runs after the script and all that it registered, prints one line and
makes the exit code 2. Standard library only at import.
"""

import atexit
import functools
import gc
import inspect
import io
import mmap
import os
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from spr_plugin.lines import say_error


class State:
    """Of this process; plain attributes, so that tests can set them back.

    Attributes:
        words: the command line at the interpreter's start, without the program; whatever the script makes of
            ``sys.argv``.
        from_files, from_lists: flag → value of the latest parse that held flags of ours: read from a dict or
            file, or given as words.
        config: the SPRConfig of all these, once one was asked for.
        namespace: globals of the script that a parser of transformers has read our flags for.
        touched: a parser of transformers has read flags here, or a Trainer was made: this is a training
            script, no bystander.
        launched: a process was started that carries our flags on: the stage is that one's.
        worker: multiprocessing has started this process, and it imports the script anew: that flags are read
            says nothing here.
        in_stage: inside an outermost ``train()``; one that is called in there is the plain one.
        attached: ``spr_plugin.attach`` was called.
        followed: real paths of the output folders in which the stage followed a training.
        refused: a mistake was said, and the exit code is 2.
        failure: what is said last, with exit code 2.
        exit_code: what ``sys.exit`` was called with.
    """

    awake = False
    words = []
    from_files = {}
    from_lists = {}
    config: Any = None
    namespace: dict[str, Any] | None = None
    touched = False
    launched = False
    worker = False
    in_stage = False
    attached = False
    followed: frozenset[str] = frozenset()
    refused = False
    failure: str | None = None
    exit_code = None


BEGAN = time.time()
_PID = os.getpid()
# Shared with forked workers (notebook_launcher): whether one of them ran the stage, and whether it failed
# there.
_shared = mmap.mmap(-1, 2)
RAN, FAILED = 0, 1
GLOO = "pt_gloo_runloop"  # PyTorch's name of a thread that runs collectives


def follow(output_dir: str, failure: str | None = None) -> None:
    """Note that the stage has followed a training into ``output_dir``, and why it failed if it did."""
    State.followed |= {os.path.realpath(output_dir)}
    State.failure = failure or State.failure
    _shared[RAN], _shared[FAILED] = 1, _shared[FAILED] or bool(failure)


def fail(error) -> None:
    """Print ``spr: error: …`` and exit with 2, also where the script catches that. Every rank does: the
    launcher needs the code, the user one line."""
    say_error(error)
    State.refused = State.awake
    raise SystemExit(2)


def or_fail(function, *args):
    """``function(*args)``; a UserError is the one line that this process ends with."""
    from spr_plugin.errors import UserError

    try:
        return function(*args)
    except UserError as error:
        fail(error)


def note_exit_code() -> None:
    """Have ``sys.exit`` leave its argument in :class:`State`: nothing else tells an exit handler that the
    script ends with an error of its own."""
    host_exit = sys.exit

    def leave(code=None, /):
        State.exit_code = code
        host_exit(code)

    sys.exit = leave


def note_launches(subprocess) -> None:
    """Notice a launcher: it starts processes that carry our flags on."""
    host_init = subprocess.Popen.__init__

    def __init__(self, args, *rest, **kwargs):
        words = [args] if isinstance(args, (str, bytes, os.PathLike)) else list(args)
        State.launched |= any("--spr" in os.fsdecode(word) for word in words)
        host_init(self, words if not isinstance(args, (str, bytes, os.PathLike)) else args, *rest, **kwargs)

    subprocess.Popen.__init__ = __init__
    host_system = os.system

    def system(command):
        State.launched |= "--spr" in os.fsdecode(command)
        return host_system(command)

    os.system = system


def note_spawned(spawn) -> None:
    """Notice the launcher among torch's: ``start_processes``, where it does not fork (see ``_shared`` for
    those that do)."""
    host_start = spawn.start_processes

    @functools.wraps(host_start)
    def start_processes(*args, **kwargs):
        method = inspect.signature(host_start).bind(*args, **kwargs)
        method.apply_defaults()
        State.launched |= method.arguments["start_method"] != "fork"
        return host_start(*args, **kwargs)

    spawn.start_processes = start_processes


def never_ran() -> str | None:
    """The line for a training script that was given ``--spr`` and ends well without the stage; None for
    everybody else."""
    failing = State.exit_code not in (None, 0, False) or getattr(sys, "last_value", None) is not None
    bystander = not State.touched or State.launched or hasattr(sys, "ps1")
    wanted = State.attached or (State.config and State.config.spr)
    if _shared[RAN] or failing or bystander or not wanted:
        return None
    return (
        "--spr was given, and this command ends without the SPR stage: no train() of transformers' Trainer"
        " that trains the language model was called here; call it, or see spr_plugin.attach; --spr False says"
        " that the stage is not wanted"
    )


def end() -> None:
    """The last that this process does: nothing, unless the stage failed or never ran."""
    if os.getpid() != _PID:
        return
    in_worker = (
        "the SPR stage failed in a worker of this command: see its line above" if _shared[FAILED] else None
    )
    line = State.failure or in_worker or (None if State.refused else never_ran())
    if not (line or State.refused):
        if _shared[RAN]:
            _wait_for_gloo()
        return
    if State.failure:
        _wait_for_all_ranks()
    leave(2, line)


def leave(code: int, line: str | None = None) -> NoReturn:
    """End this process now, its last line an error's, whatever the script and its exit handlers would still
    do.
    """
    _flush_open_files()
    if line:
        say_error(line)
    os._exit(code)


def _wait_for_gloo(seconds: float = 10.0) -> None:
    """Let each of Gloo's threads free the tensors of its last collective, which takes the interpreter.

    One that asks for it while it ends aborts a process that has done all it should, and its launcher reports
    a failure. To destroy the process group is no way: whoever else holds it, as DeepSpeed does, keeps its
    threads.
    """
    deadline = time.monotonic() + seconds
    while _gloo_works() and time.monotonic() < deadline:
        time.sleep(0.01)


def _gloo_works() -> bool:
    """Whether one of Gloo's threads is not asleep. Linux says so of each thread; elsewhere there is no run of
    several ranks."""
    time.sleep(0.001)  # one that sleeps for want of the interpreter has it now
    for task in Path("/proc/self/task").glob("*"):
        try:
            name, state = (task / "comm").read_text(), (task / "stat").read_text().rpartition(") ")[2]
        except OSError:  # it has ended
            continue
        if name.strip() == GLOO and not state.startswith("S"):
            return True
    return False


def _wait_for_all_ranks() -> None:
    """A launcher kills the other ranks when the first one ends with an error, and rank 0 may still be saving
    the model."""
    from spr_plugin.training import ranks

    try:
        ranks.barrier()
    except RuntimeError:  # a rank has died, or the script took the group down: nobody to wait for
        pass


def _flush_open_files() -> None:
    """What the interpreter would do on its way out, and ``os._exit`` does not."""
    kinds = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
    for file in (thing for thing in gc.get_objects() if issubclass(type(thing), kinds)):
        try:
            if not file.closed:
                file.flush()
        except (OSError, ValueError):  # a pipe whose reader has gone: lost either way
            pass


# Exit handlers run last registered first: this one is registered before the script's own and those of its
# trackers.
atexit.register(end)
