"""SPR (Spatial Preference Rewarding, ICCV 2025) for the multimodal-LLM trainer you already have."""

from spr_plugin import process  # noqa: F401  (before trackers and others register what they do at the end)
from spr_plugin.errors import UserError

__all__ = ["UserError", "attach", "load_run"]


def attach(trainer, processor=None, **flags):
    """For a script with an argument parser of its own: let the SPR stage follow ``trainer.train()``.

    Args:
        trainer: a ``transformers.Trainer`` or one of its children (TRL's, a fork's).
        processor: of the model, where the Trainer was not given it as ``processing_class``.
        flags: the ``--spr_*`` flags by name: ``spr_annotations="objects.json",
            spr_clip="openai/clip-vit-large-patch14-336"``.

    Returns:
        ``trainer``.

    Raises:
        UserError: a mistake in ``flags``, here or in ``trainer.train()`` before anything is trained.
    """
    from spr_plugin import boot

    return boot.attach(trainer, processor, flags)


def load_run(path, plugins=()):
    """The SPR run in OUTPUT_DIR, whatever became of it, for a notebook: see :func:`spr_plugin.runs.open`."""
    from spr_plugin import runs

    return runs.open(path, plugins)
