"""The flags of the candidates."""

from dataclasses import dataclass

from spr_plugin.config.shared import AnswerFlags
from spr_plugin.settings import FEW, NOT_NEGATIVE, POSITIVE, SHARE, one_of, setting

PLAIN = "plain"  # the prompt that is the question itself
PROMPT_KINDS = (PLAIN, "crop", "reference")
SAMPLERS = ("live", "openai")


@dataclass(frozen=True)
class CandidatesFlags(AnswerFlags):
    """What is sampled, and who answers."""

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
    spr_greedy: bool = setting(
        True,
        "the first answer to a region's plain prompt is the likeliest one (temperature 0), which names more",
        "study",
        shapes="candidates",
    )
    spr_top_p: float = setting(1.0, "nucleus sampling mass", within=SHARE, shapes="candidates")
    spr_top_k: int = setting(
        0, "sample among so many tokens; 0: all", within=NOT_NEGATIVE, shapes="candidates"
    )
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
