"""Which line says why a command failed, and how it ended, under the launchers that there are."""

import pytest

from spr_plugin.tools.last_words import how, last_words

OWN = """Traceback (most recent call last):
  File "train.py", line 3, in <module>
FileNotFoundError: [Errno 2] No such file or directory: 'data.json'
"""
TORCHRUN = """E1130 16:38:35.021000 19642 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: {code}) local_rank: 0 (pid: 55) of binary: python
Traceback (most recent call last):
  File "/env/bin/torchrun", line 8, in <module>
    sys.exit(main())
             ^^^^^^
  File "/env/torch/distributed/launcher/api.py", line 383, in launch_agent
    raise ChildFailedError(
torch.distributed.elastic.multiprocessing.errors.ChildFailedError: 
============================================================
train.py FAILED
------------------------------------------------------------
Failures:
[1]:
  exitcode  : 1 (pid: 19656) 
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-30_16:38:35
  exitcode  : {code} (pid: 19655) 
  error_file: <N/A>
  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html
============================================================
"""  # noqa: E501, W291
STOPPED = """W1130 16:38:35.021000 19642 torch/distributed/elastic/agent/api.py:725] Received 15 death signal
Traceback (most recent call last):
  File "/env/torch/distributed/elastic/multiprocessing/api.py", line 84, in _terminate_process_handler
    raise SignalException(f"Process {os.getpid()} got signal: {sigval}", sigval=sigval)
torch.distributed.elastic.multiprocessing.api.SignalException: Process 51 got signal: 15
"""
OLD_TORCHRUN = (
    "WARNING:torch.distributed.elastic.multiprocessing.api:Sending process 56 closing signal SIGTERM\n"
)
OLD_TORCHRUN += "ERROR:torch.distributed.elastic.multiprocessing.api:failed (exitcode: 1) local_rank: 0\n"
OLD_TORCHRUN += "".join(TORCHRUN.splitlines(keepends=True)[1:])
ACCELERATE = """Traceback (most recent call last):
  File "/env/bin/accelerate", line 8, in <module>
    sys.exit(main())
  File "/env/accelerate/commands/launch.py", line 999, in simple_launcher
    raise subprocess.CalledProcessError(returncode=process.returncode, cmd=cmd)
subprocess.CalledProcessError: Command '['python', 'train.py']' {ended}.
"""
DEEPSPEED = """[2026-11-30 16:39:21,537] [INFO] [launch.py:253:sigkill_handler] Killing subprocess 12
[2026-11-30 16:39:21,537] [ERROR] [launch.py:259:sigkill_handler] ['python', 'train.py'] exits with return code = {code}
"""  # noqa: E501
# What stands before the program's own lines.
BEFORE = """*****************************************
Setting OMP_NUM_THREADS environment variable for each process to be 1 in default, to avoid your system being
*****************************************
The following values were not passed to `accelerate launch` and had defaults used instead:
\t`--num_machines` was set to a value of `1`
To avoid this warning pass in values for each of the problematic parameters or run `accelerate config`.
[2026-11-30 16:39:19,988] [WARNING] [real_accelerator.py:213:get_accelerator] Setting accelerator to CPU.
[2026-11-30 16:39:20,536] [INFO] [launch.py:245:main] process 20049 spawned with command: ['python']
"""
LAUNCHERS = {
    "none": lambda code: "",
    "torchrun": lambda code: TORCHRUN.format(code=code),
    "old torchrun": lambda code: OLD_TORCHRUN.format(code=code),
    "accelerate": lambda code: ACCELERATE.format(
        ended=f"died with <Signals.X: {-code}>" if code < 0 else f"returned non-zero exit status {code}"
    ),
    "deepspeed": lambda code: DEEPSPEED.format(code=code),
    "accelerate of torchrun": lambda code: TORCHRUN.format(code=code).replace(
        "bin/torchrun", "bin/accelerate"
    ),
    "accelerate of deepspeed": lambda code: (
        DEEPSPEED.format(code=code) + ACCELERATE.format(ended="returned non-zero exit status 247")
    ),
}


def told(printed, launcher="none", code=1):
    return last_words(BEFORE + printed + LAUNCHERS[launcher](code), code if launcher == "none" else 1)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_line_that_says_why_stands_before_what_a_launcher_says(launcher):
    assert told(OWN, launcher)[1].startswith("FileNotFoundError: ")
    ours = "spr: error: --spr_clip nowhere: no such folder\n"
    assert told("ValueError: a guess\n" + ours + OWN, launcher)[1] == ours.strip()


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize(
    "printed, code, words",
    [
        ("loading\nthe data folder /x is missing\n", 1, ("exit code 1", "the data folder /x is missing")),
        ("python: can't open file 'a.py'\n", 2, ("exit code 2", "python: can't open file 'a.py'")),
        ("shard 1\n", -9, ("killed by SIGKILL", "shard 1")),
        (OWN + "going on without\n", -11, ("killed by SIGSEGV", "going on without")),
        ("", 5, ("exit code 5", "it printed nothing")),
        ("", -40, ("killed by signal 40", "it printed nothing")),
        ("ImportError: no flash attention; going on\nno data\n", 1, ("exit code 1", "no data")),
    ],
)  # fmt: skip
def test_a_program_that_ends_without_a_traceback(launcher, printed, code, words):
    assert told(printed, launcher, code) == words


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_script_may_start_programs_itself(launcher):
    """Its exception is of the same class as a launcher's, and is its own."""
    own = 'Traceback (most recent call last):\n  File "train.py", line 3\n'
    own += "subprocess.CalledProcessError: Command '['unzip']' returned non-zero exit status 9.\n"
    assert told(own, launcher) == ("exit code 1", own.splitlines()[-1])


def test_a_launcher_that_is_stopped_or_refuses_its_own_flags():
    assert last_words("step 3\n" + STOPPED, 1) == ("exit code 1", "step 3")
    refused = "usage: torchrun [-h]\ntorchrun: error: unrecognized arguments: --nproc\n"
    assert last_words(refused, 2) == ("exit code 2", refused.splitlines()[-1])


def test_a_rank_s_own_lines_and_an_error_of_any_name():
    """torch puts a rank before each line of its traceback; a host names its errors as it likes."""
    ranked = "".join(f"[rank{rank}]: {line}\n" for rank in (0, 1) for line in OWN.splitlines())
    assert told(ranked, "torchrun")[1].startswith("FileNotFoundError: ")
    assert told(OWN.replace("FileNotFoundError", "lab.NoData"), "torchrun")[1].startswith("lab.NoData: ")
    broken = '  File "train.py", line 1\n    def\n       ^\nSyntaxError: invalid syntax\n'
    assert told("loading\n" + broken, "accelerate")[1] == "SyntaxError: invalid syntax"


def test_a_rank_that_was_left_alone_says_nothing_of_the_first_one():
    alone = OWN.replace("FileNotFoundError", "RuntimeError: [gloo] Connection closed by peer")
    assert told(OWN + alone, "torchrun")[1].startswith("FileNotFoundError: ")
    assert "closed by peer" in told(alone, "torchrun")[1]


def test_a_traceback_in_a_box():
    boxed = "╭──── Traceback (most recent call last) ────╮\n│ train.py:3 │\n╰───╯\nValueError: no data\n"
    assert last_words(boxed, 1)[1] == "ValueError: no data"


def test_a_shell_s_exit_code_of_a_program_that_was_killed():
    assert how(137).endswith("SIGKILL") and how(128) == "exit code 128" and how(255) == "exit code 255"


def test_no_secret_of_an_address_is_shown():
    assert "hunter2" not in last_words("ConnectionError: http://me:hunter2@host/v1 refused\n", 1)[1]
