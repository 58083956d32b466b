"""What the steps of one DPO stage share, and how its rows are laid out."""

from dataclasses import dataclass

import torch

from spr_plugin.config.dpo import DPOFlags
from spr_plugin.dpo import rows
from spr_plugin.dpo.features import FeatureCache, cached_features
from spr_plugin.dpo.pairs import Measured, batch_of, collate
from spr_plugin.dpo.probe import Watch
from spr_plugin.dpo.resume import Division
from spr_plugin.dpo.token_kinds import TokenWeights
from spr_plugin.progress import say
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.log import Log
from spr_plugin.training import ranks
from spr_plugin.training.engine import generating
from spr_plugin.training.host import Host


@dataclass
class Stage:
    """What the steps of one DPO stage share.

    Attributes:
        folder: the round's; checkpoints of the stage lie in ``OUTPUT_DIR/spr/dpo``, where the host's own
            resume does not look.
        entry: hash of the weights at the stage's entry.
        division: how a step's pairs are divided among ranks.
        joined: whether the two rows of a pair share their prompt (:mod:`spr_plugin.dpo.rows`).
    """

    host: Host
    config: DPOFlags
    folder: Folder
    entry: str
    cache: FeatureCache
    watch: Watch
    division: Division
    joined: bool = False

    @property
    def token_weights(self) -> TokenWeights:
        return TokenWeights(**self.config.token_weights())

    def answers(
        self, model, inputs: dict, joined: bool | None = None, collective: bool = False
    ) -> rows.Answers:
        joined = self.joined if joined is None else joined
        with cached_features(self.host, self.cache, inputs["pictures"], collective):
            answers = rows.answers(self.host, model, inputs["batch"], inputs["unshared"], joined)
        if inputs["token_weights"] is not None:
            answers.weights = answers.spread(torch.tensor(inputs["token_weights"], dtype=torch.float32))
        return answers

    def log(self, name: str) -> Log:
        return self.folder.log(name, ranks.rank())


# mean difference of a token's log-prob, two layouts
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 5e-3}


def choose_layout(stage: Stage, measured: list[Measured]) -> None:
    """Joined rows where the attention takes them and the first pair proves them equal; one line says which
    and why.
    """
    backbone, _ = stage.host.language_model()
    why = rows.no_joining(backbone.config)
    proof = ""
    if why is None:
        inputs = stage.host.on_device(batch_of(stage.host, [measured[0].pair]))
        with generating(stage.host) as in_step:
            own, joined = (
                stage.answers(stage.host.trainer.model, inputs, joined, in_step) for joined in (False, True)
            )
        difference = (
            own.token_log_probs - joined.token_log_probs
        ).abs().sum().item() / own.scored.sum().item()
        allowed = TOLERANCE[precision(stage)]
        bad = ranks.any_of(not difference <= allowed)
        proof = (
            f"the first pair's log-probs differ by {difference:.1e} a token from two rows, allowed"
            f" {allowed:.0e}"
        )
        why = proof if bad else None
    stage.joined = why is None
    if ranks.rank() == 0:
        kind = getattr(backbone.config, "_attn_implementation", "eager")
        say(
            f"DPO rows: chosen and rejected share their prompt and picture ({kind}; {proof})"
            if stage.joined
            else f"DPO rows: two a pair: {why}"
        )


def precision(stage: Stage) -> torch.dtype:
    args = stage.host.trainer.args
    if args.bf16 or args.fp16:
        return torch.bfloat16 if args.bf16 else torch.float16
    return next(p.dtype for p in stage.host.language_model()[1].parameters())


def inputs_of(stage: Stage, items: list[dict]) -> dict:
    return stage.host.on_device(collate(stage.host, items, stage.token_weights))
