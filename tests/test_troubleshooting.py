"""Every error line that docs/troubleshooting.md quotes is said somewhere in the code."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text().split("## Without an error line")[0]
QUOTED = re.findall(r"^- `([^`]+)`<br>$", PAGE, re.MULTILINE)


def said(node: ast.expr) -> str:
    """The text of a string as it stands in the code, … for what is put into it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(said(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return said(node.left) + said(node.right)
    return "…"


def messages() -> set[str]:
    """All texts of our modules, f-strings whole."""
    texts = set()
    for folder in ("spr_plugin", "hooks", "eval_tasks"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, (ast.JoinedStr, ast.Constant, ast.BinOp)):
                    texts.add(said(node))
    return texts


MESSAGES = messages()


def test_there_are_some():
    assert len(QUOTED) > 40 and len(set(QUOTED)) == len(QUOTED)


@pytest.mark.parametrize("line", QUOTED)
def test_a_quoted_line_is_said_by_the_code(line):
    assert any(line in message for message in MESSAGES)


@pytest.mark.parametrize(
    "code, line",
    [
        ('f"--spr_{name}: no {thing} here"', "--spr_…: no … here"),
        ('"one" " line"', "one line"),
        ('f"{a}" + " and more"', "… and more"),
    ],
)
def test_strings_are_read_whole(code, line):
    assert said(ast.parse(code, mode="eval").body) == line
