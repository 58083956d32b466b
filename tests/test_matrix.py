"""The table of versions says what the results say."""

import importlib.util
import sys
from pathlib import Path

import transformers

spec = importlib.util.spec_from_file_location("matrix", Path(__file__).with_name("matrix.py"))
matrix = importlib.util.module_from_spec(spec)
spec.loader.exec_module(matrix)

RESULTS = """<testsuites><testsuite>
<testcase classname="tests.test_boot" name="test_asked"/>
<testcase classname="tests.hooks.test_shims" name="test_lora_trains_generates_saves_and_resumes"><failure/></testcase>
<testcase classname="tests.hosts.test_llava" name="test_two_ranks"><skipped/></testcase>
</testsuite></testsuites>"""  # noqa: E501


def test_cells(tmp_path, monkeypatch):
    file, page, python = tmp_path / "results.xml", tmp_path / "hosts.md", tmp_path / "bin" / "python"
    file.write_text(RESULTS)
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    page.write_text(f"before\n{matrix.BEGIN}old\n{matrix.END}\nafter\n")
    monkeypatch.setattr(matrix, "PAGE", page)
    assert matrix.main([str(file)]) == 1
    written = page.read_text()
    assert (
        f"| {transformers.__version__} | 3.{sys.version_info[1]} | ✓ | ✗ | ✗ | – | – | – | – |" in written
        and written.startswith("before")
        and written.endswith("after\n")
    )


def test_the_page_has_a_place_for_it():
    text = matrix.PAGE.read_text()
    assert text.count(matrix.BEGIN) == text.count(matrix.END) == 1


def test_each_version_has_its_pins_and_they_name_it():
    files = sorted((Path(__file__).parents[1] / "constraints").glob("transformers-*.txt"))
    assert len(files) >= 3
    for file in files:
        lines = file.read_text().splitlines()
        assert f"transformers=={file.stem.split('-')[1]}" in lines and "-c common.txt" in lines
