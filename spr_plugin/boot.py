"""What ``--spr`` wakes in a training command that knows nothing of us.

``spr_plugin.pth`` (or ``.start``) in site-packages calls :func:`wake` when an argument is ``--spr``, ``--spr=…`` or ``--spr_…``. Nothing
heavy is imported: we only wait for modules of transformers and the host. When they have been executed

* ``HfArgumentParser`` learns our flags and keeps them from the host, whose three dataclasses come out as ever;
* ``Trainer.train`` becomes :func:`spr_plugin.pipeline.train`, which calls the host's own ``train`` first;
* the compatibility shims of :mod:`spr_plugin.hooks.shims` are installed.

Standard library only. Knows no host and no model.
"""

import difflib
import functools
import importlib.util
import os
import sys

# The host's packages: a frame outside them is the training script.
LIBRARIES = ("transformers", "trl", "spr_plugin")
# transformers' old name of a flag → the name since 4.46 or 5.0. Values keep their meaning: warmup_steps below 1 is a share.
RENAMED_FLAGS = {"--evaluation_strategy": "--eval_strategy", "--warmup_ratio": "--warmup_steps", "--no_cuda": "--use_cpu"}


class _State:
    """What one process knows of its SPR run."""

    awake = False
    config = None  # SPRConfig, once the host has parsed its command line
    namespace = None  # globals of the host's training script
    in_stage = False  # train() called by our own stage must be the plain one


# --- waking ---------------------------------------------------------------------------------------------------------------------


def asked(arguments) -> bool:
    """Whether a command line holds one of our flags. The one line of ``spr_plugin.pth`` says the same."""
    return any(a == "--spr" or a.startswith(("--spr=", "--spr_")) for a in arguments)


def start() -> None:
    """Entry point of ``spr_plugin.start`` (PEP 829), which cannot hold a condition."""
    if asked([*getattr(sys, "argv", ()), *getattr(sys, "orig_argv", ())]):
        wake()


def wake() -> None:
    """Wait for transformers. Twice is once: site reads a boot file again where two site directories are the same."""
    if _State.awake:
        return
    _State.awake = True
    from spr_plugin.hooks import shims

    shims.install()
    after_import("transformers.hf_argparser", lambda module: hook_parser(module.HfArgumentParser))
    after_import("transformers.trainer", lambda module: hook_trainer(module.Trainer))


def check_installation() -> None:
    """Stop with one line where ``./spr_plugin`` of a checkout hides the installed package: the checkout keeps its hooks elsewhere."""
    if importlib.util.find_spec("spr_plugin.hooks") is None:
        here = os.path.dirname(os.path.abspath(__file__))
        fail(f"{here} is a source folder without its hooks: run from another folder, or install the checkout with pip install -e")


def fail(error) -> None:
    """Print ``spr: error: …`` and exit with 2. Every rank does: the launcher needs the code, the user one line."""
    print(f"spr: error: {error}", file=sys.stderr, flush=True)
    raise SystemExit(2)


# --- callbacks after an import ----------------------------------------------------------------------------------------------------

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
    """Decorator of ``function(cls)``: a class that was changed before is left alone. Its own ``__dict__`` counts, not its parents'."""
    mark = f"_spr_{function.__name__}"

    @functools.wraps(function)
    def change(cls):
        if mark not in vars(cls):
            setattr(cls, mark, True)
            function(cls)

    return change


# --- the command line -------------------------------------------------------------------------------------------------------------


@once
def hook_parser(parser) -> None:
    """Teach transformers' ``HfArgumentParser`` our flags."""
    host_init, host_parse_known, host_error = parser.__init__, parser.parse_known_args, parser.error

    @functools.wraps(host_init)
    def __init__(self, *args, **kwargs):
        host_init(self, *args, **kwargs)
        flags = _flags_class()
        self.dataclass_types.append(flags)
        self._add_dataclass_arguments(flags)

    @functools.wraps(host_parse_known)
    def parse_known_args(self, args=None, namespace=None):
        args = rewrite_renamed(list(sys.argv[1:] if args is None else args), self._option_string_actions)
        _check_flags(args)
        parsed, rest = host_parse_known(self, args, namespace)
        _before_training_arguments(parsed)
        return parsed, rest

    def error(self, message):
        # argparse prints the host's usage first, hundreds of lines; a mistake in our flags deserves its one line.
        fail(message) if message.startswith("argument --spr") else host_error(self, message)

    parser.__init__, parser.parse_known_args, parser.error = __init__, parse_known_args, error
    for name in ("parse_args_into_dataclasses", "parse_dict"):
        setattr(parser, name, _without_ours(getattr(parser, name)))


@functools.lru_cache(maxsize=None)
def _flags_class():
    """A dataclass with SPRConfig's fields for the parser: it passes a field's metadata on to argparse, which knows help."""
    import dataclasses

    from spr_plugin.config import SPRConfig, for_argparse

    def plain(f):
        metadata = {"help": for_argparse(f.metadata["help"])}
        return dataclasses.field(default=f.default, default_factory=f.default_factory, metadata=metadata)

    return dataclasses.make_dataclass("SPRFlags", [(f.name, f.type, plain(f)) for f in dataclasses.fields(SPRConfig)])


def _without_ours(host_parse):
    """``host_parse`` that keeps our dataclass, the script's globals, and returns what the host asked for."""

    @functools.wraps(host_parse)
    def parse(self, *args, **kwargs):
        results = host_parse(self, *args, **kwargs)
        for flags in results:
            if isinstance(flags, _flags_class()):
                script = _script_frame(sys._getframe(1))
                _keep(vars(flags), script.f_globals)
                _refuse_missing_kernels(script, results)
        return tuple(result for result in results if not isinstance(result, _flags_class()))

    return parse


def _keep(flags: dict, namespace: dict) -> None:
    from spr_plugin.config import SPRConfig

    _State.config, _State.namespace = _or_fail(lambda: SPRConfig(**flags)), namespace
    from spr_plugin.hooks import shims

    if _State.config.spr:
        _or_fail(shims.check_transformers)
    shims.mend_script(namespace)


def _script_frame(frame):
    """The innermost caller that is no library: forks under any package name are found without knowing it."""
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in LIBRARIES:
        frame = frame.f_back
    return frame


def _refuse_missing_kernels(script, results) -> None:
    """LLaVA's ``train_mem.py`` calls ``train(attn_implementation="flash_attention_2")``, LLaVA-NeXT has a flag of that name."""
    wanted = [script.f_locals.get("attn_implementation"), *(getattr(result, "attn_implementation", None) for result in results)]
    found = any(importlib.util.find_spec(name) for name in ("flash_attn", "kernels"))
    if _State.config.spr and "flash_attention_2" in wanted and not found:
        fail("flash_attention_2 is asked for and flash_attn is not installed: take train.py in place of train_mem.py, or --attn_implementation sdpa")


def rewrite_renamed(args: list, known) -> list:
    """``args`` with flags that transformers has renamed under their new names; ``known`` holds the parser's options."""
    stale = {old: new for old, new in RENAMED_FLAGS.items() if old not in known and new in known}
    renamed = [f"{old} as {new}" for old, new in stale.items() if any(a == old or a.startswith(old + "=") for a in args)]
    if renamed and os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"spr: this transformers renamed flags; reading {', '.join(renamed)}", file=sys.stderr, flush=True)
    return [_under_new_name(a, stale) for a in args]


def _under_new_name(argument, stale):
    name, equals, value = argument.partition("=")
    return stale.get(name, name) + equals + value


def _check_flags(args: list) -> None:
    """Refuse what argparse or the host would refuse less clearly, or not at all."""
    names = list(_flags_class().__dataclass_fields__)
    given = [a[2:].split("=")[0] for a in args if asked([a])]
    for flag in given:
        if flag not in names:
            fail(f"--{flag}: {_unknown(flag, names)}")
    if given and not {"spr", "spr_only"} & set(given):
        fail(f"--{given[0]} does nothing without --spr: add --spr (or --spr_only to skip the host's training)")


def _unknown(flag: str, names: list) -> str:
    close = difflib.get_close_matches(flag, names, 1)
    return "unknown flag" + (f"; did you mean {close[0]}?" if close else "; README lists them")


def _before_training_arguments(parsed) -> None:
    """DeepSpeed's process group must exist before the host's TrainingArguments do, and what is wrong with its file is said before all else."""
    if getattr(parsed, "deepspeed", None):
        from spr_plugin.deepspeed_settings import check_deepspeed
        from spr_plugin.hooks import shims

        _or_fail(shims.prepare_deepspeed, getattr(parsed, "use_cpu", False) or getattr(parsed, "no_cuda", False))
        _or_fail(check_deepspeed, parsed.deepspeed, parsed)


def _or_fail(function, *args):
    from spr_plugin.errors import UserError

    try:
        return function(*args)
    except UserError as error:
        fail(error)


# --- the training loop ------------------------------------------------------------------------------------------------------------


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
        from spr_plugin.hooks import shims

        _or_fail(shims.refuse_ignored_deepspeed, self)

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
        if _State.in_stage:
            return run()
        if _State.config is None:
            fail("--spr was given, but this script reads its flags with a parser of its own, not transformers' HfArgumentParser: see spr_plugin.attach")
        return _with_stage(self, run) if _State.config.spr else run()

    cls.train = train


def _with_stage(trainer, host_train):
    """``host_train()`` and the SPR stage around it; a train() that the stage itself calls is the plain one."""
    from spr_plugin import pipeline

    _State.in_stage = True
    try:
        return _or_fail(pipeline.train, trainer, _State.config, _State.namespace, host_train)
    finally:
        _State.in_stage = False


def attach(trainer, processor, flags: dict):
    """See :func:`spr_plugin.attach`. That one trainer is changed, and no class."""
    names = list(_flags_class().__dataclass_fields__)
    for flag in flags:
        if flag not in names:
            fail(f"spr_plugin.attach({flag}=…): {_unknown(flag, names)}")
    namespace = _script_frame(sys._getframe(1)).f_globals
    _keep({"spr": True, **flags}, {**namespace, "processor": processor} if processor else namespace)
    host_train = trainer.train

    @functools.wraps(host_train)
    def train(*args, **kwargs):
        return _with_stage(trainer, functools.partial(host_train, *args, **kwargs))

    trainer.train = train
    return trainer
