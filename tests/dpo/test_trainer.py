"""The stage takes a named list of the host's settings and nothing else: whatever else a host sets, it trains
to the last bit as for a host that sets nothing, and afterwards the host's trainer is what it was."""

import dataclasses
import enum
import inspect
import json
import multiprocessing
from pathlib import Path

import pytest
import torch
import transformers
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.integrations import TensorBoardCallback

from spr_plugin import follow
from spr_plugin.config import SPRConfig
from spr_plugin.dpo import choose_trainable, improve
from spr_plugin.dpo.trainer import check_settings, check_workers
from spr_plugin.errors import UserError
from spr_plugin.files import read_json
from spr_plugin.plugins import load_file, manager
from spr_plugin.recipes.find import find_recipe
from spr_plugin.runs.layout import Folder
from spr_plugin.training import weights
from tests.random_llava import coco_of

from . import live
from .live import Reporter
from .test_probe import query

pytestmark = pytest.mark.slow

SETTINGS = dict(
    spr_batch_size=2,
    spr_save_steps=1,
    spr_learning_rate=1e-3,
    spr_epochs=1.0,
    spr_probe_steps=2,
    spr_max_new_tokens=3,
)
PAIRS, STEPS = 8, 4
# What the stage may take from the host, written out: a list read from the code would follow whatever the code
# does.
TAKEN = frozenset(
    """use_cpu local_rank ddp_backend ddp_timeout ddp_find_unused_parameters ddp_bucket_cap_mb
    ddp_broadcast_buffers bf16 fp16 tf32 half_precision_backend fp16_opt_level deepspeed
    dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor
    dataloader_multiprocessing_context activation_checkpointing activation_checkpointing_kwargs
    gradient_checkpointing gradient_checkpointing_kwargs run_name project logging_dir disable_tqdm log_level
    log_level_replica log_on_each_node trackio_space_id trackio_bucket_id trackio_static_space_id
    hub_private_repo seed data_seed full_determinism""".split()
)
ENGINE = frozenset(
    "accelerator gather_function is_deepspeed_enabled model_wrapped deepspeed optimizer lr_scheduler".split()
)


class Heard(Reporter):
    """What the stage logs of its steps, but for what depends on the clock."""

    def __init__(self):
        self.steps = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "rewards/margins" in logs:
            self.steps.append(dict(logs))


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.step


class StopAtWhileReporting(StopAt, Reporter):
    pass


class DieAt(Reporter):
    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Death


class Death(Exception):
    pass


class ReadsDataLoader(TrainerCallback):
    """As a host's callback may, which knows its own batches."""

    def on_train_begin(self, args, state, control, train_dataloader=None, **kwargs):
        raise AssertionError(
            f"the host's callback was called with {next(iter(train_dataloader))['pixel_values']}"
        )


@pytest.fixture
def stage(live_llava, pairs, random_llava, tmp_path):
    """``stage(disturb, **args)``: the stage on a host that ``disturb(trainer)`` has changed and that was made
    with the arguments ``args``, the next call going on from the last: (what trained, what the steps logged,
    host)."""

    def go(disturb=lambda trainer: None, spr_dpo_config=None, **args):
        host, config = live_llava(**SETTINGS, spr_dpo_config=spr_dpo_config, args=args)
        heard = Heard()
        host.trainer.add_callback(heard)
        disturb(host.trainer)
        names = choose_trainable(host, config)
        watched = [query(random_llava / "images" / f"{index}.png", index) for index in range(3)]
        improve(
            host,
            find_recipe(config, host.box_format),
            pairs(PAIRS),
            watched,
            config,
            Folder(tmp_path / "spr"),
            entry="entry",
        )
        return weights.digests(host.trainer.model, names), heard.steps, host

    return go


@pytest.fixture(scope="module")
def calm(random_llava, tmp_path_factory):
    """Weights and steps for a host that sets nothing."""
    out = tmp_path_factory.mktemp("calm")
    host, config = live.build(random_llava, out / "host", **SETTINGS)
    heard = Heard()
    host.trainer.add_callback(heard)
    names = choose_trainable(host, config)
    watched = [query(random_llava / "images" / f"{index}.png", index) for index in range(3)]
    improve(
        host,
        find_recipe(config, host.box_format),
        live.make_pairs(random_llava, PAIRS),
        watched,
        config,
        Folder(out / "spr"),
        entry="entry",
    )
    assert len(heard.steps) == STEPS
    return weights.digests(host.trainer.model, names), heard.steps


# --- what a host may set ------------------------------------------------------------------------------------


def every_argument(trainer):
    """Each field of the arguments that is not taken away from its default."""
    for field in dataclasses.fields(transformers.TrainingArguments):
        if field.name not in TAKEN:
            setattr(trainer.args, field.name, another(field.name, getattr(trainer.args, field.name)))


def another(name, value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, enum.Enum):
        return next(other for other in type(value) if other != value)
    return value + 3 if isinstance(value, (int, float)) else f"another {name}"


def raising(name):
    def method(*args, **kwargs):
        raise AssertionError(f"{name} of the host's trainer was called")

    return method


def every_method(trainer):
    """A class that overrides all that transformers' Trainer has."""
    methods = {
        name: raising(name)
        for name, _ in inspect.getmembers(transformers.Trainer, inspect.isroutine)
        if not name.startswith("__")
    }
    trainer.__class__ = type("Raising", (type(trainer),), methods)


def every_attribute(trainer):
    """The same on the object, where it comes before the class; and what transformers reads from a trainer
    beside its arguments."""
    for name, _ in inspect.getmembers(transformers.Trainer, inspect.isroutine):
        if not name.startswith("__"):
            setattr(trainer, name, raising(name))
    trainer.neftune_noise_alpha = 5.0
    trainer.label_smoother = trainer.compute_loss_func = trainer.compute_metrics = raising("a function")
    trainer.preprocess_logits_for_metrics = trainer.model_init = raising("a function")
    trainer.optimizer_cls_and_kwargs = (torch.optim.SGD, {"lr": 1.0})
    trainer.hub_model_id, trainer._signature_columns, trainer._train_batch_size = "hub", ["none"], 7
    trainer.loss_is_scaled_for_ga, trainer._past, trainer._created_lr_scheduler = True, raising, True


def callbacks(trainer):
    for callback in (StopAt(1), EarlyStoppingCallback(), ReadsDataLoader()):
        trainer.add_callback(callback)


@pytest.mark.parametrize("disturb", [every_argument, every_method, every_attribute, callbacks])
def test_what_a_host_sets_changes_nothing(stage, calm, disturb):
    trained, steps, _ = stage(disturb)
    assert steps == calm[1] and trained == calm[0]


def test_arguments_as_a_command_gives_them(stage, calm):
    """Valid together, and read by the host's own constructor; each of them once broke the stage, or changed
    it without a word."""
    given = dict(
        neftune_noise_alpha=5.0,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr": 1e-4},
        warmup_steps=3,
        max_steps=1,
    )
    given |= dict(
        eval_on_start=True,
        logging_strategy="epoch",
        save_strategy="no",
        dataloader_drop_last=True,
        label_smoothing_factor=0.1,
    )
    given |= dict(
        include_num_input_tokens_seen=True,
        optim="sgd",
        max_grad_norm=0.01,
        accelerator_config={"split_batches": True},
    )
    known = {field.name for field in dataclasses.fields(transformers.TrainingArguments)}
    trained, steps, _ = stage(**{name: value for name, value in given.items() if name in known})
    assert steps == calm[1] and trained == calm[0]


def test_what_is_taken_reaches_the_stage(stage):
    """Reporting and checkpointing of activations, by what the stage's own steps are told."""
    told = []

    class Asks(Reporter):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            told.append(
                (
                    type(args),
                    args.run_name,
                    args.seed,
                    args.log_level,
                    any(getattr(m, "gradient_checkpointing", False) for m in model.modules()),
                )
            )

    settings = {
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "run_name": "mine",
        "seed": 7,
        "log_level": "error",
    }
    stage(lambda trainer: trainer.add_callback(Asks()), gradient_checkpointing=True, **settings)
    assert told == [(transformers.TrainingArguments, "mine", 7, "error", True)] * STEPS


def test_reporting_callbacks_stay_and_no_other(stage, tmp_path):
    """A child of an integration's callback is one too; a child of the one that steers the loop is none."""
    called = set()

    def telling(*parents):
        class Tells(*parents):
            def on_step_end(self, args, state, control, **kwargs):
                called.add(parents[0].__name__)

        return Tells()

    kinds = (
        TensorBoardCallback,
        transformers.trainer_callback.ProgressCallback,
        transformers.DefaultFlowCallback,
        TrainerCallback,
    )

    def add(trainer):
        trainer.callback_handler.callbacks[:] = [telling(kind) for kind in kinds]

    _, _, host = stage(add)
    assert called == {"TensorBoardCallback", "ProgressCallback"}
    assert [type(callback).__mro__[1] for callback in host.trainer.callback_handler.callbacks] == list(kinds)


def test_settings_of_spr_dpo_config_come_before_the_host_s(stage, tmp_path):
    """Integrations, and checkpointing of activations whatever the installed transformers calls it."""
    told = []

    class Asks(Reporter):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            told.append(
                (
                    args.run_name,
                    args.max_grad_norm,
                    any(getattr(m, "gradient_checkpointing", False) for m in model.modules()),
                )
            )

    file = tmp_path / "dpo.json"
    checkpointing = {
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
    }
    file.write_text(
        json.dumps(
            {"report_to": ["tensorboard"], "run_name": "theirs", "max_grad_norm": 0.5, **checkpointing}
        )
    )
    stage(
        lambda trainer: trainer.add_callback(Asks()),
        spr_dpo_config=str(file),
        run_name="mine",
        gradient_checkpointing=False,
    )
    assert told == [("theirs", 0.5, True)] * STEPS and list(tmp_path.rglob("events.out.tfevents.*"))


def test_a_value_that_transformers_refuses_is_one_line(stage, tmp_path):
    (tmp_path / "dpo.json").write_text('{"lr_scheduler_type": "polynomial?"}')
    with pytest.raises(UserError, match="--spr_dpo_config .*dpo.json: .*polynomial") as caught:
        stage(spr_dpo_config=str(tmp_path / "dpo.json"))
    assert "\n" not in str(caught.value)


# --- giving back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dies", [None, 0, 2])
def test_the_host_s_trainer_is_given_back(stage, dies):
    """On success and on failures: the very objects, callbacks in their order; the engine alone is the
    stage's."""
    before = {}

    def note(trainer):
        callbacks(trainer)
        if dies is not None:
            trainer.add_callback(DieAt(dies))
        every_attribute(trainer)
        trainer.model.config.use_cache = True
        before.update(
            trainer=trainer, own=dict(vars(trainer)), type=type(trainer), args=dict(vars(trainer.args))
        )
        before.update(
            callbacks=list(trainer.callback_handler.callbacks), handler=dict(vars(trainer.callback_handler))
        )
        before.update(state=dataclasses.asdict(trainer.state))

    if dies is None:
        stage(note)
    else:
        with pytest.raises(Death):
            stage(note)
    trainer = before["trainer"]
    now = vars(trainer)
    assert type(trainer) is before["type"] and now.keys() == before["own"].keys()
    assert [name for name in now if now[name] is not before["own"][name] and name not in ENGINE] == []
    assert vars(trainer.args) == before["args"] and dataclasses.asdict(trainer.state) == before["state"]
    assert (
        trainer.callback_handler.callbacks == before["callbacks"]
        and vars(trainer.callback_handler) == before["handler"]
    )
    assert trainer.model.config.use_cache is True and trainer.optimizer is not None


# --- resuming and ending ------------------------------------------------------------------------------------


def test_a_resumed_stage_does_not_begin_its_pairs_again(stage, calm):
    """Whatever the host says of its own data: ``--ignore_data_skip``."""
    with pytest.raises(Death):
        stage(lambda trainer: trainer.add_callback(DieAt(2)), ignore_data_skip=True)
    trained, steps, _ = stage(ignore_data_skip=True)
    assert steps == calm[1][2:] and trained == calm[0]


def test_an_end_before_the_plan_s_is_said_and_is_no_end(stage, calm):
    """A callback that reports may stop the loop all the same; what it has done is kept, and the same command
    goes on from there."""
    with pytest.raises(
        UserError, match=r"ended at step 3 of 4.*StopAtWhileReporting.*same command"
    ) as caught:
        stage(lambda trainer: trainer.add_callback(StopAtWhileReporting(3)))
    assert "\n" not in str(caught.value)
    trained, steps, _ = stage()
    assert steps == calm[1][3:] and trained == calm[0]


# --- a whole command ----------------------------------------------------------------------------------------


class OwnBatchesAlone:
    """A host's trainer that knows its own batches, and trains on them."""

    def _prepare_inputs(self, inputs):
        assert set(inputs) >= {"input_ids", "labels", "images"}, sorted(inputs)
        return super()._prepare_inputs(inputs)

    def get_batch_samples(self, epoch_iterator, num_batches, *device):
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, *device)
        assert all(len(batch["input_ids"]) for batch in batches)
        return batches, count

    def training_step(self, model, inputs, *args):
        assert len(inputs["labels"])
        return super().training_step(model, inputs, *args)

    def compute_loss_context_manager(self):
        assert self.model.training, "only ever for a step"
        return super().compute_loss_context_manager()


def test_a_whole_command(random_llava, tmp_path):
    """A host's training with all that the issue names, sampling, scoring, DPO, and the host's own state
    behind it."""
    from .test_rounds import SETTINGS as WHOLE

    given = dict(max_steps=1, per_device_train_batch_size=1, save_strategy="no", learning_rate=1e-3)
    flags = WHOLE | dict(
        spr_only=False, spr_annotations=str(coco_of(tmp_path)), spr_image_folder=str(random_llava / "images")
    )
    host, config = live.build(random_llava, tmp_path / "out", args=given, **flags)
    trainer, heard = host.trainer, Heard()
    trainer.add_callback(heard)
    trainer.add_callback(StopAt(1))
    trainer.__class__ = type("Own", (OwnBatchesAlone, type(trainer)), {})
    follow.train(trainer, config, host.namespace, trainer.train)
    assert heard.steps[0]["rewards/chosen"] == heard.steps[0]["rewards/rejected"] == 0
    assert trainer.state.global_step == 1 and not any(
        "rewards/margins" in entry for entry in trainer.state.log_history
    )
    exit = read_json(tmp_path / "out" / "spr" / "exit.json")
    assert exit["weights"] == weights.digests(trainer.model, sorted(weights.trainable(trainer.model)))


# --- before anything trains ---------------------------------------------------------------------------------


REFUSED = {
    "lr_scheduler_type: zigzag": "zigzag",
    "lr_scheduler_type: cosine_with_min_lr": "min_lr",
    "lr_scheduler_type: reduce_lr_on_plateau": "reduce_lr_on_plateau",
    "lr_scheduler_kwargs: {cycles: 2}": "cycles",
    "report_to: [wandb_of_tomorrow]": "report_to wandb_of_tomorrow",
}


@pytest.mark.parametrize("text", REFUSED)
def test_settings_that_would_be_refused_later(tmp_path, text):
    file = tmp_path / "dpo.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        check_settings(SPRConfig(spr=True, spr_dpo_config=str(file)))
    line = str(caught.value)
    assert line.startswith(f"--spr_dpo_config {file}: ") and REFUSED[text] in line and "\n" not in line


# --- data loader workers ------------------------------------------------------------------------------------


@pytest.fixture
def spawning():
    method = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(method, force=True)


def test_data_loader_workers_that_do_not_fork(stage, calm, spawning, monkeypatch):
    """Rows by a host whose class is in a plugin file, and by LLaVA's own data set, which no new transformers
    can import without the shims."""
    from tests.dpo import live  # as the fixtures import it

    file = Path(__file__).with_name("plugin_host.py")
    load_file(str(file))
    plugin = manager().get_plugin(str(file))
    monkeypatch.setattr(live, "LlavaHost", plugin.FileHost)
    trained, steps, host = stage(dataloader_num_workers=1)
    assert type(host) is plugin.FileHost and steps == calm[1] and trained == calm[0]


def test_a_host_that_cannot_go_to_such_workers_is_told_before_anything_is_trained(
    live_llava, spawning, tmp_path
):
    host, config = live_llava(args={"dataloader_num_workers": 2})
    check_workers(host, config)
    host.of_a_lab = lambda: None
    with pytest.raises(
        UserError,
        match="LlavaHost cannot go to data loader workers that do not fork .*dataloader_num_workers 0",
    ) as caught:
        check_workers(host, config)
    assert "\n" not in str(caught.value)
    (tmp_path / "dpo.json").write_text('{"dataloader_num_workers": 0}')
    check_workers(host, dataclasses.replace(config, spr_dpo_config=str(tmp_path / "dpo.json")))
    multiprocessing.set_start_method("fork", force=True)
    check_workers(host, config)
