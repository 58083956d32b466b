"""The stages in order, inside the host's own ``trainer.train()``.

    entry → regions → candidates → scores → pairs → reference → policy → report

Each writes under ``OUTPUT_DIR/spr/`` and skips what its log already holds, so the same command goes on after a crash at any instant.
``--spr_rounds`` goes through all but the first again with the improved model, in ``OUTPUT_DIR/spr/round-2/`` and so on.
"""

import contextlib
import copy
import dataclasses
import time
import traceback
import weakref
from dataclasses import asdict, dataclass
from pathlib import Path

from spr_plugin import dpo, engine, entry, ranks, weights
from spr_plugin.config import SPRConfig
from spr_plugin.contracts import ask
from spr_plugin.deepspeed_settings import check_deepspeed
from spr_plugin.errors import UserError
from spr_plugin.files import read_json, remove, write_json
from spr_plugin.host import Host
from spr_plugin.ids import digest
from spr_plugin.pairing import PreferencePair, make_pair
from spr_plugin.pictures import limit_pixels
from spr_plugin.plugins import load_file
from spr_plugin.progress import counted, listed, progress, say
from spr_plugin.recipes.spr.prompts import prompts_for
from spr_plugin.recipes.spr.refinement import refine
from spr_plugin.region_source import (
    find_regions,
    held_regions,
    log_regions,
    settled_regions,
    write_regions,
)
from spr_plugin.recipes.spr.regions import RegionQuery
from spr_plugin.rehearsal import rehearse
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.lock import lock
from spr_plugin.runs.log import Log
from spr_plugin.runs.manifest import bind, check_layout, settings_of, took
from spr_plugin.sample_alone import adopt, check_candidates
from spr_plugin.sampling import ahead, readable, sample
from spr_plugin.recipes.spr.scoring import find_scorer, invalid
from spr_plugin.selection import keys_of_picture
from spr_plugin.trl_settings import check_settings


@dataclass(frozen=True)
class Outcome:
    """What one ``trainer.train()`` came to.

    Attributes:
        result: what the host's ``train()`` gave.
        followed: whether the SPR stage was to follow this training.
        failure: why it did not to its end, in one line; the model is then the host's, and its own code goes on.
    """

    result: object
    followed: bool = True
    failure: str | None = None


# trainers that the stage has used → the optimizer and schedule that they were made with, if with any
_used = weakref.WeakKeyDictionary()


def train(trainer, config: SPRConfig, namespace: dict, host_train) -> Outcome:
    """What ``trainer.train()`` does with ``--spr``: the host's training (unless done before), then the SPR stage on the live model.

    Args:
        trainer: the host's Trainer.
        namespace: globals of the host's training script.
        host_train: runs the host's own ``train()``.

    Raises:
        UserError: before the host trains, for whatever can be known then. After that, only where nothing can be saved: one rank of several
            fails, or ``--spr_only`` has no training to lose.
    """
    for path in config.spr_plugin:
        load_file(path)
    refuse_impossible(trainer)
    host = find_host(trainer, namespace, config)
    if not (config.spr_only or dpo.trains_language_model(host)):
        if ranks.rank() == 0:
            say("this train() moves nothing of the language model: the SPR stage follows the first one that does")
        return Outcome(host_train(), followed=False)
    training = entry.training_of(trainer, config)
    entered = not config.spr_overwrite and entry.found(Folder.under(trainer.args.output_dir), training)
    _used[trainer] = trainer.optimizer, trainer.lr_scheduler
    run = Run(host, config)
    queries = run.regions()
    if entered:
        weights.load(trainer.model, run.folder.entry)
        run.say("the host's training is done already: its weights were read from spr/entry")
    result = None if entered or config.spr_only else host_train()
    result = result or _nothing_trained(trainer)
    own_flags = entry.requires_grad(trainer.model)
    try:
        if not entered:
            with during("entry"):
                entry.save(host, config, run.folder, training)
        run.whole_stage(queries)
    except BaseException as error:  # whatever it is, it must not cost the host's training
        interrupted = isinstance(error, KeyboardInterrupt)
        failure = None if interrupted else run.write_failure(error)
        together = ranks.world() == 1 or not interrupted and ranks.all_arrive("failed")
        if together:
            entry.go_back(host, run.folder, own_flags)
        if interrupted or config.spr_only or not together:
            raise
        if not isinstance(error, UserError):
            traceback.print_exception(error)
        run.say(failure)
        run.say(
            "the model is as the host has trained it, and the host goes on to save it; the same command takes the "
            "stage up again from spr/entry, and with --spr_only the saved model starts one with other flags"
        )
        return Outcome(result, failure=failure)
    return Outcome(result)


def train_after(trainer, config: SPRConfig, namespace: dict, host_train) -> Outcome:
    """A ``trainer.train()`` of a process in which the stage has followed an earlier one: the host's own, as if the stage had never been."""
    if ranks.rank() == 0:
        say("the SPR stage has followed an earlier train() of this process; this one is the host's own, and SPR does not follow it again")
    if trainer in _used:
        engine.renew(trainer)
        trainer.optimizer, trainer.lr_scheduler = _used[trainer]
    return Outcome(host_train(), followed=False)


def _nothing_trained(trainer):
    from transformers.trainer_utils import TrainOutput

    return TrainOutput(trainer.state.global_step, 0.0, {})


@contextlib.contextmanager
def during(stage: str, folder: Folder | None = None):
    """An error from inside knows the stage it comes from; what it took is added up in the folder's manifest."""
    start = time.monotonic()
    try:
        yield
    except Exception as error:
        error.spr_stage = getattr(error, "spr_stage", stage)
        raise
    if folder and ranks.rank() == 0:
        took(folder, stage, time.monotonic() - start)


def round_config(config: SPRConfig, number: int) -> SPRConfig:
    """The flags of a later round: the same, but for its own seed."""
    later = copy.copy(config)  # a fresh one would take the seed of --spr_dpo_config again
    later.spr_seed = int(digest([config.spr_seed, number])[:8], 16)
    later.spr_candidates = None  # those were the first round's
    return later


class Run:
    """One SPR run in one of its rounds: the host, the flags and the round's logs.

    Attributes:
        folder: ``OUTPUT_DIR/spr``, from the second round on ``OUTPUT_DIR/spr/round-N``; one is laid out like the other.
        number: of the round, from 1.
        entered: folders of the weights that make the model at the round's entry, each read over the one before.
    """

    def __init__(self, host: Host, config: SPRConfig):
        self.host, self.trainer = host, host.trainer
        self.folder, self.number = Folder.under(self.trainer.args.output_dir), 1
        dpo.check_trainable(self.host, config)
        dpo.check_workers(self.host, config)
        check_settings(config)
        self.config = dataclasses.replace(config, spr_clip=config.spr_clip or self.host.vision_tower)
        self.entered = [self.folder.entry]
        self.scorer("cpu")  # a wrong --spr_clip, --spr_detector or --spr_scorer must not wait for the host's training
        ranks.check_shared(self.folder.path)
        limit_pixels(self.config.spr_max_pixels)
        ranks.agreed(self._enter)

    def _enter(self) -> None:
        """Bind ``OUTPUT_DIR/spr`` to this run and write its regions; before that nothing is written, and
        everything that can be known is asked. For one rank."""
        config, host, folder = self.config, self.host, self.folder
        if not config.spr_overwrite:
            check_layout(folder)
        settings = self._settings()
        restart = {"dpo"} if config.spr_restart_dpo else set()
        source = (host.box_format, host.data_path, host.image_folder)
        queries, skipped, changed = settled_regions(folder, settings, config, *source, restart)
        if config.spr_candidates and (config.spr_overwrite or "candidates" in changed.again):
            source = Path(config.spr_candidates)
            if source.resolve().is_relative_to(folder.path.resolve()):
                why = "--spr_overwrite deletes" if config.spr_overwrite else "is made again with these flags"
                raise UserError(f"--spr_candidates {source} lies in what {why}: copy it elsewhere first")
        self._refuse_later_rounds(bool(changed.again) or config.spr_overwrite)
        answered = not config.spr_overwrite and "candidates" not in changed.again
        if config.spr_overwrite or changed.again or not folder.is_finished():
            check_candidates(config, host.box_format, queries, folder if answered else None)
            rehearse(host, queries, config)
        lock(folder.path)
        bind(folder, settings, changed, config.spr_overwrite)
        if skipped is not None:
            log_regions(folder, queries, skipped)

    def _refuse_later_rounds(self, anew: bool) -> None:
        """Their regions are drawn once before anything trains: their pictures, too, may be none to be used."""
        config, host = self.config, self.host
        for number in range(2, config.spr_rounds + 1):
            config, folder = round_config(config, number), self.folder.round(number)
            find_regions(folder, config, host.box_format, host.data_path, host.image_folder, anew)

    def _enter_round(self) -> None:
        """Bind a later round and write its regions; all that could be refused was so at the start. For one rank."""
        host, settings, config = self.host, self._settings(), copy.copy(self.config)
        config.spr_overwrite = False  # what there was of this round went with the first one's
        source = (host.box_format, host.data_path, host.image_folder)
        queries, skipped, changed = settled_regions(self.folder, settings, config, *source)
        bind(self.folder, settings, changed)
        if skipped is not None:
            log_regions(self.folder, queries, skipped)

    def _settings(self) -> dict[str, dict]:
        return settings_of(self.config, self.host.box_format.describe(), self.host.data_path)

    def next_round(self) -> "Run":
        """The round after this one, whose model is the live one now. Its seed is its own, so that it asks about other regions."""
        engine.release(self.trainer)
        after = copy.copy(self)
        after.number, first = self.number + 1, Folder(self.entered[0].parent)
        after.config = round_config(self.config, after.number)
        after.folder = first.round(after.number)
        after.entered = [*self.entered, self.folder.policy]
        ranks.agreed(after._enter_round)
        self.say(f"round {after.number} of {self.config.spr_rounds}, in {after.folder}")
        return after

    def log(self, stage: str) -> Log:
        return self.folder.log(stage, ranks.rank())

    def say(self, text: str) -> None:
        if ranks.rank() == 0:
            say(text)

    def scorer(self, device):
        with weights.loading_whole():
            return find_scorer(self.config, device, self.host.box_format)

    # --- the stages -----------------------------------------------------------------------------------------------------------

    def regions(self) -> list[RegionQuery]:
        """Region queries of the annotated images; written once, by rank 0, and the same for everybody after."""
        ranks.agreed(self._write_regions)
        queries = held_regions(self.folder)
        if not self.config.spr_exclude and any(isinstance(key, int) for query in queries for key in keys_of_picture(query.image.path)):
            self.say("pictures of COCO are used, RefCOCO's val and test among them: to measure on those, name them to --spr_exclude")
        return queries

    def _write_regions(self) -> None:
        host = self.host
        write_regions(self.folder, self.config, host.box_format, host.data_path, host.image_folder)
        if self.config.spr_candidates:
            adopt(self.config, host.box_format, self.folder)

    def whole_stage(self, queries: list[RegionQuery]) -> None:
        """All rounds; afterwards the live model is the improved one, ready for the host to save."""
        if ranks.rank() == 0:
            remove(self.folder.failed)
        engine.to_device(self.trainer)
        self.trainer.model.config.spr_box = self.host.box_format.describe()
        with during("base"):
            self.save_base()
        self.improve(queries)
        run = self
        for _ in range(2, self.config.spr_rounds + 1):
            with during("regions"):
                run = run.next_round()
                queries = run.regions()
            run.improve(queries)
        engine.hold(self.trainer)
        run.write_exit(self.folder.exit)

    def write_failure(self, error: BaseException) -> str:
        """Write ``spr/failed.json``; what is said of it, in one line."""
        stage, why = getattr(error, "spr_stage", "stage"), " ".join(str(error).split()) or type(error).__name__
        record = {"stage": stage, "error": why, "rank": ranks.rank(), "time": time.strftime("%Y-%m-%d %H:%M:%S")}
        with contextlib.suppress(UserError):  # a full disk is what may have been the failure
            write_json(self.folder.failed, record)
        return f"the SPR stage failed ({stage}): {why}"

    def save_base(self) -> None:
        """The model as it enters the stage in the host's own layout (``--spr_save_base``): what SPR is to be compared with."""
        base = self.folder.base
        if self.config.spr_save_base and not ranks.agreed(base.exists):
            draft = base.with_name("base.tmp")
            self.host.save(str(draft))
            if ranks.rank() == 0:
                draft.rename(base)
            ranks.barrier()

    def improve(self, queries: list[RegionQuery]) -> None:
        """One round, sampling to DPO; afterwards the live model is the improved one in the host's own structure."""
        own_flags = entry.requires_grad(self.trainer.model)
        finished = self.folder.policy
        if ranks.agreed(self.folder.is_finished):
            dpo.choose_trainable(self.host, self.config)
            weights.load(self.trainer.model, finished)
            self.say(f"the SPR stage is done already: its weights were read from {finished.relative_to(self.trainer.args.output_dir)}")
        else:
            watched = dpo.held_out(queries, self.config.spr_probe_regions)
            apart = {query.id for query in watched}
            pairs = [pair for pair in self.make_pairs(queries) if pair.region not in apart]
            if not pairs:
                raise UserError(
                    f"no preference pair is left to train on: all come from the {len(apart)} regions that are "
                    "held out; take more --spr_regions, or --spr_probe_regions 0"
                )
            names = dpo.choose_trainable(self.host, self.config)
            entered = digest([read_json(folder / "index.json") for folder in self.entered])
            with during("dpo", self.folder):
                dpo.improve(self.host, pairs, watched, self.config, self.folder, entered)
                weights.save(self.trainer.model, names, finished)
            dpo.clean(self.folder)
        dpo.merge_adapter(self.trainer.model)
        for name, parameter in self.trainer.model.named_parameters():
            parameter.requires_grad_(own_flags[name])
        self._report()

    def write_exit(self, path: Path) -> None:
        """Hashes of the weights that the host is about to save."""
        live = weights.digests(self.trainer.model, sorted(weights.trainable(self.trainer.model)))
        if ranks.rank() == 0:
            write_json(path, {"engine": type(self.trainer.model_wrapped).__name__, "weights": live})
        ranks.barrier()

    def _report(self) -> None:
        """The round's report, which must not cost anybody a trained model."""
        from spr_plugin.report import write_report

        if ranks.rank() == 0:
            try:
                say(f"report: {write_report(self.folder.path)}")
            except UserError as error:
                say(f"no report: {error}")
        ranks.barrier()

    def make_pairs(self, queries: list[RegionQuery]) -> list[PreferencePair]:
        """Sampling, scoring and pairing."""
        with during("candidates", self.folder):
            sample(self.host, queries, self.host.box_format, self.config, self.log("candidates"), self.log("batches"))
        with during("scores", self.folder):
            self.score(queries)
        with during("pairs", self.folder):
            return self.pair(queries)

    def pair(self, queries: list[RegionQuery]) -> list[PreferencePair]:
        """Chosen and rejected of each region, or why there are none. UserError where no pair is left."""
        if ranks.rank() == 0:
            self._pair(queries)
        ranks.barrier()
        records = self.log("pairs").read().values()
        pairs = [PreferencePair(**record) for record in records if "skip" not in record]
        reasons = counted(record["skip"] for record in records if "skip" in record)
        self.say(f"{len(pairs)} pairs from {len(queries)} regions ({listed(reasons) or 'none skipped'})")
        if not pairs:
            raise UserError(f"no preference pair is left of {len(queries)} regions ({listed(reasons)}): see {self.folder.path / 'scores'}")
        return pairs

    def score(self, queries: list[RegionQuery]) -> None:
        """One record a region: its pooled truth and, for each candidate, the scores of the initial and of the refined text."""
        log = self.log("scores")
        held = ranks.agreed(log.held)
        # A picture of which a region is missing is scored as a whole, so that a batch is the same whatever was done before.
        wanted = [regions for regions in by_picture(queries) if any(query.id not in held for query in regions)]
        mine = ranks.share(wanted, len)
        candidates = by_region(self.log("candidates").read().values())
        scorer = self.scorer(self.trainer.args.device) if mine else None
        for regions, picture in progress(ahead(picture_of, mine), len(mine), "scoring pictures", show=ranks.rank() == 0):
            said = [candidates.get(query.id, []) for query in regions]
            records = score_picture(picture, regions, said, scorer, self.host.box_format)
            log.append(*(record for record in records if record["id"] not in held))
        ranks.barrier()

    def _pair(self, queries: list[RegionQuery]) -> None:
        log = self.log("pairs")
        held, scores = log.held(), self.log("scores").read()
        for query in queries:
            prompt = prompts_for(query, self.host.box_format, ["plain"])[0].text
            made = make_pair(
                query,
                prompt,
                scores[query.id]["candidates"],
                self.config.spr_min_gap,
                self.config.spr_min_kept,
                refinement=not self.config.spr_no_refinement,
                by_chance=self.config.spr_pairing == "random",
            )
            record = asdict(made) if isinstance(made, PreferencePair) else {"id": query.id, "region": query.id, "skip": made}
            if record["id"] not in held:
                log.append(record)


def by_region(candidates) -> dict[str, list[dict]]:
    """Candidate records grouped by region, in canonical order."""
    grouped = {}
    for record in sorted(candidates, key=lambda c: (c["region"], c["kind"], c["index"])):
        grouped.setdefault(record["region"], []).append(record)
    return grouped


def by_picture(queries: list[RegionQuery]) -> list[list[RegionQuery]]:
    """Queries grouped by their picture, in the order of the first of each."""
    grouped = {}
    for query in queries:
        grouped.setdefault(query.image.path, []).append(query)
    return list(grouped.values())


def score_regions(queries: list[RegionQuery], candidates: list[list[dict]], scorer, box_format) -> list[dict]:
    """:func:`score_picture` of the picture that the regions lie in, read from its file."""
    return score_picture(picture_of(queries), queries, candidates, scorer, box_format)


def picture_of(queries: list[RegionQuery]):
    """The one picture of these regions, or None for a file that is no readable picture."""
    return readable(queries[0].image.path, queries[0].image.id)


def score_picture(picture, queries: list[RegionQuery], candidates: list[list[dict]], scorer, box_format) -> list[dict]:
    """The records of the regions of one picture: every candidate's scores as the model wrote it and after refinement, by term."""
    image = queries[0].image
    texts = [[candidate["text"] for candidate in row] for row in candidates]
    if picture is None:
        unread = invalid("image_unreadable")
        return [_scored(q, row, [], [("", 0, 0)] * len(row), [unread] * 2 * len(row)) for q, row in zip(queries, candidates)]
    truths = scorer.truth(queries, picture, texts, box_format)
    refined = [[refine(text, truth, box_format, image.width, image.height) for text in said] for said, truth in zip(texts, truths)]
    both = [said + [text for text, *_ in better] for said, better in zip(texts, refined)]
    scores = scorer.score(queries, picture, both, box_format, truths)
    return [_scored(q, row, truth.tolist(), *made) for q, row, truth, *made in zip(queries, candidates, truths, refined, scores)]


def _scored(query: RegionQuery, candidates: list[dict], truth: list, refined: list[tuple], scores: list[dict]) -> dict:
    """The record of one region; `refined` is what `refine` says of each text, `scores` are those of the initial texts, then of the refined ones."""
    rows = [
        {"id": c["id"], "text": c["text"], "initial": initial, "refined_text": better, "refined": final, "kept": 1 - lost / max(1, kept + lost)}
        for c, initial, (better, kept, lost), final in zip(candidates, scores, refined, scores[len(candidates) :])
    ]
    return {"id": query.id, "truth": truth, "candidates": rows}


def find_host(trainer, namespace: dict, config: SPRConfig) -> Host:
    """The host adapter of this script. UserError names what was looked for."""
    host = ask("spr_host", trainer=trainer, namespace=namespace, config=config)
    if host is None:
        raise UserError(
            f"--spr: no host adapter knows {namespace.get('__file__', 'this training script')} "
            f"({type(trainer).__name__}, {type(trainer.model).__name__}); write a spr_host hook, see spr_plugin/hookspecs.py"
        )
    return host


def refuse_impossible(trainer) -> None:
    """UserError for settings under which the stage makes no sense or cannot run, before anything is trained."""
    if getattr(trainer.args, "tune_mm_mlp_adapter", False):
        raise UserError("--spr with --tune_mm_mlp_adapter: a projector pre-training cannot describe regions yet; add --spr to the fine-tuning command")
    if getattr(trainer, "model_init", None) is not None:
        raise UserError(
            "--spr with Trainer(model_init=…): its train() makes another model than the one that SPR would "
            "improve; give it the model itself"
        )
    args = trainer.args
    if getattr(args, "fsdp", None):
        raise UserError("--fsdp: the SPR stage runs under DDP and DeepSpeed ZeRO, not under FSDP; take --deepspeed instead")
    if getattr(args, "n_gpu", 1) > 1:
        raise UserError(f"--spr in one process on {args.n_gpu} GPUs: start one process a GPU (torchrun or deepspeed), or show it one with CUDA_VISIBLE_DEVICES")
    if getattr(args, "deepspeed", None):
        check_deepspeed(args.deepspeed, args)
