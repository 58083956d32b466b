"""Boot: nothing without a flag; with one, the flags are ours, the dataclasses are the host's, and mistakes get one line."""

import dataclasses
import pkgutil
import subprocess
import sys
import textwrap
import types
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from spr_plugin import boot
from spr_plugin.config import SPRConfig

pytestmark = pytest.mark.legacy
BUILD = Path(__file__).parents[1] / "_build"

# A training script in little: transformers' parser, a Trainer whose train() a fork may override, and nothing of ours.
SCRIPT = """
import sys
from dataclasses import dataclass, field
from transformers import HfArgumentParser

@dataclass
class ModelArguments:
    name: str = field(default="tiny")

@dataclass
class TrainingArguments:
    output_dir: str = field(default="out")

parsed = HfArgumentParser((ModelArguments, TrainingArguments)).parse_args_into_dataclasses()
print([type(p).__name__ for p in parsed], parsed[0].name)
boot = sys.modules.get("spr_plugin.boot")
if boot:
    print("config", boot._State.config.spr, boot._State.config.spr_beta, boot._State.namespace is globals())
"""


def run_script(tmp_path, source, *arguments, command=(sys.executable,)):
    script = tmp_path / "train_script.py"
    script.write_text(textwrap.dedent(source))
    return subprocess.run([*command, script, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120)


@pytest.fixture
def clean_state(monkeypatch):
    for name in ("config", "namespace", "in_stage"):
        monkeypatch.setattr(boot._State, name, getattr(boot._State, name))


# --- waking -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argument", ["--spr", "--spr=True", "--spr_beta", "--spr_beta=0.1"])
def test_asked(argument):
    assert boot.asked(["train.py", argument])


@pytest.mark.parametrize("argument", ["--sprinkle", "spr", "--model", "--spri_x", "-spr"])
def test_not_asked(argument):
    assert not boot.asked(["train.py", argument])


LOADED = "import sys; print(sorted(m for m in sys.modules if m.split('.')[0] in ('spr_plugin', 'torch', 'transformers', 'numpy')))"


def test_without_a_flag_nothing_of_ours_or_torch_is_imported(tmp_path):
    assert run_script(tmp_path, LOADED, "--lr", "1").stdout.strip() == "[]"


def test_with_the_flag_only_light_modules_are_imported(tmp_path):
    loaded = run_script(tmp_path, LOADED, "--spr").stdout
    assert "spr_plugin.boot" in loaded
    assert not any(heavy in loaded for heavy in ("torch", "transformers", "numpy", "pipeline"))


def test_module_launch_wakes_through_orig_argv(tmp_path):
    (tmp_path / "mod.py").write_text(LOADED)
    done = subprocess.run([sys.executable, "-m", "mod", "--spr"], cwd=tmp_path, capture_output=True, text=True)
    assert "spr_plugin.boot" in done.stdout


@pytest.mark.parametrize("flag", ["--spr", "--spr=1", "--spr_only", "--sprinkle"])
def test_both_boot_files_wake_as_asked(monkeypatch, flag):
    woken = []
    monkeypatch.setattr(boot, "wake", lambda: woken.append(flag))
    monkeypatch.setattr(sys, "argv", ["train.py", flag])
    exec((BUILD / "spr_plugin.pth").read_text())
    pkgutil.resolve_name((BUILD / "spr_plugin.start").read_text().strip())()
    assert woken == [flag] * (2 if boot.asked([flag]) else 0)


def test_wake_twice_is_once():
    code = "from spr_plugin import boot; import sys; boot.wake(); boot.wake(); print(sum(isinstance(f, boot._Finder) for f in sys.meta_path), "
    code += "[len(c) for n, c in boot._callbacks.items() if n == 'transformers.hf_argparser'])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "1 [1]"


def test_callbacks_run_after_the_module(tmp_path, monkeypatch):
    (tmp_path / "late_module.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    seen = []
    boot.after_import("late_module", lambda module: seen.append(module.value))
    assert seen == []
    import late_module  # noqa: F401

    assert seen == [1]
    boot.after_import("late_module", lambda module: seen.append("at once"))
    assert seen == [1, "at once"]


# --- flags ------------------------------------------------------------------------------------------------------------------------


def test_host_gets_its_own_dataclasses_and_we_get_its_namespace(tmp_path):
    done = run_script(tmp_path, SCRIPT, "--name", "mine", "--spr", "--spr_beta", "0.3")
    assert done.stdout.splitlines() == ["['ModelArguments', 'TrainingArguments'] mine", "config True 0.3 True"], done.stderr


@dataclass
class ModelArguments:
    name: str = field(default="tiny")


@pytest.fixture
def hooked_parser(clean_state):
    """``hooked_parser(base)`` is a parser of a subclass of ``base`` that learnt our flags; it knows ModelArguments."""

    def make(base):
        hooked = type("Parser", (base,), {})
        boot.hook_parser(hooked)
        return hooked((ModelArguments,))

    return make


@pytest.fixture
def parser(hooked_parser):
    from transformers import HfArgumentParser

    return hooked_parser(HfArgumentParser)


@pytest.fixture
def parse(parser):
    """``parse(*arguments)`` returns what the host gets."""
    return lambda *arguments: parser.parse_args_into_dataclasses(list(arguments))


def test_spr_only_implies_spr(parse):
    assert len(parse("--spr_only")) == 1 and boot._State.config.spr


def test_list_flags_take_several_values(parse):
    parse("--spr", "--spr_prompts", "plain", "crop")
    assert boot._State.config.spr_prompts == ["plain", "crop"]


def shows_every_help(parser) -> None:
    """argparse formats a help with ``%`` only when it is shown: a bare one ends ``--help`` in a traceback."""
    formatter = parser._get_formatter()
    shown = {name: formatter._expand_help(action) for action in parser._actions for name in action.option_strings}
    for flag in dataclasses.fields(SPRConfig):
        assert shown[f"--{flag.name}"].startswith(flag.metadata["help"])


def test_help_shows_every_flag_in_the_hosts_parser(parser, parse, capsys):
    shows_every_help(parser)
    with pytest.raises(SystemExit) as stop:
        parse("--spr", "--help")
    assert stop.value.code == 0 and "after 10 % warm-up" in " ".join(capsys.readouterr().out.split())


def test_help_shows_every_flag_in_trls_parser(hooked_parser):
    shows_every_help(hooked_parser(pytest.importorskip("trl").TrlParser))


def test_spr_false_is_off(parse):
    parse("--spr", "False", "--spr_beta", "0.3")
    assert not boot._State.config.spr


def test_an_unknown_flag_of_the_host_is_the_hosts_to_refuse(parse):
    with pytest.raises(ValueError, match="--nonsense"):
        parse("--spr", "--nonsense", "1")


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--spr_beta", "0.3"], "--spr_beta does nothing without --spr"),
        (["--spr", "--spr_bata", "1"], "--spr_bata: unknown flag; did you mean spr_beta?"),
        (["--spr", "--spr_beta", "much"], "--spr_beta"),
        (["--spr", "--spr_beta", "-1"], "--spr_beta -1.0: must be greater than 0"),
        (["--spr", "--spr_prompts", "poem"], "--spr_prompts"),
        (["--spr=perhaps"], "argument --spr"),
    ],
)
def test_a_mistake_gets_one_line_and_exit_code_2(parse, capsys, arguments, says):
    with pytest.raises(SystemExit) as stop:
        parse(*arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.startswith("spr: error: ") and error.count("\n") == 1 and says in error


def test_renamed_flags_are_rewritten_where_only_the_new_name_exists(capsys):
    args = ["--evaluation_strategy", "no", "--warmup_ratio=0.03", "--lr", "1"]
    assert boot.rewrite_renamed(args, {"--eval_strategy", "--warmup_steps", "--lr"}) == ["--eval_strategy", "no", "--warmup_steps=0.03", "--lr", "1"]
    assert len(capsys.readouterr().err.splitlines()) == 1
    old = {"--evaluation_strategy", "--warmup_ratio", "--warmup_steps"}
    assert boot.rewrite_renamed(args, old) == args
    assert capsys.readouterr().err == ""


# --- train() ----------------------------------------------------------------------------------------------------------------------


class Base:
    """Stands for transformers.Trainer."""

    args = types.SimpleNamespace(deepspeed=None)

    def __init__(self):
        self.calls = []

    def train(self, resume=None):
        self.calls.append(("base", resume))
        return "result"


@pytest.fixture
def hooked(clean_state, monkeypatch):
    """A hooked Trainer class, and the list of what the stage was called with."""
    stage_calls = []

    def stage(trainer, config, namespace, host_train):
        stage_calls.append((config, namespace))
        return host_train()

    monkeypatch.setitem(sys.modules, "spr_plugin.pipeline", types.SimpleNamespace(train=stage))
    monkeypatch.setattr(sys.modules["spr_plugin"], "pipeline", sys.modules["spr_plugin.pipeline"], raising=False)
    trainer = type("Trainer", (Base,), {"train": Base.train, "__init__": Base.__init__})
    boot.hook_trainer(trainer)
    boot._State.config, boot._State.namespace = types.SimpleNamespace(spr=True), {"a": 1}
    return trainer, stage_calls


def test_train_runs_the_stage_around_the_hosts_train(hooked):
    trainer, stage_calls = hooked
    live = trainer()
    assert live.train(resume=True) == "result"
    assert live.calls == [("base", True)] and stage_calls == [(boot._State.config, {"a": 1})]


def test_a_forks_own_train_is_wrapped_once(hooked):
    trainer, stage_calls = hooked

    class Fork(trainer):
        def train(self, resume=None):
            self.calls.append("fork")
            return super().train(resume)

    live = Fork()
    live.train()
    assert live.calls == ["fork", ("base", None)] and len(stage_calls) == 1


def test_train_called_by_the_stage_is_the_plain_one(hooked, monkeypatch):
    trainer, stage_calls = hooked
    monkeypatch.setattr(sys.modules["spr_plugin.pipeline"], "train", lambda *_: (stage_calls.append(1), trainer().train())[1])
    assert trainer().train() == "result" and stage_calls == [1]


def test_spr_false_trains_as_ever(hooked):
    trainer, stage_calls = hooked
    boot._State.config = types.SimpleNamespace(spr=False)
    trainer().train()
    assert stage_calls == []


def test_a_users_mistake_in_the_stage_exits_with_2(hooked, monkeypatch, capsys):
    from spr_plugin.errors import UserError

    def stage(*_):
        raise UserError("--spr_clip nowhere: no such folder")

    monkeypatch.setattr(sys.modules["spr_plugin.pipeline"], "train", stage)
    with pytest.raises(SystemExit) as stop:
        hooked[0]().train()
    assert stop.value.code == 2 and capsys.readouterr().err == "spr: error: --spr_clip nowhere: no such folder\n"
    assert not boot._State.in_stage


def test_a_script_without_the_parser_is_told(hooked, capsys):
    boot._State.config = None
    with pytest.raises(SystemExit):
        hooked[0]().train()
    assert "a parser of its own" in capsys.readouterr().err


# --- attach -----------------------------------------------------------------------------------------------------------------------


def test_attach_lets_the_stage_follow_one_trainer_alone(hooked, monkeypatch):
    import spr_plugin

    _, stage_calls = hooked
    live, other = Base(), Base()
    assert spr_plugin.attach(live, processor="p", spr_beta=0.3) is live
    assert live.train(resume=True) == "result" and live.calls == [("base", True)]
    ((config, namespace),) = stage_calls
    assert config.spr and config.spr_beta == 0.3 and namespace["processor"] == "p" and namespace["__name__"] == __name__
    other.train()
    assert len(stage_calls) == 1


UNKNOWN = "spr_plugin.attach(spr_bata=…): unknown flag; did you mean spr_beta?"


@pytest.mark.parametrize("flags, says", [({"spr_bata": 1}, UNKNOWN), ({"spr_beta": -1}, "--spr_beta -1")])
def test_a_mistake_in_attach_gets_one_line(clean_state, capsys, flags, says):
    import spr_plugin

    with pytest.raises(SystemExit) as stop:
        spr_plugin.attach(Base(), **flags)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.startswith("spr: error: ") and error.count("\n") == 1 and says in error


# --- what cannot run is said before anything is loaded ------------------------------------------------------------------------------


def refusal(capsys, function, *arguments):
    with pytest.raises(SystemExit) as stop:
        function(*arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.startswith("spr: error: ") and error.count("\n") == 1
    return error


def without_kernels(monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in ("flash_attn", "kernels") else find(name, *rest))


def test_flash_attention_that_is_not_installed(parser, capsys, monkeypatch):
    without_kernels(monkeypatch)

    def train(attn_implementation=None):  # LLaVA's train_mem.py calls it so
        return parser.parse_args_into_dataclasses(["--spr"])

    assert "flash_attn is not installed" in refusal(capsys, train, "flash_attention_2")
    train("sdpa")


def test_a_transformers_that_nobody_has_seen(monkeypatch, capsys):
    import transformers
    from spr_plugin.errors import UserError
    from spr_plugin.hooks import shims

    monkeypatch.setattr(transformers, "__version__", "4.31.0")
    with pytest.raises(UserError, match="4.31.0 is too old"):
        shims.check_transformers()
    monkeypatch.setattr(transformers, "__version__", f"{shims.NEWEST[0]}.{shims.NEWEST[1] + 1}.0")
    shims.check_transformers()
    assert "newer than what was tested" in capsys.readouterr().err
    monkeypatch.setattr(transformers, "__version__", f"{shims.NEWEST[0]}.{shims.NEWEST[1]}.7")
    shims.check_transformers()
    assert capsys.readouterr().err == ""
