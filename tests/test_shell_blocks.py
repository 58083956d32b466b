"""Every shell block of README and docs says above it which test runs it, or that it needs weights; and every
command in it is one that its program understands.
"""

import contextlib
import itertools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from spr_plugin.cli import commands
from spr_plugin.command_line import given, parse
from spr_plugin.eval_tasks.catalogue import FOREIGN, splits_of
from spr_plugin.sampling.alone import FLAGS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"(?:<!-- ([^\n]+) -->\n)?```([^\n]*)\n(.*?)```", re.DOTALL)
BLOCKS = [
    (f"{page.name}: {block.splitlines()[0][:50]}", marker, block)
    for page in PAGES
    for marker, language, block in FENCE.findall(page.read_text())
    if language in ("sh", "bash")
]
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
# Programs of others: what of ours is in their words is checked.
OTHERS = {"git", "cd", "ln", "pip", "deepspeed", "torchrun", "vllm", "srun", "pre-commit"}


def commands_of(block: str) -> list[list[str]]:
    """The words of each command; what sets a variable or is for the shell alone is left out."""
    commands: list[list[str]] = []
    for line in block.replace("\\\n", " ").splitlines():
        if re.match(r"\w+=|export |eval ", line):
            continue
        words = shlex.shlex(line, posix=True, punctuation_chars="&|")
        words.whitespace_split = True
        for operator, part in itertools.groupby(words, lambda word: word in ("&&", "|")):
            commands += [] if operator else [list(part)]
    return commands


def understood(words: list[str]) -> None:
    """Raises what the program's own parser says of its words."""
    program, *rest = words
    given(rest)
    if program == "spr":
        spr(*rest)
    elif program == "make":
        assert {word for word in rest if "=" not in word} <= TARGETS
    elif program == "lmms-eval":
        options = dict(itertools.pairwise(rest))
        assert options["--model"] in ("spr_llava", "spr_hf", "spr_oracle")
        assert all(splits_of([name]) or name in FOREIGN for name in options["--tasks"].split(","))
    elif program.endswith("python"):
        assert rest[0] in ("-m", MERGE) or (ROOT / rest[0]).is_file(), rest[0]
    else:
        assert program in OTHERS, program


MERGE = "scripts/merge_lora_weights.py"  # of a checkout of LLaVA


def spr(name: str, *words: str) -> None:
    """As the command reads its words, up to where it would begin."""
    if name == "sample":
        own = [
            word
            for pair in zip(words[::2], words[1::2])
            if pair[0] not in ("--out", "--aspect")
            for word in pair
        ]
        parse(own, FLAGS, "spr sample")
    else:
        commands.commands[name].make_context(name, list(words))


@pytest.mark.parametrize("block", [pytest.param(block, id=name) for name, _, block in BLOCKS])
def test_its_program_understands_every_command(block):
    assert commands_of(block) or "_SPR_COMPLETE" in block
    for words in commands_of(block):
        understood(words)


@pytest.mark.parametrize(
    "marker, block", [pytest.param(marker, block, id=name) for name, marker, block in BLOCKS]
)
def test_it_says_what_runs_it(marker, block):
    refuse_untold(marker, block)


def refuse_untold(marker: str, block: str) -> None:
    """AssertionError for a block that the files above it do not run: each of its commands' words by which
    one can be told must stand in them.
    """
    told = re.fullmatch(r"needs weights|run by ([\w./, ]+)", marker)
    assert told, "above the block: <!-- run by FILE, FILE --> or <!-- needs weights -->"
    if told[1]:
        files = told[1].split(", ")
        assert all(name in RUNNERS or name.startswith("tests/") for name in files), f"{files}: no tests"
        text = "".join((ROOT / name).read_text() for name in files)
        known = {plain(word) for word in re.findall(r"[\w-]+", text)}
        wanted = set().union(*map(told_by, commands_of(block))) or set(re.findall("_SPR_COMPLETE", block))
        assert wanted and wanted <= known, f"{files}: nothing of {sorted(wanted - known)}"


RUNNERS = (".ci/run", ".github/workflows/tests.yml", "Makefile")


def plain(word: str) -> str:
    """A flag as a Python name."""
    return word.lstrip("-").replace("-", "_")


def told_by(words: list[str]) -> set[str]:
    """By what a test that runs this command can be told: its flags, what `spr`, `make` and `pip` are to do,
    lmms-eval's model, and Python's file.
    """
    program, *rest = words
    told = {plain(word.split("=")[0]) for word in rest if word.startswith("--") and word != "--"}
    if program == "lmms-eval":
        told.add(dict(itertools.pairwise(rest))["--model"])
    elif program in ("spr", "make", "pip"):
        told.add(rest[0])
    elif program.endswith("python"):
        told.add(Path(rest[0]).stem if rest[0] != "-m" else rest[1])
    return told


@pytest.mark.parametrize(
    "marker, line, error",
    [
        ("run by tests/hosts/test_several.py", "deepspeed train.py --spr --spr_recipe spr", ""),
        ("run by setup.cfg", "deepspeed train.py --deepspeed zero2.json", "no tests"),
        ("run by tests/hosts/test_several.py", "deepspeed train.py --spr --nonsense 3", "nonsense"),
        ("run by tests/test_ids.py", "torchrun train.py --spr --spr_recipe spr", "spr_recipe"),
        ("run by tests/test_ids.py", "spr status OUTPUT_DIR", "status"),
        ("run by tests/test_ids.py", "python examples/convert.py", "convert"),
        ("run by tests/test_ids.py", "torchrun train.py", "nothing"),
        ("seen by tests/test_ids.py", "torchrun train.py", "above the block"),
    ],
)
def test_a_marker_that_names_what_runs_no_such_thing_is_seen(marker, line, error):
    with pytest.raises(AssertionError, match=error) if error else contextlib.nullcontext():
        refuse_untold(marker, line)


def test_every_block_has_a_language():
    for page in PAGES:
        assert "" not in [language for _, language, _ in FENCE.findall(page.read_text())], page.name


@pytest.mark.parametrize(
    "wrong, error",
    [
        ("spr score --annotations a.json", "Missing parameter"),
        ("spr staus OUT", "staus"),
        ("spr data coco --from A --to B", "coco"),
        ("spr sample --out o --spr_bata 3", "spr_bata"),
        ("torchrun train.py --spr_beta high", "spr_beta"),
        ("lmms-eval --model spr_llava --tasks spr_refco", "assert"),
        ("make demmo", "demmo"),
        ("python benchmarks/nothing.py", "nothing"),
        ("rm -rf x", "rm"),
    ],
)
def test_a_wrong_command_is_seen(wrong, error):
    (words,) = commands_of(wrong)
    with pytest.raises(Exception, match=error):  # click's, ours, a KeyError or an assertion
        understood(words)


def completion(shell: str, words: str) -> str:
    environment = {**os.environ, "_SPR_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": "1"}
    code = "from spr_plugin.cli import main; import sys; sys.argv = ['spr']; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    return done.stdout


def test_the_shell_completes_our_commands():
    """What click's script asks of `spr` at each Tab, and the line of the page that installs it."""
    assert completion("bash", "spr sta").split() == ["plain,status"]
    (shown,) = [block for _, _, block in BLOCKS if "_SPR_COMPLETE" in block]
    line = next(line for line in shown.splitlines() if "bash_source" in line)
    there = Path(sys.executable).parent
    done = subprocess.run(
        ["bash", "-c", f"{line}\ncomplete -p spr"],
        env={**os.environ, "PATH": f"{there}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert "_spr_completion" in done.stdout, done.stderr
