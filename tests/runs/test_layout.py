"""The names in a run's folder, and what proves that it is one."""

import pytest

from spr_plugin.errors import UserError
from spr_plugin.files import write_json
from spr_plugin.runs.layout import (
    LAYOUT,
    OURS,
    PARTS,
    PARTS_OF,
    WHOLE,
    Folder,
    is_run,
    layout_of,
    part_of,
    read_manifest,
)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("candidates", "candidates"),
        ("candidates.replaced", "candidates"),
        ("candidates.replaced-2", "candidates"),
        ("policy.tmp", "policy"),
        ("policy.0af3.tmp", "policy"),
        ("round-2", "round"),
        ("round-12.replaced", "round"),
        ("ranks-0123456789abcdef", "ranks"),
        ("round-table", "round-table"),
        ("ranks-2", "ranks-2"),
        ("my.replaced.notes", "my.replaced.notes"),
        ("around-2", "around-2"),
    ],
)
def test_a_draft_and_what_was_set_aside_are_of_their_part(name, part):
    assert part_of(name) == part
    assert part not in PARTS or part_of(part) == part


def test_each_stage_s_manifest_lies_in_its_first_part(tmp_path):
    folder = Folder.under(tmp_path)
    for stage, parts in PARTS_OF.items():
        assert folder.stage_manifest(stage) == tmp_path / "spr" / parts[0] / "manifest.json"


@pytest.mark.parametrize(
    "name", ["rank-00000.jsonl", "rank-3.damaged", "manifest.json", "7.safetensors", "x.tmp"]
)
def test_files_of_ours(name):
    assert OURS.fullmatch(name)


@pytest.mark.parametrize(
    "name", ["rank-a.jsonl", "rank-0.jsonl.bak", "notes.json", "a.safetensors", "manifest_json"]
)
def test_files_of_others(name):
    assert not OURS.fullmatch(name) and not WHOLE.fullmatch(name)


def test_rounds_are_in_the_order_of_their_numbers(tmp_path):
    for name in ("round-10", "round-2", "round-table", "round-3"):
        (tmp_path / name).mkdir()
    (tmp_path / "round-4").write_text("a file")
    assert [folder.path.name for folder in Folder(tmp_path).rounds()] == ["round-2", "round-3", "round-10"]


def test_a_later_round_knows_the_whole_run(tmp_path, monkeypatch):
    run = Folder(tmp_path)
    run.round(2).path.mkdir()
    alone = run.round(2)  # a folder that somebody calls so
    assert run.whole is run and alone.whole is alone
    write_json(run.manifest, {})
    monkeypatch.chdir(run.round(2).path)
    for later in (run.round(2), Folder(".")):
        assert later.whole.path == tmp_path.resolve()


def test_a_round_is_finished_where_its_policy_is_whole(tmp_path):
    folder = Folder(tmp_path)
    assert not folder.is_finished()
    write_json(folder.policy / "index.json", {})
    assert folder.is_finished()


def test_a_manifest_with_a_layout_or_of_the_first_proves_a_run(tmp_path):
    assert read_manifest(Folder(tmp_path)) is None and not is_run(Folder(tmp_path))
    for known in (
        {"layout": LAYOUT, "config": {}},
        dict.fromkeys(["hash", "config", "inputs", "versions"], 1),
    ):
        write_json(tmp_path / "manifest.json", known)
        assert read_manifest(Folder(tmp_path)) == known and is_run(Folder(tmp_path))


@pytest.mark.parametrize(
    "text", ["{}", "[]", "null", "half {", '{"layout": "3", "config": {}}', '{"layout": 3}']
)
def test_another_tool_s_manifest_proves_none_and_is_named(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="manifest.json was written by no run of ours"):
        read_manifest(Folder(tmp_path))
    assert not is_run(Folder(tmp_path))


def test_a_layout_is_a_number_beside_a_config():
    assert layout_of({"layout": 3, "config": {}}) == 3
    assert layout_of({"layout": 3, "config": []}) is None and layout_of({"config": {}}) is None
