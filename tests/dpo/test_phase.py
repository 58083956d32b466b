"""The whole stage on a real LLaVA in this process: what moves, what is logged, what a death leaves, what
stops it.
"""

import copy
import dataclasses
import json
import os
import resource
import shutil
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from spr_plugin.config.dpo import DPOFlags
from spr_plugin.data import pictures
from spr_plugin.dpo import choose_trainable, improve, merge_adapter
from spr_plugin.dpo.pairs import pair_rows
from spr_plugin.errors import UserError
from spr_plugin.recipes.find import find_recipe
from spr_plugin.runs.layout import Folder
from spr_plugin.training import weights

from .live import Reporter

pytestmark = pytest.mark.slow

SETTINGS = dict(spr_batch_size=2, spr_save_steps=1, spr_learning_rate=1e-3, spr_epochs=1.0)


def run(host, config, pairs, folder):
    """The stage, from choosing what trains to the last step; what the trainer logged."""
    flags, recipe = config.only(DPOFlags), find_recipe(config, host.box_format)
    names = choose_trainable(host, flags)
    logged = []

    class Listen(Reporter):
        def on_log(self, args, state, control, logs=None, **kwargs):
            logged.append(dict(logs))

    host.trainer.add_callback(Listen())
    improve(host, recipe, pairs, [], flags, Folder(folder.parent), entry="entry")
    return names, logged


def values(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


class Death(Exception):
    pass


def die_at(host, step):
    class Die(Reporter):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == step:
                raise Death

    host.trainer.add_callback(Die())


@pytest.mark.parametrize(
    "settings",
    [
        dict(),
        dict(spr_tune="full"),
        dict(lora=True),
        dict(lora=True, spr_tune_projector=True),
        dict(spr_loss_type=["ipo", "sft"], spr_beta=0.5),
        dict(
            spr_loss_type="sigmoid_norm bco_pair nca_pair apo_zero dpop kl_words".split(), spr_dpop_lambda=5.0
        ),
    ],
    ids=["adapter", "full", "lora", "lora and projector", "ipo and sft", "others"],
)
def test_what_should_move_moves_and_nothing_else(live_llava, pairs, tmp_path, capfd, settings):
    host, config = live_llava(**SETTINGS | settings)
    model = host.trainer.model
    given = values(model)
    names, logged = run(host, config, pairs(8), tmp_path / "dpo")
    after = values(model)
    start = {name: given.get(name, given.get(name.replace(".base_layer", ""))) for name in after}
    moved = {name for name in after if start[name] is None or not torch.equal(start[name], after[name])}
    assert moved == set(names)
    printed = capfd.readouterr().err
    assert (
        "DPO trains language model" in printed
        and ("projector" in printed.split("DPO trains")[1].split(";")[0]) == config.spr_tune_projector
    )
    assert "share their prompt and picture (sdpa" in printed and "forecast: 8 pairs, 4 steps" in printed
    steps = [entry for entry in logged if "rewards/margins" in entry]
    assert len(steps) == 4
    # The same rows gave the reference: exactly.
    assert steps[0]["rewards/chosen"] == steps[0]["rewards/rejected"] == 0
    assert all(step["rewards/margins"] for step in steps[1:])
    assert {"loss", "grad_norm", "kl", "logps/chosen", "rewards/accuracies"} <= {
        key.removeprefix("spr/") for key in steps[0]
    }
    merge_adapter(model)
    assert set(values(model)) == set(given)


@pytest.mark.parametrize(
    ("flags", "peak"),
    [(dict(spr_rate_ratio=0.5), 1e-3), (dict(spr_rate_ratio=0.5, spr_learning_rate=3e-4), 3e-4)],
)
def test_the_rate_can_be_a_ratio_to_the_host_s(live_llava, pairs, tmp_path, flags, peak):
    settings = dict(spr_batch_size=2, spr_epochs=1.0) | flags
    host, config = live_llava(args={"learning_rate": 2e-3}, **settings)
    _, logged = run(host, config, pairs(4), tmp_path / "dpo")
    rates = [entry[name] for entry in logged for name in entry if name.endswith("learning_rate")]
    assert max(rates) == pytest.approx(peak)


def test_a_death_at_any_step_leaves_no_trace(live_llava, pairs, tmp_path):
    """Steps 0 to 3 of 4: the same weights to the last bit, and each pair was trained on once."""
    host, config = live_llava(**SETTINGS)
    names, calm = run(host, config, pairs(8), tmp_path / "calm")
    expected = {name: values(host.trainer.model)[name] for name in names}
    for step in range(4):
        folder = tmp_path / f"killed{step}" / "dpo"
        host, config = live_llava(**SETTINGS)
        die_at(host, step)
        with pytest.raises(Death):
            run(host, config, pairs(8), folder)
        host, config = live_llava(**SETTINGS)
        _, logged = run(host, config, pairs(8), folder)
        found = values(host.trainer.model)
        assert all(torch.equal(found[name], expected[name]) for name in names), step
        again = [entry["spr/loss"] for entry in logged if "spr/loss" in entry]
        assert again == [entry["spr/loss"] for entry in calm if "spr/loss" in entry][step:]


def test_a_half_written_checkpoint_is_none(live_llava, pairs, tmp_path):
    host, config = live_llava(**SETTINGS)
    die_at(host, 3)
    with pytest.raises(Death):
        run(host, config, pairs(8), tmp_path / "dpo")
    (kept,) = (tmp_path / "dpo").glob("checkpoint-*")
    torn = kept.with_name("checkpoint-9")
    torn.mkdir()
    (torn / "optimizer.pt").write_bytes(b"half")
    host, config = live_llava(**SETTINGS)
    run(host, config, pairs(8), tmp_path / "dpo")
    assert not torn.exists()


def test_steps_are_the_same_however_they_are_divided(live_llava, pairs, tmp_path, monkeypatch):
    """8 pairs at once, or accumulated by 4, 2 and 1, chosen answers of unequal length, a last step not full:
    the same losses, and gradients as the optimizer sees them.
    """
    step, seen = torch.optim.AdamW.step, []

    def watched(optimizer, *args, **kwargs):
        seen.append([p.grad.clone() for group in optimizer.param_groups for p in group["params"]])
        return step(optimizer, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    losses, gradients = [], []
    for batch in (8, 4, 2, 1):
        seen.clear()
        sizes = dict(spr_batch_size=batch, spr_gradient_accumulation=8 // batch)
        host, config = live_llava(**SETTINGS | sizes)
        _, logged = run(host, config, pairs(10), tmp_path / str(batch) / "dpo")
        losses.append([entry["spr/loss"] for entry in logged if "spr/loss" in entry])
        gradients.append([list(grads) for grads in seen])
    assert len(losses[0]) == len(gradients[0]) == 2
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], rel=1e-6)
    for other in gradients[1:]:
        for ours, whole in zip(
            other[0], gradients[0][0], strict=True
        ):  # later ones are of weights that moved
            assert (ours - whole).abs().max() <= 1e-5 * whole.abs().max()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_state_before(live_llava, pairs, tmp_path):
    host, config = live_llava(**SETTINGS | dict(spr_learning_rate=1e30, spr_tune="full"))
    with pytest.raises(UserError, match="not finite at step 2, pair pair") as caught:
        run(host, config, pairs(8), tmp_path / "spr" / "dpo")
    assert "\n" not in str(caught.value)
    written = [json.loads(path.read_text()) for path in (tmp_path / "spr" / "bad_pairs").glob("*.json")]
    assert written and all(
        record["id"] in str(record) and record["step"] == 1 and record["chosen"] for record in written
    )
    assert (tmp_path / "spr" / "dpo" / "checkpoint-1" / "complete.json").exists()


def test_a_full_disk_at_a_checkpoint_is_one_line_and_the_one_before_stays(live_llava, pairs, tmp_path):
    """The kernel refuses files above a size, as it would on a full disk."""
    host, config = live_llava(**SETTINGS)
    die_at(host, 2)
    with pytest.raises(Death):
        run(host, config, pairs(8), tmp_path / "dpo")
    host, config = live_llava(**SETTINGS)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(UserError, match="cannot write its checkpoint of step 3.*make room"):
            run(host, config, pairs(8), tmp_path / "dpo")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "dpo" / "checkpoint-2" / "complete.json").exists()
    host, config = live_llava(**SETTINGS)
    run(host, config, pairs(8), tmp_path / "dpo")


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(rejected="red circle [0.1, 0.2, 0.5, 0.75]"), "the same tokens"),
        (dict(chosen=" "), "empty"),
        (dict(pictures=("/nowhere.png",)), "nowhere.png"),
    ],
)
def test_a_pair_that_is_none_is_named(live_llava, pairs, tmp_path, change, words):
    host, config = live_llava(**SETTINGS)
    broken = pairs(4)
    broken[0] = dataclasses.replace(broken[0], **change)
    with pytest.raises(UserError, match=words) as caught:
        run(host, config, broken, tmp_path / "dpo")
    assert "pair0" in str(caught.value) and "\n" not in str(caught.value)
    host, config = live_llava(**SETTINGS)
    _, logged = run(host, config, pairs(4), tmp_path / "dpo")
    assert len([entry for entry in logged if "rewards/margins" in entry]) == 2


def test_a_trl_of_an_unknown_version_is_never_asked(live_llava, pairs, tmp_path, monkeypatch):
    """``--spr_dpo_config`` takes its names, and that is all."""
    stranger = ModuleType("trl")
    stranger.__version__, stranger.__spec__ = "99.0", ModuleSpec("trl", None)
    monkeypatch.setitem(sys.modules, "trl", stranger)
    (tmp_path / "dpo.yaml").write_text("beta: 0.5\nmax_grad_norm: 2.0\n")
    host, config = live_llava(**SETTINGS, spr_dpo_config=str(tmp_path / "dpo.yaml"))
    _, logged = run(host, config, pairs(4), tmp_path / "dpo")
    assert config.spr_beta == 0.5 and len([entry for entry in logged if "rewards/margins" in entry]) == 2


@pytest.mark.parametrize("mode, form", [("RGB", "JPEG"), ("CMYK", "JPEG"), ("P", "GIF"), ("LA", "PNG")])
def test_a_row_is_what_the_host_s_data_set_makes_of_the_file(live_llava, tmp_path, monkeypatch, mode, form):
    """We open the file, the host transforms it; by a relative path, too."""
    pixels = torch.randint(0, 256, (40, 60, 3), dtype=torch.uint8).numpy()
    Image.fromarray(pixels).convert(mode).save(tmp_path / "a.jpg", form)
    host, _ = live_llava()
    own = copy.copy(host.dataset)
    answer = "a dog [0.1, 0.2, 0.3, 0.4]"
    turns = [{"from": "human", "value": "<image>\nWhere?"}, {"from": "gpt", "value": answer}]
    own.list_data_dict = [{"image": str(tmp_path / "a.jpg"), "conversations": turns}]
    monkeypatch.chdir(tmp_path)
    row, theirs = host.row(["a.jpg"], "Where?", answer), own[0]
    assert row.keys() == theirs.keys() and all(torch.equal(row[name], theirs[name]) for name in theirs)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "kind, words", [("eps", "none of JPEG"), ("fifo", "not a regular file"), ("large", "than 100 pixels")]
)
def test_what_is_no_picture_any_more_is_not_opened(live_llava, pairs, tmp_path, monkeypatch, kind, words):
    """Ghostscript would read the one, and nobody ever writes to the other."""
    file = tmp_path / "a.png"
    if kind == "eps":
        file.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 60\n%%EndComments\nshowpage\n%%EOF\n")
    elif kind == "fifo":
        os.mkfifo(file)
    else:
        Image.new("RGB", (11, 10)).save(file)
        monkeypatch.setattr(pictures, "_max_pixels", 100)
    host, _ = live_llava()
    with pytest.raises(UserError, match=rf"^pair pair0: {file} cannot be read any more \(.*{words}.*\)"):
        pair_rows(host, dataclasses.replace(pairs(1)[0], pictures=(str(file),)))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_vanishes_during_training_is_one_line_and_the_run_goes_on_when_it_is_back(
    live_llava, pairs, tmp_path, workers
):
    """Read in this process or in the data loader's own."""
    images = tmp_path / "images"
    given = pairs(12)
    shutil.copytree(Path(given[0].pictures[0]).parent, images)
    ours = [
        dataclasses.replace(pair, pictures=(str(images / Path(pair.pictures[0]).name),)) for pair in given
    ]

    class Vanish(Reporter):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 1:
                images.rename(tmp_path / "elsewhere")

    host, config = live_llava(**SETTINGS, args={"dataloader_num_workers": workers})
    host.trainer.add_callback(Vanish())
    with pytest.raises(UserError, match=r"^pair pair\d+: .*images/\d+.png cannot be read any more") as caught:
        run(host, config, ours, tmp_path / "dpo")
    assert "\n" not in str(caught.value)
    (tmp_path / "elsewhere").rename(images)
    host, config = live_llava(**SETTINGS)
    _, logged = run(host, config, ours, tmp_path / "dpo")
    assert 0 < len([entry for entry in logged if "rewards/margins" in entry]) < 6


def test_pairs_that_are_too_long_are_named_and_refused_above_a_share(live_llava, pairs, tmp_path, capfd):
    host, _ = live_llava()
    # A picture is four tokens.
    longest = max(len(row["input_ids"]) - 1 + 4 for pair in pairs(8) for row in pair_rows(host, pair))
    lengths = longest - 1
    host, config = live_llava(**SETTINGS | dict(max_length=lengths, spr_max_too_long=0.05))
    with pytest.raises(
        UserError,
        match=r"\d of 8 pairs are longer than the host's --model_max_length \(pair.*spr_max_too_long",
    ):
        run(host, config, pairs(8), tmp_path / "dpo")
    host, config = live_llava(**SETTINGS | dict(max_length=lengths, spr_max_too_long=0.5))
    run(host, config, pairs(8), tmp_path / "dpo2")
    assert "they are left out" in capfd.readouterr().err


def test_metrics_reach_tensorboard(live_llava, pairs, tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    host, config = live_llava(**SETTINGS, args={"report_to": ["tensorboard"]})
    run(host, config, pairs(8), tmp_path / "dpo")
    (file,) = tmp_path.rglob("events.out.tfevents.*")
    data, offset, values = file.read_bytes(), 0, {}
    while offset < len(data):  # a record: length (8 bytes), its checksum (4), the event, its checksum (4)
        size = int.from_bytes(data[offset : offset + 8], "little")
        for value in Event.FromString(data[offset + 12 : offset + 12 + size]).summary.value:
            values.setdefault(value.tag, []).append(value.simple_value)
        offset += size + 16
    for name in (
        "spr/loss",
        "rewards/chosen",
        "rewards/margins",
        "rewards/accuracies",
        "logps/rejected",
        "spr/kl",
        "spr/grad_norm",
    ):
        (tag,) = [tag for tag in values if tag.endswith(name)]
        assert len(values[tag]) == 4, name


def test_weights_that_were_saved_are_the_live_ones(live_llava, pairs, tmp_path):
    host, config = live_llava(**SETTINGS)
    names, _ = run(host, config, pairs(8), tmp_path / "dpo")
    weights.save(host.trainer.model, names, tmp_path / "policy")
    other, _ = live_llava(**SETTINGS)
    choose_trainable(other, config)
    weights.load(other.trainer.model, tmp_path / "policy")
    assert all(
        torch.equal(value, values(host.trainer.model)[name])
        for name, value in values(other.trainer.model).items()
    )
