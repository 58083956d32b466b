"""``--model spr_oracle``: no model at all. It says what a file says, or the truth, so that any model's
answers can be scored and the tasks themselves can be checked against figures worked out by hand.

    --model_args predictions=FILE.jsonl,box_format=ferret  a line {"id", "text"} or {"id", "text", "task"}
    --model_args noise=0.1,box_format=ferret               the truth, disturbed

The ids are the source's own: RefCOCO ``sent_id``, LVIS annotation id, VG ``region_id``; for Flickr30k
``image_sentence`` (an answer about the whole caption) or ``image_sentence_phrase`` (one phrase each).

With noise s every box is moved sideways by u · its width, u uniform in [-s, s]: IoU ≥ t means |u| ≤ (1 -
t)/(1 + t), so Acc@t is min(1, (1 - t)/((1 + t) s)), up to the rounding of the box text and the picture's
edge. A class or caption is wrong with probability s.
"""

import importlib
import random
from pathlib import Path
from typing import Any

from lmms_eval.api.model import lmms

from spr_plugin.errors import UserError
from spr_plugin.eval_tasks.answers import first_box
from spr_plugin.eval_tasks.catalogue import module_of
from spr_plugin.eval_tasks.model_format import given_format, named_format
from spr_plugin.eval_tasks.refusal import refuse
from spr_plugin.loading import read_json_lines

WORDS = ("classification", "captions", "short_answers", "right_or_wrong", "scene_graph")  # no box is moved
BOXES = ("bbox", "boxes", "phrases", "objects")  # fields of documents in which truths lie


class _Config:
    """What :mod:`spr_plugin.eval_tasks.model_format` reads: the box format as a checkpoint's config would
    hold it.
    """

    def __init__(self, box_format: str):
        self.spr_box = given_format(box_format, f"box_format={box_format}").describe()

    def to_dict(self) -> dict:
        return {"model_type": "spr_oracle", "spr_box": self.spr_box}


class Oracle(lmms):
    """Answers from a file, or the disturbed truth.

    Args:
        predictions: file of answers; None for the truth.
        box_format: "family" or "family:aspect" that the answers are written in; None leaves it to
            SPR_BOX_FORMAT.
        noise: see the module; 0 is the truth as the format can write it.
        seed: of the noise, together with each document's id.
    """

    is_simple = True

    def __init__(
        self,
        predictions: str | None = None,
        box_format: str | None = None,
        noise: float = 0.0,
        seed: int = 0,
        batch_size=None,
        max_batch_size=None,
        device=None,
    ):
        super().__init__()
        try:
            self.config = _Config(box_format) if box_format else None
            self.predictions = Predictions(Path(predictions)) if predictions else None
            self.noise, self.seed = float(noise), int(seed)
        except (UserError, ValueError) as error:
            refuse(f"--model spr_oracle: {error}")

    def generate_until(self, requests) -> list[str]:
        asked = [
            (task, split, index) for _, _, _, index, task, split in (request.args for request in requests)
        ]
        documents = {
            (task, split): _without_pictures(self.task_dict[task][split])
            for task, split in {(task, split) for task, split, _ in asked}
        }
        pairs = [(task, documents[task, split][index]) for task, split, index in asked]
        if self.predictions is None:
            return [self._truth(doc, task) for task, doc in pairs]
        try:
            self.predictions.check({task: _ids(own) for (task, _), own in documents.items()}, pairs)
        except UserError as error:
            refuse(str(error))
        return [self.predictions.answer(task, doc) for task, doc in pairs]

    def _truth(self, doc: dict, task: str) -> str:
        if "protocol" not in doc:
            refuse(f"--model spr_oracle knows no truth of {task}: give predictions=FILE")
        rng = random.Random(f"{self.seed} {doc['id']}")
        protocol = importlib.import_module(module_of(doc["protocol"]))
        if doc["protocol"] in WORDS:
            return protocol.doc_to_target(doc) if rng.random() >= self.noise else "I do not know"
        return protocol.doc_to_target(
            {name: _moved(value, self.noise, rng) if name in BOXES else value for name, value in doc.items()}
        )

    def loglikelihood(self, requests):
        raise NotImplementedError("spr_oracle answers in text")

    def generate_until_multi_round(self, requests):
        raise NotImplementedError("spr_oracle answers once")


class Predictions:
    """A file of answers.

    Raises UserError for a file that cannot be read, a line that is no answer, and an id that stands there
    twice.
    """

    def __init__(self, file: Path):
        self.file, self.texts = file, {}
        for number, record in read_json_lines(file, f"predictions={file}"):
            self._add(record, f"predictions={file}, line {number}")

    def _add(self, record: Any, where: str) -> None:
        try:
            key, text = (record.get("task"), str(record["id"])), record["text"]
        except (KeyError, AttributeError, TypeError):
            text = None
        if not isinstance(text, str):
            raise UserError(f'{where}: is not {{"id": …, "text": "…"}}')
        if not isinstance(key[0], (str, type(None))):
            raise UserError(f"{where}: task is no name")
        if key in self.texts:
            raise UserError(f"{where}: id {key[1]} stands there twice")
        self.texts[key] = text

    def check(self, known: dict[str, set], asked: list[tuple[str, dict]]) -> None:
        """Raises UserError for an id that no document has, and for a document without an answer. Lines of
        tasks that do not run are left aside.
        """
        ids: dict[str | None, set] = {None: set().union(*known.values())}
        ids.update(known)
        for task, id in self.texts:
            if task in ids and id not in ids[task]:
                raise UserError(
                    f"predictions={self.file}: id {id}{f' of {task}' if task else ''} is in none of the tasks"
                    f" ({', '.join(known)})"
                )
        missing = [
            (task, doc["id"]) for task, doc in asked if not any(self._has(task, id) for id in _ids_of(doc))
        ]
        if missing:
            raise UserError(
                f"predictions={self.file}: lacks id {missing[0][1]} of {missing[0][0]} ({len(missing)} of"
                f" {len(asked)} are missing)"
            )

    def _has(self, task: str, id: str) -> bool:
        return (task, id) in self.texts or (None, id) in self.texts

    def get(self, task: str, id: str) -> str | None:
        """The answer to one id; a line with the task's name wins over one without."""
        return self.texts.get((task, id), self.texts.get((None, id)))

    def answer(self, task: str, doc: dict) -> str:
        """The answer to a document; answers about single phrases become one about the caption."""
        whole = self.get(task, doc["id"])
        if whole is not None:
            return whole
        form, mentions = named_format(doc["box_format"]), []
        for phrase in doc["phrases"]:
            text = self.get(task, phrase["id"]) or ""
            box = first_box(form.parse(text, doc["width"], doc["height"]), text)
            mentions += [(phrase["phrase"].replace(",", ""), box)] if box else []
        return form.render(mentions)


def _without_pictures(dataset):
    """The same documents without decoding a picture for each."""
    pictures = [name for name, feature in dataset.features.items() if type(feature).__name__ == "Image"]
    return dataset.remove_columns(pictures)


def _ids_of(doc: dict) -> list[str]:
    return [doc["id"], *(phrase["id"] for phrase in doc.get("phrases") or ())]


def _ids(dataset) -> set[str]:
    phrases = dataset["phrases"] if "phrases" in dataset.column_names else ()
    return {*dataset["id"], *(phrase["id"] for each in phrases for phrase in each)}


def _moved(value, noise: float, rng: random.Random):
    """Every box in `value` moved sideways; records and lists are gone into."""
    if isinstance(value, dict):
        return {name: _moved(each, noise, rng) if name in BOXES else each for name, each in value.items()}
    if isinstance(value, list) and len(value) == 4 and all(isinstance(each, float) for each in value):
        shift = rng.uniform(-noise, noise) * (value[2] - value[0])
        return [value[0] + shift, value[1], value[2] + shift, value[3]]
    return [_moved(each, noise, rng) for each in value] if isinstance(value, list) else value
