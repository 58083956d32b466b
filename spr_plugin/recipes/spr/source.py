"""Where SPR's regions come from: annotated pictures, or the boxes of the host's own training data."""

from __future__ import annotations

from collections.abc import Iterable

from spr_plugin.config import SPRConfig
from spr_plugin.data.annotations import AnnotatedImage
from spr_plugin.data.conversations import mine_conversations
from spr_plugin.data.pictures import name_too_large
from spr_plugin.data.selection import Selection, excluded
from spr_plugin.errors import UserError
from spr_plugin.formats import BoxFormat, box_format, refuse_unknown_aspect
from spr_plugin.plugins import ask
from spr_plugin.progress import listed, say
from spr_plugin.recipes.base import Source
from spr_plugin.recipes.spr.regions import RegionQuery, region_queries


def draw_regions(config: SPRConfig, form: BoxFormat, source: Source) -> list[RegionQuery]:
    """Region queries of the annotated pictures, at least one. UserError where there is none."""
    skipped = source.skipped
    select = Selection(excluded(config.spr_exclude), config.spr_min_objects, config.spr_min_area)
    queries = list(
        region_queries(
            _annotated_images(config, form, source),
            seed=config.spr_seed,
            regions_per_image=config.spr_regions_per_image,
            more_than=config.spr_more_than,
            limit=config.spr_regions,
            select=select,
            skipped=skipped,
        )
    )
    name_too_large(skipped, "--spr_max_pixels")
    select.tell()
    if 0 < len(queries) < config.spr_regions:
        why = f" ({listed(skipped)})" if skipped else ""
        asked = f"{len(queries)} regions are made of the {config.spr_regions} asked for"
        say(f"{asked}: the pictures give no more{why}")
    if queries:
        return queries
    mined = f"--data_path {source.data_path} (mined, since there is no --spr_annotations)"
    named = f"--spr_annotations {config.spr_annotations}" if config.spr_annotations else mined
    raise UserError(f"{named} gives no usable region ({listed(skipped) or 'it is empty'})")


def _annotated_images(config: SPRConfig, form: BoxFormat, source: Source) -> Iterable[AnnotatedImage]:
    if config.spr_annotations is None:
        # --data_path writes boxes as the host's model does, but for the aspect that --spr_data_aspect names.
        if (aspect := config.spr_data_aspect) is not None:
            refuse_unknown_aspect(form.family, aspect, f"--spr_data_aspect {aspect}")
            form = box_format(form.family, aspect)
        if source.data_path is None:
            raise UserError(
                "--spr_annotations: name the file of annotated pictures; this training has no LLaVA"
                " --data_path to mine boxes from"
            )
        return mine_conversations(source.data_path, source.image_folder or "", form, source.skipped)
    asked = {
        "source": config.spr_annotations,
        "image_folder": source.image_folder,
        "keep_crowd": config.spr_keep_crowd,
    }
    images: Iterable[AnnotatedImage] | None = ask("spr_annotations", **asked, skipped=source.skipped)
    if images is None:
        raise UserError(
            f"--spr_annotations {config.spr_annotations}: neither COCO-format JSON nor a source of a plugin"
        )
    return images
