import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spr_plugin.eval_tasks import metrics, rec
from tests.eval_tasks.naive import COUNT, FAMILIES, hostile, naive_boxes, naive_iou, near, random_box, written

METRICS = {"Acc@0.5", "Acc@0.6", "Acc@0.7", "Acc@0.8", "Acc@0.9", "mIoU", "parse_failure", "boxes", "details"}


def document(box=(10.0, 20.0, 50.0, 70.0), width=120, height=80, box_format="llava:pad"):
    return {
        "id": "7",
        "image_id": "a.png",
        "width": width,
        "height": height,
        "expression": "cat",
        "bbox": list(box),
        "box_format": box_format,
    }


def item(scores):
    (only,) = scores["details"]["items"]
    return only


def naive_padded_iou(answer, truth, width, height):
    """From the protocol: the first [a, b, c, d], times the longer side, minus half the padding; None if there
    is none, or unless 0 ≤ a < c ≤ 1.
    """
    for inside in re.findall(r"\[([^\[\]]*)\]", answer):
        parts = [part.strip() for part in inside.split(",")]
        if len(parts) != 4 or not all(re.fullmatch(r"\d+(\.\d*)?|\.\d+", part) for part in parts):
            continue
        a, b, c, d = map(float, parts)
        if max(a, b, c, d) > 1 or c < a or d < b:
            return None
        side = max(width, height)
        left, top = (side - width) // 2, (side - height) // 2
        x1, y1, x2, y2 = a * side - left, b * side - top, c * side - left, d * side - top
        tx1, ty1, tx2, ty2 = truth
        common = max(0, min(x2, tx2) - max(x1, tx1)) * max(0, min(y2, ty2) - max(y1, ty1))
        return common / ((x2 - x1) * (y2 - y1) + (tx2 - tx1) * (ty2 - ty1) - common)
    return None


def generated_answers(count, seed=0):
    """Answers near the truth, far from it, and broken in the ways that models break them."""
    rng = random.Random(seed)
    for _ in range(count):
        width, height = rng.randint(40, 640), rng.randint(40, 640)
        x, y = (
            sorted(rng.uniform(0, width) for _ in range(2)),
            sorted(rng.uniform(0, height) for _ in range(2)),
        )
        truth = (x[0], y[0], x[1] + 1, y[1] + 1)
        side, pads = (
            max(width, height),
            ((max(width, height) - width) // 2, (max(width, height) - height) // 2),
        )
        near = [
            min(1, max(0, (value + pads[index % 2]) / side + rng.gauss(0, 0.03)))
            for index, value in enumerate(truth)
        ]
        numbers = ", ".join(f"{value:.2f}" for value in near)
        style = rng.choice(
            [
                "[{}]",
                "The box is [{}].",
                "[1, 2] or [{}]",
                "{}",
                "[{}",
                "[{}], [0, 0, 1, 1]",
                "",
                "none",
                "[{}, 0.5]",
            ]
        )
        yield width, height, truth, style.format(numbers)


def test_agrees_with_a_naive_reading_of_the_protocol():
    for width, height, truth, answer in generated_answers(2000):
        expected = naive_padded_iou(answer, truth, width, height)
        scores = rec.process_results(document(truth, width, height), [answer])
        assert set(scores) == METRICS
        assert scores["parse_failure"]["score"] == float(expected is None), answer
        assert scores["mIoU"]["score"] == pytest.approx(expected or 0.0, abs=1e-9)
        for threshold in (0.5, 0.6, 0.7, 0.8, 0.9):
            if expected is None or abs(expected - threshold) > 1e-9:
                assert scores[f"Acc@{threshold}"]["score"] == float((expected or 0.0) >= threshold)


@pytest.mark.parametrize("family", FAMILIES)
def test_expressions(family):
    """Ferret's REC protocol in each family's own space: the first box written, IoU ≥ t, a failure is a
    miss.
    """
    rng, failures = random.Random(family), 0
    for _ in range(COUNT // len(FAMILIES) + 1):
        width, height = rng.randint(150, 640), rng.randint(150, 640)
        truth = random_box(rng, width, height)
        answer = hostile(rng, written(family, near(rng, truth, width, height), width, height))
        doc = {
            "id": "1",
            "image_id": "a",
            "width": width,
            "height": height,
            "bbox": truth,
            "box_format": family,
        }
        scores = rec.process_results(doc, [answer])
        boxes = naive_boxes(family, answer, width, height)
        # No number of the family's, or no box.
        unread = not boxes or answer.startswith(("[9, 8, 1, 2]", "[-1, -2, -3, -4]"))
        expected = 0.0 if unread else naive_iou(boxes[0][2], truth)
        failures += unread
        assert scores["parse_failure"]["score"] == float(unread), answer
        assert scores["boxes"]["score"] == len(boxes)
        assert scores["mIoU"]["score"] == pytest.approx(expected, abs=1e-9), answer
        for threshold in (0.5, 0.6, 0.7, 0.8, 0.9):
            assert (
                scores[f"Acc@{threshold}"]["score"] == float(expected >= threshold)
                or abs(expected - threshold) < 1e-9
            )
    assert failures > 20


@pytest.mark.parametrize("threshold", metrics.THRESHOLDS)
def test_an_iou_of_exactly_a_threshold_is_a_hit(threshold):
    """On a picture of 1000 x 1000 Ferret's numbers are pixels, and a box that covers 0.6 of the truth has
    that IoU to the bit.
    """
    doc = document((0.0, 0.0, 1000.0, 1000.0), 1000, 1000, "ferret")
    for height, right in ((1000 * threshold, 1.0), (1000 * threshold - 1, 0.0)):
        scores = rec.process_results(doc, [f"[0, 0, 1000, {round(height)}]"])
        assert scores[f"Acc@{threshold}"]["score"] == scores[f"ferret_Acc@{threshold}"]["score"] == right


def test_boxes_of_the_padded_square_are_unpadded():
    # 120 x 80 is padded by 20 px above and below: truth 10, 20, 50, 70 → (10, 40, 50, 90) / 120
    scores = rec.process_results(document(), ["[0.0833333, 0.3333333, 0.4166667, 0.75]"])
    assert scores["mIoU"]["score"] == pytest.approx(1.0, abs=1e-5)
    assert item(scores)["predicted"] == item(scores)["truth"] == [10.0, 20.0, 50.0, 70.0]


RIGHT, WRONG = "[0.08, 0.33, 0.42, 0.75]", "[0.5, 0.5, 0.6, 0.6]"


@pytest.mark.parametrize(
    ("answer", "right", "reason"),
    [
        (f"{RIGHT}, {WRONG}", True, None),
        (f"{WRONG}, {RIGHT}", False, None),
        (f"[{RIGHT}, {WRONG}]", True, None),
        (f"[{WRONG}, {RIGHT}]", False, None),
        (f"[ {RIGHT},\n {WRONG} ]", True, None),
        (
            f"[{RIGHT}, [0.1, 0.2, 1.3, 0.4]]",
            True,
            None,
        ),  # one that cannot be read spoils no other of its list
        (f"[[0.1, 0.2, 1.3, 0.4], {RIGHT}]", False, "out_of_range"),
        (f"[[0.1, 0.2, inf, 0.4], {RIGHT}]", False, "malformed"),
        (f"[[0.1, 0.2], {RIGHT}]", True, None),
        (f"([0.1, 0.2], [0.3, 0.4]) {RIGHT}", False, "malformed"),
        (f"[0.08, 0.33, 0.42, 1.75], {RIGHT}", False, "out_of_range"),
        (f"[0.42, 0.33, 0.08, 0.75] {RIGHT}", False, "inverted"),
        (f"[0.08, 0.33, nan, 0.75] {RIGHT}", False, "malformed"),
        (f"(0.08, 0.33, 0.42, 0.75) {RIGHT}", False, "malformed"),
        (f"x1=0.08, y1=0.33, x2=0.42, y2=0.75: {RIGHT}", False, "malformed"),
        (f"[[0.08, 0.33, 0.42, 0.75]] {RIGHT}", False, "malformed"),
        (f"[1, 2] and [0.08, 0.33, 0.42] {RIGHT}", True, None),  # fewer than four numbers are no box
        (f"There are 1, 2, 3, 4 of them: {RIGHT}", True, None),
        (f"{RIGHT} (0.1, 0.2, 0.3, 0.4)", True, None),
    ],
)
def test_the_first_box_written_answers(answer, right, reason):
    scores = rec.process_results(document(), [answer])
    assert scores["Acc@0.5"]["score"] == float(right) and item(scores)["reason"] == reason
    assert scores["parse_failure"]["score"] == float(reason is not None)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1" + "0" * 400, "1e400"])
def test_what_is_no_number_is_no_box(number):
    answer = (
        f'[{{"bbox_2d": [1, 2, {number}, 4], "label": "a"}}, {{"bbox_2d": [10, 20, 50, 70], "label": "a"}}]'
    )
    scores = rec.process_results(document(box_format="qwen2.5-vl"), [answer])
    assert (
        scores["parse_failure"]["score"] == 1.0
        and item(scores)["predicted"] is None
        and scores["boxes"]["score"] == 1
    )


def test_the_space_is_the_documents_and_never_the_one_that_fits_the_truth():
    answer = ["[83, 250, 416, 875]"]  # right on Ferret's grid of the unpadded picture
    assert rec.process_results(document(box_format="ferret"), answer)["mIoU"]["score"] > 0.95
    padded = rec.process_results(document(box_format="llava:pad"), answer)
    assert (
        padded["parse_failure"] == {"id": "7", "image": "a.png", "score": 1.0, "n": 1}
        and item(padded)["reason"] == "out_of_range"
    )


@pytest.mark.parametrize(
    "results",
    [
        [],
        [None],
        [""],
        [3],
        ["[" * 10**5],
        ["[0.1, " * 10**4],
        ["[nan, 0, inf, 1]"],
        ["[0.9, 0.9, 0.1, 0.1]"],
    ],
)
def test_hostile_results_are_wrong_and_counted(results):
    scores = rec.process_results(document(), results)
    assert scores["parse_failure"]["score"] == 1.0 and item(scores)["reason"]
    assert scores["mIoU"]["score"] == 0.0 and scores["Acc@0.5"]["score"] == 0.0


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="[](){}<>,.;-+eE 0123456789nainfbox\n\x00é😀"))
def test_no_answer_raises(answer):
    assert set(rec.process_results(document(), [answer])) == METRICS


def test_process_results_is_pure():
    doc = document()
    before = dict(doc)
    assert rec.process_results(doc, ["[0, 0, 1, 1]"]) == rec.process_results(doc, ["[0, 0, 1, 1]"])
    assert doc == before


def test_prompt_keeps_braces_of_the_expression():
    prompt = {"prompt": "Where is {expression}?"}
    assert rec.doc_to_text({**document(), "expression": "the {cat} {0}"}, prompt) == "Where is the {cat} {0}?"


def test_target_is_written_in_the_models_format():
    assert rec.doc_to_target(document()) == "[0.08, 0.33, 0.42, 0.75]"
