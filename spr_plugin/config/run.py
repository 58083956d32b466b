"""The flags of a run as a whole."""

from dataclasses import dataclass

from spr_plugin.settings import FEW, Settings, one_of, setting


@dataclass(frozen=True)
class RunFlags(Settings):
    """What is done at all, and what of an earlier run is kept."""

    spr: bool = setting(False, "run the SPR stage after the host's training, before the host saves")
    spr_only: bool = setting(
        False, "skip the host's training: the loaded model is the start (the paper's case)", "paper"
    )
    spr_overwrite: bool = setting(False, "start over: delete what an earlier run left in OUTPUT_DIR/spr")
    spr_restart_dpo: bool = setting(
        False, "start the DPO stage over: delete its checkpoints and result, and later rounds, keep pairs"
    )
    spr_save_base: bool = setting(
        False,
        "also save the model at the stage's entry, in the host's layout, to OUTPUT_DIR/spr/base: what SPR is"
        " compared with",
    )
    spr_preset: str | None = setting(
        None,
        "a set of flags by name: paper (the method as the paper words it), author (how SPR's first author"
        " trains a 7B model) or default; a flag that is given, or that a file sets, stays as it is",
        within=one_of("paper", "author", "default"),
    )
    spr_doctor: str | None = setting(None, "train nothing; this folder gets what `spr doctor` finds")
    spr_plugin: list[str] = setting([], "Python files with hook implementations")
    spr_rounds: int = setting(
        1,
        "sample, score, pair and train so many times, each round with the model and against the reference"
        " that the one before left",
        "study",
        within=FEW,
    )
