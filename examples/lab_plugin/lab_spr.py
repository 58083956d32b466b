"""A lab's annotations, scorer, box format and host for SPR."""

import csv
from pathlib import Path

from spr_plugin.annotations import AnnotatedImage, Annotation, image_size, usable
from spr_plugin.boxes import Box, Space
from spr_plugin.formats.bracket import BracketFormat
from spr_plugin.hooks.transformers_vlm import TransformersHost, base_model, find_processor
from spr_plugin.hookspecs import hookimpl
from spr_plugin.recipes.spr.scoring import ground_truth, localization_score

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
        space, found = Space.pixels(*size), []
        for number, row in enumerate(objects):
            box = usable(Box(*(float(row[side]) for side in ("x1", "y1", "x2", "y2")), space))
            if box is None:
                skipped["outside"] += 1
            else:
                found.append(Annotation(number, row["label"], box))
        if found:
            yield AnnotatedImage(name, path, *size, tuple(found))


# --- a box format: 0-1 of the picture with three decimals, "[0.125, 0.300, 0.550, 0.810]"


@hookimpl
def spr_box_format(family, aspect):
    return BracketFormat("lab", "normalized", decimals=3, fixed_digits=True) if family == "lab" else None


# --- a scorer: localization alone, minus a price for every box


class Frugal:
    """S_loc of the paper, less 0.02 a box. Queries are the regions of one picture, with the texts of each."""

    def truth(self, queries, picture, texts, box_format):
        return [ground_truth(query) for query in queries]

    def score(self, queries, picture, texts, box_format, truths):
        return [
            [self.score_one(box_format.parse(text, *picture.size), truth) for text in said]
            for said, truth in zip(texts, truths)
        ]

    def score_one(self, parsed, truth):
        found = localization_score(truth, [box.pixels() for box in parsed.boxes])
        reason = None if parsed.boxes else "no_box"
        return {
            "terms": {"s_loc": found},
            "total": found - 0.02 * len(parsed.boxes),
            "valid": reason is None,
            "reason": reason,
        }


@hookimpl
def spr_scorer(config, device):
    return Frugal() if config.spr_scorer == "lab" else None


# --- a host: a Hugging Face model whose questions begin with the lab's own words


class LabHost(TransformersHost):
    def question(self, picture, prompt):
        return super().question(picture, f"[grounding] {prompt}")


@hookimpl
def spr_host(trainer, namespace, config):
    """Scripts whose trainer class is called LabTrainer."""
    if type(trainer).__name__ != "LabTrainer" or not hasattr(base_model(trainer.model), "get_decoder"):
        return None
    return LabHost(trainer, find_processor(trainer, namespace), config)
