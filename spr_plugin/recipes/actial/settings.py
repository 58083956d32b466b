"""The section ``actial`` of ``--spr_recipe_config``."""

from dataclasses import dataclass

from spr_plugin.recipes.actial.motion import MOTIONS, TASKS
from spr_plugin.settings import NOT_NEGATIVE, Range, one_of, setting, weighed, weights_of

# With these each question has left, right and none as often, and turning with a move tells no side.
SHARES = ["orbit=5", "turn=3", "shift=3", "still=1"]
DEGREES = Range("must lie between 10 and 180", lambda degrees: 10 <= degrees <= 180)


@dataclass(frozen=True)
class ActialSettings:
    """What is asked, and what an answer is worth."""

    tasks: list[str] = setting(list(TASKS), "questions, in turn", "paper", within=one_of(*TASKS))
    motions: list[str] = setting(
        SHARES,
        "how often each comes, as NAME=WEIGHT: orbit (moved and turned, the paper's alone), turn and shift"
        " (one without the other), still; what is not named comes as 1",
        within=weights_of(*MOTIONS),
    )
    per_scene: int = setting(
        10,
        "questions about one scene",
        "paper",
        within=Range("must lie between 1 and 1000", range(1, 1001).__contains__),
    )
    least_apart: float = setting(
        20.0, "degrees from which on two pictures make an orbit", "paper", within=DEGREES
    )
    most_apart: float = setting(100.0, "degrees up to which they do", "paper", within=DEGREES)
    format_half: str = setting(
        "paper",
        "who gets the half for the format; paper (text and code): wrong answers too; right: right ones alone",
        "paper",
        within=one_of("paper", "right"),
    )
    resample: int = setting(
        2, "a query whose answers are all right or all wrong is asked so many times more", within=NOT_NEGATIVE
    )


def weights(settings: ActialSettings) -> dict[str, float]:
    """How often each motion comes, as seen from the others."""
    return {**dict.fromkeys(MOTIONS, 1.0), **weighed(settings.motions)}
