"""README says what is so."""

import re
from pathlib import Path

from spr_plugin.config import flags_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_table_of_flags_is_the_generated_one():
    written = README.split("by `python -m spr_plugin.config` -->\n")[1].split("<!-- end of flags")[0]
    assert written.strip() == flags_table().strip()


def test_every_named_flag_exists():
    known = set(re.findall(r"`(--spr\w*)`", flags_table()))
    assert set(re.findall(r"(--spr\w*)", README)) <= known


def test_every_named_module_exists():
    for path in re.findall(r"`((?:spr_plugin|hooks|eval_tasks)/[\w/]+\.py)`", README):
        assert (ROOT / path).exists(), path

