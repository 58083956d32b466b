"""A lab's annotations, scorer, box format, recipe and host for SPR."""

import csv
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from spr_plugin.boxes import Box, Space
from spr_plugin.config import own_settings
from spr_plugin.data.annotations import AnnotatedImage, Annotation, image_size, usable
from spr_plugin.data.pictures import Picture
from spr_plugin.formats.bracket import BracketFormat
from spr_plugin.hooks.transformers_vlm import TransformersHost, base_model, find_processor
from spr_plugin.hookspecs import hookimpl
from spr_plugin.ids import digest
from spr_plugin.recipes.base import JudgedAnswer, Prompt, Query
from spr_plugin.recipes.by_text import ByText
from spr_plugin.recipes.spr.scoring import localization_score
from spr_plugin.settings import NOT_NEGATIVE, Range, setting

# --- annotations: rows of "file,label,x1,y1,x2,y2" in pixels


@hookimpl
def spr_annotations(source, image_folder, skipped):
    """``--spr_annotations objects.csv``; other files are left to the next plugin."""
    return read_csv(source, image_folder, skipped) if source.endswith(".csv") else None


def read_csv(source, image_folder, skipped):
    """Each picture with its objects; what cannot be used is counted under a reason."""
    rows = {}
    with open(source, newline="") as file:
        for row in csv.DictReader(file):
            rows.setdefault(row["file"], []).append(row)
    for name, objects in rows.items():
        path = str(Path(image_folder, name))
        size = image_size(path)
        if isinstance(size, str):  # the reason why there is none
            skipped[size] += 1
            continue
        space, annotations = Space.pixels(*size), []
        for number, row in enumerate(objects):
            box = usable(Box(*(float(row[side]) for side in ("x1", "y1", "x2", "y2")), space))
            if box is None:
                skipped["outside"] += 1
            else:
                annotations.append(Annotation(number, row["label"], box))
        if annotations:
            yield AnnotatedImage(name, path, *size, tuple(annotations))


# --- a box format: 0-1 of the picture with three decimals, "[0.125, 0.300, 0.550, 0.810]"


@hookimpl
def spr_box_format(family, aspect):
    return BracketFormat("lab", "normalized", decimals=3, fixed_digits=True) if family == "lab" else None


# --- a scorer: localization alone, minus a price for every box


class Frugal:
    """S_loc of the paper, less 0.02 a box."""

    def score(self, picture, descriptions):
        return [self.score_one(one.truth, one.predicted) for one in descriptions]

    def score_one(self, truth, predicted):
        s_loc = localization_score(truth, predicted)
        return {"s_loc": s_loc}, s_loc - 0.02 * len(predicted)


@hookimpl
def spr_scorer(config, device):
    return Frugal() if config.spr_scorer == "lab" else None


# --- a recipe: several pictures at once, and the names of what they show


@dataclass(frozen=True)
class NamesSettings:
    """The section `names` of ``--spr_recipe_config``."""

    together: int = setting(
        2,
        "pictures that a question shows",
        within=Range("must lie between 1 and 5", range(1, 6).__contains__),
    )
    per_word: float = setting(0.01, "price of a word", within=NOT_NEGATIVE)


class Names(ByText):
    """What is in these pictures? The share of the objects that an answer names, less a price for every
    word.
    """

    name, BEST, WATCHED = "names", "named", {"named": 0.2}
    MEANINGS = {"named": "Share of the objects that are named.", "all_named": "It names every object."}

    def __init__(self, config):
        self.config, self.settings = config, own_settings(config, NamesSettings)

    def queries(self, source):
        """Pictures in the order of the file, so many together; what is left over makes none."""
        images = read_csv(self.config.spr_annotations, source.image_folder, source.skipped)
        while len(shown := tuple(islice(images, self.settings.together))) == self.settings.together:
            truth = sorted({annotation.label for image in shown for annotation in image.annotations})
            pictures = tuple(Picture(image.id, image.path, image.width, image.height) for image in shown)
            id = digest([[image.id for image in shown], truth])
            yield Query(id, pictures, "Name what these pictures show.", truth, "names", int(id[:8], 16))

    def prompts(self, query):
        return [Prompt("plain", query.text)]

    def judged(self, query, texts):
        """Nothing is repaired; an answer that names all is not rejected."""
        for text in texts:
            named = sum(label in text for label in query.truth) / len(query.truth)
            terms, score = {"named": named}, named - self.settings.per_word * len(text.split())
            kept = "all_named" if named == 1 else None
            yield JudgedAnswer(text, terms, score, None, text, terms, score, None, kept)

    def measure(self, texts, queries):
        shares = [
            sum(label in text for label in query.truth) / len(query.truth)
            for text, query in zip(texts, queries)
        ]
        return {"named": sum(shares) / len(shares)}

    def worked(self, query, short=False):
        return ", ".join(query.truth[:1] if short else query.truth)


@hookimpl
def spr_recipe(name, config):
    return Names(config) if name == "names" else None


# --- a host: a Hugging Face model whose questions begin with the lab's own words


class LabHost(TransformersHost):
    def question(self, pictures, prompt):
        return super().question(pictures, f"[grounding] {prompt}")


@hookimpl
def spr_host(trainer, namespace, config):
    """Scripts whose trainer class is called LabTrainer."""
    if type(trainer).__name__ != "LabTrainer" or not hasattr(base_model(trainer.model), "get_decoder"):
        return None
    return LabHost(trainer, find_processor(trainer, namespace), config)
