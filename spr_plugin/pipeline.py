"""The stages in order, inside the host's own ``trainer.train()``.

    entry → regions → candidates → scores → pairs → reference → policy → report

Each writes under ``OUTPUT_DIR/spr/`` and skips what its log already holds, so the same command goes on after a crash at any instant.
``--spr_rounds`` goes through all but the first again with the improved model, in ``OUTPUT_DIR/spr/round-2/`` and so on.
"""

import copy
import dataclasses
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from spr_plugin import dpo, engine, ranks, weights
from spr_plugin.annotations import mine_conversations
from spr_plugin.config import DPO_FLAGS, SPRConfig, digest, fingerprint
from spr_plugin.deepspeed_settings import check_deepspeed
from spr_plugin.errors import UserError
from spr_plugin.formats import box_format
from spr_plugin.host import Host
from spr_plugin.pairing import PreferencePair, make_pair
from spr_plugin.plugins import hook, load_file
from spr_plugin.progress import progress, say
from spr_plugin.prompts import prompts_for
from spr_plugin.refinement import refine
from spr_plugin.regions import RegionQuery, region_queries
from spr_plugin.sample_alone import adopt, still_open
from spr_plugin.sampling import ahead, readable, sample
from spr_plugin.scoring import invalid
from spr_plugin.selection import Selection, excluded, picture_key
from spr_plugin.store import Log, check_manifest, counted, delete_run, lock, read_json, write_json


def train(trainer, config: SPRConfig, namespace: dict, host_train):
    """What ``trainer.train()`` does with ``--spr``: the host's training (unless done before), then the SPR stage on the live model.

    Args:
        trainer: the host's Trainer.
        namespace: globals of the host's training script.
        host_train: runs the host's own ``train()``.

    Raises:
        UserError: before the host trains, for whatever can be known then.
    """
    run = Run(trainer, config, namespace)
    queries = run.regions()
    entry = run.directory / "entry"
    result = None
    if ranks.agreed((entry / "index.json").exists):
        weights.load(trainer.model, entry)
        run.say("the host's training is done already: its weights were read from spr/entry")
    else:
        if not config.spr_only:
            result = host_train()
        engine.release(trainer)
        names = sorted(weights.trainable(trainer.model)) + weights.persistent_buffers(trainer.model)
        weights.save(trainer.model, names, entry)
    engine.to_device(trainer)
    trainer.model.config.spr_box = run.host.box_format.describe()
    run.save_base()
    run.improve(queries)
    for number in range(2, config.spr_rounds + 1):
        run = run.next_round(number)
        run.improve(run.regions())
    engine.hold(trainer)
    run.write_exit(entry.with_name("exit.json"))
    return result or _nothing_trained(trainer)


def _nothing_trained(trainer):
    from transformers.trainer_utils import TrainOutput

    return TrainOutput(trainer.state.global_step, 0.0, {})


class Run:
    """One SPR run in one of its rounds: the host, the flags and the round's logs.

    Attributes:
        directory: ``OUTPUT_DIR/spr``, from the second round on ``OUTPUT_DIR/spr/round-N``; one is laid out like the other.
        entered: folders of the weights that make the model at the round's entry, each read over the one before.
    """

    def __init__(self, trainer, config: SPRConfig, namespace: dict):
        for path in config.spr_plugin:
            load_file(path)
        refuse_impossible(trainer)
        self.trainer = trainer
        self.directory = Path(trainer.args.output_dir) / "spr"
        self.host: Host = find_host(trainer, namespace, config)
        dpo.check_trainable(self.host, config)
        self.config = dataclasses.replace(config, spr_clip=config.spr_clip or self.host.vision_tower)
        self.entered = [self.directory / "entry"]
        if ranks.rank() == 0:
            lock(self.directory)
        self._bind()
        self.scorer("cpu")  # a wrong --spr_clip, --spr_detector or --spr_scorer must not wait for the host's training

    def _bind(self) -> None:
        """Bind the round's folder to the configuration. A DPO stage that starts over takes the later rounds, which came from it, with it."""
        config = self.config
        if ranks.rank() == 0:
            source = {"spr_annotations": config.spr_annotations} if config.spr_annotations else {"data_path": self.host.data_path}
            known = {**fingerprint(config), "box": self.host.box_format.describe()}
            may_change = still_open(self.directory) | (DPO_FLAGS if config.spr_restart_dpo else frozenset())
            check_manifest(self.directory, known, config.spr_overwrite, source, may_change)
            if config.spr_restart_dpo:
                delete_run(self.directory, {"dpo", "policy", "round"})
        ranks.barrier()

    def next_round(self, number: int) -> "Run":
        """The round after this one, whose model is the live one now. Its seed is its own, so that it asks about other regions."""
        engine.release(self.trainer)
        after = copy.copy(self)
        after.config = copy.copy(self.config)  # a fresh one would take the seed of --spr_dpo_config again
        after.config.spr_seed = int(digest([self.config.spr_seed, number])[:8], 16)
        after.config.spr_candidates = None  # those were the first round's
        after.directory = self.entered[0].with_name(f"round-{number}")
        after.entered = [*self.entered, self.directory / "policy"]
        after._bind()
        self.say(f"round {number} of {self.config.spr_rounds}, in {after.directory}")
        return after

    def log(self, stage: str) -> Log:
        return Log(self.directory / stage, ranks.rank())

    def say(self, text: str) -> None:
        if ranks.rank() == 0:
            say(text)

    def scorer(self, device):
        with weights.loading_whole():
            scorer = hook().spr_scorer(config=self.config, device=device)
        if scorer is None:
            raise UserError(f"--spr_scorer {self.config.spr_scorer}: no plugin has it")
        return scorer

    # --- the stages -----------------------------------------------------------------------------------------------------------

    def regions(self) -> list[RegionQuery]:
        """Region queries of the annotated images; written once, by rank 0, and the same for everybody after."""
        if ranks.rank() == 0:
            write_regions(self.directory, self.config, self.host.box_format, self.host.data_path, self.host.image_folder)
            if self.config.spr_candidates:
                adopt(self.config, self.host.box_format, self.directory)
        ranks.barrier()
        queries = [RegionQuery.from_json(record) for record in self.log("regions").read().values()]
        if not self.config.spr_exclude and any(isinstance(picture_key(query.image.path), int) for query in queries):
            self.say("pictures of COCO are used, RefCOCO's val and test among them: to measure on those, name them to --spr_exclude")
        return queries

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
        own_flags = {name: p.requires_grad for name, p in self.trainer.model.named_parameters()}
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
        sample(self.host, queries, self.host.box_format, self.config, self.log("candidates"), self.log("batches"))
        self.score(queries)
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
    log, counts = Log(directory / "regions"), directory / "regions" / "counts.json"
    if not counts.exists():
        skipped = Counter()
        images = _annotated_images(config, form, data_path, config.spr_image_folder or image_folder, skipped)
        queries = region_queries(
            images,
            seed=config.spr_seed,
            regions_per_image=config.spr_regions_per_image,
            more_than=config.spr_more_than,
            limit=config.spr_regions,
            select=Selection(excluded(config.spr_exclude), config.spr_min_objects, config.spr_min_area),
            skipped=skipped,
        )
        log.write(query.to_json() for query in queries)
        write_json(counts, dict(skipped))
    if not log.path.stat().st_size:
        mined = f"--data_path {data_path} (mined, since there is no --spr_annotations)"
        source = f"--spr_annotations {config.spr_annotations}" if config.spr_annotations else mined
        raise UserError(f"{source} gives no usable region ({_listed(read_json(counts)) or 'it is empty'})")


def _annotated_images(config: SPRConfig, form, data_path, folder, skipped: Counter):
    if config.spr_annotations is None:
        # --data_path writes boxes as the host's model does, but for the aspect that --spr_data_aspect names.
        return mine_conversations(data_path, folder, box_format(form.family, config.spr_data_aspect) if config.spr_data_aspect else form, skipped)
    images = hook().spr_annotations(source=config.spr_annotations, image_folder=folder, skipped=skipped, keep_crowd=config.spr_keep_crowd)
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
    host = hook().spr_host(trainer=trainer, namespace=namespace, config=config)
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
