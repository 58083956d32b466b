"""The study as plain data: which models are trained, with which flags, on which seeds.

A variant differs from ``main`` in what it names and in nothing else. Where the answers of ``main`` can serve,
they do: then only scores, pairs and DPO differ.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from spr_plugin.tools import demo

SEEDS = (0, 1, 2)
# Of the scenes that are asked about; those of SPR differ between seeds.
ASKED = {"count": 500, "described": 400}
SCENES = {"sft": 8, "spr": 2300, "val": 0, "test": 0}
MAIN, AS_WORDED, GRPO = "main", "as the paper words it", "GRPO with IoU reward"
# The paper's Ferret-7B on referring expressions, percent: before and with SPR.
PAPER = {"Acc@0.5": (83.91, 84.93), "Acc@0.6": (81.28, 82.36), "Acc@0.7": (76.72, 78.42), "Acc@0.8": (67.02, 70.09), "Acc@0.9": (43.25, 52.21)}  # fmt: skip  # noqa: E501
# Lmms-eval's names: every question, referring expressions alone.
ALL, REC = ("spr_tiny_world", "spr_tiny_world_rec")

COMMON = """--spr_only True --spr_save_base False --spr_max_new_tokens 160 --spr_sample_batch 16
    --spr_save_steps 25 --spr_regions 1000 --spr_tune full --spr_batch_size 8 --spr_epochs 2"""
# Of METHOD what misses least of the targets.
CHOSEN = "--spr_learning_rate 1e-4 --spr_beta 0.5"
# The method without what we added to it: --spr_preset paper, in flags.
WORDED = """--spr_greedy False --spr_repair coordinates --spr_match iou --spr_reject_vague False
    --spr_add_missed False --spr_loss_type sigmoid sft --spr_loss_weights 1 1"""
UNREPAIRED = "--spr_add_missed False"  # what is added is refinement too

# As VLM-R1 trains: 8 answers to each of 16 prompts a step, temperature 1, the language model alone; grpo.py
# works out the steps. β is TRL's default, 0; VLM-R1's 0.04 would ask a reference about every answer.
GRPO_COMMON = """--num_generations 8 --per_device_train_batch_size 128 --temperature 1 --loss_type grpo
    --max_completion_length 24 --weight_decay 0 --gradient_checkpointing False --bf16 False --use_cpu True
    --save_strategy no --report_to none --logging_steps 10 --disable_tqdm True"""


class Asked(NamedTuple):
    """Scenes that are asked about, the same for all seeds: of this split, drawn with a seed of their own."""

    split: str
    seed: int

    def numbers(self) -> dict[str, int]:
        """What else `scenes.write_evaluation` is told of them."""
        return {**ASKED, "seed": self.seed}


# Another default is measured on other test scenes than the one before it.
VAL, TEST, TEST_OF_MORE = Asked("val", 90), Asked("test", 91), Asked("test", 92)


@dataclass(frozen=True)
class Variant:
    """One row of a table.

    Attributes:
        flags: on top of those of all variants; they may be LLaVA's own too.
        seeds: it runs on.
        tasks: of lmms-eval, that it is measured with.
        own_answers: it asks the model itself, since those that are lent would not be its own.
        answers_of: the variant that lends them, where that is not the plan's lender.
        world: settings of `scenes.write_world` for its data.
        own_base: LLaVA's own training comes first, and what comes out of it is the base.
        grpo: trained by grpo.py, with the tokens that ``main`` spent; its flags are TRL's.
    """

    flags: str = ""
    seeds: tuple[int, ...] = SEEDS[:1]
    tasks: str = REC
    own_answers: bool = False
    answers_of: str = ""
    world: dict[str, float] = field(default_factory=dict)
    own_base: bool = False
    grpo: bool = False


# LLaVA's own training, as the same command's first stage.
TAUGHT = """--spr_only False --spr_save_base True --max_steps 120 --per_device_train_batch_size 16
    --learning_rate 2e-4"""


def taught(noise: float) -> Variant:
    """SPR behind LLaVA's own training on boxes with so much noise (of a side, on each edge), at a quarter of
    its rate.
    """
    flags = f"{TAUGHT} --spr_learning_rate 5e-5"
    return Variant(flags, tasks=ALL, own_answers=True, world={"sft": 1600, "noise": noise}, own_base=True)


# More of what is trained on; the paper has 10,000 pictures.
MORE, MORE_REGIONS, MORE_SCENES = "4000 regions", "--spr_regions 4000", {"spr": 4600}

VARIANTS = {
    MAIN: Variant("", SEEDS, ALL, own_answers=True),
    # three seeds: what the paper claims
    "SFT on chosen": Variant("--spr_pairing sft", SEEDS, ALL),
    AS_WORDED: Variant(WORDED, SEEDS, ALL, own_answers=True),
    "no refinement": Variant(f"--spr_repair none {UNREPAIRED}", SEEDS, ALL),
    "no refinement, filtered": Variant(
        f"--spr_plugin examples/tiny_world/reproduce/unrepaired.py {UNREPAIRED}", SEEDS, ALL
    ),
    "lambda 0": Variant("--spr_lambda 0", SEEDS, ALL),
    "lambda 1": Variant("--spr_lambda 1", SEEDS, ALL),
    "2 rounds": Variant("--spr_rounds 2", SEEDS, ALL, own_answers=True),
    # what chosen answers without any mistake would teach
    "ceiling": Variant("--spr_plugin examples/tiny_world/reproduce/ceiling.py", tasks=ALL),
    # one seed, one factor at a time, referring expressions
    "lambda 0.2": Variant("--spr_lambda 0.2"),
    "lambda 0.5": Variant("--spr_lambda 0.5"),
    "no local score": Variant("--spr_no_local True"),
    "detector joined": Variant(
        "--spr_plugin examples/tiny_world/detector.py --spr_detector examples/tiny_world/detector"
    ),
    "random pairs": Variant("--spr_pairing random"),
    "names matched": Variant("--spr_match name", tasks=ALL),
    "losses weigh the same": Variant("--spr_loss_weights 1 1", tasks=ALL),
    "beta 0.1": Variant("--spr_beta 0.1"),
    "beta 1": Variant("--spr_beta 1"),
    # DPO alone; the stage's own probe would stop the first
    "no SFT term": Variant("--spr_loss_type sigmoid --spr_collapse 0", tasks=ALL),
    "no SFT term, learning rate 2e-5": Variant("--spr_loss_type sigmoid --spr_learning_rate 2e-5", tasks=ALL),
    "learning rate 5e-5": Variant("--spr_learning_rate 5e-5"),
    "learning rate 2e-4": Variant("--spr_learning_rate 2e-4"),
    "1 epoch": Variant("--spr_epochs 1"),
    "LoRA 16": Variant("--spr_tune lora --spr_learning_rate 5e-4"),
    "LoRA 4": Variant("--spr_tune lora --spr_learning_rate 5e-4 --spr_lora_r 4 --spr_lora_alpha 8"),
    "LoRA 64": Variant("--spr_tune lora --spr_learning_rate 5e-4 --spr_lora_r 64 --spr_lora_alpha 128"),
    "1 answer a prompt": Variant("--spr_samples 1", own_answers=True),
    "4 answers a prompt": Variant("--spr_samples 4", own_answers=True),
    "plain prompt, 6 answers": Variant("--spr_prompts plain --spr_samples 6", own_answers=True),
    "250 regions": Variant("--spr_regions 250", own_answers=True),
    "500 regions": Variant("--spr_regions 500", own_answers=True),
    MORE: Variant(MORE_REGIONS, own_answers=True, world=MORE_SCENES),
    "3 rounds": Variant("--spr_rounds 3", own_answers=True),
    "annotation noise 0.05": Variant(own_answers=True, world={"spr_noise": 0.05}),
    "SFT noise 0": taught(0.0),
    "SFT noise 0.04": taught(0.04),
    "SFT noise 0.16": taught(0.16),
    GRPO: Variant(f"{GRPO_COMMON} --learning_rate 3e-5", tasks=ALL, grpo=True),
}


def tried(
    flags: str = "",
    rate: str = "5e-5",
    beta: str = "0.5",
    losses: str = "sigmoid sft",
    weights: str | None = None,
    **how,
) -> Variant:
    """A row of TUNE or METHOD, which stands alone; its losses weigh 1 each, or `weights`. It is asked
    everything: all of it chooses settings.
    """
    weights = weights or " ".join("1" for _ in losses.split())
    trained = (
        f"--spr_learning_rate {rate} --spr_beta {beta} --spr_loss_type {losses} --spr_loss_weights {weights}"
    )
    return Variant(f"{trained} {flags}".strip(), tasks=ALL, **how)


# On validation scenes, before anything is read on the held-out ones. Each stands alone, so that a new choice
# leaves it as it is; the first one's answers serve all. What is tuned here is SPR as the paper words it.
TUNE = {
    "lr 5e-5": tried(own_answers=True),
    "lr 2e-5": tried(rate="2e-5"),
    "lr 1e-4": tried(rate="1e-4"),
    "lr 2e-4": tried(rate="2e-4"),
    "beta 0.1": tried(beta="0.1"),
    "lr 1e-4, beta 1, SFT 3": tried(rate="1e-4", beta="1", weights="1 3"),
    "lr 2e-4, beta 1, SFT 3": tried(rate="2e-4", beta="1", weights="1 3"),
    "min kept 0.6": tried("--spr_min_kept 0.6"),
    "min kept 1": tried("--spr_min_kept 1"),
    "LoRA 16, lr 3e-4": tried("--spr_tune lora", "3e-4"),
    "LoRA 16, lr 1e-3": tried("--spr_tune lora", "1e-3"),
    "LoRA 16, lr 3e-3": tried("--spr_tune lora", "3e-3"),
    "GRPO, lr 3e-5": Variant(f"{GRPO_COMMON} --learning_rate 3e-5", tasks=ALL, grpo=True),
    "GRPO, lr 1e-4": Variant(f"{GRPO_COMMON} --learning_rate 1e-4", tasks=ALL, grpo=True),
}

# The method's own flags, on validation scenes too, one factor at a time around `WHOLE`. The answers of
# "greedy" serve those that sample as it does. Rates: the study's, a half and a quarter of it.
WHOLE = "--spr_greedy True --spr_repair item --spr_match name --spr_reject_vague True --spr_add_missed True"
UNMATCHED = WHOLE.replace("--spr_match name", "--spr_match iou")


def of_more(rate: str, flags: str = "", **how) -> Variant:
    """A row of METHOD with more regions, on the answers of the first of these."""
    how = {"answers_of": MORE, "world": MORE_SCENES, **how}
    return tried(f"{UNMATCHED} {MORE_REGIONS} {flags}".strip(), rate, **how)


METHOD = {
    "greedy": tried(f"{WORDED} --spr_greedy True", "2e-4", own_answers=True),
    "missed added": tried(f"{WORDED} --spr_greedy True --spr_add_missed True"),
    "whole": tried(WHOLE),
    "whole, lr 1e-4": tried(WHOLE, "1e-4"),
    "whole, lr 2e-4": tried(WHOLE, "2e-4"),
    "coordinates alone": tried(f"{WHOLE} --spr_token_weight words=0"),
    "words a tenth": tried(f"{WHOLE} --spr_token_weight words=0.1"),
    "repaired pairs, changed coordinates alone": tried(
        f"{WHOLE} --spr_pairing repaired --spr_token_weight words=0 unchanged=0"
    ),
    "half of the pairs repaired": tried(f"{WHOLE} --spr_pairing best_worst=0.5 repaired=0.5"),
    "SFT a quarter": tried(WHOLE, weights="1 0.25"),
    "SFT threefold, lr 1e-4": tried(WHOLE, "1e-4", weights="1 3"),
    "SFT threefold, lr 2e-4": tried(WHOLE, "2e-4", weights="1 3"),
    "SFT tenfold, lr 1e-4": tried(WHOLE, "1e-4", weights="1 10"),
    "SFT tenfold": tried(WHOLE, weights="1 10"),
    "SFT tenfold, KL on words, lr 1e-4": tried(
        WHOLE, "1e-4", losses="sigmoid sft kl_words", weights="1 10 10"
    ),
    "SFT tenfold, names not matched": tried(UNMATCHED, weights="1 10"),
    "SFT tenfold, names not matched, lr 1e-4": tried(UNMATCHED, "1e-4", weights="1 10"),
    "SFT threefold, names not matched, lr 1e-4": tried(UNMATCHED, "1e-4", weights="1 3"),
    "SFT tenfold, names not matched, KL on words, lr 1e-4": tried(
        UNMATCHED, "1e-4", losses="sigmoid sft kl_words", weights="1 10 10"
    ),
    "SFT tenfold, names not matched, temperature 0.7, lr 1e-4": tried(
        f"{UNMATCHED} --spr_temperature 0.7", "1e-4", own_answers=True, weights="1 10"
    ),
    "SFT on chosen, names not matched, lr 1e-4": tried(f"{UNMATCHED} --spr_pairing sft", "1e-4"),
    "KL on words": tried(WHOLE, losses="sigmoid sft kl_words"),
    "KL on words, lr 1e-4": tried(WHOLE, "1e-4", losses="sigmoid sft kl_words"),
    "KL on words, lr 2e-4": tried(WHOLE, "2e-4", losses="sigmoid sft kl_words"),
    "KL on words threefold, lr 2e-4": tried(WHOLE, "2e-4", losses="sigmoid sft kl_words", weights="1 1 3"),
    "KL on words, min kept 1, lr 1e-4": tried(
        f"{WHOLE} --spr_min_kept 1", "1e-4", losses="sigmoid sft kl_words"
    ),
    "DPOP": tried(WHOLE, losses="sigmoid sft dpop"),
    "pairs of equal length": tried(f"{WHOLE} --spr_pairing equal_length"),
    "temperature 0.7": tried(f"{WHOLE} --spr_temperature 0.7", own_answers=True),
    "temperature 0.7, lr 1e-4": tried(f"{WHOLE} --spr_temperature 0.7", "1e-4", own_answers=True),
    "temperature 0.5, lr 1e-4": tried(f"{WHOLE} --spr_temperature 0.5", "1e-4", own_answers=True),
    "coordinates go": tried(WHOLE.replace("--spr_repair item", "--spr_repair coordinates")),
    "names not matched": tried(UNMATCHED),
    "names not matched, lr 1e-4": tried(UNMATCHED, "1e-4"),
    "duplicates counted": tried(f"{WHOLE} --spr_count_duplicates True"),
    "SFT on chosen": tried(f"{WHOLE} --spr_pairing sft"),
    "SFT on chosen, lr 1e-4": tried(f"{WHOLE} --spr_pairing sft", "1e-4"),
    "LoRA 16": tried(f"{WHOLE} --spr_tune lora", "2.5e-4"),
    "SFT threefold, KL on words of weight 3, names not matched, lr 1e-4": tried(
        UNMATCHED, "1e-4", losses="sigmoid sft kl_words", weights="1 3 3"
    ),
    # what was taken, with more pairs
    "min kept 0.5, SFT threefold, names not matched, lr 1e-4": tried(
        f"{UNMATCHED} --spr_min_kept 0.5", "1e-4", weights="1 3"
    ),
    "min kept 0, SFT threefold, names not matched, lr 1e-4": tried(
        f"{UNMATCHED} --spr_min_kept 0", "1e-4", weights="1 3"
    ),
    MORE: of_more("1e-4", weights="1 3", own_answers=True, answers_of=""),
    f"{MORE}, lr 5e-5": of_more("5e-5", weights="1 3"),
    f"{MORE}, KL on words, lr 1e-4": of_more("1e-4", losses="sigmoid sft kl_words", weights="1 3 10"),
    f"{MORE}, KL on words of weight 3, lr 1e-4": of_more(
        "1e-4", losses="sigmoid sft kl_words", weights="1 3 3"
    ),
    f"{MORE}, losses weigh the same, lr 1e-4": of_more("1e-4"),
    f"{MORE}, SFT on chosen, lr 1e-4": of_more("1e-4", flags="--spr_pairing sft"),
    # what was taken, behind LLaVA's own training: by the ratio of rates
    **{
        f"after SFT, lr {rate}": tried(
            f"{UNMATCHED} {TAUGHT}",
            rate,
            weights="1 3",
            own_answers=True,
            world={"sft": 1600, "noise": 0.0},
            own_base=True,
        )
        for rate in ("1e-5", "2e-5", "5e-5", "1e-4")
    },
}

# The default with more data, on three seeds and scenes that nothing else is measured on. Beside it what of
# METHOD's rows with so many regions misses least of the targets.
SCALED = {
    MAIN: Variant(MORE_REGIONS, SEEDS, ALL, own_answers=True, world=MORE_SCENES),
    "words held": Variant(
        f"{MORE_REGIONS} --spr_loss_type sigmoid sft kl_words --spr_loss_weights 1 3 3",
        SEEDS,
        ALL,
        world=MORE_SCENES,
    ),
    "SFT on chosen": Variant(f"{MORE_REGIONS} --spr_pairing sft", SEEDS, ALL, world=MORE_SCENES),
    "2 rounds": Variant(f"{MORE_REGIONS} --spr_rounds 2", SEEDS, ALL, own_answers=True, world=MORE_SCENES),
}

# What `spr demo` trains, on validation scenes: its rate is chosen here.
DEMO = {
    f"demo, lr {rate}": Variant(
        f"{demo.UNTUNED} --spr_learning_rate {rate}",
        own_answers=rate == "5e-5",
        world={name: demo.SIZES[name] for name in ("sft", "spr")},
        own_base=True,
    )
    for rate in ("5e-5", "1e-4", "2e-4", "3e-4")
}


@dataclass(frozen=True)
class Plan:
    """Variants, the flags of all of them, the scenes that they are asked about, (variant, seed) in order, the
    folder of results/ that they have, and the variant whose answers serve those that have none of their own.
    """

    variants: dict[str, Variant]
    common: str
    asked: Asked
    units: tuple[tuple[str, int], ...]
    folder: str = ""
    lender: str = MAIN


def _study(*units: tuple[str, int]) -> Plan:
    return Plan(VARIANTS, f"{COMMON} {CHOSEN}", TEST, units)


def _units(variants: dict[str, Variant]) -> tuple[tuple[str, int], ...]:
    """The first seed of everything first."""
    return tuple(
        (name, seed) for seed in SEEDS for name, variant in variants.items() if seed in variant.seeds
    )


PLANS = {
    "quick": _study((MAIN, 0)),
    "main": _study(*((MAIN, seed) for seed in SEEDS)),
    "full": _study(*_units(VARIANTS)),
    "scaled": Plan(SCALED, f"{COMMON} {CHOSEN}", TEST_OF_MORE, _units(SCALED), "scaled"),
    "tune": Plan(TUNE, f"{COMMON} {WORDED}", VAL, _units(TUNE), "validation", lender="lr 5e-5"),
    "demo": Plan(DEMO, "", VAL, _units(DEMO), "demo", lender="demo, lr 5e-5"),
    "method": Plan(METHOD, COMMON, VAL, _units(METHOD), "method", lender="greedy"),
}
# One of each folder of results/.
OF_FOLDERS = ("full", "scaled", "tune", "demo", "method")
