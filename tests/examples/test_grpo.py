"""GRPO beside SPR: its reward, its questions, how it meets SPR's tokens, and a real run of TRL's trainer that
ends in LLaVA's layout.
"""

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin.errors import UserError
from spr_plugin.files import read_json, write_json
from spr_plugin.formats import box_format
from spr_plugin.runs.layout import LAYOUT
from spr_plugin.runs.log import Log

from .world import WORLD, load

grpo = load("reproduce/grpo")
LLAVA = box_format("llava", "pad")


# --- the reward


@pytest.mark.parametrize("answer, expected", [
    ("[0.25, 0.25, 0.75, 0.75]", 1.0),
    ("[0.25, 0.25, 0.75, 0.5]", 0.5),
    ("[0.5, 0.25, 1.0, 0.75]", 1 / 3),
    ("[0.8, 0.8, 0.9, 0.9]", 0.0),
    ("a red ring [0.25, 0.25, 0.75, 0.5] and [0.25, 0.25, 0.75, 0.75]", 0.5),  # the first box counts
    ("[0.25, 0.25, 0.75] [0.25, 0.25, 0.75, 0.75]", 1.0),  # three numbers are no box
        ("[0.25, 0.25, 0.75, 1.75] [0.25, 0.25, 0.75, 0.75]", 0.0),  # the first one cannot be read
    ("[0.75, 0.25, 0.25, 0.75]", 0.0),
    ("a red ring.", 0.0),
    ("", 0.0),
])  # fmt: skip
def test_the_reward_is_the_iou_of_the_first_box(answer, expected):
    assert grpo.reward(LLAVA, answer, [96, 96], [24, 24, 72, 72]) == pytest.approx(expected)


def test_the_reward_reads_boxes_in_the_padded_square():
    """A picture of 96 × 48 lies in the middle of its square."""
    assert grpo.reward(LLAVA, "[0.0, 0.25, 0.5, 0.75]", [96, 48], [0, 0, 48, 48]) == pytest.approx(1)


# --- the budget


@given(st.integers(100_000, 2_000_000), st.floats(0.1, 5), st.sampled_from([64, 128]), st.floats(8, 20))
def test_a_schedule_meets_both_budgets(generated, share, batch, answer):
    budget = grpo.Tokens(generated, round(generated * share))
    steps = grpo.schedule(budget, answer, batch)
    assert 1 <= steps.kept <= batch and steps.iterations == max(1, -(-budget.trained // generated))
    assert steps.batches * batch * answer == pytest.approx(generated, rel=0.1)
    assert steps.batches * steps.kept * steps.iterations * answer == pytest.approx(budget.trained, rel=0.1)


def test_a_schedule_by_hand():
    assert grpo.schedule(grpo.Tokens(408_000, 128_000), 10, 128) == grpo.Schedule(
        batches=319, kept=40, iterations=1
    )
    assert grpo.schedule(grpo.Tokens(64_000, 160_000), 10, 64) == grpo.Schedule(
        batches=100, kept=53, iterations=3
    )


def test_a_budget_too_small_for_a_batch_is_named():
    with pytest.raises(UserError, match=r"--per_device_train_batch_size 128: .* take a smaller one"):
        grpo.schedule(grpo.Tokens(700, 300), 10, 128)


def spr_run(folder: Path, words: int = 30) -> Path:
    """Logs of a run of SPR by hand: six answers to each of two regions, a pair of each, one of them too long
    for the host.
    """
    write_json(folder / "manifest.json", {"layout": LAYOUT, "config": {"spr_epochs": 2.0}})
    regions, answer = ("a", "b"), " ".join(["word"] * words)
    Log(folder / "candidates").append(
        *({"id": f"{region}{i}", "raw": answer} for region in regions for i in range(6))
    )
    Log(folder / "pairs").append(
        *({"id": region, "chosen": answer, "rejected": "word word"} for region in regions),
        {"id": "c", "skip": "one answer"},
    )
    Log(folder / "lengths").append(
        {"id": "1", "pair": "a", "fits": True}, {"id": "2", "pair": "b", "fits": False}
    )
    return folder


def test_what_a_run_of_spr_spent(tmp_path):
    """12 answers of 30 words and an end; the one pair that was trained on, 30 and 2 words with ends,
    twice.
    """
    spent = grpo.spent(spr_run(tmp_path), lambda text: len(text.split()) + 1)
    assert spent == grpo.Tokens(generated=12 * 31, trained=2 * (31 + 3))


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(UserError, match="no SPR run here"):
        grpo.spent(tmp_path, len)


# --- the questions


def test_questions_are_spr_s_scenes_asked_as_the_evaluation_asks(tiny_world):
    world = tiny_world(sft=1, spr=5, val=1, test=1)
    rows = grpo.questions(json.loads((world / "spr.json").read_text()), world / "images", 12, seed=0)
    shown = list(grpo.painting.scenes("spr", 5))
    assert [Path(row["image"]).stem for row in rows] == [f"{place % 5:06d}" for place in range(12)]
    for place, row in enumerate(rows):
        (turn,), things = row["prompt"], shown[place % 5].things
        expression = next(e for e, i in grpo.wording.expressions(things) if grpo.wording.REC.format(name=e) == turn["content"]  # noqa: E501
                          and row["bbox"] == pytest.approx(list(things[i].box), abs=0.02))  # fmt: skip
        hard = any(grpo.wording.is_qualified(e) for e, _ in grpo.wording.expressions(things))
        assert (
            grpo.wording.is_qualified(expression) == hard
            and row["size"] == [96, 96]
            and Path(row["image"]).exists()
        )
    assert rows != grpo.questions(json.loads((world / "spr.json").read_text()), world / "images", 12, seed=1)


# --- the real thing


@pytest.mark.slow
def test_a_run_ends_in_llava_s_layout_with_both_budgets_met(tiny_world, tmp_path):
    """TRL's trainer, three steps of a seed whose few answers are of usual lengths, with a reference model;
    the language model has moved, nothing else has, and LLaVA's own loader reads it.
    """
    torch = pytest.importorskip("torch")
    pytest.importorskip("llava")
    pytest.importorskip("trl")
    from llava.model.builder import load_pretrained_model

    world, out, root = tiny_world(sft=1, spr=6, val=1, test=1), tmp_path / "llava-grpo", WORLD.parents[1]
    flags = (
        "--num_generations 4 --per_device_train_batch_size 8 --beta 0.04 --learning_rate 1e-4 --loss_type"
        " grpo --max_completion_length 24 --seed 1"
    )
    flags += (
        " --gradient_checkpointing False --bf16 False --use_cpu True --save_strategy no --report_to none"
        " --logging_steps 1"
    )
    words = grpo.command(world, spr_run(tmp_path / "spr", words=5), out, flags)
    done = subprocess.run(words, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = read_json(out / grpo.FOUND)
    steps, spent, budget = (found[name] for name in ("schedule", "tokens", "tokens of SPR"))
    assert steps["iterations"] == 1 and steps["batches"] == len(found["rewards"]) == 3 and steps["kept"] < 8
    assert all(spent[name] == pytest.approx(budget[name], rel=0.1) for name in ("generated", "trained"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        after, before = (
            load_pretrained_model(str(folder), None, "llava", device_map="cpu", device="cpu")[1].state_dict()
            for folder in (out, WORLD / "llava")
        )
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert (
        before.keys() == after.keys()
        and {"lm_head.weight", "model.layers.0.self_attn.q_proj.weight", "model.layers.3.mlp.up_proj.weight"}
        <= moved
    )
    assert not any("vision_tower" in name or "mm_projector" in name for name in moved)
