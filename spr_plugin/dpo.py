"""Stage 4: DPO on the host's own Trainer.

The host's trainer object is lent another class, other arguments and the pairs as data for the time of the stage, so that DeepSpeed,
DDP and the host's save work on the engine that the trainer holds. The reference is the model as it enters the stage: its log-probs
are computed once per pair, before anything moves, by the same forward and row layout as the policy's.

    L = − E [ log σ( β log π(y_w|x)/π_ref(y_w|x) − β log π(y_l|x)/π_ref(y_l|x) ) ]        (SPR paper, stage 4)
"""

import contextlib
import copy
import dataclasses

import torch
import torch.nn.functional as F

from spr_plugin import ranks, weights
from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.host import Host
from spr_plugin.pairing import PreferencePair
from spr_plugin.progress import progress, say
from spr_plugin.sampling import generating
from spr_plugin.store import Log

ADAPTER = "spr"


def completion_log_probs(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum over completion positions of log π(label), and their number, one each a row.

    Args:
        logits: ``(B, T, V)``; position t predicts the label at t + 1. Softmax is taken in fp32.
        labels: ``(B, T)``, -100 off the completion.
    """
    target = labels[:, 1:]
    scored = target != -100
    rows = logits[:, :-1][scored].float()
    token_log_probs = rows.log_softmax(-1).gather(-1, target[scored][:, None])[:, 0]
    placed = torch.zeros(target.shape, dtype=torch.float32, device=logits.device).masked_scatter(scored, token_log_probs)
    return placed.sum(1), scored.sum(1)


def dpo_loss(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta: float):
    """Sigmoid DPO loss a pair and the two implicit rewards; all arguments are ``(B,)`` summed log-probs."""
    chosen_reward = beta * (policy_chosen - reference_chosen)
    rejected_reward = beta * (policy_rejected - reference_rejected)
    return -F.logsigmoid(chosen_reward - rejected_reward), chosen_reward, rejected_reward


# --- rows and batches ---------------------------------------------------------------------------------------------------------


class PairRows(torch.utils.data.Dataset):
    """Index → the two host rows of a pair with its reference log-probs."""

    def __init__(self, host: Host, pairs: list[PreferencePair], reference: dict[str, dict]):
        self.host, self.pairs, self.reference = host, pairs, reference

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        pair = self.pairs[index]
        known = self.reference.get(pair.id, {"chosen": 0.0, "rejected": 0.0})
        return {**pair_rows(self.host, pair), "reference": (known["chosen"], known["rejected"])}


def pair_rows(host: Host, pair: PreferencePair) -> dict:
    return {side: host.row(pair.image, pair.prompt, getattr(pair, side)) for side in ("chosen", "rejected")}


def collate(host: Host, items: list[dict]) -> dict:
    """Pairs → one host batch of ``[chosen …, rejected …]`` rows and their reference log-probs ``(2B,)`` in the same order."""
    batch = host.batch([item["chosen"] for item in items] + [item["rejected"] for item in items])
    reference = torch.tensor([item["reference"] for item in items], dtype=torch.float32).T.reshape(-1)
    return {"batch": batch, "reference": reference}


def usable_pairs(host: Host, pairs: list[PreferencePair]) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Pairs whose rows keep the whole answer within the host's length, and those that the host would cut or mask."""
    fits, too_long = [], []
    for pair in pairs:
        (fits if all(host.fits(row) for row in pair_rows(host, pair).values()) else too_long).append(pair)
    return fits, too_long


# --- reference ----------------------------------------------------------------------------------------------------------------


def reference_log_probs(host: Host, pairs: list[PreferencePair], config: SPRConfig, log: Log) -> dict[str, dict]:
    """Pair id → ``{"chosen", "rejected"}`` log-probs of the model as it is now; what ``log`` holds is not computed again."""
    held = ranks.agreed(lambda: set(log.read()))
    missing = [pair for pair in pairs if pair.id not in held]
    size = config.spr_batch_size
    batches = [missing[i : i + size] for i in range(0, len(missing), size)]
    if batches:
        with generating(host), dropout_off(host.trainer.model):
            turns = ranks.rounds(batches)
            for batch, mine in progress(turns, len(turns), "reference", show=ranks.rank() == 0):
                inputs = host.trainer._prepare_inputs(collate(host, [PairRows(host, batch, {})[i] for i in range(len(batch))]))
                sums, _ = completion_log_probs(*host.logits_and_labels(host.trainer.model, inputs["batch"]))
                chosen, rejected = sums.tolist()[: len(batch)], sums.tolist()[len(batch) :]
                if mine:
                    log.append(*({"id": p.id, "chosen": c, "rejected": r} for p, c, r in zip(batch, chosen, rejected)))
        ranks.barrier()
    return log.read()


# --- what trains --------------------------------------------------------------------------------------------------------------


def choose_trainable(host: Host, config: SPRConfig) -> list[str]:
    """Set ``requires_grad`` for the stage and return the names of what trains; adds an adapter to a host that trains all weights."""
    model = host.trainer.model
    before = weights.trainable(model)
    host_lora = [name for name in before if "lora_" in name]
    if needs_adapter(model, config):
        _add_adapter(host, config)
        names = [name for name in weights.trainable(model) if f".{ADAPTER}." in name]
    else:
        names = host_lora or [name for name in before if not host.is_projector(name)]
    if config.spr_tune_projector:
        names += [name for name, _ in model.named_parameters() if host.is_projector(name)]
    wanted = set(names)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in wanted)
    if not wanted:
        raise UserError("the SPR stage has nothing to train: the host froze all weights; use --spr_tune lora or --spr_tune_projector")
    return sorted(wanted)


def _add_adapter(host: Host, config: SPRConfig) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(config.spr_seed)
    settings = LoraConfig(
        r=config.spr_lora_r, lora_alpha=config.spr_lora_alpha, lora_dropout=0.0, bias="none", target_modules=host.language_layers()
    )
    inject_adapter_in_model(settings, host.trainer.model, adapter_name=ADAPTER)


def needs_adapter(model, config: SPRConfig) -> bool:
    """Whether the stage brings its own adapter: with ``--spr_tune lora``, to a host that has none."""
    return config.spr_tune == "lora" and not any("lora_" in name for name in weights.trainable(model))


def merge_adapter(model) -> None:
    """Fold our adapter into the weights and give the model back its own modules."""
    if not any(f".{ADAPTER}." in name for name, _ in model.named_parameters()):
        return
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if not isinstance(module, LoraLayer) or ADAPTER not in module.lora_A:
            continue
        with torch.no_grad(), weights.gathered(module.parameters(), modify=True):
            if ranks.rank() == 0 or not weights.sharded(module):
                base = module.get_base_layer().weight
                base.data += module.get_delta_weight(ADAPTER).to(base.dtype)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, module.get_base_layer())


@contextlib.contextmanager
def dropout_off(model):
    """Every dropout of the model at 0 inside: policy and reference must differ by their weights alone."""
    changed = []
    for module in model.modules():
        for attribute in ("p",) if isinstance(module, torch.nn.Dropout) else ("attention_dropout", "dropout"):
            value = getattr(module, attribute, None)
            if isinstance(value, float) and value:
                changed.append((module, attribute, value))
                setattr(module, attribute, 0.0)
    yield
    for module, attribute, value in changed:
        setattr(module, attribute, value)


# --- the training phase -------------------------------------------------------------------------------------------------------


class PreferencePhase:
    """Put before the host trainer's class for the time of the stage; ``self.spr`` holds ``(host, config)``."""

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        host, config = self.spr
        logits, labels = host.logits_and_labels(model, inputs["batch"])
        sums, tokens = completion_log_probs(logits, labels)
        (chosen, rejected), (ref_chosen, ref_rejected) = sums.chunk(2), inputs["reference"].chunk(2)
        losses, chosen_reward, rejected_reward = dpo_loss(chosen, rejected, ref_chosen, ref_rejected, config.spr_beta)
        sft_loss = -(chosen / tokens.chunk(2)[0]).mean()
        loss = sft_loss if config.spr_pairing == "sft" else losses.mean() + config.spr_sft_weight * sft_loss
        self.spr_metrics.append(
            {
                "rewards/chosen": chosen_reward.mean().item(),
                "rewards/rejected": rejected_reward.mean().item(),
                "rewards/margins": (chosen_reward - rejected_reward).mean().item(),
                "rewards/accuracies": (chosen_reward > rejected_reward).float().mean().item(),
                "logps/chosen": chosen.mean().item(),
                "logps/rejected": rejected.mean().item(),
            }
        )
        return (loss, {"logits": logits}) if return_outputs else loss

    def log(self, logs, *args, **kwargs):
        if self.spr_metrics and "loss" in logs:
            means = {key: sum(m[key] for m in self.spr_metrics) / len(self.spr_metrics) for key in self.spr_metrics[0]}
            self.spr_metrics.clear()
            logs = {**logs, **means}
        return super().log({f"spr/{key}" if "/" not in key else key: value for key, value in logs.items()}, *args, **kwargs)

    def create_optimizer(self, model=None):
        """One AdamW group of what trains; hosts' own groups can be empty, which DeepSpeed and torch's schedulers do not take."""
        if self.optimizer is None:
            trained = [p for p in self.model.parameters() if p.requires_grad]
            self.optimizer = torch.optim.AdamW(trained, lr=self.args.learning_rate, weight_decay=0.0)
        return self.optimizer

    def _get_train_sampler(self, *args):
        generator = torch.Generator().manual_seed(self.spr[1].spr_seed)
        return torch.utils.data.RandomSampler(self.train_dataset, generator=generator)


def arguments(args, config: SPRConfig, pairs: int, output_dir: str):
    """The host's TrainingArguments with the optimizer settings of the stage; validated anew, which also rereads a DeepSpeed file."""
    per_step = config.spr_batch_size * config.spr_gradient_accumulation * args.world_size
    steps = max(1, round(config.spr_epochs * max(1, -(-pairs // per_step))))
    ours = {
        "output_dir": output_dir,
        "learning_rate": config.spr_learning_rate,
        "num_train_epochs": config.spr_epochs,
        "max_steps": -1,
        "per_device_train_batch_size": config.spr_batch_size,
        "gradient_accumulation_steps": config.spr_gradient_accumulation,
        "warmup_steps": steps // 10,
        "warmup_ratio": 0.0,
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch",
        "logging_steps": max(1, min(10, steps // 10)),
        "save_strategy": "no",
        "eval_strategy": "no",
        "evaluation_strategy": "no",
        "load_best_model_at_end": False,
        "remove_unused_columns": False,
        "label_smoothing_factor": 0.0,
        "neftune_noise_alpha": None,
        "resume_from_checkpoint": None,
    }
    known = {field.name for field in dataclasses.fields(args) if field.init}
    # transformers 5 knows warmup_ratio only as a deprecated None
    if getattr(args, "warmup_ratio", None) is None:
        ours.pop("warmup_ratio")
    return dataclasses.replace(args, **{name: value for name, value in ours.items() if name in known})


@contextlib.contextmanager
def lent(trainer, phase_args, dataset, collator, host: Host, config: SPRConfig):
    """The host's trainer as a preference trainer; afterwards it is the host's again but keeps model, engine and accelerator."""
    own = {name: getattr(trainer, name) for name in ("args", "train_dataset", "data_collator", "state", "control", "compute_loss_func")
           if hasattr(trainer, name)}  # fmt: skip
    own_class = trainer.__class__
    release_engine(trainer)
    trainer.__class__ = type(f"SPR{own_class.__name__}", (PreferencePhase, own_class), {})
    trainer.args, trainer.train_dataset, trainer.data_collator = phase_args, dataset, collator
    trainer.state, trainer.control = copy.deepcopy(trainer.state), copy.deepcopy(trainer.control)
    trainer.compute_loss_func = None
    trainer.spr, trainer.spr_metrics = (host, config), []
    _new_accelerator(trainer)
    try:
        yield trainer
    finally:
        trainer.__class__ = own_class
        for name, value in own.items():
            setattr(trainer, name, value)
        del trainer.spr, trainer.spr_metrics


def release_engine(trainer) -> None:
    """Let go of the wrapper, optimizer and schedule of the training before; a DeepSpeed engine also takes its hooks off the model."""
    engine = getattr(trainer, "deepspeed", None)
    if engine is not None and hasattr(engine, "destroy"):
        engine.destroy()
    trainer.deepspeed = None
    trainer.model_wrapped = trainer.model
    trainer.optimizer = trainer.lr_scheduler = None


def to_device(trainer) -> None:
    """Where the host's training was skipped, DeepSpeed has not moved the model yet; ZeRO-3 parts stay where they are."""
    if not weights.sharded(trainer.model):
        trainer.model.to(trainer.args.device)


def _new_accelerator(trainer) -> None:
    """An Accelerator for the arguments of the stage: DeepSpeed's batch sizes and optimizer settings are bound to it."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    trainer.create_accelerator_and_postprocess()


def train(host: Host, pairs: list[PreferencePair], reference: dict[str, dict], config: SPRConfig, output_dir: str) -> None:
    """Run the stage on the live model with transformers' own training loop, whatever ``train`` the host's trainer has."""
    from transformers import Trainer

    trainer = host.trainer
    phase_args = arguments(trainer.args, config, len(pairs), output_dir)
    names = weights.trainable(trainer.model)
    count = sum(weights.numel(p) for p in trainer.model.parameters() if p.requires_grad)
    if ranks.rank() == 0:
        say(f"DPO on {len(pairs)} pairs; trains {count:,} weights in {len(names)} tensors ({names[0]} …)")
    rows = PairRows(host, pairs, reference)
    with dropout_off(trainer.model), lent(trainer, phase_args, rows, lambda items: collate(host, items), host, config):
        Trainer.train(trainer)
