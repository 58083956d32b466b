"""A command of `spr score` that was killed goes on, and what is no longer true is scored again."""

import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from spr_plugin.data.annotations import CocoImages
from spr_plugin.data.pictures import open_image
from spr_plugin.errors import UserError
from spr_plugin.pairing import best_over_worst
from spr_plugin.recipes.spr.regions import region_queries
from spr_plugin.tools.score_file import Scoring
from tests.tools.scoring import FORM, Silent, responses_of, write


def many(world, tmp_path, queries):
    """Every argument of a `Scoring` of three regions in three pictures and more, its own outputs."""
    rows = responses_of(queries)
    return [write(tmp_path / "in.jsonl", rows), str(world / "spr.json"), str(world / "images"), FORM]


class Dying(Silent):
    """Ends its process at the third batch, as `kill -9` does."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def judge(self, *asked):
        self.at -= 1
        if self.at < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().judge(*asked)


class Counting(Silent):
    calls = 0

    def judge(self, *asked):
        self.calls += 1
        return super().judge(*asked)


def killed(arguments, out, at, **more):
    child = os.fork()
    if not child:
        Scoring(*arguments, str(out), **more).run(Dying(at), best_over_worst)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("damage", [None, b'{"id": "2", "regi', b"\xff\n"])
def test_a_killed_run_goes_on(world, queries, tmp_path, damage):
    """What was scored is not scored again, and the files are those of a run that was not killed."""
    arguments = many(world, tmp_path, queries)
    whole = Counting()
    counts = Scoring(*arguments, str(tmp_path / "whole.jsonl"), str(tmp_path / "whole-pairs.jsonl")).run(
        whole, best_over_worst
    )
    killed(arguments, tmp_path / "out.jsonl", 2, pairs=str(tmp_path / "pairs.jsonl"))
    assert not (tmp_path / "out.jsonl").exists() and not (tmp_path / "pairs.jsonl").exists()
    if damage:
        with open(tmp_path / "out.jsonl.run/scores/rank-00000.jsonl", "ab") as log:
            log.write(damage)
    rest = Counting()
    assert (
        Scoring(*arguments, str(tmp_path / "out.jsonl"), str(tmp_path / "pairs.jsonl")).run(
            rest, best_over_worst
        )
        == counts
    )
    assert rest.calls == whole.calls - 2 > 0
    for name in ("out", "pairs"):
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (
            tmp_path / f"whole{'-pairs' * (name == 'pairs')}.jsonl"
        ).read_bytes()
    assert not (tmp_path / "out.jsonl.run").exists()


def test_a_killed_run_scores_again_what_other_flags_or_files_change(world, queries, tmp_path, capfd):
    arguments, out = many(world, tmp_path, queries), tmp_path / "out.jsonl"
    killed(arguments, out, 2, settings={"lambda": 0.8})
    killed(arguments, out, 1, settings={"lambda": 0.5})
    assert "--lambda was 0.8, is 0.5: in " in (said := capfd.readouterr().err) and "scores (2 records" in said
    write(tmp_path / "in.jsonl", responses_of(queries)[4:])
    again = Counting()
    Scoring(*arguments, str(out), settings={"lambda": 0.5}).run(again, best_over_worst)
    assert "in.jsonl has another content" in capfd.readouterr().err
    assert again.calls == len(queries) - 1 and len(out.read_text().splitlines()) == 4 * again.calls
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


@pytest.mark.parametrize("change", ["content", "time", "none"])
def test_a_killed_run_scores_again_what_was_scored_of_other_pictures(tiny_world, tmp_path, capfd, change):
    world = tiny_world(sft=1, spr=4, val=1, test=5)
    images = tmp_path / "images"
    shutil.copytree(world / "images", images)
    queries = list(
        region_queries(CocoImages(str(world / "spr.json"), str(images), Counter()), seed=0, skipped=Counter())
    )
    arguments, out = many(world, tmp_path, queries), tmp_path / "out.jsonl"
    arguments[2] = str(images)
    killed(arguments, out, 2)
    path, picture = Path(queries[0].image.path), open_image(queries[0].image.path)
    if change == "content":
        Image.new("RGB", picture.size, "red").save(path)
    elif change == "time":
        os.utime(path, (1, 1))
    else:
        Image.new("RGB", (9, 9)).save(images / "unused.png")
    again = Counting()
    Scoring(*arguments, str(out)).run(again, best_over_worst)
    batches = len(queries) - (2 if change == "none" else 0)
    assert again.calls == batches
    assert (f"--images {images} has another content" in capfd.readouterr().err) == (change != "none")


def test_what_is_not_ours_stays_in_the_folder(world, queries, tmp_path):
    (tmp_path / "out.jsonl.run/scores").mkdir(parents=True)
    (tmp_path / "out.jsonl.run/scores/notes.txt").write_text("mine")
    (tmp_path / "out.jsonl.run/mine").write_text("mine")
    Scoring(*many(world, tmp_path, queries), str(tmp_path / "out.jsonl")).run(Silent(), best_over_worst)
    left = sorted(
        str(path.relative_to(tmp_path)) for path in (tmp_path / "out.jsonl.run").rglob("*") if path.is_file()
    )
    assert left == ["out.jsonl.run/mine", "out.jsonl.run/scores/notes.txt"]


def test_two_runs_do_not_write_to_one_file(world, queries, tmp_path):
    """A child holds the lock while this process tries."""
    arguments, held = many(world, tmp_path, queries), os.pipe()
    child = os.fork()
    if not child:

        class Waiting(Silent):
            def judge(self, *asked):
                os.write(held[1], b"x")
                signal.pause()

        Scoring(*arguments, str(tmp_path / "out.jsonl")).run(Waiting(), best_over_worst)
        os._exit(0)
    try:
        assert os.read(held[0], 1) == b"x"
        with pytest.raises(UserError, match="out.jsonl.run is in use by process .* --out"):
            Scoring(*arguments, str(tmp_path / "out.jsonl")).run(Silent(), best_over_worst)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
