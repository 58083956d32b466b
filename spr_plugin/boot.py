"""What ``--spr`` wakes in a training command that knows nothing of us.

``spr_plugin.pth`` (or ``.start``) in site-packages calls :func:`wake` when an argument is ``--spr``,
``--spr=…`` or ``--spr_…``. Nothing heavy is imported: we only wait for modules of transformers and the host.
When they have been executed

* ``HfArgumentParser`` learns our flags (:mod:`spr_plugin.flags`);
* ``Trainer.train`` becomes :func:`spr_plugin.follow.train`, which calls the host's own ``train`` first;
* the compatibility shims of :mod:`spr_plugin.hooks.shims` are installed.

Standard library only. Knows no host and no model.
"""

import functools
import importlib.util
import json
import os
import re
import sys

from spr_plugin import flags, process
from spr_plugin.errors import UserError
from spr_plugin.flags import asked
from spr_plugin.imports import after_import, once
from spr_plugin.lines import say_error
from spr_plugin.process import State, fail, or_fail

# in the environment of a process that is awake: its command line, for those that multiprocessing starts
AWAKE = "SPR_PLUGIN_AWAKE"

# Programs that may carry our word and run whatever code, but are no training command.
BYSTANDER = re.compile(r"(pip[\d.]*|pytest|py\.test|unittest)(\.py|\.exe)?")


# --- waking ---------------------------------------------------------------------------------------


def inherited(arguments, environment) -> bool:
    """Whether this is a process that multiprocessing has started, without a fork, for one that was awake: it
    imports the host's script anew (data loader workers), and has no flag in its command line yet.
    ``spr_plugin.pth`` says this too."""
    return AWAKE in environment and any("multiprocessing" in a for a in arguments)


def start() -> None:
    """Entry point of ``spr_plugin.start`` (PEP 829), which cannot hold a condition."""
    own, whole = getattr(sys, "argv", ()), getattr(sys, "orig_argv", ())
    if asked([*own, *whole]) or inherited(whole, os.environ):
        wake()


def wake(words=None) -> None:
    """Wait for transformers. Twice is once: site reads a boot file again where two site directories are the
    same.

    Args:
        words: what follows the training script on the command line; default: what this interpreter was
            started with.
    """
    if State.awake or (words is None and _bystander(sys.orig_argv)):
        return
    State.awake = True
    State.words = list(getattr(sys, "argv", sys.orig_argv)[1:] if words is None else words)
    State.worker = not asked(State.words) and inherited(sys.orig_argv, os.environ)
    if State.worker:
        State.words = json.loads(os.environ[AWAKE])
    os.environ[AWAKE] = json.dumps(State.words)
    from spr_plugin.hooks import shims

    process.note_exit_code()
    shims.install()
    after_import("subprocess", process.note_launches)
    after_import("torch.multiprocessing.spawn", process.note_spawned)
    after_import("transformers.hf_argparser", lambda module: flags.hook_parser(module.HfArgumentParser))
    after_import("trl.scripts._hf_argparser", lambda module: flags.hook_parser(module.HfArgumentParser))
    after_import("trl.scripts.utils", lambda module: flags.check_file(module.TrlParser))
    after_import("transformers.trainer", lambda module: hook_trainer(module.Trainer))


def _bystander(command: list) -> bool:
    """Whether ``command``, as the interpreter got it, runs one of the programs that are left alone."""
    words = iter(command[1:])
    for word in words:
        if word in ("-W", "-X"):
            next(words, None)
        elif word == "-m":
            return BYSTANDER.fullmatch(next(words, "").partition(".")[0]) is not None
        elif word == "-c" or not word.startswith("-"):
            return BYSTANDER.fullmatch(os.path.basename(word)) is not None
    return False


def check_installation() -> None:
    """Stop with one line where ``./spr_plugin`` of a checkout hides the installed package: the checkout keeps
    its hooks elsewhere."""
    if importlib.util.find_spec("spr_plugin.hooks") is None:
        here = os.path.dirname(os.path.abspath(__file__))
        fail(
            f"{here} is a source folder without its hooks: run from another folder, or install the checkout "
            "with pip install -e"
        )


# --- the training loop ----------------------------------------------------------------------------


@once
def hook_trainer(trainer) -> None:
    """Wrap ``Trainer.train``, and ``train`` of every subclass that overrides it when one is made."""
    host_init = trainer.__init__
    hook_train(trainer)

    @functools.wraps(host_init)
    def __init__(self, *args, **kwargs):
        for cls in type(self).__mro__:
            if issubclass(cls, trainer):
                hook_train(cls)
        host_init(self, *args, **kwargs)
        if not State.in_stage:
            State.touched = True
            or_fail(flags.settle, flags.script_frame())
        from spr_plugin.hooks import shims

        or_fail(shims.refuse_ignored_deepspeed, self)

    trainer.__init__ = __init__


@once
def hook_train(cls) -> None:
    """Run the SPR stage in place of ``cls.train``, which the stage calls itself."""
    if "train" not in vars(cls):
        return
    host_train = cls.train

    @functools.wraps(host_train)
    def train(self, *args, **kwargs):
        run = functools.partial(host_train, self, *args, **kwargs)
        if State.config is None:  # of a Trainer whose own __init__ never called this one's
            or_fail(flags.settle, flags.script_frame())
        if State.in_stage or not State.config.spr:
            return run()
        namespace = State.namespace or flags.script_frame().f_globals
        return or_fail(_with_stage, self, State.config, namespace, bool(State.followed), run)

    cls.train = train


def _with_stage(trainer, config, namespace: dict, followed: bool, host_train):
    """``host_train()`` and the SPR stage around it, unless the stage has ``followed`` a training already; a
    train() that is called in here is the plain one.

    Raises:
        UserError: whatever the user can mend, before the host trains; with ``--spr_only`` and in an
            interactive session also after.
    """
    from spr_plugin import follow

    State.in_stage = True
    if config.spr_doctor:
        from spr_plugin.tools.examination import examine

        examine(trainer, config, namespace)
    try:
        run = follow.train_after if followed else follow.train
        outcome = run(trainer, config, namespace, host_train)
    finally:
        State.in_stage = False
    if outcome.failure and hasattr(sys, "ps1"):  # a session has no end to say it at, and may try again
        raise UserError(outcome.failure)
    if outcome.followed:
        process.follow(trainer.args.output_dir, outcome.failure)
    return outcome.result


# --- attach ---------------------------------------------------------------------------------------


def attach(trainer, processor, given: dict):
    """See :func:`spr_plugin.attach`. That one trainer is changed, and no class."""
    from spr_plugin.command_line import given as read
    from spr_plugin.config import SPRConfig
    from spr_plugin.hooks import shims

    _one_line_for_mistakes()
    flags.refuse_unknown(given, "spr_plugin.attach({}=…)")
    if not (hasattr(trainer, "train") and hasattr(trainer, "args")):
        raise UserError(
            f"spr_plugin.attach: {type(trainer).__name__} is no Trainer; give it the one that trains"
        )
    config = SPRConfig(**{"spr": True, **given, **read(State.words)})
    shims.check_transformers()
    namespace = flags.script_frame().f_globals
    shims.mend_script(namespace)
    namespace = {**namespace, "processor": processor} if processor else namespace
    host_train = getattr(trainer.train, "spr_host_train", trainer.train)  # attached again: other flags
    State.attached, State.touched = State.attached or config.spr, True

    @functools.wraps(host_train)
    def train(*args, **kwargs):
        run = functools.partial(host_train, *args, **kwargs)
        if State.in_stage or not config.spr:
            return run()
        followed = os.path.realpath(trainer.args.output_dir) in State.followed
        return _with_stage(trainer, config, namespace, followed, run)

    train.spr_host_train = host_train  # type: ignore[attr-defined]
    trainer.train = train
    return trainer


def _one_line_for_mistakes() -> None:
    """A script that ends with a UserError of ours shows its line and no traceback; all other errors are shown
    as ever."""
    host_hook = sys.excepthook

    def show(kind, error, trace):
        if issubclass(kind, UserError):
            say_error(error)
        else:
            host_hook(kind, error, trace)

    if getattr(host_hook, "__module__", None) != __name__:
        sys.excepthook = show
