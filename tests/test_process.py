"""A command with ``--spr`` that ends well has run the stage; everything else that carries the word is left
alone."""

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = [pytest.mark.legacy, pytest.mark.slow]
NEVER = "this command ends without the SPR stage"
PARSES = """
    import os, subprocess, sys
    from transformers import HfArgumentParser
    from dataclasses import dataclass

    @dataclass
    class Arguments:
        name: str = "tiny"

    HfArgumentParser((Arguments,)).parse_args_into_dataclasses()
"""


def run(folder, source, *flags, command=(sys.executable,), **how) -> subprocess.CompletedProcess:
    """Run ``source`` as a script with ``flags``."""
    (folder / "script.py").write_text(textwrap.dedent(source))
    return subprocess.run(
        [*command, "script.py", *flags], cwd=folder, capture_output=True, text=True, timeout=120, **how
    )


def test_a_script_that_parses_our_flags_and_never_trains(tmp_path):
    """One line, said last, exit code 2; and what the script has written and not closed is on disk."""
    done = run(
        tmp_path, PARSES + "\n    log = open('log.txt', 'w'); log.write('half a line'); print('bye')", "--spr"
    )
    assert (
        done.returncode == 2
        and done.stdout == "bye\n"
        and (tmp_path / "log.txt").read_text() == "half a line"
    )
    assert (
        done.stderr.startswith("spr: error: --spr was given")
        and NEVER in done.stderr
        and done.stderr.count("\n") == 1
    )


ENDS = {
    "--spr False": ("", ["--spr", "False"], 0),
    "an error of its own": ("\n    sys.exit(3)", ["--spr"], 3),
    "a message of its own": ("\n    sys.exit('no data')", ["--spr"], 1),
    "a traceback": ("\n    1 / 0", ["--spr"], 1),
    "--help": ("", ["--spr", "--help"], 0),
}


@pytest.mark.parametrize(("more", "flags", "code"), ENDS.values(), ids=ENDS)
def test_a_script_that_ends_for_another_reason_is_left_alone(tmp_path, more, flags, code):
    done = run(tmp_path, PARSES + more, *flags)
    assert done.returncode == code and NEVER not in done.stderr


LAUNCHES = """
    subprocess.run([sys.executable, "-c", "pass", *sys.argv[1:]], check=True)
"""
SHELL = """
    subprocess.run(f"{sys.executable} -c pass {' '.join(sys.argv[1:])}", shell=True, check=True)
"""


@pytest.mark.parametrize("more", [LAUNCHES, SHELL])
def test_a_launcher_passes_our_flags_on(tmp_path, more):
    done = run(tmp_path, PARSES + more, "--spr")
    assert done.returncode == 0 and done.stderr == ""


def test_a_stage_that_fails_in_a_forked_worker_is_said_by_the_parent(tmp_path):
    more = """
    from spr_plugin import process
    if os.fork() == 0:
        process.follow("out", "no pair")
        os._exit(0)
    os.wait()
    """
    done = run(tmp_path, PARSES + more, "--spr")
    assert (
        done.returncode == 2
        and done.stderr
        == "spr: error: the SPR stage failed in a worker of this command: see its line above\n"
    )


def test_a_spawned_worker_hears_the_flags_of_its_parent(tmp_path):
    """The script's own parse ran in the parent alone; the Trainer is made in the child."""
    source = SPAWNS.replace(
        "    pass",
        "    from spr_plugin import flags; from spr_plugin.process import State;"
        " flags.settle(flags.script_frame()); print(State.config.spr_beta)",
    )
    done = run(
        tmp_path, source.format("torch.multiprocessing.spawn(work, nprocs=1)"), "--spr", "--spr_beta", "0.3"
    )
    assert done.stdout == "0.3\n", done.stderr


ATTACHED = """
    import types
    import spr_plugin
    trainer = types.SimpleNamespace(train=lambda: None, args=types.SimpleNamespace(output_dir="out"))
    spr_plugin.attach(trainer)
    {}
"""


@pytest.mark.parametrize("more", ["pass", "trainer = types.SimpleNamespace(train=print); trainer.train()"])
def test_a_trainer_that_was_attached_and_never_trains(tmp_path, more):
    done = run(tmp_path, ATTACHED.format(more))
    assert done.returncode == 2 and NEVER in done.stderr


def test_a_worker_that_is_forked_says_nothing_and_its_stage_counts(tmp_path):
    """notebook_launcher and torch's start_processes fork: the stage runs in a child."""
    more = """
    from spr_plugin import process
    if os.fork() == 0:
        {} and process.follow("out")
        sys.exit(0)
    print(os.wait()[1])
    """
    done = run(tmp_path, PARSES + more.format(True), "--spr")
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
    done = run(tmp_path, PARSES + more.format(False), "--spr")
    assert (done.returncode, done.stdout) == (2, "0\n") and done.stderr.count(NEVER) == 1


SPAWNS = """
import sys
from dataclasses import dataclass
from transformers import HfArgumentParser

@dataclass
class Arguments:
    name: str = "tiny"

HfArgumentParser((Arguments,)).parse_args_into_dataclasses()

def work(rank):
    pass

if __name__ == "__main__":
    import torch
    {}
"""
POOL = "torch.multiprocessing.get_context('spawn').Process(target=work, args=(0,)).start()"


@pytest.mark.parametrize(("how", "code"), [("torch.multiprocessing.spawn(work, nprocs=1)", 0), (POOL, 2)])
def test_a_worker_that_is_spawned_parses_anew_and_says_nothing(tmp_path, how, code):
    """torch's spawn is a launcher, as which the parent is left alone; a data loader's process is none."""
    done = run(tmp_path, SPAWNS.format(how), "--spr")
    assert done.returncode == code and done.stderr.count(NEVER) == (code == 2), done.stderr


def test_a_trainer_that_is_made_and_never_trains(tmp_path):
    """With a parser of Python's own, which passes over our flags."""
    source = """
        import argparse, sys
        argparse.ArgumentParser().parse_known_args()
        if len(sys.argv) > 3:
            import torch, transformers
            transformers.Trainer(torch.nn.Linear(2, 2), transformers.TrainingArguments("out", use_cpu=True,
            report_to=[]))
    """
    done = run(tmp_path, source, "--spr", "--trainer", "1", "x")
    assert (
        done.returncode == 2
        and done.stderr.strip().splitlines()[-1].startswith("spr: error: --spr was given")
        and NEVER in done.stderr
    )
    done = run(tmp_path, source, "--spr")
    assert done.returncode == 0 and done.stderr == ""


def test_threads_of_gloo_do_not_abort_a_process_that_has_done_all(tmp_path):
    """Each rank's threads run only where nothing else wants its core, so that they still hold tensors while
    the interpreter ends; the group is held, as DeepSpeed holds it. Without the wait most of them abort.
    """
    source = """
        import os, sys
        from pathlib import Path
        import torch
        import torch.distributed as dist
        from spr_plugin import process

        def fork(rank, meeting):
            child = os.fork()
            if child:
                return child
            process._PID = os.getpid()
            global held
            dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
            held = dist.group.WORLD
            dist.barrier()  # a thread has its name once it runs
            core = {sorted(os.sched_getaffinity(0))[-rank]}
            os.sched_setaffinity(0, core)
            threads = [task for task in Path("/proc/self/task").iterdir()
                       if (task / "comm").read_text().strip() == process.GLOO]
            for thread in threads:
                os.sched_setaffinity(int(thread.name), core)
                os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))
            for _ in range(20):
                work = dist.all_gather_into_tensor(torch.empty(2000), torch.ones(1000), async_op=True)
                work.wait()
                del work
            process.follow("out")
            sys.exit(0 if threads else 3)

        for pair in "abcdef":
            children = [fork(rank, os.path.abspath(pair)) for rank in range(2)]
            print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
    """
    done = run(tmp_path, source)
    assert done.stdout == "0 0\n" * 6, (done.stdout, done.stderr)


def test_a_script_that_catches_our_exit_ends_with_an_error_all_the_same(tmp_path):
    more = """
    try:
        HfArgumentParser((Arguments,)).parse_args_into_dataclasses(["--spr", "--spr_beta", "-1"])
    except BaseException:
        pass
    """
    done = run(tmp_path, PARSES + more, "--spr")
    assert (
        done.returncode == 2
        and done.stderr == "spr: error: --spr_beta -1.0: must be greater than 0, and finite\n"
    )


TEST = """
    def test_it(request):
        import sys
        from transformers import HfArgumentParser
        from dataclasses import make_dataclass
        assert request.config.getoption("--spr")
        HfArgumentParser((make_dataclass("A", []),)).parse_args_into_dataclasses([])
        assert "spr_plugin.boot" not in sys.modules or not sys.modules["spr_plugin.boot"].State.awake
"""


@pytest.mark.parametrize("command", [("-m", "pytest"), ()])
def test_pytest_that_carries_the_word_is_left_alone(tmp_path, command):
    (tmp_path / "conftest.py").write_text(
        "def pytest_addoption(parser):\n    parser.addoption('--spr', action='store_true')\n"
    )
    program = (
        [sys.executable, *command] if command else [os.path.join(os.path.dirname(sys.executable), "pytest")]
    )
    done = run(tmp_path, TEST, "--spr", "-q", "-p", "no:cacheprovider", command=program)
    assert done.returncode == 0 and "1 passed" in done.stdout and "spr:" not in done.stderr, (
        done.stdout + done.stderr
    )


@pytest.mark.parametrize(
    ("command", "is_one"),
    [
        ("python -m pip install x --spr", True),
        ("python -X importtime -m pytest --spr", True),
        ("/usr/bin/python3 /env/bin/pip3.11 install --spr", True),
        ("python -W error train.py -m pytest --spr", False),
        ("python -m llava.train.train --spr", False),
        ("python -m cProfile train.py --spr", False),
        ("python -c code --spr", False),
        ("python pipeline.py --spr", False),
    ],
)
def test_bystanders(command, is_one):
    from spr_plugin.boot import _bystander

    assert _bystander(command.split()) is is_one
