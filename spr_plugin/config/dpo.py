"""The flags of the DPO stage."""

from dataclasses import dataclass

from spr_plugin.config.shared import AnswerFlags, SeedFlags
from spr_plugin.settings import (
    FEW,
    HALF,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    WEIGHTS,
    one_of,
    setting,
    weighed,
    weights_of,
)

LOSS_TYPES = (
    *("sigmoid", "hinge", "ipo", "robust", "sigmoid_norm", "bco_pair", "nca_pair", "apo_zero", "sft"),
    *("dpop", "kl_words"),  # which TRL does not have
)
SFT_WEIGHT = 3.0  # of the chosen answer, beside a loss of preference: docs/reproduction.md
TOKEN_KINDS = ("words", "coordinates", "changed", "unchanged")


@dataclass(frozen=True)
class DPOFlags(AnswerFlags, SeedFlags):
    """What is trained, on which loss, and when it stops."""

    spr_exclude_pairs: str | None = setting(
        None,
        "train on no pair that this file marks: OUTPUT_DIR/spr-marks.jsonl of `spr inspect`, or any lines of"
        " {pair, note}",
        shapes="dpo",
    )
    spr_tune: str = setting(
        "lora",
        "what DPO trains when the host trains all weights: lora (an adapter, merged at the end) or full",
        within=one_of("lora", "full"),
        shapes="dpo",
    )
    spr_tune_projector: bool = setting(False, "train the multimodal projector too", shapes="dpo")
    spr_tune_vision_tower: bool = setting(
        False, "train the vision tower too, all of it; its features are not cached then", shapes="dpo"
    )
    spr_lora_r: int = setting(
        16,
        "rank of the adapter (a host that trains with LoRA keeps its own)",
        "study",
        within=FEW,
        shapes="dpo",
    )
    spr_lora_alpha: int = setting(32, "LoRA scale is alpha / rank", within=POSITIVE, shapes="dpo")
    spr_beta: float = setting(0.5, "beta of the DPO loss", "study", within=POSITIVE, shapes="dpo")
    spr_learning_rate: float = setting(
        5e-5,
        "peak learning rate of the DPO stage, cosine decay after 10 % warm-up; --spr_tune full wants a fifth"
        " of it",
        "study",
        within=POSITIVE,
        shapes="dpo",
    )
    spr_rate_ratio: float = setting(
        0.0,
        "peak learning rate as so many times the host's --learning_rate, at which the model is taught; 0, or"
        " where --spr_learning_rate is given: that one counts",
        within=NOT_NEGATIVE,
        shapes="dpo",
    )
    spr_epochs: float = setting(2.0, "passes over the preference pairs", "study", within=FEW, shapes="dpo")
    spr_batch_size: int = setting(4, "pairs in one step on one device", within=FEW, shapes="dpo")
    spr_gradient_accumulation: int = setting(
        1, "steps of --spr_batch_size pairs to one optimizer step", within=FEW, shapes="dpo"
    )
    spr_loss_type: list[str] = setting(
        ["sigmoid", "sft"],
        "losses by TRL's names: sigmoid (DPO), hinge, ipo, robust, sigmoid_norm, bco_pair, nca_pair,"
        " apo_zero, sft (of the chosen answer), and dpop, kl_words (words stay at the entry's); several are"
        " added up",
        "paper: sigmoid; sft: study",
        within=one_of(*LOSS_TYPES),
        shapes="dpo",
    )
    spr_loss_weights: list[float] = setting(
        [],
        f"their weights; default: 1 each, {SFT_WEIGHT:g} for sft beside others",
        "study",
        within=WEIGHTS,
        shapes="dpo",
    )
    spr_token_weight: list[str] = setting(
        [],
        "how much a token counts in DPO and sft, as KIND=WEIGHT: words, coordinates; times changed, unchanged"
        " (what the pair's other answer does not say, or says too); default: 1 each",
        within=weights_of(*TOKEN_KINDS),
        shapes="dpo",
    )
    spr_label_smoothing: float = setting(
        0.0, "share of pairs that the robust loss takes to be the wrong way round", within=HALF, shapes="dpo"
    )
    spr_dpop_lambda: float = setting(
        50.0,
        "weight of dpop's penalty for a chosen answer that falls below the reference",
        "Smaug, arXiv 2402.13228",
        within=NOT_NEGATIVE,
        shapes="dpo",
    )
    spr_dpo_config: str | None = setting(
        None,
        "YAML or JSON file with settings of the DPO stage by the names of TRL's DPOConfig; what the stage"
        " would not honour is refused",
        shapes="dpo",
    )
    spr_save_steps: int = setting(
        100,
        "steps of the DPO stage between two checkpoints to resume it from (trained weights and optimizer"
        " alone)",
        within=POSITIVE,
    )
    spr_probe_steps: int = setting(
        50,
        "steps between two looks at held-out regions: readable answers, boxes an answer, S_loc",
        within=POSITIVE,
    )
    spr_probe_regions: int = setting(
        16, "regions held out for that, at most a tenth of all", within=NOT_NEGATIVE, shapes="dpo"
    )
    spr_keep_best: bool = setting(
        True,
        "the host saves the probed state of the DPO stage with the highest S_loc, not the last one",
        shapes="dpo",
    )
    spr_collapse: float = setting(
        0.5,
        "the DPO stage stops when a probed value falls below this share of what it was at the entry",
        within=SHARE,
    )
    spr_max_too_long: float = setting(
        0.05,
        "the run stops when more than this share of the pairs is longer than the host's maximum length",
        within=SHARE,
    )
    spr_feature_cache: float = setting(
        4.0,
        "GiB of host memory that each rank keeps image features in, while vision tower and projector are"
        " frozen",
        within=NOT_NEGATIVE,
    )

    def losses(self) -> tuple[list[str], list[float]]:
        """Names and weights of the losses that are added up."""
        names = list(self.spr_loss_type)
        usual = [SFT_WEIGHT if name == "sft" and len(names) > 1 else 1.0 for name in names]
        return names, list(self.spr_loss_weights) or usual

    def peak_rate(self, host_rate: float) -> float:
        """The peak learning rate on a host that trains at `host_rate`."""
        return self.spr_rate_ratio * host_rate if self.spr_rate_ratio else self.spr_learning_rate

    def token_weights(self) -> dict[str, float]:
        """Weight by kind of token, of those that are given."""
        return weighed(self.spr_token_weight)
