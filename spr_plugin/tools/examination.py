"""`spr doctor -- COMMAND`, in the command's own processes: once its model is loaded and its ``train()`` is
called, all that can be known is asked in place of the training. Nothing is written but to the doctor's folder
(``--spr_doctor``), and the process ends here: the host would go on to save a model.
"""

from __future__ import annotations

import contextlib
import shutil
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from spr_plugin import dpo, process
from spr_plugin.config import SPRConfig
from spr_plugin.dpo.pairs import maximum_of
from spr_plugin.dpo.rehearsal import ANSWER
from spr_plugin.errors import UserError
from spr_plugin.files import read_json, remove, write_json
from spr_plugin.opening import Round, Start, find_host, first_round, refuse_impossible, start_of, try_out
from spr_plugin.plugins import load_file
from spr_plugin.progress import listed, say
from spr_plugin.recipes.base import Query
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.manifest import check_layout
from spr_plugin.tools.checks import CHECKS, Check, as_plain, checked
from spr_plugin.tools.overlay import overlay
from spr_plugin.tools.trial import Tried, foreseen, tried
from spr_plugin.training import engine, entry, ranks, weights
from spr_plugin.training.host import Host

MEASURED = 32  # queries whose rows are made to see how long they are
TRIED = 2  # of which the model is asked


def examine(trainer, config: SPRConfig, namespace: dict) -> NoReturn:
    """Look at everything, write what was found, and end this process: with 0 where all could be looked at,
    whatever was found."""
    output_dir = Path(trainer.args.output_dir)
    try:
        examination(trainer, config, namespace)
        ranks.barrier()
        if ranks.rank() == 0:
            _remove_if_new(output_dir)
    except BaseException as error:  # whatever it is, the host must not go on
        traceback.print_exception(error)
        process.leave(2, f"doctor: {' '.join(str(error).split()) or type(error).__name__}")
    process.leave(0)


def _remove_if_new(output_dir: Path) -> None:
    """The Trainer makes it when it is made itself."""
    with contextlib.suppress(OSError):  # it holds something, or is gone
        if output_dir.stat().st_ctime >= process.BEGAN:
            output_dir.rmdir()


@dataclass
class Seen:
    """What the checks before have found for those behind them; None where they have not.

    Attributes:
        layout: True where what lies in the run's folder is a run's.
        fitting: the queries whose worked answers the host trains on whole, the longest first.
    """

    trainer: Any
    config: SPRConfig
    namespace: dict
    folder: Path
    host: Host | None = None
    first: Round | None = None
    layout: bool | None = None
    start: Start | None = None
    fitting: list[Query] | None = None
    rehearsed: bool | None = None
    tried: Tried | None = None


@dataclass(frozen=True)
class Look:
    """One check: `needs` names what of `Seen` it cannot do without."""

    name: str
    act: Callable[[Seen], str]
    needs: tuple[str, ...]
    fix: str


def examination(trainer, config: SPRConfig, namespace: dict) -> list[Check]:
    """The checks of a training command, in a file of its ``--spr_doctor`` after each.

    Raises:
        UserError, or whatever it is: this rank alone fails, so that the others would wait for it.
    """
    seen = Seen(trainer, config, namespace, Path(config.spr_doctor or "."))
    checks: list[Check] = []
    for look in LOOKS:
        if any(getattr(seen, name) is None for name in look.needs):
            continue
        check = checked(look.name, look.fix, partial(_traced, look, seen))
        checks.append(check)
        if ranks.rank() == 0:
            write_json(seen.folder / CHECKS, as_plain(checks))
        if not check.ok:
            say(f"{check.name}: {check.detail}")
            if not ranks.all_arrive(f"doctor-{look.name}"):
                raise UserError(f"{look.name}, on rank {ranks.rank()} alone: {check.detail}")
    return checks


def _traced(look: Look, seen: Seen) -> str:
    """What `look` says. The traceback of what is no user's mistake is printed: a check has one line."""
    try:
        return look.act(seen)
    except UserError:
        raise
    except Exception:
        traceback.print_exc()
        raise


# --- the checks, in their order


def _host(seen: Seen) -> str:
    for path in seen.config.spr_plugin:
        load_file(path)
    refuse_impossible(seen.trainer)
    host = find_host(seen.trainer, seen.namespace, seen.config)
    if not (seen.config.spr_only or dpo.trains_language_model(host)):
        raise UserError(
            "the first train() of this command moves nothing of the language model; the SPR stage would"
            " follow a later one, which doctor does not come to: put the command that trains it behind --"
        )
    seen.host = host
    form = host.box_format.describe()
    boxes = ", ".join(f"{name} {value}" for name, value in form.items() if value)
    what = f"{type(seen.trainer.model).__name__} in {type(seen.trainer).__name__}"
    return (
        f"{type(host).__name__} for {what}, {ranks.world()} rank{'s' * (ranks.world() > 1)}; boxes: {boxes}"
    )


def _settings(seen: Seen) -> str:
    assert seen.host is not None
    seen.first = first_round(seen.host, seen.config)
    config = seen.first.config
    trains = "an adapter of its own" if config.spr_tune == "lora" else "the weights that the host trains"
    models = {"--spr_clip": config.spr_clip, "--spr_detector": config.spr_detector}
    named = ", ".join(f"{flag} {path}" for flag, path in models.items() if path)
    recipes, scored = " and ".join(config.recipes()), named or "no model to score"
    return f"recipe {recipes}; trains {trains}, or the host's adapter; {scored}"


def _output_dir(seen: Seen) -> str:
    assert seen.first is not None
    folder, config = seen.first.folder, seen.first.config
    ranks.check_shared(folder.path)
    if not config.spr_overwrite:
        ranks.from_rank_0(lambda: check_layout(folder))
    seen.layout = True
    entered = not config.spr_overwrite and entry.is_end_of(folder, entry.training_of(seen.trainer, config))
    whole = folder.path.absolute()
    holder = next(path for path in (whole, *whole.parents) if path.exists())
    trained = [p for p in seen.trainer.model.parameters() if p.requires_grad]
    needed = sum(weights.numel(p) * p.element_size() for p in trained)
    free = shutil.disk_usage(holder).free
    room = f"{free / 2**30:.1f} GiB free, the weights at the stage's entry take {needed / 2**30:.2f}"
    if free < 2 * needed:  # those, and the host's own checkpoint
        raise UserError(f"{holder}: {room}, and the host's checkpoint as much again")
    shared = "" if ranks.world() == 1 else f", shared by {ranks.world()} ranks"
    goes_on = "; holds the end of this training, which the same command goes on from" if entered else ""
    return f"{folder.path.parent}{shared}: {room}{goes_on}"


def _data(seen: Seen) -> str:
    first = seen.first
    assert first is not None
    seen.start = start = ranks.from_rank_0(lambda: start_of(first))
    config, queries = first.config, start.queries
    source = config.spr_annotations and f"--spr_annotations {config.spr_annotations}"
    if source is None:
        mined, folder = first.host.data_path, config.spr_image_folder or first.host.image_folder
        source = f"boxes mined from --data_path {mined}" if config.mines() else f"{folder}"
    pictures = len({picture.path for query in queries for picture in query.pictures})
    skipped = read_json(first.folder.skipped) if start.skipped is None else start.skipped
    left_out = f"left out: {listed(skipped or {}) or 'nothing'}"
    again = ""
    if start.changed.again and first.folder.manifest.exists():
        again = f"; what {first.folder} holds is made again from {start.changed.again[0]} on"
    return f"{len(queries)} queries on {pictures} pictures of {source}; {left_out}{again}"


def _rehearsal(seen: Seen) -> str:
    first, start = seen.first, seen.start
    assert first is not None and start is not None
    ranks.from_rank_0(lambda: try_out(first, start))
    seen.rehearsed = True
    return "questions, rows and batches of this data can be made, and box text survives the tokenizer"


def _lengths(seen: Seen) -> str:
    first, start = seen.first, seen.start
    assert first is not None and start is not None
    flag, most = maximum_of(first.host)
    some = start.queries[:: max(1, len(start.queries) // MEASURED)][:MEASURED]
    rows = ranks.from_rank_0(lambda: [_row(first, query) for query in some])
    order = sorted(range(len(some)), key=lambda index: -rows[index][0])
    seen.fitting = [some[index] for index in order if rows[index][1]]
    sizes = [tokens for tokens, _ in rows]
    long = len(some) - len(seen.fitting)
    limit = flag if most is None else f"{flag} {most}"
    line = (
        f"{len(some)} questions with whole answers take {min(sizes)} to {max(sizes)} of the host's tokens,"
        f" under {limit}; {long} do not fit"
    )
    if long > first.config.spr_max_too_long * len(some):
        raise UserError(f"{line}, more than --spr_max_too_long {first.config.spr_max_too_long} allows")
    return line


def _row(first: Round, query: Query) -> tuple[int, bool]:
    """Tokens of a worked answer's row, and whether the host trains on all of it."""
    answer = first.recipe.worked(query) or ANSWER
    row = first.host.row(query.sources, first.recipe.question(query), answer)
    return len(row["input_ids"]), bool(first.host.fits(row))


def _boxes(seen: Seen) -> str:
    first, start = seen.first, seen.start
    assert first is not None and start is not None
    return ranks.from_rank_0(lambda: overlay(first.host, first.recipe, start.queries, seen.folder))


def _trial(seen: Seen) -> str:
    """The stages themselves on two queries, in a folder of the doctor's that goes afterwards."""
    first, start = seen.first, seen.start
    assert first is not None and start is not None and seen.fitting is not None
    if not seen.fitting:
        raise UserError("no whole answer fits, so that there is nothing to try")
    ranks.check_shared(seen.folder, "spr doctor --out")
    folder = Folder.under(seen.folder / "trial")
    _clear(folder)
    try:
        engine.to_device(seen.trainer)
        seen.tried = tried(first, seen.fitting[:TRIED], folder, len(start.queries))
    finally:
        _clear(folder)
    return seen.tried.told(first.config)


def _forecast(seen: Seen) -> str:
    assert seen.first is not None and seen.start is not None and seen.tried is not None
    return foreseen(seen.first, seen.tried, len(seen.start.queries))


def _clear(folder: Folder) -> None:
    ranks.barrier()
    if ranks.rank() == 0:
        remove(folder.path.parent)
    ranks.barrier()


LOOKS = (
    Look(
        "host",
        _host,
        (),
        "change what the line names; only a script that no host knows needs one (docs/write-a-host.md)",
    ),
    Look(
        "settings", _settings, ("host",), "change the flag that the line names; docs/flags.md lists them all"
    ),
    Look(
        "output_dir",
        _output_dir,
        ("first",),
        "take an --output_dir with room, on a disk that all ranks share, or --spr_overwrite for this one",
    ),
    Look("data", _data, ("layout",), "mend the file or change the flag that the line names"),
    Look(
        "rehearsal",
        _rehearsal,
        ("start",),
        "change the flag that the line names; a host of your own must make what it says",
    ),
    Look(
        "lengths",
        _lengths,
        ("start",),
        "raise that maximum, draw smaller regions (--spr_more_than), or allow more by --spr_max_too_long",
    ),
    Look(
        "boxes",
        _boxes,
        ("start",),
        "look at the pictures, and take the --spr_box_format that the model was trained with; a picture that"
        " cannot be opened is to be mended",
    ),
    Look(
        "trial",
        _trial,
        ("rehearsed", "fitting"),
        "lower what the line names, such as --spr_batch_size or --spr_sample_batch",
    ),
    Look("forecast", _forecast, ("tried",), "tell us: a model whose configuration has other names"),
)
