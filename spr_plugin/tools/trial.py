"""What `spr doctor` tries of a command: the stages themselves on two records, and what they say of the whole
run (:mod:`spr_plugin.forecast`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spr_plugin import dpo, forecast
from spr_plugin.config import SPRConfig
from spr_plugin.config.candidates import CandidatesFlags
from spr_plugin.config.dpo import DPOFlags
from spr_plugin.dpo.probe import number_held_out
from spr_plugin.dpo.rehearsal import ANSWER
from spr_plugin.forecast import Plan, Shape, Trial
from spr_plugin.judging import judge_all
from spr_plugin.opening import Round
from spr_plugin.pairing import PreferencePair
from spr_plugin.recipes.base import Query
from spr_plugin.runs.layout import Folder
from spr_plugin.sampling.stage import sample
from spr_plugin.training import ranks, shapes
from spr_plugin.training.cost import Cost, measured
from spr_plugin.training.host import Host


@dataclass(frozen=True)
class Tried:
    """What a trial took, and what it knows of the run.

    Attributes:
        answers: how many were sampled; 0 where they are imported.
        queries: that were asked.
    """

    answers: int
    queries: int
    sampling: Cost
    judging: Cost
    step: Cost
    shape: Shape
    plan: Plan

    @property
    def trial(self) -> Trial:
        seconds = self.sampling.seconds, self.judging.seconds, self.step.seconds
        return Trial(self.queries, max(1, self.answers // self.queries), *seconds)

    def told(self, config: SPRConfig) -> str:
        asked = f"{self.answers} answers to {self.queries} queries: {self.sampling}; judged: {self.judging}"
        if config.spr_candidates:
            asked = "answers are imported (--spr_candidates)"
        return f"{asked}; a DPO step of {config.spr_batch_size} pairs a rank: {self.step}"


def tried(first: Round, queries: list[Query], folder: Folder, every: int) -> Tried:
    """The stages on these queries, of `every` that the run has, in a folder that is removed by the caller."""
    host, recipe, config = first.host, first.recipe, first.config
    own = folder.log("candidates", ranks.rank())
    with measured() as sampling:
        if not config.spr_candidates:
            plan = folder.log("batches", ranks.rank())
            sample(host, queries, recipe, config.only(CandidatesFlags), own, plan)
    answers = own.read()
    with measured() as judging:
        if answers:
            scores = folder.log("scores", ranks.rank())
            judge_all(queries, recipe, host.trainer.args.device, answers, scores)
    pairs = [pair_of(first, query, answers) for query in queries]
    step = dpo.try_step(host, recipe, pairs, config.only(DPOFlags), folder)
    shape = shapes.shape_of(host, config.spr_clip)
    return Tried(
        *(len(answers), len(queries), sampling, judging, step),
        *(shape, plan_of(host, config, shape, pairs, every)),
    )


def pair_of(first: Round, query: Query, answers: Mapping[str, dict]) -> PreferencePair:
    """A pair of the size of those to come: the worked answer over the longest that the model gave."""
    recipe = first.recipe
    chosen = recipe.worked(query) or ANSWER
    texts = [one["text"] for one in answers.values() if one["query"] == query.id]
    others = [*sorted(texts, key=len, reverse=True), recipe.worked(query, short=True) or "", ANSWER, "No."]
    rejected = next(text for text in others if text.strip() and text != chosen)
    asked = query.id, query.id, recipe.question(query), query.sources
    return PreferencePair(*asked, chosen, rejected, 1.0, 0.0, "", "")


def plan_of(host: Host, config: SPRConfig, shape: Shape, pairs: list[PreferencePair], queries: int) -> Plan:
    """How the command would run, of pairs that are as long as any."""
    return shapes.plan_of(
        host,
        shape,
        [
            host.row(pair.pictures, pair.prompt, text)
            for pair in pairs
            for text in (pair.chosen, pair.rejected)
        ],
        pairs=config.spr_batch_size,
        prompts=config.spr_sample_batch,
        samples=config.spr_samples,
        new_tokens=config.spr_max_new_tokens,
        probes=min(number_held_out(queries, config.spr_probe_regions), config.spr_sample_batch),
        pictures=queries,
        cache=int(config.spr_feature_cache * 2**30),
    )


def foreseen(first: Round, tried: Tried, queries: int) -> str:
    """What the whole run will take: memory of each stage on one rank by formula, hours by the trial."""
    config = first.config
    memory = forecast.memory(tried.shape, tried.plan)
    where = "of one GPU" if tried.plan.gpu else "above the process"
    stages = ", ".join(f"{stage} {size / 2**30:.2f}" for stage, size in memory.items())
    workload = forecast.Workload(
        queries=queries,
        ranks=ranks.world(),
        step=config.spr_batch_size,
        accumulation=config.spr_gradient_accumulation,
        epochs=config.spr_epochs,
        watched=number_held_out(queries, config.spr_probe_regions),
        looks_every=config.spr_probe_steps,
    )
    hours = tried.trial.seconds(workload) / 3600
    return f"GiB {where}: {stages}; {queries} queries at most {hours:.2f} h (forecast)"
