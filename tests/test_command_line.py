"""Our flags where no host parses them: help, completion, and the table of docs/flags.md."""

import re
import runpy
import sys

import pytest
from click.testing import CliRunner

from spr_plugin.cli import commands
from spr_plugin.command_line import flags_table, parse
from spr_plugin.config import SPRConfig


def test_help_of_our_own_commands():
    """Each command's --help, spr sample's with every flag that it takes; a bare % ends it in a traceback."""
    for words in ([], *([name] for name in commands.commands)):
        shown = CliRunner().invoke(commands, [*words, "--help"])
        assert shown.exit_code == 0, (words, shown.exception)
        assert "sage: " in shown.output and "%%" not in shown.output


def test_help_without_a_host_names_no_flag_of_one():
    """Every flag that spr sample's help names is its own."""
    from spr_plugin.sampling.alone import FLAGS

    shown = CliRunner().invoke(commands, ["sample", "--help"]).output
    named = {flag.replace("-", "_").strip("_") for flag in re.findall(r"--([a-z][\w-]*)", shown)}
    assert "spr_annotations" in named and named - {"no_" + flag for flag in FLAGS} <= {
        *FLAGS,
        "spr_sampler",
        "out",
        "aspect",
        "help",
    }
    assert "the host's" not in " ".join(shown.split())


@pytest.mark.parametrize("text", ["10 % warm-up", "100%", "%s of %(prog)s", "50%% and %d"])
def test_any_help_can_be_shown_by_argparse(text, monkeypatch, capsys):
    flag = SPRConfig.__dataclass_fields__["spr_seed"]
    monkeypatch.setattr(flag, "metadata", {**flag.metadata, "help": text})
    with pytest.raises(SystemExit) as stop:
        parse(["--help"], ["spr_seed"], "prog")
    assert stop.value.code == 0 and f"{text} (default: 0)" in capsys.readouterr().out
    assert f"| {text} |" in flags_table()


def test_python_runs_the_package_as_spr(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["spr", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("spr_plugin", run_name="__main__")
    shown = capsys.readouterr().out
    assert not ended.value.code and all(f"\n  {name} " in shown for name in commands.commands)


def test_a_flag_cut_short_is_taken_and_its_own_default_is_given():
    """As argparse reads it; and against a preset what is given stands."""
    assert parse(["--spr_sampl", "5"], ["spr_samples"], "prog").spr_samples == 5
    paper = ["--spr_preset", "paper"]
    assert parse([*paper, "--spr_greedy", "True"], ["spr_preset", "spr_greedy"], "prog").spr_greedy
    assert not parse(paper, ["spr_preset", "spr_greedy"], "prog").spr_greedy
