"""A lab's annotations, scorer, box format and host for SPR."""

import csv
from pathlib import Path

from spr_plugin.annotations import AnnotatedImage, Annotation, image_size, usable
from spr_plugin.boxes import Box, Space
from spr_plugin.formats.bracket import BracketFormat
from spr_plugin.hooks.transformers_vlm import TransformersHost, base_model, find_processor
from spr_plugin.hookspecs import hookimpl
from spr_plugin.scoring import ground_truth, localization_score

# --- annotations: rows of "file,label,x1,y1,x2,y2" in pixels


@hookimpl
def spr_annotations(source, image_folder, skipped):
    """``--spr_annotations objects.csv``; other files are left to the next plugin."""
    return read_csv(source, image_folder, skipped) if source.endswith(".csv") else None


def read_csv(source, image_folder, skipped):
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


# --- a box format: percent of the picture, as "<12 30 55 81>" would be too easy to confuse with tags


@hookimpl
def spr_box_format(family, aspect):
    return BracketFormat("lab", "grid100", bins=100) if family == "lab" else None


# --- a scorer: localization alone, minus a price for every box


class Frugal:
    """S_loc of the paper, less 0.02 a box."""

    def truth(self, query, picture, texts, box_format):
        return ground_truth(query, [])

    def score(self, query, picture, texts, box_format, truth):
        return [self.score_one(box_format.parse(text, query.image.width, query.image.height), truth) for text in texts]

    def score_one(self, parsed, truth):
        found = localization_score(truth, [box.pixels() for box in parsed.boxes])
        reason = None if parsed.boxes else "no_box"
        return {"terms": {"s_loc": found}, "total": found - 0.02 * len(parsed.boxes), "valid": reason is None, "reason": reason}


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
