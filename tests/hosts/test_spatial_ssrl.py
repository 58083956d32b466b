"""Spatial-SSRL through whole runs: pictures that no file holds are asked about, judged, trained on, probed
and reported; queries whose answers agree are asked again; killed, it goes on.

The tiny model has never been taught to answer so: it ends in the line that says it. Where pairs are needed a
server guesses, in the form that is asked for, and is right by chance.
"""

import json
from pathlib import Path

import certifi
import pytest
import transformers
from click.testing import CliRunner

from spr_plugin import follow, runs
from spr_plugin.cli import commands
from spr_plugin.config import SPRConfig
from spr_plugin.data.pictures import MadePicture, open_image
from spr_plugin.errors import UserError
from spr_plugin.recipes.spatial_ssrl.settings import TASKS
from spr_plugin.runs.log import Log
from spr_plugin.sampling.plan import candidate_id
from spr_plugin.tools.export import export

from . import make_vlm
from .checks import assert_saved_equals_live
from .launch import command, kill_when, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tiny_world):
    """A tiny world with the depth of its pictures."""
    return tiny_world(sft=4, spr=12, geometry=True)


@pytest.fixture
def flags(world, tmp_path):
    """Of a small run on the world's pictures, all but who answers."""
    section = dict(depth=f"{world}/depth/spr", distance="code", grids=["1x3"], resample=1)
    (tmp_path / "recipe.yaml").write_text(json.dumps({"spatial_ssrl": section}))
    return dict(
        spr_only=True, spr_recipe="spatial_ssrl", spr_recipe_config=str(tmp_path / "recipe.yaml"),
        spr_image_folder=f"{world}/images/spr", spr_regions=20, spr_samples=4, spr_max_new_tokens=40,
        spr_batch_size=2, spr_epochs=1.0,
    )  # fmt: skip


@pytest.fixture
def server(chat_server, monkeypatch, tmp_path):
    """It guesses. One certificate: reading all that a machine trusts takes longer than the rest."""
    end = "-----END CERTIFICATE-----\n"
    (tmp_path / "ca.pem").write_text(Path(certifi.where()).read_text().partition(end)[0] + end)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with chat_server.ChatServer() as server:
        server.answers = chat_server.guess
        yield server


def trainer_of(out):
    """Of a host that shows several pictures."""
    model, processor = make_vlm.make("llava")
    arguments = transformers.TrainingArguments(str(out), use_cpu=True, report_to=[])
    return transformers.Trainer(model, arguments, train_dataset=[0], processing_class=processor)


def assert_asked_again(out, guess) -> None:
    """Twice as many samples of the queries whose first ones agreed, and of no other."""
    run = runs.open(out)
    candidates = run.records("candidates").values()
    for query in run.queries.values():
        ours = sorted((one for one in candidates if one["query"] == query.id), key=lambda one: one["index"])
        ids = [candidate_id(query.id, "plain", index) for index in range(len(ours))]
        assert [one["id"] for one in ours] == ids
        seeds = [0, *(int(id, 16) % 2**31 for id in ids[1:])]  # the first is the likeliest answer
        assert [one["text"] for one in ours] == [guess(query.text, seed) for seed in seeds]
        asked_again = not run.recipe.enough(query, [one["text"] for one in ours[:4]])
        assert len(ours) == (8 if asked_again else 4)
    assert len(run.queries) < len(candidates) / 4 < 2 * len(run.queries)


def assert_right_over_wrong(out) -> None:
    run = runs.open(out)
    skipped = {record["skip"] for record in run.records("pairs").values() if "skip" in record}
    assert len(run.pairs) >= 5 and skipped <= {"all_right", "all_wrong"}
    for pair in run.pairs:
        query = run.queries[pair.query]
        assert run.recipe.measure([pair.chosen, pair.rejected], [query] * 2)["exact"] == 0.5
        assert pair.chosen_score > pair.rejected_score and pair.pictures == query.sources


def test_all_five_tasks_on_a_host_that_shows_several_pictures(server, flags, tmp_path, capfd):
    out = tmp_path / "out"
    flags |= dict(spr_sampler="openai", spr_sampler_url=server.url, spr_probe_steps=2)
    follow.train(trainer_of(out), SPRConfig(**flags), {}, None)
    run = runs.open(out)
    assert {query.task for query in run.queries.values()} == set(TASKS)
    shown = {query.task: len(query.pictures) for query in run.queries.values()}
    assert shown == {task: 5 if task == "cropped_patch" else 1 for task in TASKS}
    assert all(isinstance(one, MadePicture) for query in run.queries.values() for one in query.pictures)
    assert_asked_again(out, server.answers)
    assert_right_over_wrong(out)
    assert run.folder.exit.exists()
    page = run.folder.report.read_text()
    assert "data:image/jpeg" in page and "not shown" not in page
    export(out, "trl", str(tmp_path / "trl"))
    rows = [json.loads(line) for line in (tmp_path / "trl" / "metadata.jsonl").read_text().splitlines()]
    for row, pair in zip(rows, run.pairs, strict=True):
        written = [open_image(tmp_path / "trl" / name) for name in row["images_file_names"]]
        assert [one.tobytes() for one in written] == [open_image(one).tobytes() for one in pair.pictures]
    assert "'probe/exact'" in capfd.readouterr().out


def test_a_model_that_cannot_answer_so_is_told(flags, tmp_path):
    """Asked again, all are wrong again: a line, and the host's model is what it was."""
    flags |= dict(spr_regions=3, spr_samples=2, spr_max_new_tokens=8)
    trainer = trainer_of(tmp_path / "out")
    with pytest.raises(UserError, match=r"no preference pair is left of 3 (regions|queries) \(all_wrong 3\)"):
        follow.train(trainer, SPRConfig(**flags), {}, None)
    assert len(Log(tmp_path / "out" / "spr" / "candidates").read()) == 3 * 2 * 2


def test_killed_while_it_asks_again(server, world, flags, tmp_path):
    """LLaVA's own script, which shows one picture: a montage. It ends as a calm run does."""
    out = tmp_path / "llava"
    own = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    own += ["--spr_sampler", "openai", "--spr_sampler_url", server.url, "--spr_sampler_concurrency", "1"]
    arguments = command(world, out, "--spr", *own)

    def sampled_again():
        return any(one["index"] >= 4 for one in Log(out / "spr" / "candidates").read().values())

    assert kill_when(arguments, sampled_again, tmp_path / "log"), (tmp_path / "log").read_text()[-3000:]
    assert runs.open(out).state != "finished"
    run(arguments)
    assert runs.open(out).state == "finished"
    assert {len(query.pictures) for query in runs.open(out).queries.values()} == {1}
    assert_asked_again(out, server.answers)
    assert_right_over_wrong(out)
    assert_saved_equals_live(out)


def test_a_server_answers_without_a_trainer(server, flags, tmp_path):
    """`spr sample`: what agrees is asked again there too, and the same command then does nothing."""
    taken = "recipe recipe_config image_folder regions samples".split()
    words = [word for name in taken for word in (f"--spr_{name}", str(flags[f"spr_{name}"]))]
    words += ["--spr_sampler_url", server.url, "--spr_box_format", "llava", "--out", str(tmp_path / "out")]
    for _ in range(2):
        printed = CliRunner().invoke(commands, ["sample", *words], catch_exceptions=False).output
        assert f"{len(server.seen)} candidates in {tmp_path / 'out'}" in printed
    assert_asked_again(tmp_path / "out", server.answers)
    queries = runs.open(tmp_path / "out").queries.values()
    shown = {(one.width, one.height) for query in queries for one in query.pictures}
    assert {size for _, size, _ in server.seen} == shown
