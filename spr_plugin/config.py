"""The ``--spr_*`` flags: one dataclass that joins the host's own in ``HfArgumentParser``.

Nothing heavy is imported here: the boot module reads it at interpreter start. "paper" as origin means the SPR
paper states the value; "study" that docs/reproduction.md supports it, "ours" that we chose it.
"""

from dataclasses import dataclass

from spr_plugin.settings import (
    FEW,
    HALF,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    WEIGHTS,
    Settings,
    kinds_of,
    one_of,
    setting,
)

PROMPT_KINDS = ("plain", "crop", "reference")
SAMPLERS = ("live", "openai")
LOSS_TYPES = ("sigmoid", "hinge", "ipo", "robust", "sft")
MAX_PIXELS = 178_956_970  # where Pillow refuses by itself

# Stages in their order. A flag shapes the records of one of them, and so of those behind it, or of none.
STAGES = ("regions", "candidates", "scores", "pairs", "dpo")


@dataclass(frozen=True)
class SPRConfig(Settings):
    """Flags of the SPR stage."""

    spr: bool = setting(False, "run the SPR stage after the host's training, before the host saves")
    spr_only: bool = setting(
        False, "skip the host's training: the loaded model is the start (the paper's case)", "paper"
    )
    spr_overwrite: bool = setting(False, "start over: delete what an earlier run left in OUTPUT_DIR/spr")
    spr_save_base: bool = setting(
        False,
        "also save the model at the stage's entry, in the host's layout, to OUTPUT_DIR/spr/base: what SPR is"
        " compared with",
    )
    spr_doctor: str | None = setting(None, "train nothing; this folder gets what `spr doctor` finds")
    spr_plugin: list[str] = setting([], "Python files with hook implementations")
    spr_recipe: str = setting(
        "spr", "what is asked and what a good answer is: spr, spatial_thinker, a plugin's", shapes="regions"
    )
    spr_recipe_config: str | None = setting(
        None,
        "YAML file with a section of settings a recipe; that of spr sets its flags (without spr_), over the"
        " command line",
        shapes="regions",
    )

    spr_annotations: str | None = setting(
        None,
        "COCO-format JSON with object boxes; default: mined from the grounded conversations of --data_path",
        shapes="regions",
    )
    spr_image_folder: str | None = setting(
        None, "folder of the annotated images; default: the host's --image_folder", shapes="regions"
    )
    spr_allow_outside: bool = setting(
        False, "use pictures that `..`, an absolute name or a link lead to outside it"
    )
    spr_max_pixels: int = setting(
        MAX_PIXELS,
        "larger pictures are left out, by their headers; raises Pillow's own limit too",
        "Pillow",
        within=POSITIVE,
        shapes="regions",
    )
    spr_data_aspect: str | None = setting(
        None,
        "how the pictures of --data_path were seen by whoever wrote its boxes (pad, square …); default: the"
        " host's --image_aspect_ratio",
        shapes="regions",
    )
    spr_exclude: list[str] = setting(
        [],
        "files or folders that name pictures to leave out: RefCOCO's val and test lie in COCO's training set",
        shapes="regions",
    )
    spr_min_objects: int = setting(
        1, "pictures with fewer objects are left out", within=NOT_NEGATIVE, shapes="regions"
    )
    spr_min_area: float = setting(
        0.0, "objects of fewer square pixels are left out", within=NOT_NEGATIVE, shapes="regions"
    )
    spr_keep_crowd: bool = setting(
        False, "groups (iscrowd) and ignored objects of --spr_annotations count as objects", shapes="regions"
    )
    spr_regions: int = setting(
        10000, "number of region queries", "paper: 10k images", within=POSITIVE, shapes="regions"
    )
    spr_regions_per_image: int = setting(1, "regions grown in one image", within=POSITIVE, shapes="regions")
    spr_more_than: int = setting(
        4,
        "a region grows until it holds more than this many objects",
        "paper",
        within=NOT_NEGATIVE,
        shapes="regions",
    )
    spr_seed: int = setting(0, "seed of regions and sampling", within=NOT_NEGATIVE, shapes="regions")

    spr_prompts: list[str] = setting(
        list(PROMPT_KINDS),
        "prompt variants that are sampled",
        "paper",
        within=one_of(*PROMPT_KINDS),
        shapes="candidates",
    )
    spr_samples: int = setting(
        2, "answers sampled for each prompt variant of a region", "study", within=FEW, shapes="candidates"
    )
    spr_temperature: float = setting(1.0, "sampling temperature", within=POSITIVE, shapes="candidates")
    spr_top_p: float = setting(1.0, "nucleus sampling mass", within=SHARE, shapes="candidates")
    spr_top_k: int = setting(
        0, "sample among so many tokens; 0: all", within=NOT_NEGATIVE, shapes="candidates"
    )
    spr_max_new_tokens: int = setting(256, "longest answer, in tokens", within=POSITIVE, shapes="candidates")
    spr_sample_batch: int = setting(8, "prompts answered in one batch", within=FEW, shapes="candidates")
    spr_sampler: str = setting(
        "live",
        "who answers: live (the model in training) or openai (a server that speaks OpenAI's chat"
        " completions)",
        within=one_of(*SAMPLERS),
        shapes="candidates",
    )
    spr_sampler_url: str | None = setting(
        None, "base address of that server, such as http://localhost:8000/v1"
    )
    spr_sampler_model: str | None = setting(
        None, "name of the model there; default: the first that the server lists", shapes="candidates"
    )
    spr_sampler_concurrency: int = setting(16, "requests to that server at once", within=FEW)
    spr_sampler_timeout: float = setting(
        300.0, "seconds that a request may take before it is sent again", within=POSITIVE
    )
    spr_max_empty: float = setting(
        0.1,
        "the run stops when more than this share of that server's answers is empty; they are asked for again",
        within=SHARE,
    )
    spr_candidates: str | None = setting(
        None,
        "take regions and candidates of the same model from here: a folder of `spr sample`, or OUTPUT_DIR/spr"
        " of an earlier run (for ablations)",
        shapes="candidates",
    )

    spr_box_format: str | None = setting(
        None,
        "box text of the model (llava, ferret, shikra …); default: the host's family",
        shapes="candidates",
    )
    spr_clip: str | None = setting(
        None,
        "CLIP checkpoint of the semantic score; default: the host's --vision_tower, whose repository holds"
        " the text tower too",
        shapes="scores",
    )
    spr_detector: str | None = setting(
        None,
        "Grounding DINO or OWLv2 checkpoint whose boxes join the ground truth; default: annotations alone",
        shapes="scores",
    )
    spr_detector_threshold: float = setting(
        0.35,
        "a detector's box counts from this score on",
        "Grounding DINO's demo",
        within=SHARE,
        shapes="scores",
    )
    spr_no_detector: bool = setting(
        False,
        "ablation: --spr_detector is not asked, truth is the annotations and predictions are the written"
        " boxes",
        shapes="scores",
    )
    spr_scorer: str = setting("spr", "scorer of the candidates, by name", shapes="scores")
    spr_lambda: float = setting(
        0.8,
        "weight of the semantic score: S = lambda S_sem + (1 - lambda) S_loc",
        "paper",
        within=SHARE,
        shapes="scores",
    )
    spr_no_local: bool = setting(False, "ablation: S_sem is the crop's similarity alone", shapes="scores")
    spr_repair: str = setting(
        "coordinates",
        "what goes with a box that has no match: its coordinates, or the item; ablation: none (as answered)",
        "paper",
        shapes="scores",
    )
    spr_match: str = setting(
        "iou",
        "what makes boxes match in repair and S_loc: iou, or iou and name (nouns; CLIP where they differ)",
        "paper",
        within=one_of("iou", "name"),
        shapes="scores",
    )
    spr_match_threshold: float = setting(
        0.9, "cosine of two names from which on they agree, where nouns differ", within=SHARE, shapes="scores"
    )
    spr_count_duplicates: bool = setting(
        False, "a second box on one object counts in S_loc as an object that was missed", shapes="scores"
    )
    spr_reject_vague: bool = setting(
        False,
        "words without a box that can be read have S_loc 0 and may be rejected, never chosen",
        shapes="scores",
    )
    spr_min_kept: float = setting(
        0.8,
        "a repaired description that keeps less than this share of its boxes (item: names) is not chosen",
        "study",
        within=SHARE,
        shapes="scores",
    )
    spr_pairing: str = setting(
        "best_worst",
        "best_worst; ablations: random (two answers drawn by chance) or sft (train on the chosen alone, no"
        " DPO)",
        "paper",
        shapes="pairs",
    )
    spr_min_gap: float = setting(
        0.0,
        "a region is skipped when S of chosen is not above that of rejected, or by less than this",
        within=NOT_NEGATIVE,
        shapes="pairs",
    )

    spr_rounds: int = setting(
        1,
        "sample, score, pair and train so many times, each round with the model and against the reference"
        " that the one before left",
        "study",
        within=FEW,
    )
    spr_tune: str = setting(
        "lora",
        "what DPO trains when the host trains all weights: lora (an adapter, merged at the end) or full",
        within=one_of("lora", "full"),
        shapes="dpo",
    )
    spr_tune_projector: bool = setting(False, "train the multimodal projector too", shapes="dpo")
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
    spr_epochs: float = setting(2.0, "passes over the preference pairs", "study", within=FEW, shapes="dpo")
    spr_batch_size: int = setting(4, "pairs in one step on one device", within=FEW, shapes="dpo")
    spr_gradient_accumulation: int = setting(
        1, "steps of --spr_batch_size pairs to one optimizer step", within=FEW, shapes="dpo"
    )
    spr_loss_type: list[str] = setting(
        ["sigmoid", "sft"],
        "losses by TRL's names: sigmoid (DPO), hinge, ipo, robust, sft (of the chosen answer); several are"
        " added up",
        "paper: sigmoid; sft: study",
        within=one_of(*LOSS_TYPES),
        shapes="dpo",
    )
    spr_loss_weights: list[float] = setting(
        [], "their weights; default: 1 each", within=WEIGHTS, shapes="dpo"
    )
    spr_label_smoothing: float = setting(
        0.0, "share of pairs that the robust loss takes to be the wrong way round", within=HALF, shapes="dpo"
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
    spr_restart_dpo: bool = setting(
        False, "start the DPO stage over: delete its checkpoints and result, and later rounds, keep pairs"
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
        if self.spr_pairing == "sft":
            return ["sft"], [1.0]
        return list(self.spr_loss_type), list(self.spr_loss_weights) or [1.0] * len(self.spr_loss_type)

    def __post_init__(self):
        self._set({name: kind.read(getattr(self, name), f"--{name}") for name, kind in KINDS.items()})
        if self.spr_only:
            self._set({"spr": True})
        from spr_plugin.config_checks import check, dpo_settings, recipe_settings

        self._set({**recipe_settings(self)[0], **dpo_settings(self)[0]})
        if self.spr:
            check(self)


KINDS = kinds_of(SPRConfig)
