"""README says what is so."""

import re
from pathlib import Path

from spr_plugin.command_line import flags_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_table_of_flags_is_the_generated_one():
    written = README.split("by `python -m spr_plugin.command_line` -->\n")[1].split("<!-- end of flags")[0]
    assert written.strip() == flags_table().strip()


def test_every_named_flag_exists():
    known = set(re.findall(r"`(--spr\w*)`", flags_table()))
    assert set(re.findall(r"(--spr\w*)", README)) <= known


def test_every_named_module_exists():
    for path in re.findall(r"`((?:spr_plugin|hooks|eval_tasks)/[\w/]+\.py)`", README):
        assert (ROOT / path).exists(), path


def test_the_method_table_names_module_rule_and_flag_of_each_step():
    rows = [
        row.split("|")[1:-1] for row in README.split("## How it works")[1].split("\n\n")[1].splitlines()[2:]
    ]
    known = set(re.findall(r"`(--spr\w*)`", flags_table()))
    assert [row[0].strip() for row in rows] == [
        "object boxes", "region queries", "sampling", "semantic score", "localization score", "total", "refinement", "pairing", "DPO"  # noqa: E501
    ]  # fmt: skip
    for step, modules, rule, flags in rows:
        named = re.findall(r"`([^`]+)`", modules)
        assert named and all((ROOT / module).is_file() for module in named), step
        assert (
            rule.strip()
            and set(re.findall(r"`(--spr\w*)`", flags))
            and set(re.findall(r"`(--spr\w*)`", flags)) <= known
        ), step
