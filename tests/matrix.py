"""The table of versions in README, from the results of ``pytest -m legacy --junitxml``: ``python
tests/matrix.py 4.37.2=FILE 5.23.0=FILE …``.

A cell is a tick where every test of its column passed, a cross where one failed, a dash where none ran.
"""

import sys
import xml.etree.ElementTree as xml
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- matrix: written by `make matrix` -->\n", "<!-- end of matrix -->"
COLUMNS = {
    "flags, boot": ("test_boot", "test_run"),
    "train, save, resume, generate": ("test_lora_trains_generates_saves_and_resumes",),
    "each shim needed and enough": ("test_shims",),
    "SPR, full": ("test_full_fine_tuning_single_process", "test_the_same_command_again"),
    "SPR, LoRA": ("test_lora_host",),
    "SPR, 2 ranks": ("test_two_ranks",),
    "LLaVA's builder loads it": ("test_the_host_s_own_loader_reads_the_result",),
}


def cell(cases: dict, words: tuple) -> str:
    results = [
        result
        for name, result in cases.items()
        if any(word in name for word in words) and result != "skipped"
    ]
    return "–" if not results else "✓" if all(result == "passed" for result in results) else "✗"


def cases_of(file: str) -> dict:
    """Test → passed, failed, error or skipped."""
    cases = {}
    for case in xml.parse(file).iter("testcase"):
        bad = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
        cases[f"{case.get('classname')}::{case.get('name')}"] = bad
    return cases


def table(results: dict) -> str:
    rows = ["| transformers | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    rows += [
        f"| {version} | " + " | ".join(cell(cases, words) for words in COLUMNS.values()) + " |"
        for version, cases in results.items()
    ]
    return "\n".join(rows) + "\n"


def main(arguments: list) -> int:
    results = {
        version: cases_of(file) for version, file in (argument.split("=", 1) for argument in arguments)
    }
    text = README.read_text()
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    README.write_text(text[:start] + table(results) + text[end:])
    print(table(results))
    return any(result in ("failure", "error") for cases in results.values() for result in cases.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
