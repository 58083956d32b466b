"""SPR (Spatial Preference Rewarding, ICCV 2025) for the multimodal-LLM trainer you already have.

In a notebook, with the pictures and boxes of anybody's answers:

>>> import spr_plugin
>>> from PIL import Image
>>> picture = Image.new("RGB", (96, 96), "white")
>>> picture.paste("red", (10, 10, 40, 40))
>>> objects = [("red square", (10, 10, 40, 40))]
>>> texts = ["a red square [0.12, 0.12, 0.42, 0.42]", "a red square [0.5, 0.5, 0.6, 0.6]"]
>>> spr_plugin.refine(picture, (0, 0, 50, 50), texts, objects, spr_box_format="llava")
['a red square [0.1, 0.1, 0.42, 0.42]', '']

Scores come from a CLIP checkpoint, here the embedded tiny one:

>>> flags = dict(spr_box_format="llava", spr_clip="examples/tiny_world/clip")
>>> scored = spr_plugin.score(picture, (0, 0, 50, 50), texts, objects, **flags)
>>> [round(answer.terms["s_loc"], 2) for answer in scored.answers]
[0.88, 0.0]
>>> scored.answers[1].not_choosable
'no_box_survived'
>>> (pair,) = spr_plugin.make_pairs([scored])
>>> pair.chosen, pair.rejected
('a red square [0.1, 0.1, 0.42, 0.42]', 'a red square [0.5, 0.5, 0.6, 0.6]')
"""

from spr_plugin import process  # noqa: F401  (before trackers and others register what they do at the end)
from spr_plugin.errors import UserError

__all__ = ["UserError", "attach", "load_run", "make_pairs", "refine", "score"]


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


def load_run(path, plugins=(), images=None):
    """The SPR run in OUTPUT_DIR, whatever became of it, for a notebook, which shows some of its pairs.

    ``.pairs`` and ``.candidates`` are pandas frames, ``.show(id)`` a pair on its pictures, ``.rounds`` the
    later rounds, each alike, ``.saved`` what :func:`spr_plugin.runs.open` gives; see
    :class:`spr_plugin.notebook.saved.LoadedRun`. `images` is where the pictures are, if they are not where
    the run found them. Nothing is written.
    """
    from spr_plugin import runs
    from spr_plugin.notebook.saved import LoadedRun

    return LoadedRun(runs.open(path, plugins, images))


def score(image, region, texts, objects, aspect="pad", device="cpu", **flags):
    """What answers about a region are worth, as they are and repaired; a notebook shows them on the picture.

    Args:
        image: a picture, or the path of one.
        region: x1, y1, x2, y2 in pixels.
        texts: the answers, in the whole picture's coordinates.
        objects: (name, (x1, y1, x2, y2) in pixels) of what there is on the picture.
        aspect: how the picture reached the model (LLaVA's image_aspect_ratio).
        device: where the models run.
        flags: those of a run: ``spr_box_format`` is needed, and ``spr_clip`` by SPR's own scorer.

    Returns:
        :class:`spr_plugin.notebook.answers.Scored`, whose ``answers`` are
        :class:`spr_plugin.recipes.base.JudgedAnswer` in the order of the texts.

    Raises:
        UserError: names the argument or flag, and what to do.
    """
    from spr_plugin.notebook import answers

    return answers.score(image, region, texts, objects, aspect, device, **flags)


def refine(image, region, texts, objects, aspect="pad", **flags):
    """The answers with their boxes repaired; arguments as for :func:`score`. No model is asked: with
    ``spr_match="name"`` names agree by their nouns alone, and objects that an answer misses are not added.
    """
    from spr_plugin.notebook import answers

    return answers.refine(image, region, texts, objects, aspect, **flags)


def make_pairs(scored, **flags):
    """Of each region's answers, as :func:`score` gives them, its preference pair, or a word why there is
    none.

    Args:
        flags: ``spr_pairing``, ``spr_min_gap``.
    """
    from spr_plugin.notebook import answers

    return answers.make_pairs(scored, **flags)
