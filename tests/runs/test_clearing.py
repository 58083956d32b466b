"""Starting over deletes what a run of ours made, and nothing else."""

import shutil

import pytest

from spr_plugin.errors import UserError
from spr_plugin.files import read_json, remove
from spr_plugin.runs import clearing
from spr_plugin.runs.lock import lock
from spr_plugin.runs.log import Log

from .binding import OTHER_SEED, SEED, bound, tree, whole_run


def test_an_overwrite_that_dies_leaves_what_a_run_leaves(tmp_path, monkeypatch):
    """What was made last goes first: nothing is left that was made from what is gone."""
    order = ["entry", "candidates", "scores", "pairs", "policy"]
    whole_run(tmp_path / "whole")  # once: each of its files is waited for until it is on the disk
    for cut in range(70):
        path = shutil.copytree(tmp_path / "whole", tmp_path / str(cut))
        left, remove = [cut], clearing.remove

        def dying(target, left=left, remove=remove):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            remove(target)

        with monkeypatch.context() as patch:
            patch.setattr(clearing, "remove", dying)
            try:
                bound(path, OTHER_SEED, overwrite=True)
                break
            except KeyboardInterrupt:
                pass
        there = [any(file.name != "manifest.json" for file in (path / part).rglob("*")) for part in order]
        assert there == sorted(there, reverse=True), (cut, dict(zip(order, there)))
    assert 15 < cut < 69


def run_in(folder, *stages):
    """What a run leaves in ``folder``: its manifest and a log a stage."""
    bound(folder)
    for stage in stages:
        log = Log(folder / stage)
        log.append({"id": "a"})
        log.close()
    return folder


def test_overwrite_deletes_what_a_run_made_and_names_what_stays(tmp_path, capsys):
    spr = run_in(tmp_path / "spr", "queries", "candidates", "pairs")
    run_in(spr / "round-2", "candidates")
    for name in (
        "exit.json",
        "report.html",
        "manifest.json.123.tmp",
        "notes.txt",
        "round-2/mine.txt",
        "pairs/notes.csv",
    ):
        (spr / name).write_text("x")
    for name in ("policy.tmp", "data", "round-table", "round-3"):
        (spr / name).mkdir()
        (spr / name / "inside").write_text("x")
    bound(spr, OTHER_SEED, overwrite=True)
    stays = ["data", "notes.txt", "policy.tmp", "round-2", "round-3", "round-table"]
    assert sorted(path.name for path in spr.iterdir()) == sorted(
        [*stays, "manifest.json", "pairs", "queries"]
    )
    assert [path.name for path in (spr / "round-2").iterdir()] == ["mine.txt"]
    assert (spr / "round-3" / "inside").exists()
    assert [path.name for path in (spr / "pairs").iterdir()] == ["notes.csv"]
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        "data, notes.txt, pairs/notes.csv, policy.tmp/inside, round-2/mine.txt, round-3, round-table in"
        f" {spr} " in line
    )
    assert read_json(spr / "manifest.json")["config"] == {"spr_seed": 1}


NO_MANIFESTS = {
    "none": None,
    "of a web page": '{"name": "page", "icons": []}',
    "of a container": '{"schemaVersion": 2, "config": {"digest": "sha256:0"}, "layers": []}',
    "a list": "[1, 2]",
    "broken": '{"config": {',
    "of bytes": "\udcff",
}


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("name", NO_MANIFESTS)
def test_a_folder_that_no_run_made_is_left_alone(tmp_path, name, overwrite):
    spr, text = tmp_path / "spr", NO_MANIFESTS[name]
    (spr / "candidates").mkdir(parents=True)
    (spr / "candidates" / "rank-00000.jsonl").write_text("years of work")
    if text is not None:
        (spr / "manifest.json").write_text(text, errors="surrogateescape")
    lock(spr)
    before = tree(spr)
    with pytest.raises(UserError, match="manifest.json.*move it away, or name another folder") as refused:
        bound(spr, SEED, overwrite)
    assert str(spr) in str(refused.value) and (text is not None or "candidates" in str(refused.value))
    assert "\n" not in str(refused.value) and tree(spr) == before
    assert (spr / "candidates" / "rank-00000.jsonl").read_text() == "years of work"


FOREIGN = """entry/model.safetensors entry/index.json policy/index.json policy.tmp/x base/config.json report.html
    exit.json training.json failed.json dpo/checkpoint-10/optimizer.pt dpo/best/index.json dpo/log.jsonl
    candidates/rank-00003.jsonl queries/counts.json scores/manifest.json round-2/manifest.json
    round-2/policy/index.json reference/0123456789abcdef.json policy""".split()  # noqa: E501


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("linked", [False, True])
def test_a_first_run_takes_nothing_for_its_own_that_was_there_before(tmp_path, name, linked):
    """It was written over, or believed: a ``policy`` meant that the stage is done."""
    spr, real = tmp_path / "spr", tmp_path / "elsewhere"
    (real / name).parent.mkdir(parents=True)
    (
        bound((real / name).parent)
        if name == "round-2/manifest.json"
        else (real / name).write_text("years of work")
    )
    spr.symlink_to(real) if linked else real.rename(spr)
    before = {path: path.read_bytes() for path in spr.rglob("*") if path.is_file()}
    part = name.split("/")[0]
    with pytest.raises(
        UserError, match=f"^no manifest.json proves .* made {part}.* in {spr}: move it away"
    ) as refused:
        bound(spr)
    assert "\n" not in str(refused.value)
    assert {path: path.read_bytes() for path in spr.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "name",
    "notes.txt scores/notes.txt dpo/table.csv round-2/notes.txt round-table/x entries/index.json".split(),
)
def test_a_first_run_goes_on_beside_what_has_other_names(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    for folder in ("entry", "policy", "candidates", "ranks-0123456789abcdef"):
        (tmp_path / folder).mkdir(exist_ok=True)
    bound(tmp_path)
    bound(tmp_path, OTHER_SEED)
    assert (tmp_path / name).read_text() == "mine"


def test_what_is_not_ours_is_never_taken_for_the_first_run_s(tmp_path):
    """Files by other names do not stop a run, but they are no reason to believe --spr_overwrite either."""
    spr = tmp_path / "spr"
    spr.mkdir()
    (spr / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=f"notes.txt in {spr}"):
        bound(spr, overwrite=True)
    bound(spr)
    bound(spr, overwrite=True)
    assert tree(spr) == ["manifest.json", "notes.txt"]


@pytest.mark.parametrize("held", ["", "lock", "lock manifest.json.77.tmp ranks-0123456789abcdef"])
def test_overwrite_of_a_folder_that_is_empty_or_as_good_as(tmp_path, held):
    (tmp_path / "spr").mkdir()
    for name in held.split():
        (tmp_path / "spr" / name).write_text("")
    bound(tmp_path / "spr", overwrite=True)
    assert read_json(tmp_path / "spr" / "manifest.json")["config"] == {"spr_seed": 0}


def test_links_go_and_what_they_point_to_stays(tmp_path, capsys):
    """Stage folders, and all of ``spr``, on another disk."""
    real = tmp_path / "scratch"
    spr = tmp_path / "out" / "spr"
    spr.parent.mkdir()
    spr.symlink_to(real / "spr", target_is_directory=True)
    lock(spr)
    run_in(spr, "queries", "candidates")
    (spr / "candidates").rename(real / "candidates")
    (spr / "candidates").symlink_to(real / "candidates")
    run_in(real / "round", "pairs")
    (spr / "round-2").symlink_to(real / "round")
    (spr / "scores").symlink_to(real / "nowhere")
    kept = tree(real / "candidates") + tree(real / "round")
    bound(spr, OTHER_SEED, overwrite=True)
    assert tree(spr) == ["manifest.json"] and spr.is_symlink() and (spr / "lock").exists()
    assert tree(real / "candidates") + tree(real / "round") == kept
    err = capsys.readouterr().err
    assert all(f"{spr / name} was a link" in err for name in ("candidates", "round-2", "scores"))


def test_an_overwrite_that_was_cut_short_goes_on(tmp_path, monkeypatch):
    """After any number of deletions: the manifest that proves the rest to be ours is still there."""
    cut = 0
    while cut is not None:
        spr = run_in(tmp_path / f"spr-{cut}", "queries", "candidates", "scores")
        run_in(spr / "round-2", "pairs")
        left = [cut]

        def dying(path, left=left):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            remove(path)

        monkeypatch.setattr(clearing, "remove", dying)
        try:
            bound(spr, OTHER_SEED, overwrite=True)
            cut = None
        except KeyboardInterrupt:
            cut += 1
        monkeypatch.setattr(clearing, "remove", remove)
        bound(spr, OTHER_SEED, overwrite=True)
        assert tree(spr) == ["manifest.json"]


def test_what_cannot_be_deleted_is_one_line_and_goes_on_later(tmp_path, ordinary_user):
    spr = run_in(tmp_path / "spr", "candidates", "scores")
    tmp_path.chmod(0o755), spr.chmod(0o777), (spr / "scores").chmod(0o555)
    with (
        ordinary_user,
        pytest.raises(UserError, match=f"^{spr}/scores/rank-00000.jsonl: Permission denied[^\n]*$"),
    ):
        bound(spr, OTHER_SEED, overwrite=True)
    (spr / "scores").chmod(0o755)
    bound(spr, OTHER_SEED, overwrite=True)
    assert tree(spr) == ["manifest.json"]
