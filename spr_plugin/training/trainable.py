"""What the stage trains, and how the host gets its own structure back."""

import contextlib
import importlib.util
from collections import Counter

import torch

from spr_plugin.config.dpo import DPOFlags
from spr_plugin.errors import UserError
from spr_plugin.progress import say
from spr_plugin.training import ranks, weights
from spr_plugin.training.host import Host

ADAPTER = "spr_stage"  # no name that a host would give to one of its own


def choose_trainable(host: Host, config: DPOFlags) -> list[str]:
    """Set ``requires_grad`` for the stage and return the names of what trains; adds an adapter to a host that
    trains all weights.

    Raises:
        UserError: nothing is left to train.
    """
    model = host.trainer.model
    if needs_adapter(model, config):
        _add_adapter(host, config)
    wanted = _wanted(host, config)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in wanted)
    if config.spr_tune_vision_tower:
        host.tower_trains()
        _widen(model, (torch.float16,))
    if weights.sharded(model):
        # DeepSpeed trains parts of one type alone.
        weights.share_type(p for p in model.parameters() if p.requires_grad)
    return sorted(wanted)


def _wanted(host: Host, config: DPOFlags) -> set[str]:
    """Of what the host trains now, its adapters if it has some, what the stage trains. UserError if that is
    nothing.
    """
    model = host.trainer.model
    trained = weights.trainable(model)
    adapters = adapter_weights(model).intersection(trained)
    parts = {"language model", *asked_parts(config)}
    # Where adapters train, they alone: the host saves nothing else.
    wanted = {name for name in adapters or trained if host.part_of(name) in parts}
    wanted |= beside(host, config)
    if not wanted:
        instead = "give its adapter targets there" if has_adapter(model) else "take --spr_tune lora"
        raise UserError(
            "the SPR stage has nothing to train: of what the host trains nothing is in the language model; "
            f"{instead}, or take --spr_tune_projector"
        )
    return wanted


def asked_parts(config: DPOFlags) -> set[str]:
    """The parts beside the language model that flags ask for."""
    asked = {"projector": config.spr_tune_projector, "vision tower": config.spr_tune_vision_tower}
    return {part for part, wanted in asked.items() if wanted}


def beside(host: Host, config: DPOFlags) -> set[str]:
    """What ``--spr_tune_projector`` and ``--spr_tune_vision_tower`` add, whether the host trains it or not.

    Raises:
        UserError: what a part learns would be lost when the host saves.
    """
    parts, model = asked_parts(config), host.trainer.model
    if not parts:
        return set()
    names = {name for name, _ in model.named_parameters()}
    if host.saves_adapter_alone:
        # What PEFT saves: its adapters, and copies of whole modules.
        names = adapter_weights(model) | {name for name in names if ".modules_to_save." in name}
    wanted = {name for name in names if host.part_of(name) in parts}
    unsaved = sorted(parts - {host.part_of(name) for name in wanted})
    if unsaved and host.saves_adapter_alone:
        raise UserError(
            f"--spr_tune_{unsaved[0].replace(' ', '_')}: PEFT saves its adapter alone, and what the"
            f" {unsaved[0]} learns would be lost; give the adapter its layers (target_modules or"
            " modules_to_save), or leave the flag out"
        )
    return wanted


def _widen(model, types: tuple[torch.dtype, ...]) -> None:
    """What trains in one of these half precisions trains in fp32: of fp16 (LLaVA's tower without --bf16)
    AdamW divides by a rounded 0, and of our adapter in bf16 most steps round to nothing, so that PEFT widens
    a host's. Under ZeRO its optimizer steps in fp32 anyway."""
    if not weights.sharded(model):
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.dtype in types:
                parameter.data = parameter.data.float()


def trains_language_model(host: Host) -> bool:
    """Whether the host's own training moves the language model, in whole or by an adapter."""
    return any(host.part_of(name) == "language model" for name in weights.trainable(host.trainer.model))


def describe(host: Host, config: DPOFlags) -> str:
    """Module groups of what trains with their sizes. UserError if a group is among them that no flag asked
    for.
    """
    tensors, numbers = Counter(), Counter()
    for name, parameter in host.trainer.model.named_parameters():
        if parameter.requires_grad:
            group = host.part_of(name) + (" (LoRA)" if "lora_" in name else "")
            tensors[group] += 1
            numbers[group] += weights.numel(parameter)
    allowed = {"language model"} | asked_parts(config)
    if unexpected := sorted(group for group in tensors if group.removesuffix(" (LoRA)") not in allowed):
        raise UserError(f"the SPR stage would train {', '.join(unexpected)}, which no flag asks for")
    return (
        ", ".join(
            f"{group} {numbers[group]:,} weights in {tensors[group]} tensors" for group in sorted(tensors)
        )
        or "nothing"
    )


def adapter_weights(model) -> set[str]:
    """Names of the weights of adapters: PEFT's of any kind, and whatever is named as LoRA names its own."""
    names = {name for name, _ in model.named_parameters() if "lora_" in name}
    for path, module in model.named_modules():
        # Kept copies of modules are no adapters, though PEFT lists them among its layers.
        for part in set(getattr(module, "adapter_layer_names", ())) - {"modules_to_save"}:
            layers = getattr(module, part, None)
            named = [] if layers is None else layers.named_parameters()
            names |= {f"{path}.{part}.{name}" for name, _ in named}
    return names


def has_adapter(model) -> bool:
    """Whether the host has brought an adapter, which is then what trains: it is what the host saves."""
    return bool(getattr(model, "peft_config", None) or adapter_weights(model))


def needs_adapter(model, config: DPOFlags) -> bool:
    """Whether the stage brings its own adapter: with ``--spr_tune lora``, to a host that has none."""
    return config.spr_tune == "lora" and not has_adapter(model)


def check_trainable(host: Host, config: DPOFlags) -> None:
    """UserError, before anything is trained, where the stage cannot read the head, would have nothing to
    train, or cannot make the adapter that it would bring."""
    model = host.trainer.model
    decoder, head = host.language_model()
    refuse_head(head, decoder.config)
    if config.spr_tune_vision_tower and host.frozen_tower:
        raise UserError(f"--spr_tune_vision_tower: {host.frozen_tower}; leave the flag out")
    if not needs_adapter(model, config):
        _check_adapters(host, config)
        return
    if importlib.util.find_spec("peft") is None:
        raise UserError("--spr_tune lora needs peft: pip install 'spr-plugin[dpo]', or take --spr_tune full")
    if not host.language_layers():
        raise UserError(
            "--spr_tune lora: the language model has no linear layer to add an adapter to; take --spr_tune"
            " full"
        )


def _check_adapters(host: Host, config: DPOFlags) -> None:
    """UserError where the host trains nothing that the stage could, or has adapters that it cannot train."""
    model = host.trainer.model
    for settings in (getattr(model, "peft_config", None) or {}).values():
        if getattr(settings, "is_prompt_learning", False):
            kind = getattr(settings.peft_type, "value", settings.peft_type)
            raise UserError(
                f"PEFT's {kind} puts learned tokens before the prompt, which the SPR stage does not ask or "
                "train: take adapters of layers (LoRA)"
            )
    adapters, wanted = adapter_weights(model), _wanted(host, config)
    if any(f".{ADAPTER}." in name for name in adapters):
        raise UserError(f"the host's adapter bears the name of the stage's own, {ADAPTER}: give it another")
    below = {name for name in wanted - adapters if host.part_of(name) == "language model"}
    if config.spr_tune == "lora" and adapters and below:
        raise UserError(
            "the host trains weights of the language model beside an adapter that is frozen, and --spr_tune "
            "lora adds no other: merge it first (merge_and_unload), or take --spr_tune full"
        )


def _add_adapter(host: Host, config: DPOFlags) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    for parameter in host.trainer.model.parameters():
        parameter.requires_grad_(False)
    # Adapters begin with random numbers: the same at every rank, and in a run that goes on.
    torch.manual_seed(config.spr_seed)
    settings = LoraConfig(
        r=config.spr_lora_r,
        lora_alpha=config.spr_lora_alpha,
        # Policy and reference must differ by their weights alone.
        lora_dropout=0.0,
        bias="none",
        target_modules=host.language_layers(),
    )
    inject_adapter_in_model(settings, host.trainer.model, adapter_name=ADAPTER)
    _widen(host.trainer.model, (torch.bfloat16, torch.float16))


def merge_adapter(model) -> None:
    """Fold our adapter into the weights and give the model back its own modules."""
    for _, module in _adapted(model):
        with torch.no_grad(), weights.gathered(module.parameters(), modify=True):
            if ranks.rank() == 0 or not weights.sharded(module):
                base = module.get_base_layer().weight
                base.data += module.get_delta_weight(ADAPTER).to(base.dtype)
    remove_adapter(model)


def remove_adapter(model) -> None:
    """Give the model back its own modules as they are, without our adapter."""
    adapted = _adapted(model)
    for name, module in adapted:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, module.get_base_layer())
    if adapted:
        vars(model).pop("peft_config", None)  # peft's note on the model


def _adapted(model) -> list[tuple]:
    """(name, module) of the layers that our adapter was added to."""
    if not any(f".{ADAPTER}." in name for name, _ in model.named_parameters()):
        return []
    from peft.tuners.lora import LoraLayer

    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and ADAPTER in module.lora_A
    ]


@contextlib.contextmanager
def dropout_off(model):
    """Every dropout of the model at 0 inside: policy and reference must differ by their weights alone."""
    changed = []
    for module in model.modules():
        # Attention keeps its share as a number, under one of these names, and hands it to a function.
        for attribute in ("p",) if isinstance(module, torch.nn.Dropout) else ("attention_dropout", "dropout"):
            value = getattr(module, attribute, None)
            if isinstance(value, float) and value:
                changed.append((module, attribute, value))
                setattr(module, attribute, 0.0)
    try:
        yield
    finally:
        for module, attribute, value in changed:
            setattr(module, attribute, value)


def announce(host: Host, config: DPOFlags) -> None:
    trains = describe(host, config)
    if ranks.rank() == 0:
        say(f"DPO trains {trains}; all else is frozen")


def refuse_head(head, config) -> None:
    """UserError for a language-model head whose logits are not just a linear map of the hidden states: here
    they would be others.
    """
    if hasattr(head, "base_layer") or hasattr(head, "original_module"):
        raise UserError(
            "the SPR stage reads the weights of the language-model head, which PEFT has wrapped in this "
            "model: leave the head (lm_head) out of the adapter's target_modules and modules_to_save"
        )
    linear = isinstance(head, torch.nn.Linear) and type(head).forward is torch.nn.Linear.forward
    if not (linear and head.weight.is_floating_point()):
        kind = f"{type(head).__name__} of {getattr(head, 'weight', torch.empty(0)).dtype}"
        raise UserError(
            f"the SPR stage computes log-probs with a plain linear language-model head; this is a {kind}"
        )
    for name in (
        "final_logit_softcapping",
        "logit_scale",
        "logits_scaling",
        "lm_head_multiplier",
        "output_multiplier",
    ):
        if getattr(config, name, None) not in (None, 1, 1.0):
            raise UserError(
                f"the SPR stage does not know what {name} = {getattr(config, name)} in the model's config"
                " does to its logits"
            )
