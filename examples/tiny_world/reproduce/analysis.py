"""Why the main result is what it is: evidence from a finished unit, as plain data small enough to be kept
beside its result.

    flips      which expressions SPR wins and loses, by what makes them hard
    scores     how S_sem, S_loc and S go with what an answer is really worth
    pairs      whether chosen answers really are better than rejected ones, before and after refinement
    log_probs  what DPO did to the tokens of coordinates and to words

All four are lists of rows ``{"figure", "low", "high", "n", …}`` with 95 % bootstrap intervals. What an answer
is really worth (:func:`worth`) is asked of the picture's annotations, which must be exact.
"""

import itertools
import json
import operator
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

import painting
import paired
from spr_plugin import runs
from spr_plugin.boxes import pair_iou
from spr_plugin.errors import UserError
from spr_plugin.eval_tasks import metrics
from spr_plugin.eval_tasks.compare import figure_rows
from spr_plugin.formats import BoxFormat
from spr_plugin.pairing import PreferencePair
from spr_plugin.recipes.spr.regions import RegionQuery
from spr_plugin.recipes.spr.scoring import IOU_FLOOR
from spr_plugin.tools.demo import WORLD

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
SCORES, WORTH = ("s_sem", "s_loc", "S"), ("IoU", "recall")
SIDES, KINDS = ("chosen", "rejected"), ("coordinates", "words", "other")
# Trained pairs whose log-probs are computed (ids are hashes: any will do), and how many at a time.
LOOKED, BATCH = (300, 8)


def why(
    model: Path, base: Path, results: tuple[dict, dict], data: Path, evaluation: Path, asked: Mapping
) -> dict[str, list[dict]]:
    """The four lists of rows.

    Args:
        model: what the unit trained, its logs in ``spr/``.
        base: the checkpoint that it started from.
        results: what ``results/`` holds of base and model.
        data: the unit's training data.
        evaluation: what both were asked; `asked`: split, seed and number of its scenes.
    """
    run = runs.open(model)
    queries, form, scores, pairs = run.queries, run.box_format, run.records("scores"), run.pairs
    trained = {record["pair"] for record in run.records("reference").values()}
    looked = [pair for pair in pairs if pair.id in trained][:LOOKED]
    (pictures, before), (_, after) = (paired.samples(result, "rec") for result in results)
    facts = asked_about(evaluation, **asked)
    if [picture for picture, own in facts.items() for _ in own] != pictures:
        raise UserError(f"reproduce: {evaluation} does not hold the expressions that the results are about")
    return {
        "flips": flips(
            np.column_stack([side["mIoU"][:, 0] for side in (before, after)]),
            pictures,
            parts([one for own in facts.values() for one in own]),
        ),
        "scores": score_rows([answers(record, queries[id], form) for id, record in scores.items()]),
        "pairs": pair_rows(
            [pair_worth(pair, scores[pair.query], queries[pair.query], form) for pair in pairs]
        ),
        "log_probs": log_prob_rows(
            *(token_log_probs(checkpoint, looked, data) for checkpoint in (base, model))
        ),
    }


# --- which expressions flip


def asked_about(evaluation: Path, split: str, count: int, seed: int) -> dict[str, list[dict[str, float]]]:
    """Picture → :func:`hard_parts` of the object that each of its referring expressions means, both in the
    order of :func:`paired.samples`: by picture, then by the document's id.
    """
    files = (evaluation / "refcoco").glob("*.jsonl")
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    boxes: dict[str, list] = {}
    for row in sorted(rows, key=operator.itemgetter("id")):
        boxes.setdefault(Path(row["image"]).stem, []).append(row["bbox"])
    shown = ((f"{place:06d}", scene) for place, scene in enumerate(painting.scenes(split, count, seed)))
    return {
        picture: [hard_parts(scene, box) for box in boxes[picture]]
        for picture, scene in shown
        if picture in boxes
    }


def hard_parts(scene: painting.Scene, box: Sequence[float]) -> dict[str, float]:
    """Of the object with this box: its area in px², how many others look like it, and the share of its box
    under boxes drawn later.
    """
    place = [list(thing.box) for thing in scene.things].index(list(box))
    target = scene.things[place]
    above = sum(
        painting.area(painting.intersection(target.box, thing.box)) for thing in scene.things[place + 1 :]
    )
    alike = sum(thing.name == target.name for thing in scene.things) - 1
    return {
        "area": painting.area(target.box),
        "distractors": alike,
        "covered": above / painting.area(target.box),
    }


def parts(facts: Sequence[Mapping[str, float]]) -> list[dict[str, str]]:
    """Each sample's part of all samples: by area (thirds), by distractors, by whether its box is covered."""
    small, large = paired.thirds([one["area"] for one in facts])
    sizes = (
        f"1st third by area (up to {small:.0f} px²)",
        f"2nd third by area (up to {large:.0f} px²)",
        "3rd third by area",
    )
    return [
        {
            "size": sizes[int(one["area"] > small) + int(one["area"] > large)],
            "distractors": f"distractors: {one['distractors']:.0f}",
            "covered": "covered in part" if one["covered"] else "not covered",
        }
        for one in facts
    ]


def flips(overlaps: np.ndarray, pictures: Sequence[str], hard: Sequence[Mapping[str, str]]) -> list[dict]:
    """Rows of `spr compare` at each threshold with how many samples were ``won`` and ``lost``, for all and
    for each ``part`` of `hard`.

    `overlaps`: (n, 2), IoU of base and SPR.
    """
    labels = {"all": np.ones(len(overlaps), dtype=bool)}
    for group in ("size", "distractors", "covered"):
        own = np.array([one[group] for one in hard])
        labels |= {label: own == label for label in sorted(set(own))}
    pictures, found = np.asarray(pictures), []
    for label, inside in labels.items():
        hits = {f"Acc@{t}": (overlaps[inside] >= t).astype(float) for t in metrics.THRESHOLDS}
        for row in figure_rows(hits, pictures[inside]):
            base, spr = hits[row["figure"]].T
            found.append(
                {"part": label, **row, "won": int((spr > base).sum()), "lost": int((spr < base).sum())}
            )
    return found


# --- scores and pairs against the truth


def worth(text: str, query: RegionQuery, form: BoxFormat) -> dict[str, float]:
    """What an answer is worth by the picture's true objects.

    IoU: mean over its boxes of the best IoU with an object of the name that they are written behind, 0 where
    there is none of that name and
    for an answer without boxes. recall: share of the region's objects that it names with a box of IoU ≥ 0.5.
    boxes: how many it writes.
    """
    mentions = form.parse(text, query.image.width, query.image.height).mentions
    said = [(mention.phrase, box.pixels()) for mention in mentions for box in mention.boxes]
    best = [
        max(
            (pair_iou(box, one.box.xyxy) for one in query.image.annotations if one.label == name), default=0.0
        )
        for name, box in said
    ]
    found = [
        any(name == one.label and pair_iou(box, one.box.xyxy) >= IOU_FLOOR for name, box in said)
        for one in query.truth
    ]
    return {
        "IoU": float(np.mean(best)) if best else 0.0,
        "recall": float(np.mean(found)),
        "boxes": float(len(said)),
    }


def answers(record: Mapping, query: RegionQuery, form: BoxFormat) -> list[dict[str, float]]:
    """Scores and worth of the valid answers to one region, as the model gave them."""
    scored = [row for row in record["candidates"] if row["reason"] is None]
    return [{**row["terms"], "S": row["score"], **worth(row["text"], query, form)} for row in scored]


def score_rows(regions: Iterable[Sequence[Mapping[str, float]]]) -> list[dict]:
    """Spearman's correlation of each score with each kind of worth: over all answers, and within a region,
    which is where a pair is made.
    """
    ranked = [(place, one) for place, region in enumerate(regions) for one in region]
    places = np.array([place for place, _ in ranked])
    found = []
    for score, value in itertools.product(SCORES, WORTH):
        x, y = (np.array([one[name] for _, one in ranked]) for name in (score, value))
        found += correlation(f"{score} with {value}, all answers", x, y, places, np.zeros(len(places)))
        found += correlation(f"{score} with {value}, within a region", x, y, places, places)
    return found


def correlation(
    figure: str, x: np.ndarray, y: np.ndarray, clusters: np.ndarray, groups: np.ndarray
) -> list[dict]:
    """One row: Pearson's correlation of the ranks that x and y have within their group, less their group's
    mean; [] where one is constant.

    With a single group that is Spearman's. The interval draws whole clusters and keeps the ranks.
    """
    a, b = (_centred_ranks(values, groups) for values in (x, y))
    products = np.column_stack([a * b, a * a, b * b])
    if not products.sum(axis=0)[1:].all():
        return []
    drawn = metrics.resampled(products, clusters, metrics.RESAMPLES, metrics.SEED)
    with np.errstate(invalid="ignore", divide="ignore"):
        value, *rest = (
            sums[:, 0] / np.sqrt(sums[:, 1] * sums[:, 2]) for sums in (products.sum(axis=0)[None], drawn)
        )
    low, high = np.nanpercentile(rest[0], (2.5, 97.5))
    return [{"figure": figure, "value": float(value[0]), "low": float(low), "high": float(high), "n": len(x)}]


def _centred_ranks(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    found = np.zeros(len(values))
    for group in np.unique(groups):
        ranks = rankdata(values[groups == group])
        found[groups == group] = ranks - ranks.mean()
    return found


def pair_worth(pair: PreferencePair, record: Mapping, query: RegionQuery, form: BoxFormat) -> dict:
    """The pair's gap of S, and the worth of chosen, of the same answer before refinement, and of rejected."""
    texts = {row["id"]: row["text"] for row in record["candidates"]}
    said = {
        "chosen": pair.chosen,
        "chosen before refinement": texts[pair.chosen_candidate],
        "rejected": pair.rejected,
    }
    return {
        "gap": pair.chosen_score - pair.rejected_score,
        **{side: worth(text, query, form) for side, text in said.items()},
    }


def pair_rows(pairs: Sequence[Mapping]) -> list[dict]:
    """Mean worth of each side, share of the pairs in which chosen really is better (and where both are
    equal), and whether a larger gap of S means a larger one of worth.
    """
    places, columns, linked = np.arange(len(pairs)), {}, []
    for value in (*WORTH, "boxes"):
        columns |= {
            f"{value} of {side}": np.array([pair[side][value] for pair in pairs])
            for side in pairs[0]
            if side != "gap"
        }
    for value, side in itertools.product(WORTH, ("chosen before refinement", "chosen")):
        gap = columns[f"{value} of {side}"] - columns[f"{value} of rejected"]
        columns |= {f"{value} is higher in {side}": gap > 0, f"{value} is equal in {side}": gap == 0}
        linked += correlation(
            f"gap of S with gap of {value}, {side}",
            np.array([pair["gap"] for pair in pairs]),
            gap,
            places,
            np.zeros(len(pairs)),
        )
    return (
        metrics.intervals({name: (column, np.ones(len(pairs))) for name, column in columns.items()}, places)
        + linked
    )


# --- log-probs


# Pair → chosen, rejected → (kind, log-prob) of each token of the answer.
Said = Sequence[Sequence[Sequence[tuple[str, float]]]]


def token_log_probs(checkpoint: Path, pairs: Sequence[PreferencePair], data: Path) -> Said:
    """By LLaVA's own script on `checkpoint`, stopped before it trains, and the stage's own code for
    log-probs.
    """
    if str(BENCHMARKS) not in sys.path:
        sys.path.append(str(BENCHMARKS))
    from live_llava import live_llava

    from spr_plugin.dpo import pairs as preference
    from spr_plugin.dpo import rows
    from spr_plugin.training.engine import generating

    found = []
    with tempfile.TemporaryDirectory() as out:
        host = live_llava(
            checkpoint.resolve(),
            (WORLD / "llava/vision_tower").resolve(),
            data / "sft.json",
            data / "images",
            out,
        )
    for start in range(0, len(pairs), BATCH):
        inputs = host.on_device(preference.batch_of(host, pairs[start : start + BATCH]))
        with generating(host):
            scored = rows.answers(host, host.trainer.model, inputs["batch"], inputs["unshared"], joined=True)
        said = [
            host.tokenizer.convert_ids_to_tokens(row[row != rows.IGNORED].tolist())
            for row in inputs["batch"]["labels"]
        ]
        values = [row[inside].tolist() for row, inside in zip(scored.token_log_probs, scored.scored)]
        told = [
            list(zip(map(kind, tokens), each, strict=True)) for tokens, each in zip(said, values)
        ]  # [chosen …, rejected …]
        found += zip(told[: len(told) // 2], told[len(told) // 2 :])
    return found


def kind(token: str) -> str:
    """Of a token of the tiny tokenizer, which has one for each coordinate and word: coordinates, words, or
    other (brackets, commas, the end).
    """
    text = token.removeprefix("▁")
    return "words" if text.isalpha() else "coordinates" if text[:1].isdigit() else "other"


def log_prob_rows(base: Said, spr: Said) -> list[dict]:
    """For chosen and rejected and each kind of token: log-prob of a token by the base, and how much SPR
    changed it; n is the number of tokens.
    """
    columns = {}
    for (place, side), wanted in itertools.product(enumerate(SIDES), KINDS):
        sums = [
            [[value for name, value in pair[place] if name == wanted] for pair in model]
            for model in (base, spr)
        ]
        counts = np.array([len(values) for values in sums[0]], dtype=float)
        before, after = (np.array([sum(values) for values in model]) for model in sums)
        columns |= {
            f"{wanted} of {side}, base": (before, counts),
            f"{wanted} of {side}, change": (after - before, counts),
        }
    return metrics.intervals(columns, range(len(base)))
