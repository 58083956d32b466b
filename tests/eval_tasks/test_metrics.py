import random

import numpy as np
import pytest

from spr_plugin.boxes import SIZES, iou_matrix, pair_iou
from spr_plugin.eval_tasks import metrics


def items(count, seed=0):
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        w, h = rng.choice([8, 20, 60, 200]), rng.choice([8, 20, 60, 200])
        truth = [50.0, 40.0, 50.0 + w, 40.0 + h]
        moved = [
            truth[0] + rng.uniform(-0.2, 0.2) * w,
            truth[1],
            truth[2],
            truth[3] + rng.uniform(-0.2, 0.2) * h,
        ]
        lost = rng.random() < 0.2
        reason = rng.choice(["truncated", "no_box"]) if lost else None
        rows.append(
            metrics.box_item(
                f"{number}", [truth], None if lost else moved, reason, rng.randint(1, 3), rng.uniform(0.4, 1)
            )
        )
    return rows


def doc(number, image):
    return {"id": str(number), "image_id": image, "image": "a.png"}


def test_means_are_by_sample():
    payloads = [
        metrics.payload(doc(0, "a"), [1.0, 0.0, 0.0]),
        metrics.payload(doc(1, "a"), [1.0]),
        metrics.payload(doc(2, "b"), []),
    ]
    assert metrics.mean(payloads) == 0.5  # the mean of means would be 2/3
    assert metrics.mean([]) == 0.0


def test_figures_of_boxes_equal_a_naive_count():
    rows = items(500)
    found = {
        row["figure"]: row
        for row in metrics.intervals(metrics.box_columns(rows), [row["id"] for row in rows], resamples=50)
    }
    for threshold in metrics.THRESHOLDS:
        assert found[f"Acc@{threshold}"]["value"] == pytest.approx(
            sum(row["iou"] >= threshold for row in rows) / 500
        )
        assert found[f"ceiling@{threshold}"]["value"] == pytest.approx(
            sum(row["ceiling"] >= threshold for row in rows) / 500
        )
        for size, (low, high) in {"small": (0, 1024), "medium": (1024, 9216), "large": (9216, 1e9)}.items():
            inside = [row for row in rows if low <= row["area"] < high]
            figure = found[f"Acc@{threshold} {size}"]
            assert figure["n"] == len(inside) and figure["value"] == pytest.approx(
                sum(row["iou"] >= threshold for row in inside) / len(inside)
            )
    assert found["mIoU"]["value"] == pytest.approx(sum(row["iou"] for row in rows) / 500)
    for reason in ("truncated", "no_box"):
        assert found[f"parse_failure {reason}"]["value"] == pytest.approx(
            sum(row["reason"] == reason for row in rows) / 500
        )
    assert found["boxes"]["value"] == pytest.approx(sum(row["boxes"] for row in rows) / 500)
    assert all(row["low"] <= row["value"] <= row["high"] and row["images"] == 500 for row in found.values())


@pytest.mark.parametrize("threshold", metrics.THRESHOLDS)
def test_exactly_a_threshold_counts_and_a_little_less_does_not(threshold):
    """In a document's payloads, in the figures of all boxes, and for the grid's ceiling."""
    half = {"id": "a", "area": 2000.0, "boxes": 1, "reason": None}
    # three, so that the wrong way round is another share
    items = [{**half, "iou": v, "ceiling": v} for v in (threshold, threshold, threshold - 1e-9)]
    items[0]["reason"] = "malformed"
    columns, payloads = metrics.box_columns(items), metrics.box_payloads(doc(0, "a"), items)
    assert payloads[f"Acc@{threshold}"]["score"] == 2 / 3 and payloads["parse_failure"]["score"] == 1 / 3
    for name in (f"Acc@{threshold}", f"ceiling@{threshold}", f"Acc@{threshold} medium"):
        assert columns[name][0].tolist() == [1, 1, 0], name


@pytest.mark.parametrize(
    ("side", "size"), [(31.99, "small"), (32, "medium"), (95.99, "medium"), (96, "large"), (0.1, "small")]
)
def test_a_box_of_exactly_a_size_s_edge_is_of_the_larger_one(side, size):
    item = metrics.box_item("1", [[10.0, 20.0, 10.0 + side, 20.0 + side]], None, "no_box", 0)
    columns = metrics.box_columns([item])
    assert [name for name in SIZES if columns[f"mIoU {name}"][1].sum()] == [size]


def test_a_box_is_judged_by_the_truth_that_it_meets_best():
    truths = [[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 70.0], [52.0, 50.0, 60.0, 70.0]]
    item = metrics.box_item("1", truths, [50.004, 50.0, 60.0, 70.0], None, 2, 0.9)
    assert (
        item["truth"] == truths[1] and item["area"] == 200.0 and item["predicted"] == [50.0, 50.0, 60.0, 70.0]
    )
    assert item["iou"] == pytest.approx(0.9996) and (item["ceiling"], item["boxes"]) == (0.9, 2)
    assert metrics.box_item("1", truths, None, "no_box", 0)["truth"] == truths[0]


def test_a_figure_without_samples_is_left_out():
    rows = [metrics.box_item("1", [[0.0, 0.0, 10.0, 10.0]], None, "no_box", 0)]
    names = {row["figure"] for row in metrics.intervals(metrics.box_columns(rows), ["a"], resamples=10)}
    assert "Acc@0.5 small" in names and "Acc@0.5 large" not in names


def test_interval_draws_whole_clusters():
    """Naive: draw pictures with replacement, take all their samples, 3,000 times."""
    rng = np.random.default_rng(1)
    clusters = rng.integers(0, 40, 400)
    values = ((clusters % 3 == 0) + rng.normal(0, 0.1, 400)).clip(0, 1)
    weights = rng.integers(0, 3, 400).astype(float)
    (row,) = metrics.intervals({"x": (values * weights, weights)}, clusters, resamples=3000)
    drawn = []
    for _ in range(3000):
        places = np.concatenate(
            [np.flatnonzero(clusters == c) for c in rng.choice(np.unique(clusters), len(np.unique(clusters)))]
        )
        drawn.append((values * weights)[places].sum() / weights[places].sum())
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert row["low"] == pytest.approx(low, abs=0.015) and row["high"] == pytest.approx(high, abs=0.015)
    (alone,) = metrics.intervals({"x": (values * weights, weights)}, range(400), resamples=3000)
    assert alone["high"] - alone["low"] < 0.5 * (row["high"] - row["low"])


def test_interval_covers_the_truth_as_often_as_it_says():
    """300 small studies of a rate of 0.7, clusters of three: the 95 % interval holds it in 90 to 98 %."""
    rng, covered = np.random.default_rng(2), 0
    for study in range(300):
        rates = np.repeat((rng.random(60) < 0.7).astype(float), 3)
        (row,) = metrics.intervals(
            {"x": (rates, np.ones(180))}, np.repeat(np.arange(60), 3), resamples=400, seed=study
        )
        covered += row["low"] <= 0.7 <= row["high"]
    assert 0.90 <= covered / 300 <= 0.98


def test_interval_is_the_same_every_time():
    columns = metrics.box_columns(items(50))
    assert metrics.intervals(columns, range(50), 200) == metrics.intervals(columns, range(50), 200)


def test_group_details_pool_samples_not_figures():
    big = metrics.box_details([metrics.detail(doc(n, f"a{n}"), [row]) for n, row in enumerate(items(30))])
    small = metrics.box_details(
        [metrics.detail(doc(n, f"b{n}"), [row]) for n, row in enumerate(items(10, seed=3))]
    )
    pooled = {row["figure"]: row for row in metrics.pooled_box_details([big, small], [30, 10], True)}
    assert pooled["Acc@0.5"]["n"] == 40
    assert pooled["Acc@0.5"]["value"] == pytest.approx(
        sum(row["iou"] >= 0.5 for row in items(30) + items(10, seed=3)) / 40
    )


def test_details_are_two_words_in_a_table_and_a_list_in_json():
    import json

    details = metrics.box_details([metrics.detail(doc(0, "a"), items(1))])
    assert str(details) == "in JSON" and json.loads(json.dumps(details))[0]["figure"] == "Acc@0.5"


def test_iou_equals_pycocotools():
    """100,000 random pairs: integer and fractional, apart, nested, equal and touching boxes."""
    mask = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for _ in range(250):
        corners = (
            rng.uniform(-20, 640, (40, 4))
            if rng.random() < 0.5
            else rng.integers(0, 60, (40, 4)).astype(float)
        )
        boxes = np.column_stack([corners[:, :2], corners[:, :2] + abs(corners[:, 2:]) % 200 + 1])
        boxes[1] = boxes[0]
        ours = iou_matrix(boxes[:20], boxes[20:])
        xywh = np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
        theirs = mask.iou(xywh[:20].tolist(), xywh[20:].tolist(), [0] * 20)
        np.testing.assert_allclose(ours, theirs, atol=1e-9, rtol=0)
        np.testing.assert_allclose(
            [[pair_iou(a, b) for b in boxes[20:].tolist()] for a in boxes[:20].tolist()],
            theirs,
            atol=1e-9,
            rtol=0,
        )
        for threshold in metrics.THRESHOLDS:
            decided = abs(ours - threshold) > 1e-9
            assert ((ours >= threshold) == (theirs >= threshold))[decided].all()


@pytest.mark.parametrize(
    "bad",
    [
        [5.0, 0.0, 1.0, 9.0],
        [0.0, 0.0, 0.0, 9.0],
        [0.0, 0.0, float("inf"), 9.0],
        [float("nan"), 0.0, 3.0, 9.0],
    ],
)
def test_what_is_no_box_overlaps_nothing(bad):
    good = [0.0, 0.0, 9.0, 9.0]
    assert pair_iou(bad, good) == pair_iou(good, bad) == iou_matrix([bad], [good])[0, 0] == 0.0


# --- golden values: what no comparison of two sums would notice


def test_what_the_figures_are_called_and_which_way_is_better():
    assert metrics.THRESHOLDS == (0.5, 0.6, 0.7, 0.8, 0.9)
    higher = {"Acc@0.5": True, "Acc@0.6": True, "Acc@0.7": True, "Acc@0.8": True, "Acc@0.9": True}
    assert metrics.BOX_METRICS == {**higher, "mIoU": True, "parse_failure": False, "boxes": None}


def test_a_box_and_none_by_hand():
    truths = [[0.0, 0.0, 4.0, 4.0], [10.0, 10.0, 20.0, 30.0]]
    lost = metrics.box_item("1", truths, None, "no_box", 0)
    assert (lost["iou"], lost["ceiling"], lost["boxes"], lost["truth"]) == (0.0, 1.0, 0, truths[0])
    found = metrics.box_item("1", truths, [10.004, 10.0, 20.0, 20.006], None, 1)
    assert found["predicted"] == [10.0, 10.0, 20.0, 20.01] and found["area"] == 200.0
    assert found["iou"] == pytest.approx(0.5, abs=1e-3) and found["truth"] == truths[1]
    payloads = metrics.box_payloads(doc(1, "a"), [lost, found])
    assert payloads["parse_failure"]["score"] == 0.5 and payloads["boxes"]["score"] == 0.5
    nothing = metrics.payload(doc(1, "a"), [])
    assert (nothing["score"], nothing["n"]) == (0.0, 0)


def test_the_hash_of_what_is_asked_is_of_the_question_and_not_of_the_picture_s_place():
    asked = metrics.detail({**doc(1, "a"), "expression": "cat"}, [])["asked"]
    assert metrics.detail({**doc(1, "b"), "image": "b.png", "expression": "cat"}, [])["asked"] == asked
    assert metrics.detail({**doc(1, "a"), "expression": "dog"}, [])["asked"] != asked


def test_what_an_item_does_not_have_weighs_nothing():
    rows = [{"id": "1", "figures": {"a": (1.0, 2.0)}}, {"id": "2", "figures": {"b": (3.0, 4.0)}}]
    columns = metrics.ratio_columns(rows)
    assert {name: (values.tolist(), weights.tolist()) for name, (values, weights) in columns.items()} == {
        "a": ([1.0, 0.0], [2.0, 0.0]),
        "b": ([0.0, 3.0], [0.0, 4.0]),
    }


@pytest.mark.parametrize("clusters, resamples", [(1, 5), (7, 40), (3000, 3000)])
def test_every_draw_takes_as_many_clusters_as_there_are(clusters, resamples):
    """The largest one is drawn in several goes."""
    drawn = metrics.resampled(np.ones((clusters, 1)), range(clusters), resamples, 0)
    assert drawn.shape == (resamples, 1) and (drawn == clusters).all()


def test_the_interval_s_ends_are_percentiles_of_the_draws():
    values, ones = np.arange(40.0) ** 2, np.ones(40)
    (row,) = metrics.intervals({"a": (values, ones)}, range(40), resamples=400)
    table = np.column_stack([values, ones])
    drawn = metrics.resampled(table, range(40), 400, metrics.SEED)
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    assert (row["low"], row["high"], row["images"]) == (low, high, 40)
