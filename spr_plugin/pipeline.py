"""The stages in order, on the live model.

    queries → candidates → scores → pairs → reference → policy → report

Each writes under ``OUTPUT_DIR/spr/`` and skips what its log already holds, so the same command goes on after
a crash at any instant. ``--spr_rounds`` goes through them again with the improved model, in
``OUTPUT_DIR/spr/round-2/`` and so on.
"""

import contextlib
import functools
import time
from dataclasses import asdict

from spr_plugin import dpo
from spr_plugin.config.candidates import CandidatesFlags
from spr_plugin.config.dpo import DPOFlags
from spr_plugin.errors import UserError
from spr_plugin.files import read_json, remove
from spr_plugin.ids import digest
from spr_plugin.judging import judge_all
from spr_plugin.opening import Round, next_round
from spr_plugin.pairing import PreferencePair, make_pair
from spr_plugin.progress import counted, listed, say
from spr_plugin.recipes.base import Query
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.log import note_begin
from spr_plugin.runs.manifest import took
from spr_plugin.runs.steps import StepLog, last_step, told
from spr_plugin.sampling.stage import sample
from spr_plugin.training import engine, entry, ranks, weights
from spr_plugin.training.host import Host
from spr_plugin.training.trainable import beside


def run_rounds(first: Round, queries: list[Query]) -> Round:
    """All rounds, of which the last is returned; afterwards the live model is the improved one, ready for the
    host to save.
    """
    trainer = first.host.trainer
    if ranks.rank() == 0:
        remove(first.folder.failed)
    engine.to_device(trainer)
    trainer.model.config.spr_box = first.host.box_format.describe()
    if first.config.spr_save_base:
        with during("base"):
            save_base(first.host, first.folder)
    now = first
    improve(now, queries)
    for _ in range(2, first.config.spr_rounds + 1):
        with during("queries"):
            now, queries = next_round(first, now)
        improve(now, queries)
    engine.attach_engine(trainer)
    return now


def improve(now: Round, queries: list[Query]) -> None:
    """One round; afterwards the live model is the improved one in the host's own structure."""
    trainer, folder = now.host.trainer, now.folder
    own_flags = entry.requires_grad(trainer.model)
    if ranks.from_rank_0(folder.is_finished):
        dpo.choose_trainable(now.host, now.config.only(DPOFlags))
        weights.load(trainer.model, folder.policy)
        ranks.say(
            "the SPR stage is done already: its weights were read from"
            f" {folder.policy.relative_to(trainer.args.output_dir)}"
        )
    else:
        watched = dpo.held_out(queries, now.config.spr_probe_regions, now.recipe)
        train_on(now, make_pairs(now, queries), watched)
    dpo.merge_adapter(trainer.model)
    # Hosts that save what trains (LoRA's) would leave these out.
    trained = beside(now.host, now.config.only(DPOFlags))
    for name, parameter in trainer.model.named_parameters():
        parameter.requires_grad_(own_flags[name] or name in trained)
    report(folder.whole)


def make_pairs(now: Round, queries: list[Query]) -> list[PreferencePair]:
    """Sampling, scoring and pairing."""
    flags = now.config.only(CandidatesFlags)
    with during("candidates", now.folder) as summary:
        sample(now.host, queries, now.recipe, flags, now.log("candidates"), now.log("batches"))
        candidates = now.log("candidates").read()
        summary.append(f"{len(candidates)} answers about {len(queries)} queries")
    with during("scores", now.folder) as summary:
        judge_all(queries, now.recipe, now.host.trainer.args.device, candidates, now.log("scores"))
        left_out = []
        for key, title in (("reason", "without a score"), ("not_choosable", "not to be chosen")):
            reasons = listed(ranks.from_rank_0(functools.partial(now.log("scores").words, key)))
            left_out.append(f"{title}: {reasons or 'none'}")
        summary.append(f"{len(candidates)} answers judged ({'; '.join(left_out)})")
        summary += ranks.from_rank_0(lambda: now.recipe.summary(now.log("scores").read().values()))
    with during("pairs", now.folder):
        return pair(now, queries)


def pair(now: Round, queries: list[Query]) -> list[PreferencePair]:
    """Chosen and rejected of each query, or why there are none, in the log; of those, the pairs that nobody
    excluded. UserError where none is left.
    """
    log = now.log("pairs")
    if ranks.rank() == 0:
        logged, scores = log.held(), now.log("scores").read()
        if len(logged) < len(queries):
            note_begin(log.directory, len(queries), len(logged))
        for query in queries:
            made = make_pair(query, now.recipe.question(query), scores[query.id]["candidates"], now.pairing)
            if isinstance(made, str):
                record = {"id": query.id, "query": query.id, "skip": made}
            else:
                record = asdict(made)
            if record["id"] not in logged:
                log.append({**record, "recipe": now.recipe.of(query).name})
    ranks.barrier()
    records = log.read().values()
    every = [PreferencePair.from_record(record) for record in records if "skip" not in record]
    pairs = [one for one in every if one.id not in now.excluded]
    skips = [record["skip"] for record in records if "skip" in record]
    reasons = listed(counted(skips + ["marked"] * (len(every) - len(pairs))))
    name_strangers(now)
    ranks.say(f"{len(pairs)} pairs from {len(queries)} queries ({reasons or 'none skipped'})")
    if not pairs:
        where = now.folder.path / "scores"
        raise UserError(f"no preference pair is left of {len(queries)} queries ({reasons}): see {where}")
    return pairs


def name_strangers(now: Round) -> None:
    """Say in the last round which excluded pairs were none of the run's: marks may be an older run's."""
    if now.excluded and now.number == now.config.spr_rounds and ranks.rank() == 0:
        logs = [folder.log("pairs").read() for folder in (*now.earlier, now.folder)]
        if strangers := now.excluded.difference(*logs):
            say(
                f"--spr_exclude_pairs {now.config.spr_exclude_pairs}: {len(strangers)} of its"
                f" {len(now.excluded)} pairs, such as {min(strangers)}, are not of this run"
            )


def train_on(now: Round, pairs: list[PreferencePair], watched: list[Query]) -> None:
    """DPO on the pairs of all queries but the ``watched`` ones. UserError where none is left."""
    apart = {query.id for query in watched}
    pairs = [pair for pair in pairs if pair.query not in apart]
    if not pairs:
        raise UserError(
            f"no preference pair is left to train on: all come from the {len(apart)} queries that are "
            "held out; take more --spr_regions, or --spr_probe_regions 0"
        )
    flags = now.config.only(DPOFlags)
    names = dpo.choose_trainable(now.host, flags)
    entered = digest([read_json(folder / "index.json") for folder in now.entered])
    with during("dpo", now.folder) as summary:
        before = now.host.trainer.state.global_step + ranks.from_rank_0(
            lambda: sum(last_step(folder) for folder in now.earlier)
        )
        dpo.improve(now.host, now.recipe, pairs, watched, flags, now.folder, entered, before)
        weights.save(now.host.trainer.model, names, now.folder.policy)
        summary.append(ranks.from_rank_0(lambda: told(StepLog(now.folder).read(), len(pairs))))
    dpo.clean(now.folder)


@contextlib.contextmanager
def during(stage: str, folder: Folder | None = None):
    """An error from inside knows the stage it comes from; what it took is added up in the folder's manifest,
    and said with what is put into the list.
    """
    start, summary = time.monotonic(), []
    try:
        yield summary
    except Exception as error:
        vars(error).setdefault("spr_stage", stage)
        raise
    seconds = time.monotonic() - start
    for what in summary:
        ranks.say(f"{stage}: {what}, {seconds:.0f} s")
    if folder and ranks.rank() == 0:
        took(folder, stage, seconds)


def save_base(host: Host, folder: Folder) -> None:
    """The model as it enters the stage in the host's own layout: what SPR is to be compared with."""
    if not ranks.from_rank_0(folder.base.exists):
        draft = folder.base.with_name("base.tmp")
        host.save(str(draft))
        if ranks.rank() == 0:
            draft.rename(folder.base)
        ranks.barrier()


def report(folder: Folder) -> None:
    """The run's report, of all its rounds up to now; it must not cost anybody a trained model."""
    from spr_plugin.report.page import write_report

    if ranks.rank() == 0:
        try:
            say(f"report: {write_report(folder.path)}")
        except UserError as error:
            say(f"no report: {error}")
    ranks.barrier()
