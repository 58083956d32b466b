"""Every hook of the plugin.

All hooks are *recognisers*: an implementation answers None when the request is not for it, and the first other answer wins (a
plugin named by ``--spr_plugin`` or installed in the entry-point group ``spr_plugin`` is asked before the built-ins). Arguments stay
the caller's: read them, do not change them. An implementation is a plain function marked with ``hookimpl``::

    from spr_plugin.hookspecs import hookimpl

    @hookimpl
    def spr_box_format(family, aspect):
        return MyFormat() if family == "mine" else None
"""

import pluggy

hookspec = pluggy.HookspecMarker("spr_plugin")
hookimpl = pluggy.HookimplMarker("spr_plugin")


@hookspec(firstresult=True)
def spr_host(trainer, namespace, config):
    """The :class:`spr_plugin.host.Host` of a training script: ``trainer`` is its Trainer, ``namespace`` its module's globals."""


@hookspec(firstresult=True)
def spr_annotations(source, image_folder, skipped, keep_crowd):
    """Iterable of :class:`spr_plugin.annotations.AnnotatedImage` of ``--spr_annotations``; ``skipped`` counts left-out records by reason.

    One with ``ids`` and ``image(number)`` (an AnnotatedImage or None) is read by number, so that only sampled pictures are touched.
    ``keep_crowd``: groups and ignored objects count as objects.
    """


@hookspec(firstresult=True)
def spr_box_format(family, aspect):
    """The box format object (see :mod:`spr_plugin.formats`) of a model family; ``aspect`` is "pad", "square" … or None."""


@hookspec(firstresult=True)
def spr_scorer(config, device):
    """The scorer named ``config.spr_scorer``; it gets the regions of one picture together, with the texts of each.

    ``truth(queries, picture, texts, box_format)`` → a region's ground truth ``(n, 4)`` in pixels, pooled over its texts, for each query;
    ``score(queries, picture, texts, box_format, truths)`` → for each query one ``{"terms", "total", "valid", "reason"}`` a text.
    """


@hookspec(firstresult=True)
def spr_similarity(config, device):
    """The image–text model of ``config.spr_clip``: ``score(picture, asked)`` → one ``(s_crop, s_local)`` for each (region, text).

    Raw cosines of text without coordinates; ``asked`` holds all that is wanted of one picture, nothing twice.
    """


@hookspec(firstresult=True)
def spr_detector(config, device):
    """The detector of ``config.spr_detector``: ``detect(picture, phrases)`` → ``(phrase, Box, score)`` rows, boxes in picture pixels."""
