"""README and docs say what is so: generated parts, and everything that a page names."""

import importlib.util
import pkgutil
import re
from pathlib import Path

import pytest

from spr_plugin import hookspecs
from spr_plugin.command_line import flags_table
from spr_plugin.formats import BoxFormat
from spr_plugin.plugins import CONTRACTS
from spr_plugin.runs.layout import PARTS
from spr_plugin.tools import reference
from spr_plugin.training.host import Host

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)
PAGES = {str(page.relative_to(ROOT)): page.read_text() for page in generate.PAGES}
README, HOST = PAGES["README.md"], PAGES["docs/write-a-host.md"]
FLAGS = set(re.findall(r"`(--spr\w*)`", flags_table()))

# --- generated parts


@pytest.mark.parametrize("name", PAGES)
def test_generated_parts_are_what_they_would_be_now(name):
    """Stale? Run `python docs/generate.py`."""
    assert generate.filled(PAGES[name]) == PAGES[name]
    assert PAGES[name].count("<!-- generated: ") == len(generate.PART.findall(PAGES[name])), (
        "a marker without end"
    )


def test_every_part_stands_somewhere():
    shown = {found[1] for text in PAGES.values() for found in generate.PART.findall(text)}
    assert shown == generate.PARTS.keys()


def test_a_stale_part_is_seen_and_written_anew():
    stale = "a\n<!-- generated: groups -->\n| old |\n<!-- end of groups -->\nb <!-- generated: groups --> c"
    fresh = generate.filled(stale)
    assert "old" not in fresh and "| `spr_rec` |" in fresh and generate.filled(fresh) == fresh
    assert fresh.startswith("a\n") and fresh.endswith("\nb <!-- generated: groups --> c")


def test_each_group_is_as_large_as_lmms_eval_finds_it():
    """`spr_general` holds lmms-eval's own tasks, which stand in no table of ours."""
    sizes = dict(re.findall(r"^\| `([\w+]+)` \|.*\| (\d+) \|$", generate.groups(), re.MULTILINE))
    assert (sizes["spr_rec"], sizes["spr_refcocog"], sizes["spr_general"]) == ("8", "2", "3")


# --- README


def test_readme_is_short():
    lines = README.splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 120


def test_readme_s_picture_is_there_and_small():
    (picture,) = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert 5_000 < (ROOT / picture).stat().st_size < 100_000


def test_readme_s_links_lead_somewhere():
    """Those of the other pages are checked by `make docs`."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


# --- what pages name

HISTORY = {"docs/decisions.md"}  # of what is no more, too


@pytest.mark.parametrize("name", sorted(PAGES.keys() - HISTORY))
def test_what_a_page_names_exists(name):
    assert set(re.findall(r"(--spr(?:_\w+)?)\b(?!-)", PAGES[name])) <= FLAGS | {"--spr_"}
    for path in re.findall(
        r"`((?:spr_plugin|hooks|eval_tasks|examples|tests|docs|benchmarks)/[\w./-]+)`", PAGES[name]
    ):
        assert (ROOT / path).exists(), path
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z][\w-]*)", PAGES[name])) <= targets


def test_no_page_speaks_of_the_machine_it_was_written_on():
    for name, text in PAGES.items():
        assert not re.search(r"/(?:work|root|tmp|opt)/|\.ci/(?!run\b)", text), name


def test_everything_that_a_run_leaves_is_on_its_page():
    """But for the lock, the ranks' words to each other, and what an older layout had."""
    named = set(re.findall(r"[\w.]+", " ".join(re.findall(r"`([^`]+)`", PAGES["docs/output.md"]))))
    assert PARTS - {"round", "lock", "ranks", "regions"} <= named


def test_the_method_table_names_rule_line_and_flag_of_each_step():
    rows = [row for row in PAGES["docs/method.md"].splitlines() if row.startswith("| ")]
    steps = [[cell.strip() for cell in row.split(" | ")] for row in rows[1:]]
    assert [row[0].strip("| ") for row in steps] == [
        "object boxes", "region queries", "sampling", "semantic score", "localization score", "total", "refinement", "pairing", "DPO"  # noqa: E501
    ]  # fmt: skip
    for step, rule, where, flags in steps:
        assert rule and re.findall(r"`(--spr\w*)`", flags), step
        assert_line_stands(where)


def assert_line_stands(where: str) -> None:
    """`where` is a file and, in it, a line or the beginning of one."""
    parts = re.fullmatch(r"`((?:spr_plugin|hooks)/[\w/]+\.py)`: `([^`]+)`", where)
    assert parts, where
    lines = [line.strip() for line in (ROOT / parts[1]).read_text().splitlines()]
    assert any(parts[2] in line for line in lines), f"{parts[1]} has no line {parts[2]}"


# --- hooks and hosts


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


def test_what_contributing_names_exists():
    text = PAGES["CONTRIBUTING.md"]
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
    count = 0
    for file in sorted((ROOT / folder).rglob("*.py")):
        own = ".".join([package, *file.relative_to(ROOT / folder).with_suffix("").parts]).removesuffix(
            ".__init__"
        )
        for name in re.findall(r":(?:class|mod|meth|func|data):`~?([\w.]+)`", file.read_text()):
            count += 1
            known = [name] if name.startswith("spr_plugin.") else [f"{own}.{name}", f"{package}.{name}"]
            assert any(pkgutil_resolves(candidate) for candidate in known), f"{file}: {name}"
    assert count


def pkgutil_resolves(name: str) -> bool:
    try:
        return pkgutil.resolve_name(name) is not None
    except (ImportError, AttributeError):
        return False


def test_every_reading_says_why_and_names_a_line_of_the_code():
    """What the paper says, what is done, why, and where: a line that stands in that file."""
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        for row in PAGES["docs/readings.md"].splitlines()
        if row.startswith("| ")
    ][1:]
    assert len(rows) > 10
    for row in rows:
        paper, here, why, where = row
        assert paper and here and why
        assert_line_stands(where)
