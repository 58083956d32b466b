"""Boot: nothing without a flag; with one, the flags are ours, the dataclasses are the host's, and mistakes
get one line."""

import pkgutil
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest

import spr_plugin
from spr_plugin import boot
from spr_plugin.errors import UserError

pytestmark = pytest.mark.legacy
BUILD = Path(__file__).parents[1] / "_build"

# A training script in little: transformers' parser, a Trainer whose train() a fork may override, and nothing
# of ours.
SCRIPT = """
import sys

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
    print("config", boot.State.config.spr, boot.State.config.spr_beta, boot.State.namespace is globals())
"""


def run_script(tmp_path, source, *arguments, command=(sys.executable,)):
    script = tmp_path / "train_script.py"
    script.write_text(textwrap.dedent(source))
    return subprocess.run(
        [*command, script, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )


# --- waking ---------------------------------------------------------------------------------------


LOADED = (
    "import sys; print(sorted(m for m in sys.modules if m.split('.')[0] in ('spr_plugin', 'torch',"
    " 'transformers', 'numpy')))"
)


def test_without_a_flag_nothing_of_ours_or_torch_is_imported(tmp_path):
    assert run_script(tmp_path, LOADED, "--lr", "1").stdout.strip() == "[]"


def test_with_the_flag_only_light_modules_are_imported(tmp_path):
    loaded = run_script(tmp_path, LOADED, "--spr").stdout
    assert "spr_plugin.boot" in loaded
    assert not any(heavy in loaded for heavy in ("torch", "transformers", "numpy", "follow"))


def test_module_launch_wakes_through_orig_argv(tmp_path):
    (tmp_path / "mod.py").write_text(LOADED)
    done = subprocess.run(
        [sys.executable, "-m", "mod", "--spr"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "spr_plugin.boot" in done.stdout


@pytest.mark.parametrize("flag", ["--spr", "--spr=1", "--spr_only", "--spr-only", "--sprinkle"])
def test_both_boot_files_wake_as_asked(monkeypatch, flag):
    woken = []
    monkeypatch.setattr(boot, "wake", lambda: woken.append(flag))
    monkeypatch.setattr(sys, "argv", ["train.py", flag])
    exec((BUILD / "spr_plugin.pth").read_text())
    pkgutil.resolve_name((BUILD / "spr_plugin.start").read_text().strip())()
    assert woken == [flag] * (2 if boot.asked([flag]) else 0)


PARENT = """
import multiprocessing, os, subprocess, sys

def told():
    return "spr_plugin.boot" in sys.modules

if __name__ == "__main__":
    for method in ("spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(method, pool.apply(told))
    code = "import sys; print('spr_plugin.boot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    print("other", done.stdout.strip())
"""


@pytest.mark.parametrize("flag, awake", [("--spr", True), ("--lr", False)])
def test_processes_of_multiprocessing_that_do_not_fork_are_awake_as_their_parent(tmp_path, flag, awake):
    """Data loader workers import the host's script anew, which needs the shims; other children have a command
    line of their own."""
    done = run_script(tmp_path, PARENT, flag, "1")
    assert done.stdout.splitlines() == [f"spawn {awake}", f"forkserver {awake}", "other False"], done.stderr


@pytest.mark.parametrize(
    "words, awake",
    [
        (["python", "-c", "from multiprocessing.spawn import spawn_main; spawn_main()"], True),
        (["python", "train.py"], False),
    ],
)
@pytest.mark.parametrize("marked", [True, False])
def test_both_boot_files_wake_in_such_a_process(monkeypatch, words, awake, marked):
    woken = []
    monkeypatch.setattr(boot, "wake", lambda: woken.append(1))
    monkeypatch.setattr(sys, "argv", ["-c"])
    monkeypatch.setattr(sys, "orig_argv", words)
    monkeypatch.setenv(boot.AWAKE, "1") if marked else monkeypatch.delenv(boot.AWAKE, raising=False)
    exec((BUILD / "spr_plugin.pth").read_text())
    pkgutil.resolve_name((BUILD / "spr_plugin.start").read_text().strip())()
    assert len(woken) == (2 if awake and marked else 0)


def test_wake_twice_is_once():
    code = (
        "from spr_plugin import boot, imports; import sys; boot.wake(); boot.wake(); print(sum(isinstance(f,"
        " imports._Finder) for f in sys.meta_path), "
    )
    code += "[len(c) for n, c in imports._callbacks.items() if n == 'transformers.hf_argparser'])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "1 [1]"
    )


# --- train() --------------------------------------------------------------------------------------


class Base:
    """Stands for transformers.Trainer."""

    args = types.SimpleNamespace(deepspeed=None, output_dir="out")

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
        return outcome(host_train())

    def after(trainer, config, namespace, host_train):
        stage_calls.append("after")
        return outcome(host_train(), followed=False)

    pipeline = types.SimpleNamespace(train=stage, train_after=after)
    monkeypatch.setitem(sys.modules, "spr_plugin.follow", pipeline)
    monkeypatch.setattr(sys.modules["spr_plugin"], "follow", pipeline, raising=False)
    trainer = type("Trainer", (Base,), {"train": Base.train, "__init__": Base.__init__})
    boot.hook_trainer(trainer)
    boot.State.config, boot.State.namespace = types.SimpleNamespace(spr=True, spr_doctor=None), {"a": 1}
    return trainer, stage_calls


def outcome(result, followed=True, failure=None):
    return types.SimpleNamespace(result=result, followed=followed, failure=failure)


def test_train_runs_the_stage_around_the_hosts_train(hooked):
    trainer, stage_calls = hooked
    live = trainer()
    assert live.train(resume=True) == "result"
    assert live.calls == [("base", True)] and stage_calls == [(boot.State.config, {"a": 1})]


def test_with_the_doctor_neither_host_nor_stage_trains(hooked, monkeypatch):
    trainer, stage_calls = hooked
    boot.State.config.spr_doctor = "folder"

    def examine(live, config, namespace):
        raise SystemExit(f"{config.spr_doctor} {namespace}")

    monkeypatch.setitem(sys.modules, "spr_plugin.tools.examination", types.SimpleNamespace(examine=examine))
    live = trainer()
    with pytest.raises(SystemExit, match=r"folder {'a': 1}"):
        live.train()
    assert live.calls == [] and stage_calls == []


def test_a_forks_own_train_is_wrapped_once(hooked):
    trainer, stage_calls = hooked

    class Fork(trainer):
        def train(self, resume=None):
            self.calls.append("fork")
            return super().train(resume)

    live = Fork()
    live.train()
    assert live.calls == ["fork", ("base", None)] and len(stage_calls) == 1


def test_the_stage_follows_one_train_of_a_process(hooked):
    """Whatever trainer a later one is called on, it is the host's own, and said to be."""
    trainer, stage_calls = hooked
    live = trainer()
    assert [live.train(), live.train(), trainer().train()] == ["result"] * 3
    assert live.calls == [("base", None)] * 2 and stage_calls[1:] == ["after", "after"]


def test_a_training_that_the_stage_does_not_follow_leaves_it_to_the_next(hooked, monkeypatch):
    trainer, stage_calls = hooked
    stage = sys.modules["spr_plugin.follow"].train
    monkeypatch.setattr(
        sys.modules["spr_plugin.follow"], "train", lambda *args: outcome(args[-1](), followed=False)
    )
    assert trainer().train() == "result" and stage_calls == []
    monkeypatch.setattr(sys.modules["spr_plugin.follow"], "train", stage)
    trainer().train()
    assert len(stage_calls) == 1


def test_train_called_by_the_stage_is_the_plain_one(hooked, monkeypatch):
    trainer, stage_calls = hooked
    monkeypatch.setattr(
        sys.modules["spr_plugin.follow"],
        "train",
        lambda *_: (stage_calls.append(1), outcome(trainer().train()))[1],
    )
    assert trainer().train() == "result" and stage_calls == [1]


def test_spr_false_trains_as_ever(hooked):
    trainer, stage_calls = hooked
    boot.State.config = types.SimpleNamespace(spr=False)
    trainer().train()
    assert stage_calls == []


def refuse(*_):
    raise UserError("--spr_clip nowhere: no such folder")


def test_a_users_mistake_in_the_stage_exits_with_2(hooked, monkeypatch, capsys):
    monkeypatch.setattr(sys.modules["spr_plugin.follow"], "train", refuse)
    with pytest.raises(SystemExit) as stop:
        hooked[0]().train()
    assert (
        stop.value.code == 2 and capsys.readouterr().err == "spr: error: --spr_clip nowhere: no such folder\n"
    )
    assert not boot.State.in_stage


def test_a_stage_that_failed_lets_the_host_go_on_and_is_said_at_the_end(hooked, monkeypatch):
    monkeypatch.setattr(
        sys.modules["spr_plugin.follow"], "train", lambda *args: outcome(args[-1](), failure="it failed")
    )
    assert hooked[0]().train() == "result" and boot.State.failure == "it failed"


def test_an_interactive_session_hears_of_a_failure_at_once(hooked, monkeypatch):
    monkeypatch.setattr(
        sys.modules["spr_plugin.follow"], "train", lambda *args: outcome(args[-1](), failure="it failed")
    )
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    live = Base()
    spr_plugin.attach(live)
    with pytest.raises(UserError, match="it failed"):
        live.train()
    assert live.calls == [("base", None)] and boot.State.failure is None and not boot.State.followed


def test_a_script_without_transformers_parser_is_heard_by_its_command_line(hooked, monkeypatch):
    """argparse with parse_known_args, say, which passes over our flags."""
    trainer, stage_calls = hooked
    monkeypatch.setattr(boot.State, "config", None)
    monkeypatch.setattr(boot.State, "namespace", None)
    monkeypatch.setattr(boot.State, "words", ["--lr", "1", "--spr", "--spr_beta", "0.3"])
    trainer().train()
    ((config, namespace),) = stage_calls
    assert config.spr_beta == 0.3 and namespace is globals()


def test_the_script_is_the_one_that_parsed_also_where_a_fork_s_module_makes_the_trainer(hooked):
    """LLaVA-NeXT's trainer has an __init__ of its own, in a module that is no script."""
    trainer, stage_calls = hooked
    fork = {"trainer": trainer, "__name__": "llava.train.llava_trainer"}
    exec("class Fork(trainer):\n    def __init__(self):\n        super().__init__()\n", fork)
    boot.State.words = ["--spr"]
    fork["Fork"]().train()
    assert stage_calls[0][1] == {"a": 1}


# --- attach ---------------------------------------------------------------------------------------


def test_attach_lets_the_stage_follow_one_trainer_alone(hooked, monkeypatch):
    _, stage_calls = hooked
    live, other = Base(), Base()
    assert spr_plugin.attach(live, processor="p", spr_beta=0.3) is live
    assert live.train(resume=True) == "result" and live.calls == [("base", True)]
    ((config, namespace),) = stage_calls
    assert (
        config.spr
        and config.spr_beta == 0.3
        and namespace["processor"] == "p"
        and namespace["__name__"] == __name__
    )
    other.train()
    assert len(stage_calls) == 1


def test_a_cell_run_twice_trains_twice(hooked):
    """The stage follows the first; the second is the host's own, unless it trains into another folder."""
    _, stage_calls = hooked
    trained = []
    for folder in ("out", "out", "./out", "elsewhere"):
        live = Base()
        live.args = types.SimpleNamespace(output_dir=folder)
        spr_plugin.attach(live)
        live.train()
        trained.append(len(live.calls))
    assert trained == [1] * 4 and [call == "after" for call in stage_calls] == [False, True, True, False]


def test_attach_again_with_other_flags_is_the_one_that_counts(hooked):
    _, stage_calls = hooked
    live = Base()
    spr_plugin.attach(live, spr_beta=0.3)
    spr_plugin.attach(live, spr_beta=0.4)
    live.train()
    assert [config.spr_beta for config, _ in stage_calls] == [0.4] and len(live.calls) == 1
    other = Base()
    spr_plugin.attach(other)
    spr_plugin.attach(other, spr=False)
    other.train()
    assert len(stage_calls) == 1


@pytest.mark.parametrize("thing", [None, types.SimpleNamespace(train=print), "trainer"])
def test_attach_takes_a_trainer_alone(clean_state, thing):
    with pytest.raises(spr_plugin.UserError, match="is no Trainer"):
        spr_plugin.attach(thing)


UNKNOWN = "spr_plugin.attach(spr_bata=…): unknown flag; did you mean spr_beta?"


@pytest.mark.parametrize("flags, says", [({"spr_bata": 1}, UNKNOWN), ({"spr_beta": -1}, "--spr_beta -1")])
def test_a_mistake_in_attach_is_an_exception_of_ours(clean_state, flags, says):
    with pytest.raises(spr_plugin.UserError) as refused:
        spr_plugin.attach(Base(), **flags)
    assert says in str(refused.value) and "\n" not in str(refused.value)
    assert refused.value._render_traceback_() == [f"spr: error: {refused.value}"]


def test_a_mistake_that_train_finds_is_one_too(hooked, monkeypatch):
    monkeypatch.setattr(sys.modules["spr_plugin.follow"], "train", refuse)
    with pytest.raises(spr_plugin.UserError, match="no such folder"):
        spr_plugin.attach(Base()).train()
    assert not boot.State.in_stage


def test_a_script_with_attach_shows_one_line(tmp_path):
    done = run_script(tmp_path, "import spr_plugin\nspr_plugin.attach(None, spr_bata=1)\n")
    assert done.returncode == 1 and done.stderr == f"spr: error: {UNKNOWN}\n"
    done = run_script(tmp_path, "import spr_plugin\n1 / 0\n")
    assert "Traceback" in done.stderr and "ZeroDivisionError" in done.stderr


# --- what cannot run is said before anything is loaded --------------------------------------------


def test_a_transformers_that_nobody_has_seen(monkeypatch, capsys):
    import transformers

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
