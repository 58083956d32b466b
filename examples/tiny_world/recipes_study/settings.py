"""The study of recipes as plain data: what is trained, on how much, and what the papers say."""

from dataclasses import dataclass, field

STUDY = "examples/tiny_world/recipes_study/"
SEEDS = (0, 1, 2)  # of the stage: its scenes, questions and sampling
TUNED = 9  # the seed that settings are chosen on
SCENES = {"sft": 1500, "spr": 300}  # of the cold start, of each seed's stage
CONVERSATIONS = 150  # scenes, whose talks go with the worked answers: SPR's questions are not unlearned
# What each model is asked of its recipe, about so many scenes; SPR's own questions come on held-out ones.
QUESTIONS = {"val": 200, "test": 500}
SCENES_ASKED = {"val": 100, "test": 250}
ASKED_SEED = 91
OWN = {"count": 80, "described": 50, "seed": 90}
STAGE = """--spr_only True --spr_save_base False --spr_tune full --spr_batch_size 8 --spr_epochs 2
    --spr_beta 0.5 --spr_sample_batch 32"""
COLD = """--spr_only False --spr_save_base True --num_train_epochs 1 --max_steps -1
    --per_device_train_batch_size 4 --learning_rate 1e-3"""


@dataclass(frozen=True)
class Studied:
    """What is done with one recipe.

    Attributes:
        title: in tables.
        main: the figure that settings are chosen by.
        flags: of its stage.
        worked: worked answers of the cold start.
        rates: that were tried; the one with most right answers on validation scenes is taken.
        smaller: other sizes of the cold start, tried on validation scenes.
        section: the recipe's own settings.
    """

    title: str
    main: str
    flags: str
    worked: int
    rates: tuple[str, ...]
    smaller: tuple[int, ...] = ()
    section: dict = field(default_factory=dict)


RECIPES = {
    "spatial_ssrl": Studied(
        "Spatial-SSRL",
        "exact",
        "--spr_regions 300 --spr_samples 5 --spr_max_new_tokens 64",
        worked=1500,
        rates=("5e-5", "2e-4", "1e-5"),
        # of 96 pixels none lies 150 beside another
        section={"distance": "code", "resample": 0},
    ),
    "spatial_thinker": Studied(
        "SpatialThinker",
        "answer",
        "--spr_regions 160 --spr_samples 4 --spr_max_new_tokens 400",
        worked=1200,
        rates=("1e-5",),
    ),
}


@dataclass(frozen=True)
class Paper:
    """What a paper reports, and the page of its recipe."""

    title: str
    model: str
    result: str
    page: str


PAPERS = {
    "spatial_ssrl": Paper(
        "Spatial-SSRL", "Qwen2.5-VL-7B, GRPO", "mean of 7 benchmarks 52.69 → 56.58", "recipes-ssrl.md"
    ),
    "spatial_thinker": Paper(
        "SpatialThinker", "Qwen2.5-VL-7B, GRPO", "mean of 14 benchmarks 62.8 → 70.5", "recipes-thinker.md"
    ),
    "actial": Paper(
        "Actial", "Qwen2.5-VL-7B, SFT and GRPO", "CV-Bench 71.2 → 83.5, MMSI 26.5 → 28.9", "recipes-actial.md"
    ),
}
