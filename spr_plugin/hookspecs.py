"""Every hook of the plugin.

All hooks are *recognisers*: an implementation answers None when the request is not for it, and the first
other answer wins (a plugin named by ``--spr_plugin`` or installed in the entry-point group ``spr_plugin`` is
asked before the built-ins). Arguments stay
the caller's: read them, do not change them. What is returned is tried before anything trains
(:mod:`spr_plugin.contracts`). An implementation is a plain function marked with ``hookimpl``::

    from spr_plugin.hookspecs import hookimpl

    @hookimpl
    def spr_box_format(family, aspect):
        return MyFormat() if family == "mine" else None
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import torch

    from spr_plugin.config import SPRConfig
    from spr_plugin.data.annotations import AnnotatedImage
    from spr_plugin.formats import BoxFormat
    from spr_plugin.pairing import Pairing
    from spr_plugin.recipes.base import Recipe
    from spr_plugin.recipes.spr.models import Detector, Repair, Scorer, Similarity
    from spr_plugin.training.host import Host

hookspec = pluggy.HookspecMarker("spr_plugin")
hookimpl = pluggy.HookimplMarker("spr_plugin")


@hookspec(firstresult=True)
def spr_host(trainer: Any, namespace: dict[str, Any], config: SPRConfig) -> Host | None:
    """The :class:`spr_plugin.training.host.Host` of a training script: ``trainer`` is its Trainer,
    ``namespace`` its module's globals.
    """


@hookspec(firstresult=True)
def spr_annotations(
    source: str, image_folder: str | None, skipped: Counter[str], keep_crowd: bool
) -> Iterable[AnnotatedImage] | None:
    """Iterable of :class:`spr_plugin.data.annotations.AnnotatedImage` of ``--spr_annotations``; ``skipped``
    counts left-out records by reason.

    One with ``ids`` and ``image(number)`` (an AnnotatedImage or None) is read by number, so that only sampled
    pictures are touched.
    ``keep_crowd``: groups and ignored objects count as objects.
    """


@hookspec(firstresult=True)
def spr_box_format(family: str, aspect: str | None) -> BoxFormat | None:
    """The :class:`spr_plugin.formats.BoxFormat` of a family; ``aspect`` is "pad", "square" …, or None."""


@hookspec(firstresult=True)
def spr_recipe(name: str, config: SPRConfig, box_format: BoxFormat | None) -> Recipe[Any] | None:
    """The :class:`spr_plugin.recipes.base.Recipe` of this name, one of those of ``--spr_recipe``, for a model
    that writes boxes so; ``box_format`` is None where a run is opened whose format is not known. The config
    is the recipe's own: ``spr_regions`` is its share.
    """


# --- of the recipe "spr"


@hookspec(firstresult=True)
def spr_scorer(config: SPRConfig, device: str | torch.device) -> Scorer | None:
    """The :class:`spr_plugin.recipes.spr.models.Scorer` named ``config.spr_scorer``."""


@hookspec(firstresult=True)
def spr_similarity(config: SPRConfig, device: str | torch.device) -> Similarity | None:
    """The :class:`spr_plugin.recipes.spr.models.Similarity` of ``config.spr_clip``: an image–text model."""


@hookspec(firstresult=True)
def spr_detector(config: SPRConfig, device: str | torch.device) -> Detector | None:
    """The :class:`spr_plugin.recipes.spr.models.Detector` of ``config.spr_detector``: an open-vocabulary
    detector.
    """


@hookspec(firstresult=True)
def spr_repair(config: SPRConfig) -> Repair | None:
    """The :class:`spr_plugin.recipes.spr.models.Repair` named ``config.spr_repair``: what becomes of an
    answer's boxes.
    """


@hookspec(firstresult=True)
def spr_pairing(name: str, config: SPRConfig) -> Pairing | None:
    """The :class:`spr_plugin.pairing.Pairing` of this name, one of those of ``--spr_pairing``: chosen and
    rejected among a query's answers.
    """
