"""The table of versions in docs/hosts.md, from the results of ``pytest -m legacy --junitxml``: ``python
tests/matrix.py ENVIRONMENT/results.xml …``, each in the environment that it is of.

A cell is a tick where every test of its column passed, a cross where one failed, a dash where none ran.
"""

import subprocess
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "hosts.md"
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


VERSIONS = """
import importlib.metadata, sys
print(importlib.metadata.version("transformers"), "{}.{}".format(*sys.version_info))
"""


def versions(environment: Path) -> tuple[str, str]:
    """Of transformers and Python there."""
    printed = subprocess.check_output([environment / "bin" / "python", "-c", VERSIONS], text=True)
    transformers, python = printed.split()
    return transformers, python


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
    rows = ["| transformers | Python | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    rows += [
        f"| {transformers} | {python} | "
        + " | ".join(cell(cases, words) for words in COLUMNS.values())
        + " |"
        for (transformers, python), cases in results.items()
    ]
    return "\n".join(rows) + "\n"


def main(files: list) -> int:
    results = {versions(Path(file).parent): cases_of(file) for file in files}
    text = PAGE.read_text()
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    PAGE.write_text(text[:start] + table(results) + text[end:])
    print(table(results))
    return any(result in ("failure", "error") for cases in results.values() for result in cases.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
