"""``spr score`` on the tiny world: the figures of the pipeline's own scorer, one line each, and one line for each mistake."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import spr_plugin.score_file as score_file_module
from spr_plugin.annotations import CocoImages, open_image
from spr_plugin.errors import UserError
from spr_plugin.formats import qwen3_vl
from spr_plugin.hooks.clip import load
from spr_plugin.regions import region_queries
from spr_plugin.score_file import score_file
from spr_plugin.scoring import SPRScorer

TINY = Path(__file__).parents[1] / "examples" / "tiny_world"
FORM = qwen3_vl()


@pytest.fixture(scope="module")
def world(tiny_world):
    return tiny_world(sft=1, spr=4, val=1, test=5)


@pytest.fixture(scope="module")
def scorer():
    return SPRScorer(load(str(TINY / "clip")))


@pytest.fixture(scope="module")
def queries(world):
    return list(region_queries(CocoImages(str(world / "spr.json"), str(world / "images"), Counter()), seed=0, skipped=Counter()))


def responses_of(queries):
    """Four answers to each region: all true boxes, the first object alone, a word without a box, broken JSON."""
    rows = []
    for query in queries:
        truth = [(annotation.label, annotation.box) for annotation in query.truth]
        texts = [FORM.render(truth), FORM.render(truth[:1]), "Some things.", '[{"bbox_2d": [1, 2']
        name = "/".join(query.image.path.split("/")[-2:])
        rows += [{"id": f"{query.id}-{i}", "image": name, "region": query.region.xyxy, "text": text} for i, text in enumerate(texts)]
    return rows


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run(world, scorer, tmp_path, rows, **more):
    out = tmp_path / "out.jsonl"
    counts = score_file(write(tmp_path / "in.jsonl", rows), str(world / "spr.json"), str(world / "images"), FORM, scorer, str(out), **more)
    return counts, [json.loads(line) for line in out.read_text().splitlines()]


def test_scores_and_pairs(world, scorer, queries, tmp_path):
    rows = responses_of(queries)
    counts, scored = run(world, scorer, tmp_path, rows, pairs=str(tmp_path / "pairs.jsonl"))
    assert [row["id"] for row in scored] == [row["id"] for row in rows]
    for query, first in zip(queries, range(0, len(rows), 4)):
        full, one, vague, broken = scored[first : first + 4]
        picture = open_image(query.image.path, query.image.id)
        texts = [[row["text"] for row in rows[first : first + 4]]]
        [[expected, *_]] = scorer.score([query], picture, texts, FORM, scorer.truth([query], picture, texts, FORM))
        assert {key: full[key] for key in expected["terms"]} == pytest.approx(expected["terms"], abs=1e-5)
        assert full["score"] == pytest.approx(expected["total"], abs=1e-5) and len(full["boxes"]) == len(query.truth)
        assert full["s_loc"] > 0.95 > one["s_loc"] and json.loads(one["refined"].split("json")[1].split("```")[0])
        assert (vague["reason"], broken["reason"]) == ("no_box", "unparsable") and vague["score"] is None and broken["s_loc"] is None
    pairs = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert counts == {"responses": len(rows), **({"pairs": len(pairs)} if pairs else {}), **{k: v for k, v in counts.items() if k.startswith("no pair")}}
    assert sum(counts.values()) == len(rows) + len(queries)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": "spr/nobody.png"}, "spr/nobody.png is not in --annotations"),
        ({"region": [0, 0, 1]}, "region is"),
        ({"text": None}, "text is missing"),
        ({"region": [0, 0, 2, 2]}, "holds no annotated object"),
    ],
)
def test_a_wrong_response_is_named(world, scorer, queries, tmp_path, change, words):
    rows = responses_of(queries[:1])
    rows[2].update(change)
    with pytest.raises(UserError, match=words):
        run(world, scorer, tmp_path, rows)


@pytest.mark.parametrize("corners", [[0, 0, float("nan"), 9], [0, 0, 9, float("nan")], [float("nan")] * 4, [40, 40, 10, 10], [900, 900, 990, 990]])
def test_a_region_that_is_none_is_named_before_anything_is_scored(world, queries, tmp_path, corners):
    rows = responses_of(queries)
    rows[-1].update(region=corners)
    with pytest.raises(UserError, match=f"response {rows[-1]['id']}: the region .* holds no annotated object"):
        run(world, None, tmp_path, rows)
    assert not (tmp_path / "out.jsonl").exists()


def test_batches_hold_regions_of_one_picture(monkeypatch):
    monkeypatch.setattr(score_file_module, "REGIONS", 2)
    rows = [{"image": image, "region": [0, 0, 1, last]} for image, last in [("a", 1), ("a", 1), ("a", 2), ("a", 3), ("b", 3), ("b", 3)]]
    shapes = [[len(region) for region in batch] for batch in score_file_module._batches(rows)]
    assert shapes == [[2, 1], [1], [2]]


class Silent:
    """A scorer that costs nothing, for what the file's own handling costs."""

    def truth(self, queries, picture, texts, box_format):
        return [np.array([box.box.xyxy for box in query.truth]) for query in queries]

    def score(self, queries, picture, texts, box_format, truths):
        return [[{"terms": dict.fromkeys(("s_crop", "s_local", "s_sem", "s_loc"), 0.1), "total": 0.1, "valid": True, "reason": None}] * len(said) for said in texts]


def test_memory_does_not_grow_with_the_number_of_lines(world, queries, tmp_path):
    """Ten times the regions, the same peak to within the 8 bytes for each and some slack."""
    import tracemalloc

    def peak(regions):
        query = queries[0]
        name, (x1, y1, x2, y2) = "/".join(query.image.path.split("/")[-2:]), query.region.xyxy
        rows = [{"id": i, "image": name, "region": [x1 - i / 1e6, y1, x2, y2], "text": "a thing"} for i in range(regions)]
        tracemalloc.start()
        try:
            run_file = write(tmp_path / "in.jsonl", rows)
            del rows
            tracemalloc.reset_peak()
            base = tracemalloc.get_traced_memory()[0]
            score_file(run_file, str(world / "spr.json"), str(world / "images"), FORM, Silent(), str(tmp_path / "out.jsonl"))
            return tracemalloc.get_traced_memory()[1] - base
        finally:
            tracemalloc.stop()

    few, many = peak(200), peak(2000)
    assert many < few + 2000 * 8 * 8 + 50_000


def test_lines_of_a_region_stand_together(world, scorer, queries, tmp_path):
    rows = responses_of(queries[:2])
    with pytest.raises(UserError, match="do not stand together"):
        run(world, scorer, tmp_path, [*rows, rows[0]])


def test_the_command(world, queries, tmp_path):
    rows = responses_of(queries[:1])
    flags = f"--annotations {world}/spr.json --images {world}/images --box-format qwen3-vl --clip {TINY}/clip --out {tmp_path}/out.jsonl"
    command = [sys.executable, "-m", "spr_plugin", "score", "--responses", write(tmp_path / "in.jsonl", rows), *flags.split()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "responses 4" in done.stderr and len((tmp_path / "out.jsonl").read_text().splitlines()) == 4
    broken = subprocess.run([*command[:-2], "--out", str(tmp_path / "o"), "--box-format", "nobody"], capture_output=True, text=True)
    assert broken.returncode == 2 and broken.stderr.startswith("spr: error: --spr_box_format nobody") and "Traceback" not in broken.stderr
