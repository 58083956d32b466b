"""Real photographs through the whole method with hand-written answers: regions, scores, repair, pair, report.

The pictures ship with scikit-image; their boxes, in annotations.json, were drawn by hand.
"""

import base64
import io
import json
import re
from collections import Counter
from dataclasses import asdict
from html import unescape
from pathlib import Path

import numpy as np
import pytest

skimage_data = pytest.importorskip("skimage.data")
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from PIL import Image, ImageColor  # noqa: E402

from spr_plugin.annotations import open_image, CocoImages  # noqa: E402
from spr_plugin.boxes import Box, Space, iou  # noqa: E402
from spr_plugin.config import SPRConfig, fingerprint  # noqa: E402
from spr_plugin.formats import llava  # noqa: E402
from spr_plugin.hooks.clip import ClipSimilarity  # noqa: E402
from spr_plugin.pairing import PreferencePair, make_pair  # noqa: E402
from spr_plugin.pipeline import score_region  # noqa: E402
from spr_plugin.prompts import prompts_for, restate  # noqa: E402
from spr_plugin.refinement import refine  # noqa: E402
from spr_plugin.regions import members, region_queries  # noqa: E402
from spr_plugin.report import COLORS, PICTURE_SIDE, write_report  # noqa: E402
from spr_plugin.scoring import SPRScorer  # noqa: E402
from spr_plugin.store import Log, check_manifest, write_json  # noqa: E402

HERE = Path(__file__).parent
CLIP = HERE.parents[1] / "examples" / "tiny_world" / "clip"
FORM = llava("pad")
PHOTOS = {
    "astronaut.png": lambda: skimage_data.astronaut(),
    "coffee.png": lambda: skimage_data.coffee(),
    "chelsea.png": lambda: skimage_data.chelsea(),
    "rocket.png": lambda: skimage_data.rocket(),
    "motorcycle_left.png": lambda: skimage_data.stereo_motorcycle()[0],
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for name, load in PHOTOS.items():
        Image.fromarray(load()).save(folder / name)
    skipped = Counter()
    found = {Path(image.path).name: image for image in CocoImages(str(HERE / "annotations.json"), str(folder), skipped)}
    assert not skipped and found.keys() == PHOTOS.keys()
    return found


@pytest.fixture(scope="module")
def queries(images):
    skipped = Counter()
    made = list(region_queries(images.values(), seed=0, regions_per_image=3, skipped=skipped))
    assert skipped.keys() <= {"same_region"}
    return made


@pytest.fixture(scope="module")
def scorer():
    return SPRScorer(ClipSimilarity(str(CLIP)))


def sentence(rows):
    """ "a red cup [..], a spoon [..] and a saucer [..]." """
    *first, last = [FORM.render([row]) for row in rows]
    return f"{', '.join(first)} and {last}." if first else f"{last}."


def shifted(box, share):
    """`box` moved right and down by `share` of its sides, kept on the picture."""
    return Box(box.x1 + share * box.width, box.y1 + share * box.height, box.x2 + share * box.width, box.y2 + share * box.height, box.space).clip()


def answers(query):
    """A good answer, one with loose boxes, one with half of the objects, one with boxes far off, and two that are no answer."""
    rows = [(annotation.label, annotation.box) for annotation in query.truth]
    loose = sentence([(label, shifted(box, 0.12)) for label, box in rows])
    half = sentence(rows[: len(rows) // 2])
    astray = sentence([("something", shifted(box, 0.8)) for _, box in rows])
    return {"good": sentence(rows), "loose": loose, "half": half, "astray": astray, "vague": "Some things.", "broken": "A thing [0.1, 0.2"}


def test_every_photograph_gives_regions_with_more_than_four_objects(queries, images):
    assert {query.image.id for query in queries} == {image.id for image in images.values()}
    assert all(len(query.truth) > 4 and query.truth == members(query.image, query.region) for query in queries)


def test_hand_drawn_boxes_lie_on_the_picture_and_are_told_apart(images):
    for image in images.values():
        assert len({annotation.label for annotation in image.annotations}) == len(image.annotations)
        for annotation in image.annotations:
            assert annotation.box.clip() == annotation.box and min(annotation.box.width, annotation.box.height) >= 19
            others = [other for other in image.annotations if other is not annotation]
            assert all(iou(annotation.box, other.box) < 0.9 for other in others)


def test_from_answers_to_a_pair(queries, scorer):
    for query in queries:
        picture = open_image(query.image.path, query.image.id)
        said = answers(query)
        truth = [annotation.box for annotation in query.truth]
        refined = {name: refine(text, truth, FORM, query.image.width, query.image.height) for name, text in said.items()}
        scores = scorer.score(query, picture, [*said.values(), *(text for text, _, _ in refined.values())], FORM)
        initial, final = dict(zip(said, scores)), dict(zip(said, scores[len(said) :]))
        s_loc = {name: score["terms"].get("s_loc") for name, score in initial.items()}
        # Two decimals cost a small object some IoU: even the true boxes do not reach 1.
        assert s_loc["good"] > 0.8 > s_loc["loose"] > 0.3 and s_loc["good"] > s_loc["half"] and s_loc["astray"] < 0.4
        assert final["loose"]["terms"]["s_loc"] > s_loc["loose"]
        assert refined["good"][1:] == (len(truth), 0)
        assert (initial["vague"]["reason"], initial["broken"]["reason"]) == ("no_box", "unparsable")
        assert all(score["valid"] for name, score in initial.items() if name not in ("vague", "broken"))
        rows = [
            {"id": name, "text": said[name], "initial": initial[name], "refined_text": refined[name][0], "refined": final[name]}
            for name in said
        ]
        [prompt] = prompts_for(query, FORM, ["plain"])
        pair = make_pair(query, prompt.text, rows)
        assert isinstance(pair, PreferencePair)
        assert pair.chosen_score == max(score["total"] for score in final.values() if score["valid"])
        assert pair.rejected_score == min(score["total"] for score in initial.values() if score["valid"])


def test_a_crop_answer_of_a_photograph_finds_its_objects_again(queries):
    for query in queries:
        [prompt] = prompts_for(query, FORM, ["crop"])
        left, top, right, bottom = prompt.crop
        in_crop = Space.pixels(right - left, bottom - top)
        seen = []
        for annotation in query.truth:
            x1, y1, x2, y2 = annotation.box.xyxy
            seen.append((annotation.label, Box(x1 - left, y1 - top, x2 - left, y2 - top, in_crop).clip()))
        text = restate(sentence(seen), prompt, query, FORM)
        found = FORM.parse(text, query.image.width, query.image.height).boxes
        whole = query.region.space
        for box, (_, part) in zip(found, seen, strict=True):
            wanted = Box(part.x1 + left, part.y1 + top, part.x2 + left, part.y2 + top, whole)
            assert iou(box.to(whole), wanted) > 0.6


def test_the_report_draws_chosen_and_rejected_boxes(queries, scorer, tmp_path):
    check_manifest(tmp_path, {**fingerprint(SPRConfig(spr=True)), "box": FORM.describe()}, overwrite=False)
    write_json(tmp_path / "regions" / "counts.json", {"missing_image": 3})
    regions, scores, pairs = (Log(tmp_path / stage) for stage in ("regions", "scores", "pairs"))
    shown = {}
    for query in queries:
        candidates = [{"id": f"{query.id}-{name}", "text": text} for name, text in answers(query).items()]
        record = score_region(query, candidates, scorer, FORM)
        pair = make_pair(query, prompts_for(query, FORM, ["plain"])[0].text, record["candidates"])
        regions.append(query.to_json())
        scores.append(record)
        pairs.append(asdict(pair))
        shown[pair.id] = (query, pair)
    html = write_report(tmp_path).read_text()
    assert not re.search(r"(src|href)=.https?:", html), "the report is one file that needs no network"
    assert "missing_image" in html and "no_box" in html and "unparsable" in html
    pictures = [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"data:image/jpeg;base64,([\w+/=]+)", html)]
    assert len(pictures) == 2 * len(queries)
    in_order = [shown[id] for id in Log(tmp_path / "pairs").read()]
    for (query, pair), picture in zip(in_order, pictures[::2]):
        assert pair.chosen in unescape(html) and pair.rejected in unescape(html)
        for box in FORM.parse(pair.chosen, query.image.width, query.image.height).boxes:
            x1, y1, x2, y2 = (value * PICTURE_SIDE / max(query.image.width, query.image.height) for value in box.pixels())
            corner = np.asarray(picture, int)[max(0, int(y1) - 3) : int(y1) + 4, max(0, int(x1) - 3) : int(x1) + 4].reshape(-1, 3)
            assert abs(corner - ImageColor.getrgb(COLORS["chosen"])).sum(1).min() < 120, (query.image.id, box)


def test_annotations_are_coco_json():
    content = json.loads((HERE / "annotations.json").read_text())
    assert content.keys() >= {"images", "annotations", "categories"}
