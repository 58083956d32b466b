"""``spr/dpo/log.jsonl``: a record a step whatever the host reports to, none twice after a death, coordinates
and words apart; what is reported goes on behind the host's steps, with answers on their pictures."""

import contextlib
import io
import json
import os

import pytest
import torch

from spr_plugin import follow
from spr_plugin.dpo import choose_trainable, improve, rows
from spr_plugin.dpo.pairs import batch_of
from spr_plugin.dpo.token_kinds import apart
from spr_plugin.files import read_json
from spr_plugin.recipes.find import find_recipe
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.steps import StepLog, told
from spr_plugin.tools.status import read_status
from tests.random_llava import coco_of

from . import live
from .live import Reporter
from .test_probe import query
from .test_rounds import SETTINGS as WHOLE

pytestmark = pytest.mark.slow

SETTINGS = dict(
    spr_batch_size=2, spr_save_steps=2, spr_learning_rate=1e-3, spr_probe_steps=3, spr_max_new_tokens=3
)
BEFORE, STEPS = 7, 10  # two epochs of ten pairs, two a step


class Death(Exception):
    pass


class Listen(Reporter):
    """What those hear who report; Death before a step."""

    def __init__(self, dies=None):
        self.heard, self.dies = [], dies

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.heard.append((state.global_step, state.epoch, dict(logs)))

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.dies:
            raise Death


def run(llava, folder, dies=None, args=(), **settings):
    """The stage, in ``folder``, on a model that seven steps led to; what was heard of it."""
    settings = SETTINGS | {"spr_epochs": 2.0} | settings
    host, config = live.build(llava, folder / "host", args=dict(args), **settings)
    listen = Listen(dies)
    host.trainer.add_callback(listen)
    choose_trainable(host, config)
    watched = [query(llava / "images" / f"{index}.png", index) for index in range(3)]
    recipe, pairs = find_recipe(config, host.box_format), live.make_pairs(llava, 10)
    improve(host, recipe, pairs, watched, config, Folder(folder), "entry", BEFORE)
    return listen.heard


@pytest.fixture(scope="module")
def calm(random_llava, tmp_path_factory):
    """Its folder, what was heard, and what was printed."""
    folder = tmp_path_factory.mktemp("calm")
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        heard = run(random_llava, folder, args={"report_to": ["tensorboard"]})
    return folder, heard, out.getvalue(), err.getvalue()


def records(folder):
    return [
        {name: value for name, value in one.items() if name != "time"}
        for one in StepLog(Folder(folder)).read()
    ]


def test_each_step_is_logged_and_reported_where_it_is(calm):
    folder, heard, *_ = calm
    logged = records(folder)
    assert [one["step"] for one in logged] == [*range(STEPS + 1)]
    assert [one["global_step"] for one in logged] == [BEFORE + step for step in range(STEPS + 1)]
    assert [one["epoch"] for one in logged] == pytest.approx([step / 5 for step in range(STEPS + 1)])
    assert [one["step"] for one in logged if "probe/s_loc" in one] == [0, 3, 6, 9, 10]
    for one in logged[1:]:
        for side in ("chosen", "rejected"):
            whole = one[f"logps/{side}_coordinates"] + one[f"logps/{side}_words"]
            assert whole == pytest.approx(one[f"logps/{side}"], rel=1e-4) and one[f"logps/{side}_words"] < 0
        assert {"loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "kl"} <= one.keys()
    steps = [one for one in heard if "rewards/margins" in one[2]]
    assert [step for step, *_ in steps] == [BEFORE + step for step in range(1, STEPS + 1)]
    assert [epoch for _, epoch, _ in steps] == pytest.approx([step / 5 for step in range(1, STEPS + 1)])
    assert [logs["spr/loss"] for *_, logs in steps] == [one["loss"] for one in logged[1:]]
    assert [step for step, _, logs in heard if "probe/s_loc" in logs] == [
        BEFORE + step for step in (0, 3, 6, 9, 10)
    ]
    assert all(logs["epoch"] == pytest.approx(epoch, abs=0.01) for _, epoch, logs in heard)


def test_what_is_printed(calm):
    """One line of progress for a stage of less than a minute, and the numbers as transformers prints them."""
    folder, _, out, err = calm
    lines = [line for line in err.splitlines() if line.startswith("spr: DPO ") and "/s" in line]
    assert [line.split(",")[0] for line in lines] == ["spr: DPO 10/10"] and ", margins " in lines[0]
    assert len([line for line in out.splitlines() if "rewards/margins" in line]) == STEPS
    assert told(StepLog(Folder(folder)).read(), 10).startswith("10 pairs, 10 steps (loss ")


@pytest.mark.parametrize("dies", [1, 5])
def test_a_death_leaves_no_step_twice_and_none_out(calm, random_llava, tmp_path, dies):
    """Between two checkpoints, and however many steps one report has."""
    (tmp_path / "dpo.json").write_text('{"logging_steps": 4}')
    settings = {"spr_dpo_config": str(tmp_path / "dpo.json")}
    with pytest.raises(Death):
        run(random_llava, tmp_path, dies, **settings)
    path = tmp_path / "dpo" / "log.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 9, "loss"')
    assert records(tmp_path)[-1]["step"] == dies
    run(random_llava, tmp_path, **settings)
    assert records(tmp_path) == records(calm[0]) and len(path.read_bytes().splitlines()) == STEPS + 1


def test_a_step_that_is_not_full_counts_its_own_pairs(random_llava, tmp_path):
    run(random_llava, tmp_path, spr_batch_size=4, spr_epochs=1.0)
    assert [one["epoch"] for one in records(tmp_path)] == pytest.approx([0, 0.4, 0.8, 1.0])


def test_parts_add_up_in_both_layouts_of_rows(live_llava, pairs):
    host, _ = live_llava(**SETTINGS)
    inputs = host.on_device(batch_of(host, pairs(4)))
    for joined in (False, True):
        found = rows.answers(host, host.trainer.model, inputs["batch"], inputs["unshared"], joined)
        parts = apart(found, inputs["coordinates"])
        for side, sums in zip(("chosen", "rejected"), found.sums.chunk(2)):
            whole = parts[f"logps/{side}_coordinates"] + parts[f"logps/{side}_words"]
            assert torch.allclose(whole, sums.detach(), atol=1e-4)
    assert parts["logps/rejected_coordinates"][1] == 0 != parts["logps/chosen_coordinates"][1]  # "red"


def events(folder):
    """The values of TensorBoard's files: (tag, step, value)."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in folder.rglob("events.out.tfevents.*"):
        data, offset = file.read_bytes(), 0
        while offset < len(data):  # a record: length (8 bytes), its checksum (4), the event, its checksum (4)
            size = int.from_bytes(data[offset : offset + 8], "little")
            event = Event.FromString(data[offset + 12 : offset + 12 + size])
            found += [(value.tag, event.step, value) for value in event.summary.value]
            offset += size + 16
    return found


def test_tensorboard_shows_answers_on_their_pictures(calm):
    shown = events(calm[0])
    looks = [BEFORE + step for step in (0, 3, 6, 9, 10)]
    for number in range(3):
        pictures = [(step, value) for tag, step, value in shown if tag == f"probe/answers/{number}"]
        assert [step for step, _ in pictures] == looks
        assert all(
            value.image.width == 360 and value.image.encoded_image_string[:4] == b"\x89PNG"
            for _, value in pictures
        )
    tables = [step for tag, step, _ in shown if tag.startswith("probe/answers/text")]
    assert tables == looks
    scalars = [step for tag, step, _ in shown if tag.endswith("logps/chosen_coordinates")]
    assert scalars == [BEFORE + step for step in range(1, STEPS + 1)]


def test_the_host_s_state_stays_the_host_s_also_after_a_death(random_llava, tmp_path):
    """As without SPR, byte for byte but for what a clock says; the second command trains nothing of it."""
    given = dict(max_steps=3, logging_steps=1, save_strategy="no", learning_rate=1e-3)
    flags = WHOLE | dict(
        spr_only=False,
        spr_rounds=2,
        spr_annotations=str(coco_of(tmp_path)),
        spr_image_folder=str(random_llava / "images"),
    )

    def state_of(out):
        text = (out / "trainer_state.json").read_text()
        status = json.loads(text)
        clock = {"train_runtime", "train_samples_per_second", "train_steps_per_second"}
        status["log_history"] = [
            {name: value for name, value in entry.items() if name not in clock}
            for entry in status["log_history"]
        ]
        return status, text

    plain, _ = live.build(random_llava, tmp_path / "plain", args=given)
    plain.trainer.train()
    plain.trainer.save_state()
    out = tmp_path / "out"
    for dies in (1, None):
        host, config = live.build(random_llava, out, args=given, **flags)
        listen = Listen()
        host.trainer.add_callback(listen)
        if dies is not None:
            listen.on_step_begin = lambda args, *rest, **kwargs: die_in(args, *rest)
        outcome = follow.train(host.trainer, config, host.namespace, host.trainer.train)
        assert bool(outcome.failure) == (dies is not None)
        host.trainer.save_state()
        assert state_of(out)[0] == state_of(tmp_path / "plain")[0]
    assert outcome.result.global_step == 3
    first = next(step for step, _, logs in listen.heard if "rewards/margins" in logs)
    steps = StepLog(Folder.under(out)).read()
    assert first == 3 + 2 and [one["global_step"] for one in steps] == [3 + one["step"] for one in steps]
    later = StepLog(Folder.under(out).round(2)).read()
    assert later[0]["global_step"] == steps[-1]["global_step"] + later[0]["step"]
    status = read_status(out)
    assert status["state"] == "running" and [one["stage"] for one in status["rounds"]] == ["dpo", "dpo"]
    for one in status["rounds"]:
        assert all(stage["done"] == stage["total"] for stage in one["stages"])
    assert read_json(out / "spr" / "dpo" / "begun.json")["held"] == 1


def die_in(args, state, control, **kwargs):
    if os.path.basename(args.output_dir) == "dpo" and state.global_step == 1:
        raise Death
