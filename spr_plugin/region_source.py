"""Where a run's regions come from: the log that is there already, or annotated pictures, read once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set

from spr_plugin.annotations import mine_conversations
from spr_plugin.config import SPRConfig
from spr_plugin.contracts import ask
from spr_plugin.errors import UserError
from spr_plugin.files import write_json
from spr_plugin.formats import box_format, refuse_unknown_aspect
from spr_plugin.pictures import name_too_large, refuse_no_folder, refuse_outside
from spr_plugin.progress import listed, say
from spr_plugin.recipes.spr.regions import RegionQuery, region_queries
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.manifest import Changes, changes
from spr_plugin.selection import Selection, excluded


def write_regions(
    folder: Folder, config: SPRConfig, form, data_path: str | None, image_folder: str | None
) -> None:
    """The log of regions, unless it is there. UserError where the source gives none. For one rank."""
    queries, skipped = find_regions(folder, config, form, data_path, image_folder)
    if skipped is not None:
        log_regions(folder, queries, skipped)


def find_regions(
    folder: Folder,
    config: SPRConfig,
    form,
    data_path: str | None,
    image_folder: str | None,
    anew: bool = False,
) -> tuple[list[RegionQuery], Counter | None]:
    """The regions whose log is in ``folder`` and None, or new ones and what was left out by reason.

    Raises:
        UserError: the source gives none, or a picture lies outside the folder of pictures.
    """
    pictures, skipped = config.spr_image_folder or image_folder, None
    queries = None if anew else held_regions(folder)
    if queries is None:
        refuse_no_folder(pictures, "--spr_image_folder" if config.spr_image_folder else "--image_folder")
        queries, skipped = _draw_regions(config, form, data_path, pictures)
    if not config.spr_allow_outside:
        named = ((query.image.id, query.image.path) for query in queries)
        refuse_outside(named, pictures or "", "--spr_image_folder", "--spr_allow_outside")
    return queries, skipped


def settled_regions(
    folder: Folder,
    settings: dict[str, dict],
    config: SPRConfig,
    form,
    data_path: str | None = None,
    image_folder: str | None = None,
    restart: Set[str] = frozenset(),
) -> tuple[list[RegionQuery], Counter | None, Changes]:
    """As :func:`find_regions`, and what of ``folder`` is to be made again: regions that come out the same make
    nothing behind them again. Nothing is written."""
    over = config.spr_overwrite
    changed = changes(folder, {} if over else settings, restart)
    anew = over or "regions" in changed.again
    queries, skipped = find_regions(folder, config, form, data_path, image_folder, anew)
    if anew and not over and {query.id for query in queries} == folder.log("regions").read().keys():
        changed = changes(folder, settings, restart, stays={"regions"})
    return queries, skipped, changed


def held_regions(folder: Folder) -> list[RegionQuery] | None:
    """The regions whose log in ``folder`` is whole; None where it is not, or not there."""
    if not folder.skipped.exists():
        return None
    records = folder.log("regions").read()
    return None if records.damaged else [RegionQuery.from_json(record) for record in records.values()]


def log_regions(folder: Folder, queries: list[RegionQuery], skipped: Counter) -> None:
    """Write the log of regions, and what was left out by reason."""
    folder.log("regions").write(query.to_json() for query in queries)
    write_json(folder.skipped, dict(skipped))


def _draw_regions(config: SPRConfig, form, data_path, folder: str) -> tuple[list[RegionQuery], Counter]:
    """Region queries of the annotated images, at least one, and what was left out by reason."""
    skipped = Counter()
    select = Selection(excluded(config.spr_exclude), config.spr_min_objects, config.spr_min_area)
    queries = region_queries(
        _annotated_images(config, form, data_path, folder, skipped),
        seed=config.spr_seed,
        regions_per_image=config.spr_regions_per_image,
        more_than=config.spr_more_than,
        limit=config.spr_regions,
        select=select,
        skipped=skipped,
    )
    found = list(queries)
    name_too_large(skipped, "--spr_max_pixels")
    if doubtful := select.doubtful:
        several = f"{len(doubtful)} pictures with several numbers in their names, such as {doubtful[0]}"
        say(f"--spr_exclude: {several}, are left out for one of them")
    for path in select.unmatched():
        named = len(select.excluded[path])
        none = f"none of the {named} pictures that it names was found among those looked at"
        say(f"--spr_exclude {path}: {none if named else 'names no picture, so that it leaves out none'}")
    if 0 < len(found) < config.spr_regions:
        why = f" ({listed(skipped)})" if skipped else ""
        asked = f"{len(found)} regions are made of the {config.spr_regions} asked for"
        say(f"{asked}: the pictures give no more{why}")
    if found:
        return found, skipped
    mined = f"--data_path {data_path} (mined, since there is no --spr_annotations)"
    source = f"--spr_annotations {config.spr_annotations}" if config.spr_annotations else mined
    raise UserError(f"{source} gives no usable region ({listed(skipped) or 'it is empty'})")


def _annotated_images(config: SPRConfig, form, data_path, folder, skipped: Counter):
    if config.spr_annotations is None:
        # --data_path writes boxes as the host's model does, but for the aspect that --spr_data_aspect names.
        if (aspect := config.spr_data_aspect) is not None:
            refuse_unknown_aspect(form.family, aspect, f"--spr_data_aspect {aspect}")
            form = box_format(form.family, aspect)
        return mine_conversations(data_path, folder, form, skipped)
    asked = {"source": config.spr_annotations, "image_folder": folder, "keep_crowd": config.spr_keep_crowd}
    images = ask("spr_annotations", **asked, skipped=skipped)
    if images is None:
        raise UserError(
            f"--spr_annotations {config.spr_annotations}: neither COCO-format JSON nor a source of a plugin"
        )
    return images
