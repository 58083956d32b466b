"""The Trainer of the DPO stage: transformers' own, with the stage's loss, optimizer, order and checkpoints.

It is an object of its own. Of the host's trainer it has no method and no attribute, of its arguments those in
``FROM_HOST``, of its callbacks those that report; so nothing else reaches the stage, and nothing has to be
given back. What the stage leaves to the host's trainer is the engine (:func:`hand_over`), which holds the
model that the host saves.
"""

import dataclasses
import functools
import multiprocessing
import pickle
from pathlib import Path

import torch
from transformers import DefaultFlowCallback, Trainer, TrainingArguments, get_scheduler
from transformers import trainer as trainer_module
from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from spr_plugin.config import dpo_settings
from spr_plugin.config.dpo import DPOFlags
from spr_plugin.dpo import resume
from spr_plugin.dpo.logbook import Logbook
from spr_plugin.dpo.loss import LossSettings, deltas, metrics, preference_losses, word_drift
from spr_plugin.dpo.pairs import collate
from spr_plugin.dpo.resume import Division
from spr_plugin.dpo.rows import Answers
from spr_plugin.dpo.shown import StageProgress
from spr_plugin.dpo.token_kinds import apart
from spr_plugin.errors import UserError
from spr_plugin.files import write_json
from spr_plugin.imports import replaced
from spr_plugin.progress import Progress
from spr_plugin.training import ranks, weights
from spr_plugin.training.deepspeed_settings import stage_settings
from spr_plugin.training.host import Host

# Of the host's TrainingArguments, as far as the installed transformers has them; all else is the stage's own
# or transformers' default.
FROM_HOST = {
    "device": "use_cpu local_rank ddp_backend ddp_timeout ddp_find_unused_parameters ddp_bucket_cap_mb "
    "ddp_broadcast_buffers",
    "precision": "bf16 fp16 tf32 half_precision_backend fp16_opt_level",
    "sharding": "deepspeed",
    "workers": "dataloader_num_workers dataloader_pin_memory",
    "checkpointing of activations": "gradient_checkpointing gradient_checkpointing_kwargs",
    # hub_private_repo: whether the space that trackio writes to is a private one
    "reporting": "run_name project logging_dir disable_tqdm log_level log_level_replica log_on_each_node "
    "trackio_space_id trackio_bucket_id trackio_static_space_id hub_private_repo",
    "seed": "seed data_seed full_determinism",
}
# transformers refuses these without a worker
OF_WORKERS = "dataloader_persistent_workers dataloader_prefetch_factor dataloader_multiprocessing_context"
# name of a field → the one that replaced it
RENAMED = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
# of a trainer: what its model runs in, and what was made with it
ENGINE = "accelerator gather_function is_deepspeed_enabled model_wrapped deepspeed optimizer lr_scheduler"
INTEGRATIONS = tuple(INTEGRATION_TO_CALLBACK.values())
# the last one is a notebook's, in a notebook
PROGRESS = (ProgressCallback, PrinterCallback, trainer_module.DEFAULT_PROGRESS_CALLBACK)
PLAIN_PROGRESS = (ProgressCallback, PrinterCallback)  # StageProgress is there in their place


def arguments(
    host_args, config: DPOFlags, division: Division, steps: int, output_dir: str
) -> TrainingArguments:
    """The stage's arguments: its own, with what ``FROM_HOST`` names of the host's; ``--spr_dpo_config`` goes
    over both.

    To make them binds the process's state (devices, DeepSpeed) to them.

    Raises:
        UserError: transformers refuses a value of ``--spr_dpo_config``.
    """
    given = dpo_settings(config)[1]
    names = " ".join(FROM_HOST.values()).split()
    if given.get("dataloader_num_workers", host_args.dataloader_num_workers):
        names += OF_WORKERS.split()
    settings = {name: getattr(host_args, name) for name in names if hasattr(host_args, name)}
    if host_args.deepspeed:
        settings["deepspeed"] = stage_settings(host_args.deepspeed)
    settings |= {
        "output_dir": output_dir,
        "num_train_epochs": 1,  # the plan holds all of them
        "per_device_train_batch_size": division.batch,
        "gradient_accumulation_steps": division.accumulation,
        "learning_rate": config.peak_rate(host_args.learning_rate),
        "lr_scheduler_type": "cosine",
        "warmup_steps": steps // 10,
        "optim": "adamw_torch",
        "weight_decay": 0.0,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "max_grad_norm": 1.0,
        "logging_steps": max(1, min(10, steps // 10)),
        "logging_nan_inf_filter": False,
        "save_steps": config.spr_save_steps,
        "remove_unused_columns": False,
        "report_to": [],  # the host's callbacks are there already
        **given,
    }
    known = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    for old, new in RENAMED.items():
        if new in known and old in settings:
            settings[new] = settings.pop(old)
    try:
        return TrainingArguments(**{name: value for name, value in settings.items() if name in known})
    except ValueError as error:
        if not given:
            raise
        raise UserError(f"--spr_dpo_config {config.spr_dpo_config}: {' '.join(str(error).split())}") from None


def check_settings(config: DPOFlags) -> None:
    """UserError for values of the Trainer's settings that torch or transformers would refuse once the stage
    trains: they are asked now."""
    path, settings = config.spr_dpo_config, dpo_settings(config)[1]
    if not settings:
        return
    given = settings.get
    kind = given("lr_scheduler_type", "cosine")
    optimizer = torch.optim.SGD([torch.zeros(1)], 1e-3)
    try:
        schedule = get_scheduler(kind, optimizer, 1, 10, given("lr_scheduler_kwargs"))
        optimizer.step()
        schedule.step()  # one that follows a metric wants it here, and the stage evaluates none
    except (ValueError, TypeError, ArithmeticError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"--spr_dpo_config {path}: lr_scheduler_type {kind}: {why}") from None
    (warmup,) = (field for field in dataclasses.fields(TrainingArguments) if field.name == "warmup_steps")
    if 0 < given("warmup_steps", 0) < 1 and warmup.type in (int, "int"):
        raise UserError(
            f"--spr_dpo_config {path}: warmup_steps {given('warmup_steps')}: this transformers knows no share"
            " of all steps; give a whole number"
        )
    known = {"none", "all", *get_available_reporting_integrations()}
    if missing := sorted(set(given("report_to", [])) - known):
        raise UserError(
            f"--spr_dpo_config {path}: report_to {', '.join(missing)} is not installed, or not known to this "
            "transformers"
        )


def check_workers(host: Host, config: DPOFlags) -> None:
    """UserError, before anything is trained, where data loader workers would not be forked and the host
    cannot go to them."""
    args = host.trainer.args
    workers = dpo_settings(config)[1].get("dataloader_num_workers", args.dataloader_num_workers)
    # To ask for the method without allow_none would fix it for the process.
    chosen = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    if workers and (getattr(args, "dataloader_multiprocessing_context", None) or chosen) != "fork":
        pickle.dumps(host)


def hand_over(stage_trainer: Trainer, host_trainer) -> None:
    """Leave the engine to the host's trainer, by which the model answers and is saved. Nothing else of that
    object changes."""
    for name in ENGINE.split():
        setattr(host_trainer, name, getattr(stage_trainer, name))


class PreferenceTrainer(Trainer):
    """transformers' Trainer on the pairs of a :class:`spr_plugin.dpo.stage.Stage`."""

    def __init__(self, stage, args: TrainingArguments, dataset, logbook: Logbook, progress: Progress):
        from accelerate.state import AcceleratorState

        host_trainer = stage.host.trainer
        settings = host_trainer.model.config
        use_cache = getattr(settings, "use_cache", None)
        AcceleratorState._reset_state()  # DeepSpeed's batch sizes and optimizer settings are bound to it
        super().__init__(
            host_trainer.model,
            args,
            functools.partial(collate, stage.host, weights=stage.token_weights),
            dataset,
        )
        if use_cache is not None:
            settings.use_cache = use_cache  # transformers 5 sets it
        self.spr, self.logbook = stage, logbook
        self.add_callback(StageProgress(progress))
        # The Trainer divides by accumulation steps, whatever the host's forward takes.
        self.model_accepts_loss_kwargs = False
        # By it transformers aligns the model's special tokens, as for the host's training, which --spr_only
        # skips.
        self.processing_class = getattr(host_trainer, "processing_class", None)
        self.callback_handler.callbacks[:] = self._callbacks(host_trainer)

    def _callbacks(self, host_trainer) -> list:
        """What steers the loop and shows it, and of the host's what reports; integrations that
        ``--spr_dpo_config`` names come in place of the host's."""
        own, from_host = (DefaultFlowCallback, StageProgress), (*INTEGRATIONS, *PROGRESS)
        if "report_to" in dpo_settings(self.spr.config)[1]:
            own, from_host = (*own, *INTEGRATIONS), PROGRESS
        kept = [callback for callback in self.callback_handler.callbacks if isinstance(callback, own)]
        theirs = host_trainer.callback_handler.callbacks
        return kept + [
            one for one in theirs if isinstance(one, from_host) and type(one) not in PLAIN_PROGRESS
        ]

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        stage, config = self.spr, self.spr.config
        answers = stage.answers(model, inputs, collective=weights.sharded(self.model))
        reference, weight, mean_chosen_tokens = (
            torch.tensor(inputs[name], dtype=torch.float32, device=answers.sums.device)
            for name in ("reference", "weight", "mean_chosen_tokens")
        )
        kinds, shares = config.losses()
        drift = self._drift(answers, inputs) if "kl_words" in kinds else None
        pairs, real = deltas(answers, reference, mean_chosen_tokens, drift), weight > 0
        settings = LossSettings(config.spr_beta, config.spr_label_smoothing, config.spr_dpop_lambda)
        losses = preference_losses(pairs, kinds, shares, settings)
        loss = (losses * weight).sum()
        if ranks.any_of(not bool(torch.isfinite(losses).all())):
            self._stop_at_bad_loss(losses, inputs)
        parts = apart(answers, inputs["coordinates"])
        values = {"loss": losses.detach(), **metrics(pairs, config.spr_beta), **parts}
        self.logbook.hear(values, real)
        return (loss, {"logits": answers.token_log_probs}) if return_outputs else loss

    def _drift(self, answers: Answers, inputs: dict) -> torch.Tensor:
        entry = inputs["reference_tokens"]
        known = None if entry is None else torch.tensor(entry, dtype=torch.float32)
        return word_drift(answers, inputs["coordinates"], known)

    def log(self, logs, *args, **kwargs):
        """Our means over all ranks' pairs since the last log stand beside (for the loss: in place of) the
        Trainer's own."""
        if "loss" in logs:
            logs = {**logs, **self.logbook.report()}
        named = {f"spr/{key}" if "/" not in key else key: value for key, value in logs.items()}
        with replaced(self, "state", self.logbook.reported(self.state)):
            return super().log(named, *args, **kwargs)

    def _stop_at_bad_loss(self, losses, inputs):
        """No gradient has been taken yet: keep the state, write down the pairs, stop on every rank."""
        stage, step = self.spr, self.state.global_step
        bad = [id for id, loss in zip(inputs["ids"], losses.tolist()) if not abs(loss) < float("inf")]
        everyone = [id for ids in ranks.from_all(bad) for id in ids]
        folder = stage.folder.bad_pairs
        known = {one.pair.id: one.pair for one in self.train_dataset.measured}
        for id in bad:
            write_json(folder / f"{id}.json", dataclasses.asdict(known[id]) | {"step": step})
        kept = "as it entered the stage"
        if step:
            self._save_checkpoint(self.model, None)
            kept = f"before it, in {stage.folder.dpo / f'checkpoint-{step}'}"
        raise UserError(
            f"the DPO loss is not finite at step {step + 1}, pair {everyone[0]} (written to {folder}); the "
            f"state is kept {kept}: lower --spr_learning_rate, or look at the pair, and start the DPO stage "
            "over with --spr_restart_dpo"
        )

    def refuse_early_end(self, steps: int) -> None:
        """Keep the state of a loop that was stopped before the plan's last step, and say so. Of what is in
        the loop nothing else can have done that than what reports."""
        step = self.state.global_step
        if step:
            self._save_checkpoint(self.model, None)
        reporting = (*INTEGRATIONS, *PROGRESS)
        suspects = [
            type(one).__name__
            for one in self.callback_handler.callbacks
            if isinstance(one, reporting) and not isinstance(one, StageProgress)
        ]
        raise UserError(
            f"the DPO stage ended at step {step} of {steps}, and not for a collapse: one of its callbacks "
            f"that report ({', '.join(suspects)}) stopped it; take that one out and start the same command "
            "again, which goes on from there"
        )

    def save_model(self, output_dir=None, _internal_call=False):
        """What trains; a DeepSpeed engine writes that itself."""
        if not self.args.deepspeed:
            weights.save(self.model, weights.trainable(self.model), Path(output_dir) / "weights")

    def _load_from_checkpoint(self, checkpoint, model=None):
        weights.load(self.model, Path(checkpoint) / "weights")

    def _save_checkpoint(self, model, trial, *args, **kwargs):
        failure = None
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, UserError) as error:
            failure = " ".join(str(error).split())
        if failure := next(filter(None, ranks.from_all(failure)), None):
            raise UserError(
                f"the DPO stage cannot write its checkpoint of step {self.state.global_step} ({failure}); "
                "make room and start the same command again"
            )
        resume.finish(self.spr.folder.dpo / f"checkpoint-{self.state.global_step}", self.spr.division)

    def create_optimizer(self, model=None):
        """One AdamW group of what trains; hosts' own groups can be empty, which DeepSpeed and torch's
        schedulers do not take. Where a DeepSpeed file offloads the optimizer, accelerate makes DeepSpeed's
        own AdamW of it."""
        if self.optimizer is None:
            trained = [p for p in self.model.parameters() if p.requires_grad]
            args = self.args
            betas = args.adam_beta1, args.adam_beta2
            self.optimizer = torch.optim.AdamW(
                trained, args.learning_rate, betas, args.adam_epsilon, args.weight_decay
            )
        return self.optimizer

    def _get_train_sampler(self, *args):
        return torch.utils.data.SequentialSampler(self.train_dataset)  # the plan is in order
