"""What the stage shows: answers to held-out queries on their pictures, and a bar of its own."""

import json
from types import SimpleNamespace

import pytest
import transformers
from PIL import Image
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import TrainerState

from spr_plugin.config import SPRConfig
from spr_plugin.dpo import shown
from spr_plugin.dpo.shown import QUERIES, StageProgress, show_answers
from spr_plugin.formats import box_format
from spr_plugin.progress import Progress
from spr_plugin.recipes.find import find_recipe

from .test_logbook import BEFORE, STEPS, events, records, run
from .test_probe import query

pytestmark = pytest.mark.slow


@pytest.fixture
def asked(tmp_path):
    """A recipe, ten queries on as many pictures, and an answer with a box to each."""
    recipe = find_recipe(SPRConfig(spr=True), box_format("llava"))
    for index in range(10):
        Image.new("RGB", (40, 40), "white").save(tmp_path / f"{index}.png")
    queries = [query(tmp_path / f"{index}.png", index) for index in range(10)]
    return recipe, queries, [f"a | circle\n{index} [0.1, 0.2, 0.5, 0.75]" for index in range(10)]


def sent(folder, *about) -> list:
    """What the tracker got: (tag, step, value)."""
    writer = pytest.importorskip("tensorboardX").SummaryWriter(str(folder))
    show_answers([transformers.TrainerCallback(), TensorBoardCallback(writer)], *about)
    writer.close()
    return events(folder)


def test_the_first_answers_are_sent_with_their_boxes_drawn(asked, tmp_path):
    values = sent(tmp_path / "board", *asked, TrainerState(global_step=7))
    assert {step for _, step, _ in values} == {7}
    images = {tag: value.image for tag, _, value in values if value.image.width}
    assert sorted(images) == [f"probe/answers/{number}" for number in range(QUERIES)]
    (tmp_path / "shown.png").write_bytes(images["probe/answers/0"].encoded_image_string)
    with Image.open(tmp_path / "shown.png") as picture:
        assert picture.size == (360, 360)
        # The answer's box, 0.1 to 0.5 and 0.2 to 0.75 of 360 pixels, is a line on the white.
        at = lambda x, y: picture.convert("RGB").getpixel((x, y)) == (255, 255, 255)
        assert not at(100, 72) and not at(36, 150) and at(100, 150) and at(250, 72)
    (table,) = [value.tensor.string_val[0].decode() for tag, _, value in values if "text" in tag]
    first = table.splitlines()[2]
    assert first.startswith("0|") and first.endswith(r"|a \| circle 0 [0.1, 0.2, 0.5, 0.75]")
    assert len(table.splitlines()) == 2 + QUERIES


def test_a_picture_that_cannot_be_read_is_left_out(asked, tmp_path):
    recipe, queries, texts = asked
    (tmp_path / "0.png").write_bytes(b"none")
    values = sent(tmp_path / "board", recipe, queries[:2], texts[:2], TrainerState())
    assert len([value for *_, value in values if value.image.width]) == 1


def test_without_a_tracker_nothing_is_drawn(asked):
    """Pictures are not even opened: the recipe is not asked."""
    _, queries, texts = asked
    show_answers([TensorBoardCallback(), transformers.TrainerCallback()], None, queries, texts, None)


def test_the_bar_is_the_stage_s_own(capfd):
    """transformers opens none, and closes none."""
    progress = Progress("DPO", 4)
    bar, state = StageProgress(progress), SimpleNamespace(is_world_process_zero=True, max_steps=4)
    for event in (bar.on_train_begin, bar.on_step_end, bar.on_train_end):
        event(None, state, None)
    assert bar.training_bar is progress
    bar.on_log(None, state, None, logs={"loss": 0.5})
    assert "0.5" in "".join(capfd.readouterr())


def test_wandb_offline(random_llava, tmp_path, monkeypatch):
    import wandb  # which no other test needs

    monkeypatch.delenv("WANDB_DISABLED", raising=False)
    for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    run(random_llava, tmp_path, args={"report_to": ["wandb"]})
    summary = dict(wandb.run.summary)
    wandb.finish()
    assert summary["train/global_step"] == BEFORE + STEPS
    (saved,) = (tmp_path / "wandb").glob("offline-run-*")
    tables = [json.loads(path.read_text()) for path in saved.rglob("*.table.json")]
    assert len(tables) == 5 and {len(table["data"]) for table in tables} == {3}
    assert tables[0]["columns"] == ["step", "question", "answer", "picture"]
    (log,) = saved.glob("run-*.wandb")
    assert log.read_bytes().count(b"media/images/") >= 3


def test_a_tracker_that_cannot_show_costs_nothing(random_llava, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(shown, "TAG", None)  # which no writer takes
    run(random_llava, tmp_path, spr_epochs=0.2, args={"report_to": ["tensorboard"]})
    assert len(records(tmp_path)) == 2
    assert "spr: the answers to held-out queries cannot be shown (" in capfd.readouterr().err
