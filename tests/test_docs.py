"""What docs say of hooks and hosts is what the code says."""

import pkgutil
import re
from pathlib import Path

import pytest

from spr_plugin import hookspecs
from spr_plugin.command_line import flags_table
from spr_plugin.formats import BoxFormat
from spr_plugin.plugins import CONTRACTS
from spr_plugin.tools import reference
from spr_plugin.training.host import Host

ROOT = Path(__file__).parents[1]
PLUGIN, HOST, RECIPES = (
    (ROOT / "docs" / f"{name}.md").read_text() for name in ("write-a-plugin", "write-a-host", "recipes")
)


@pytest.mark.parametrize(
    "text, name", [(PLUGIN, "hooks"), (PLUGIN, "objects"), (HOST, "host"), (RECIPES, "spatial_ssrl")]
)
def test_the_tables_are_the_generated_ones(text, name):
    written = text.split(f"<!-- by `python -m spr_plugin.tools.reference {name}` -->\n")[1].split(
        f"<!-- end of {name}"
    )[0]
    assert written.strip() == reference.TABLES[name]()


def test_every_hook_has_a_contract_and_every_part_of_a_host_and_a_format_a_row():
    assert CONTRACTS.keys() == {name for name in vars(hookspecs) if name.startswith("spr_")}
    rows = set(
        re.findall(r"^\| `([\w.]+)", "\n".join(table() for table in reference.TABLES.values()), re.MULTILINE)
    )
    assert (
        CONTRACTS.keys()
        | Host.__abstractmethods__
        | set(Host.__annotations__)
        | {f"BoxFormat.{name}" for name in BoxFormat.__abstractmethods__}
        <= rows
    )


def test_the_host_that_is_shown_is_the_template_s():
    """Which tests/examples installs and runs."""
    shown = [block for block in re.findall(r"```python\n(.*?)```", HOST, re.DOTALL) if "class " in block]
    assert shown and all(
        block in (ROOT / "examples" / "lab_plugin" / "lab_spr.py").read_text() for block in shown
    )


def test_named_modules_of_ours_exist():
    for path in re.findall(
        r"`((?:spr_plugin|hooks|eval_tasks|examples|tests|docs)/[\w./-]+)`", PLUGIN + HOST + RECIPES
    ):
        assert (ROOT / path).exists(), path


def test_what_contributing_names_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([\w-]+)", text)) <= targets
    for path in re.findall(r"`((?:\w+/)+(?:\w+\.\w+)?|\w+\.(?:md|toml|cfg))`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize(
    "folder, package",
    [("spr_plugin", "spr_plugin"), ("hooks", "spr_plugin.hooks"), ("eval_tasks", "spr_plugin.eval_tasks")],
)
def test_what_docstrings_refer_to_exists(folder, package):
    """Each ``:class:`name``` and the like, a dotted name or one of the module's own."""
    found = 0
    for file in sorted((ROOT / folder).rglob("*.py")):
        own = ".".join([package, *file.relative_to(ROOT / folder).with_suffix("").parts]).removesuffix(
            ".__init__"
        )
        for name in re.findall(r":(?:class|mod|meth|func|data):`~?([\w.]+)`", file.read_text()):
            found += 1
            known = [name] if name.startswith("spr_plugin.") else [f"{own}.{name}", f"{package}.{name}"]
            assert any(pkgutil_resolves(candidate) for candidate in known), f"{file}: {name}"
    assert found


def pkgutil_resolves(name: str) -> bool:
    try:
        return pkgutil.resolve_name(name) is not None
    except (ImportError, AttributeError):
        return False


READINGS = (ROOT / "docs" / "readings.md").read_text()


def test_every_reading_says_why_and_names_a_line_of_the_code():
    """What the paper says, what is done, why, and where: a line that stands in that file."""
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        for row in READINGS.splitlines()
        if row.startswith("| ")
    ][1:]
    assert len(rows) > 10
    for row in rows:
        paper, here, why, where = row
        assert paper and here and why
        place = re.fullmatch(r"`((?:spr_plugin|hooks)/[\w/]+\.py)`: `([^`]+)`", where)
        assert place, where
        lines = [line.strip() for line in (ROOT / place[1]).read_text().splitlines()]
        assert any(place[2] in line for line in lines), f"{place[1]} has no line {place[2]}"


def test_flags_that_readings_name_exist():
    assert set(re.findall(r"`(--spr\w*)", READINGS)) <= set(re.findall(r"`(--spr\w*)`", flags_table()))
