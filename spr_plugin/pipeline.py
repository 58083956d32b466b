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
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from spr_plugin import dpo, engine, ranks, weights
from spr_plugin.annotations import mine_conversations
from spr_plugin.config import DPO_FLAGS, SPRConfig, digest, fingerprint
from spr_plugin.contracts import ask
from spr_plugin.deepspeed_settings import check_deepspeed
from spr_plugin.errors import UserError
from spr_plugin.formats import box_format
from spr_plugin.host import Host
from spr_plugin.pairing import PreferencePair, make_pair
from spr_plugin.pictures import limit_pixels, name_too_large, refuse_no_folder, refuse_outside
from spr_plugin.plugins import load_file
from spr_plugin.progress import progress, say
from spr_plugin.prompts import prompts_for
from spr_plugin.refinement import refine
from spr_plugin.regions import RegionQuery, region_queries
from spr_plugin.rehearsal import rehearse
from spr_plugin.sample_alone import adopt, check_candidates
from spr_plugin.sampling import ahead, readable, sample
from spr_plugin.scoring import find_scorer, invalid
from spr_plugin.selection import Selection, excluded, picture_key
from spr_plugin.store import Log, check_manifest, counted, delete_run, lock, read_json, write_json
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
    run = Run(host, config)
    queries = run.regions()
    training = training_of(trainer)
    begun = ranks.agreed(lambda: read_json(run.directory / "training.json") if run.entered_before() else None)
    if begun is not None:
        refuse_another_training(run.directory, begun, training)
        weights.load(trainer.model, run.entry)
        run.say("the host's training is done already: its weights were read from spr/entry")
    result = None if begun is not None or config.spr_only else host_train()
    result = result or _nothing_trained(trainer)
    own_flags, failure = requires_grad(trainer.model), None
    try:
        if begun is None:
            run.save_entry(training)
        run.whole_stage(queries)
    except Exception as error:  # whatever it is, it must not cost the host's training
        failure = run.write_failure(error)
        if config.spr_only or not ranks.all_arrive("failed"):
            raise
        if not isinstance(error, UserError):
            traceback.print_exception(error)
    if failure:  # outside the handler, whose traceback keeps tensors alive
        run.say(failure)
        run.back_to_entry(own_flags)
    return Outcome(result, failure=failure)


def train_after(trainer, config: SPRConfig, namespace: dict, host_train) -> Outcome:
    """A ``trainer.train()`` of a process in which the stage has followed an earlier one: the host's own, as if the stage had never been."""
    if ranks.rank() == 0:
        say("the SPR stage has followed an earlier train() of this process; this one is the host's own, and SPR does not follow it again")
    engine.renew(trainer)
    return Outcome(host_train(), followed=False)


def requires_grad(model) -> dict[str, bool]:
    return {name: parameter.requires_grad for name, parameter in model.named_parameters()}


def _nothing_trained(trainer):
    from transformers.trainer_utils import TrainOutput

    return TrainOutput(trainer.state.global_step, 0.0, {})


def training_of(trainer) -> dict:
    """What the host trains: what makes ``spr/entry`` the end of this training and of no other one. The same on any number of ranks."""
    args, data = trainer.args, trainer.train_dataset
    steps = {"max_steps": args.max_steps} if args.max_steps > 0 else {"num_train_epochs": args.num_train_epochs}
    examples = {"examples": len(data)} if hasattr(data, "__len__") else {}
    return {**steps, **examples, "trainable": sorted(weights.trainable(trainer.model))}


def refuse_another_training(directory: Path, begun: dict, now: dict) -> None:
    """UserError where ``spr/entry`` is the end of another training than the one that this command would start."""
    changed = [f"{name} {begun.get(name)} became {now.get(name)}" for name in sorted({*begun, *now} - {"trainable"}) if begun.get(name) != now.get(name)]
    if other := sorted(set(begun["trainable"]) ^ set(now["trainable"])):
        changed.append(f"other parameters are trained, {len(other)} of them, such as {other[0]}")
    if changed:
        raise UserError(
            f"{directory / 'entry'} holds the weights of another training ({'; '.join(changed)}), and this one would be skipped: take another "
            "--output_dir, or --spr_overwrite to train again"
        )


@contextlib.contextmanager
def during(stage: str):
    """An error from inside knows the stage it comes from."""
    try:
        yield
    except Exception as error:
        error.spr_stage = getattr(error, "spr_stage", stage)
        raise


class Run:
    """One SPR run in one of its rounds: the host, the flags and the round's logs.

    Attributes:
        directory: ``OUTPUT_DIR/spr``, from the second round on ``OUTPUT_DIR/spr/round-N``; one is laid out like the other.
        entered: folders of the weights that make the model at the round's entry, each read over the one before.
    """

    def __init__(self, host: Host, config: SPRConfig):
        self.host, self.trainer = host, host.trainer
        self.directory = Path(self.trainer.args.output_dir) / "spr"
        dpo.check_trainable(self.host, config)
        dpo.check_workers(self.host, config)
        check_settings(config)
        self.config = dataclasses.replace(config, spr_clip=config.spr_clip or self.host.vision_tower)
        self.entered = [self.directory / "entry"]
        self.scorer("cpu")  # a wrong --spr_clip, --spr_detector or --spr_scorer must not wait for the host's training
        ranks.check_shared(self.directory)
        limit_pixels(self.config.spr_max_pixels)
        ranks.agreed(self._enter)

    def _enter(self) -> None:
        """Bind ``OUTPUT_DIR/spr`` to this run and write its regions; before that nothing is written, and
        everything that can be known is asked. For one rank."""
        config, host = self.config, self.host
        if config.spr_overwrite and config.spr_candidates:
            source = Path(config.spr_candidates)
            if source.resolve().is_relative_to(self.directory.resolve()):
                raise UserError(
                    f"--spr_candidates {source} lies in what --spr_overwrite deletes: copy it elsewhere first"
                )
        source = (config, host.box_format, host.data_path, host.image_folder)
        queries, skipped = find_regions(self.directory, *source, anew=config.spr_overwrite)
        over = config.spr_overwrite or config.spr_restart_dpo
        if over or not (self.directory / "policy" / "index.json").exists():
            check_candidates(config, host.box_format, queries, self.directory if skipped is None else None)
            rehearse(host, queries, config)
        lock(self.directory)
        self._bind()
        if skipped is not None:
            log_regions(self.directory, queries, skipped)

    def _bind(self) -> None:
        """Bind the round's folder to the configuration. A DPO stage that starts over takes the later rounds,
        which came from it, with it. For one rank."""
        config = self.config
        source = (
            {"spr_annotations": config.spr_annotations}
            if config.spr_annotations
            else {"data_path": self.host.data_path}
        )
        known = {**fingerprint(config), "box": self.host.box_format.describe()}
        check_manifest(
            self.directory,
            known,
            config.spr_overwrite,
            source,
            DPO_FLAGS if config.spr_restart_dpo else frozenset(),
        )
        if config.spr_restart_dpo:
            delete_run(self.directory, {"dpo", "policy", "round"})

    def next_round(self, number: int) -> "Run":
        """The round after this one, whose model is the live one now. Its seed is its own, so that it asks about other regions."""
        engine.release(self.trainer)
        after = copy.copy(self)
        after.config = copy.copy(self.config)  # a fresh one would take the seed of --spr_dpo_config again
        after.config.spr_seed = int(digest([self.config.spr_seed, number])[:8], 16)
        after.config.spr_candidates = None  # those were the first round's
        after.directory = self.entered[0].with_name(f"round-{number}")
        after.entered = [*self.entered, self.directory / "policy"]
        ranks.agreed(after._bind)
        self.say(f"round {number} of {self.config.spr_rounds}, in {after.directory}")
        return after

    @property
    def entry(self) -> Path:
        """``spr/entry``: the weights as the stage found them, before its first round."""
        return self.entered[0]

    def log(self, stage: str) -> Log:
        return Log(self.directory / stage, ranks.rank())

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
        queries = held_regions(self.directory)
        if not self.config.spr_exclude and any(isinstance(picture_key(query.image.path), int) for query in queries):
            self.say("pictures of COCO are used, RefCOCO's val and test among them: to measure on those, name them to --spr_exclude")
        return queries

    def _write_regions(self) -> None:
        write_regions(
            self.directory, self.config, self.host.box_format, self.host.data_path, self.host.image_folder
        )
        if self.config.spr_candidates:
            adopt(self.config, self.host.box_format, self.directory)

    def entered_before(self) -> bool:
        """Whether the host's training has ended before, in another process."""
        return (self.entry / "index.json").exists()

    def save_entry(self, training: dict) -> None:
        """The weights that the host has trained, and what the stage may change beside them."""
        with during("entry"):
            engine.release(self.trainer)
            names = {*weights.trainable(self.trainer.model), *dpo.projector(self.host, self.config)}
            if ranks.rank() == 0:
                write_json(self.directory / "training.json", training)
            weights.save(self.trainer.model, sorted(names) + weights.persistent_buffers(self.trainer.model), self.entry)

    def whole_stage(self, queries: list[RegionQuery]) -> None:
        """All rounds; afterwards the live model is the improved one, ready for the host to save."""
        if ranks.rank() == 0:
            (self.directory / "failed.json").unlink(missing_ok=True)
        engine.to_device(self.trainer)
        self.trainer.model.config.spr_box = self.host.box_format.describe()
        with during("base"):
            self.save_base()
        self.improve(queries)
        run = self
        for number in range(2, self.config.spr_rounds + 1):
            with during("regions"):
                run = run.next_round(number)
                queries = run.regions()
            run.improve(queries)
        engine.hold(self.trainer)
        run.write_exit(self.directory / "exit.json")

    def write_failure(self, error: Exception) -> str:
        """Write ``spr/failed.json``; what is said of it, in one line."""
        stage, why = getattr(error, "spr_stage", "stage"), " ".join(str(error).split()) or type(error).__name__
        record = {"stage": stage, "error": why, "rank": ranks.rank(), "time": time.strftime("%Y-%m-%d %H:%M:%S")}
        with contextlib.suppress(UserError):  # a full disk is what may have been the failure
            write_json(self.directory / "failed.json", record)
        return f"the SPR stage failed ({stage}): {why}"

    def back_to_entry(self, own_flags: dict[str, bool]) -> None:
        """The model as the host has trained it, in the host's own structure, for the host to save."""
        model = self.trainer.model
        engine.release(self.trainer)
        dpo.remove_adapter(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(own_flags[name])
        if ranks.agreed(self.entered_before):
            weights.load(model, self.entry)
        vars(model.config).pop("spr_box", None)
        engine.hold(self.trainer)
        self.say("the model is as the host has trained it, and the host goes on to save it; the same command will take the SPR stage up again")

    def save_base(self) -> None:
        """The model as it enters the stage in the host's own layout (``--spr_save_base``): what SPR is to be compared with."""
        base = self.directory / "base"
        if self.config.spr_save_base and not ranks.agreed(base.exists):
            draft = base.with_name("base.tmp")
            self.host.save(str(draft))
            if ranks.rank() == 0:
                draft.rename(base)
            ranks.barrier()

    def improve(self, queries: list[RegionQuery]) -> None:
        """One round, sampling to DPO; afterwards the live model is the improved one in the host's own structure."""
        own_flags = requires_grad(self.trainer.model)
        finished = self.directory / "policy"
        if ranks.agreed((finished / "index.json").exists):
            dpo.choose_trainable(self.host, self.config)
            weights.load(self.trainer.model, finished)
            self.say(f"the SPR stage is done already: its weights were read from {finished.relative_to(self.trainer.args.output_dir)}")
        else:
            watched = dpo.held_out(queries, self.config.spr_probe_regions)
            ids = {query.id for query in watched}
            pairs = [pair for pair in self.make_pairs(queries) if pair.region not in ids]
            names = dpo.choose_trainable(self.host, self.config)
            entry = digest([read_json(folder / "index.json") for folder in self.entered])
            with during("dpo"):
                dpo.improve(self.host, pairs, watched, self.config, self.directory / "dpo", entry)
                weights.save(self.trainer.model, names, finished)
            dpo.clean(self.directory / "dpo")
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
                say(f"report: {write_report(self.directory)}")
            except UserError as error:
                say(f"no report: {error}")
        ranks.barrier()

    def make_pairs(self, queries: list[RegionQuery]) -> list[PreferencePair]:
        """Sampling, scoring and pairing."""
        with during("sampling"):
            sample(self.host, queries, self.host.box_format, self.config, self.log("candidates"), self.log("batches"))
        with during("scoring"):
            self.score(queries)
        with during("pairing"):
            return self.pair(queries)

    def pair(self, queries: list[RegionQuery]) -> list[PreferencePair]:
        """Chosen and rejected of each region, or why there are none. UserError where no pair is left."""
        if ranks.rank() == 0:
            self._pair(queries)
        ranks.barrier()
        records = self.log("pairs").read().values()
        pairs = [PreferencePair(**record) for record in records if "skip" not in record]
        reasons = counted(record["skip"] for record in records if "skip" in record)
        self.say(f"{len(pairs)} pairs from {len(queries)} regions ({_listed(reasons) or 'none skipped'})")
        if not pairs:
            raise UserError(f"no preference pair is left of {len(queries)} regions ({_listed(reasons)}): see {self.directory / 'scores'}")
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


def write_regions(directory: Path, config: SPRConfig, form, data_path: str | None, image_folder: str | None) -> None:
    """The log of regions, unless it is there. UserError where the source gives none. For one rank."""
    queries, skipped = find_regions(directory, config, form, data_path, image_folder)
    if skipped is not None:
        log_regions(directory, queries, skipped)


def find_regions(
    directory: Path, config: SPRConfig, form, data_path: str | None, image_folder: str | None, anew: bool = False
) -> tuple[list[RegionQuery], Counter | None]:
    """The regions whose log is in ``directory`` and None, or new ones and what was left out by reason.

    Raises:
        UserError: the source gives none, or a picture lies outside the folder of pictures.
    """
    folder, skipped = config.spr_image_folder or image_folder, None
    queries = None if anew else held_regions(directory)
    if queries is None:
        refuse_no_folder(folder, "--spr_image_folder" if config.spr_image_folder else "--image_folder")
        queries, skipped = _draw_regions(config, form, data_path, folder)
    if not config.spr_allow_outside:
        named = ((query.image.id, query.image.path) for query in queries)
        refuse_outside(named, folder or "", "--spr_image_folder", "--spr_allow_outside")
    return queries, skipped


def held_regions(directory: Path) -> list[RegionQuery] | None:
    """The regions whose log in ``directory`` is whole; None where it is not, or not there."""
    if not (directory / "regions" / "counts.json").exists():
        return None
    return [RegionQuery.from_json(record) for record in Log(directory / "regions").read().values()]


def log_regions(directory: Path, queries: list[RegionQuery], skipped: Counter) -> None:
    """Write the log of regions, and what was left out by reason."""
    Log(directory / "regions").write(query.to_json() for query in queries)
    write_json(directory / "regions" / "counts.json", dict(skipped))


def _draw_regions(config: SPRConfig, form, data_path, folder: str) -> tuple[list[RegionQuery], Counter]:
    """Region queries of the annotated images, at least one, and what was left out by reason."""
    skipped = Counter()
    queries = region_queries(
        _annotated_images(config, form, data_path, folder, skipped),
        seed=config.spr_seed,
        regions_per_image=config.spr_regions_per_image,
        more_than=config.spr_more_than,
        limit=config.spr_regions,
        select=Selection(excluded(config.spr_exclude), config.spr_min_objects, config.spr_min_area),
        skipped=skipped,
    )
    found = list(queries)
    name_too_large(skipped, "--spr_max_pixels")
    if found:
        return found, skipped
    mined = f"--data_path {data_path} (mined, since there is no --spr_annotations)"
    source = f"--spr_annotations {config.spr_annotations}" if config.spr_annotations else mined
    raise UserError(f"{source} gives no usable region ({_listed(skipped) or 'it is empty'})")


def _annotated_images(config: SPRConfig, form, data_path, folder, skipped: Counter):
    if config.spr_annotations is None:
        # --data_path writes boxes as the host's model does, but for the aspect that --spr_data_aspect names.
        return mine_conversations(data_path, folder, box_format(form.family, config.spr_data_aspect) if config.spr_data_aspect else form, skipped)
    asked = {"source": config.spr_annotations, "image_folder": folder, "keep_crowd": config.spr_keep_crowd}
    images = ask("spr_annotations", **asked, skipped=skipped)
    if images is None:
        raise UserError(f"--spr_annotations {config.spr_annotations}: neither COCO-format JSON nor a source of a plugin")
    return images


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
    args = trainer.args
    if getattr(args, "fsdp", None):
        raise UserError("--fsdp: the SPR stage runs under DDP and DeepSpeed ZeRO, not under FSDP; take --deepspeed instead")
    if getattr(args, "n_gpu", 1) > 1:
        raise UserError(f"--spr in one process on {args.n_gpu} GPUs: start one process a GPU (torchrun or deepspeed), or show it one with CUDA_VISIBLE_DEVICES")
    if getattr(args, "deepspeed", None):
        check_deepspeed(args.deepspeed, args)


def _listed(reasons) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in (reasons or {}).items())
