"""How a run begins: the host is found, all that can be known is asked, and only then is anything written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spr_plugin import dpo
from spr_plugin.config import SPRConfig
from spr_plugin.data.pictures import limit_pixels
from spr_plugin.data.selection import keys_of_picture
from spr_plugin.dpo.rehearsal import rehearse
from spr_plugin.errors import UserError
from spr_plugin.ids import digest
from spr_plugin.marks import read_marks
from spr_plugin.pairing import Pairing, best_over_worst, find_pairing
from spr_plugin.plugins import ask
from spr_plugin.progress import listed, say
from spr_plugin.queries import find_queries, log_queries, logged_queries, settled_queries
from spr_plugin.recipes.base import Query, Recipe, Source
from spr_plugin.recipes.find import find_recipe
from spr_plugin.recipes.given import SIDES, GivenPairs
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.lock import lock
from spr_plugin.runs.log import Log
from spr_plugin.runs.manifest import Changes, bind, check_layout, settings_of
from spr_plugin.sampling.alone import check_candidates, import_candidates
from spr_plugin.sampling.given import take_given
from spr_plugin.training import engine, ranks, weights
from spr_plugin.training.deepspeed_settings import check_deepspeed
from spr_plugin.training.host import Host


@dataclass(frozen=True)
class Round:
    """One round of a run: everything that its stages are given.

    Attributes:
        config: the flags, of a later round with its own seed.
        folder: ``OUTPUT_DIR/spr``, from the second round on ``OUTPUT_DIR/spr/round-N``; one is laid out like
            the other.
        number: from 1.
        entered: folders of the weights that make the model at the round's entry, each read over the one
            before.
        excluded: ids of pairs that are not trained on, as they were marked when the run began.
    """

    host: Host
    config: SPRConfig
    recipe: Recipe
    pairing: Pairing
    folder: Folder
    number: int
    entered: tuple[Path, ...]
    excluded: frozenset[str]

    @property
    def source(self) -> Source:
        return Source(self.host.data_path, self.host.image_folder, self.host.most_pictures)

    @property
    def earlier(self) -> list[Folder]:
        """The folders of the rounds before this one."""
        return [Folder(policy.parent) for policy in self.entered[1:]]

    def log(self, stage: str) -> Log:
        """A stage's log, to which this rank appends."""
        return self.folder.log(stage, ranks.rank())


def find_host(trainer, namespace: dict, config: SPRConfig) -> Host:
    """The host adapter of this script. UserError names what was looked for."""
    host = ask("spr_host", trainer=trainer, namespace=namespace, config=config)
    if host is None:
        raise UserError(
            f"--spr: no host adapter knows {namespace.get('__file__', 'this training script')}"
            f" ({type(trainer).__name__}, {type(trainer.model).__name__}); write a spr_host hook, see"
            " spr_plugin/hookspecs.py"
        )
    return host


def refuse_impossible(trainer) -> None:
    """UserError for settings under which the stage makes no sense or cannot run, before anything is
    trained.
    """
    if getattr(trainer.args, "tune_mm_mlp_adapter", False):
        raise UserError(
            "--spr with --tune_mm_mlp_adapter: a projector pre-training cannot describe regions yet; add"
            " --spr to the fine-tuning command"
        )
    if getattr(trainer, "model_init", None) is not None:
        raise UserError(
            "--spr with Trainer(model_init=…): its train() makes another model than the one that SPR would "
            "improve; give it the model itself"
        )
    args = trainer.args
    if getattr(args, "fsdp", None):
        raise UserError(
            "--fsdp: the SPR stage runs under DDP and DeepSpeed ZeRO, not under FSDP; take --deepspeed"
            " instead"
        )
    if getattr(args, "n_gpu", 1) > 1:
        raise UserError(
            f"--spr in one process on {args.n_gpu} GPUs: start one process a GPU (torchrun or deepspeed), or"
            " show it one with CUDA_VISIBLE_DEVICES"
        )
    if getattr(args, "deepspeed", None):
        check_deepspeed(args.deepspeed, args)


def open_run(host: Host, config: SPRConfig) -> tuple[Round, list[Query]]:
    """The first round and its queries, which are written then; its folder is this run's from here on.

    Raises:
        UserError: whatever can be known before anything trains.
    """
    first = first_round(host, config)
    ranks.check_shared(first.folder.path)
    ranks.from_rank_0(lambda: _enter(first))
    return first, queries_of(first)


def first_round(host: Host, config: SPRConfig) -> Round:
    """The first round of a run. UserError for what can be known of its flags, model and plugins alone."""
    dpo.check_trainable(host, config)
    dpo.check_workers(host, config)
    dpo.check_settings(config)
    config = config.but_for({"spr_clip": config.spr_clip or host.vision_tower})
    if config.spr_pairs:
        config = config.but_for({"spr_samples": len(SIDES)})
    folder = Folder.under(host.trainer.args.output_dir)
    pairing = best_over_worst if config.spr_pairs else find_pairing(config)
    recipe, entered, excluded = find_recipe(config, host.box_format), (folder.entry,), _excluded(config)
    first = Round(host, config, recipe, pairing, folder, 1, entered, excluded)
    with weights.loading_whole():
        # A wrong --spr_clip, --spr_detector or --spr_scorer must not wait for the host's training.
        first.recipe.on("cpu")
    limit_pixels(config.spr_max_pixels)
    return first


def _excluded(config: SPRConfig) -> frozenset[str]:
    """What ``--spr_exclude_pairs`` marks, read once: marks may be made while the run goes on."""
    if config.spr_exclude_pairs is None:
        return frozenset()
    path = config.spr_exclude_pairs
    return frozenset(ranks.from_rank_0(lambda: read_marks(path, "--spr_exclude_pairs")))


@dataclass(frozen=True)
class Start:
    """What a run starts from, before anything is written.

    Attributes:
        settings: what each stage depends on.
        skipped: what was left out of the source, by reason; None where the folder holds the queries already.
        changed: what of the folder is to be made again.
    """

    settings: dict[str, dict]
    queries: list[Query]
    skipped: Counter[str] | None
    changed: Changes


def start_of(first: Round) -> Start:
    """What `first` starts from; nothing is written. For one rank.

    Raises:
        UserError: the folder is none of ours, or its source gives no queries that the host can be asked.
    """
    config, host, folder, recipe = first.config, first.host, first.folder, first.recipe
    if not config.spr_overwrite:
        check_layout(folder)
    settings = _settings(first)
    restart = {"dpo"} if config.spr_restart_dpo else set()
    queries, skipped, changed = settled_queries(
        folder, settings, config, recipe, first.source, restart, config.spr_overwrite
    )
    _refuse_too_many_pictures(host, queries, recipe)
    if config.spr_candidates and (config.spr_overwrite or "candidates" in changed.again):
        source = Path(config.spr_candidates)
        if source.resolve().is_relative_to(folder.path.resolve()):
            why = "--spr_overwrite deletes" if config.spr_overwrite else "is made again with these flags"
            raise UserError(f"--spr_candidates {source} lies in what {why}: copy it elsewhere first")
    _refuse_later_rounds(first, bool(changed.again) or config.spr_overwrite)
    return Start(settings, queries, skipped, changed)


def try_out(first: Round, start: Start) -> None:
    """What the stages will ask of the host and of imported answers, asked once. For one rank.

    Raises:
        UserError: see :func:`spr_plugin.dpo.rehearsal.rehearse`, `check_candidates`.
    """
    config, host = first.config, first.host
    answered = not config.spr_overwrite and "candidates" not in start.changed.again
    folder = first.folder if answered else None
    check_candidates(config, first.recipe, host.box_format, start.queries, folder)
    for name in dict.fromkeys(first.recipe.of(query).name for query in start.queries):
        own = [query for query in start.queries if first.recipe.of(query).name == name]
        rehearse(host, first.recipe, own, config.spr_max_new_tokens)


def _enter(first: Round) -> None:
    """Bind ``OUTPUT_DIR/spr`` to this run and write its queries; before that nothing is written, and
    everything that can be known is asked. For one rank."""
    config, host, folder, recipe = first.config, first.host, first.folder, first.recipe
    start = start_of(first)
    if config.spr_overwrite or start.changed.again or not folder.is_finished():
        try_out(first, start)
    lock(folder.path)
    bind(folder, start.settings, start.changed, config.spr_overwrite)
    if start.skipped is not None:
        _log(first, start.queries, start.skipped)
    if isinstance(recipe, GivenPairs):
        take_given(recipe, start.queries, folder.log("candidates"))
    if config.spr_candidates:
        import_candidates(config, recipe, host.box_format, folder)


def _refuse_too_many_pictures(host: Host, queries: Sequence[Query], recipe: Recipe) -> None:
    widest = max(queries, key=lambda query: len(query.pictures))
    if (most := len(widest.pictures)) > host.most_pictures:
        shows = "one picture" if host.most_pictures == 1 else f"{host.most_pictures} pictures"
        raise UserError(
            f"--spr_recipe {recipe.of(widest).name} asks about {most} pictures at once, and"
            f" {type(host).__name__} shows {shows}: take another recipe, or a host that shows several"
        )


def _refuse_later_rounds(first: Round, anew: bool) -> None:
    """Their queries are made once before anything trains: their pictures, too, may be none to be used."""
    for number in range(2, first.config.spr_rounds + 1):
        later = _later(first, number, ())
        find_queries(later.folder, later.config, later.recipe, later.source, anew)


def _later(first: Round, number: int, entered: tuple[Path, ...]) -> Round:
    """A later round: the same, but for its own seed and folder."""
    # A round's seed comes from the one before, so that another number of rounds changes none.
    seed = first.config.spr_seed
    for step in range(2, number + 1):
        seed = int(digest([seed, step])[:8], 16)
    # The candidates were the first round's; what there was of this round went with the first one's.
    config = first.config.but_for({"spr_seed": seed, "spr_candidates": None, "spr_overwrite": False})
    recipe = find_recipe(config, first.host.box_format)
    pairing, folder = find_pairing(config), first.folder.round(number)
    return Round(first.host, config, recipe, pairing, folder, number, entered, first.excluded)


def next_round(first: Round, now: Round) -> tuple[Round, list[Query]]:
    """The round after `now`, whose model is the live one, and its queries, which are others than those
    before.
    """
    engine.detach_engine(first.host.trainer)
    after = _later(first, now.number + 1, (*now.entered, now.folder.policy))
    ranks.from_rank_0(lambda: _enter_round(after))
    if ranks.rank() == 0:
        say(f"round {after.number} of {first.config.spr_rounds}, in {after.folder}")
    return after, queries_of(after)


def _enter_round(later: Round) -> None:
    """Bind a later round and write its queries; all that could be refused was so at the start. For one
    rank.
    """
    settings = _settings(later)
    queries, skipped, changed = settled_queries(
        later.folder, settings, later.config, later.recipe, later.source
    )
    bind(later.folder, settings, changed)
    if skipped is not None:
        _log(later, queries, skipped)


def _log(entered: Round, queries: list[Query], skipped: Counter) -> None:
    log_queries(entered.folder, entered.recipe, queries, skipped)
    pictures = len({picture.path for query in queries for picture in query.pictures})
    say(f"queries: {len(queries)} on {pictures} pictures ({listed(skipped) or 'nothing left out'})")


def _settings(entering: Round) -> dict[str, dict]:
    box = entering.host.box_format.describe()
    return settings_of(entering.config, box, entering.host.data_path, entering.excluded)


def queries_of(entered: Round) -> list[Query]:
    """The queries of a round that was entered, the same on every rank."""
    queries = logged_queries(entered.folder, entered.recipe)
    keys = (key for query in queries for picture in query.pictures for key in keys_of_picture(picture.path))
    if not entered.config.spr_exclude and any(isinstance(key, int) for key in keys):
        if ranks.rank() == 0:
            say(
                "pictures of COCO are used, RefCOCO's val and test among them: to measure on those, name them"
                " to --spr_exclude"
            )
    return queries
