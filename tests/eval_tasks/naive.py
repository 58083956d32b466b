"""The published protocols again, to hold our figures against: one regular expression a family, loops, no
shared code.
"""

import re


def square(width, height):
    side = max(width, height)
    return side, side, (side - width) // 2, (side - height) // 2


def qwen_size(width, height):
    """smart_resize of Qwen2-VL for pictures between its two limits, rounded to 28."""
    return round(width / 28) * 28, round(height / 28) * 28


COUNT = 2000
STYLES = ["ferret", "llava:pad", "shikra", "cogvlm", "internvl", "qwen2.5-vl"]
# family → (pattern of one box, largest number, number → pixels: width, height → (scale x, scale y, offset x,
# offset y), how to write one)
NUMBER, WHOLE = r"(\d*\.?\d+)", r"(\d+)"
FAMILIES = {
    "ferret": (rf"(?<!\[)\[{WHOLE}, {WHOLE}, {WHOLE}, {WHOLE}\](?!\])", 1000, lambda w, h: (w / 1000, h / 1000, 0, 0), "[{}, {}, {}, {}]", int),  # noqa: E501
    "llava:pad": (rf"\[{NUMBER}, {NUMBER}, {NUMBER}, {NUMBER}\]", 1, square, "[{}, {}, {}, {}]", lambda v: round(v, 2)),  # noqa: E501
    "shikra": (rf"\[{NUMBER},{NUMBER},{NUMBER},{NUMBER}\]", 1, square, "[{:.3f},{:.3f},{:.3f},{:.3f}]", float),  # noqa: E501
    "cogvlm": (rf"\[\[{WHOLE},{WHOLE},{WHOLE},{WHOLE}\]\]", 1000, lambda w, h: (w / 1000, h / 1000, 0, 0), "[[{:03d},{:03d},{:03d},{:03d}]]", int),  # noqa: E501
    "internvl": (rf"<box>\[\[{WHOLE}, {WHOLE}, {WHOLE}, {WHOLE}\]\]</box>", 1000, lambda w, h: (w / 1000, h / 1000, 0, 0),  # noqa: E501
                 "<box>[[{}, {}, {}, {}]]</box>", int),
    "qwen-vl": (rf"<box>\({WHOLE},{WHOLE}\),\({WHOLE},{WHOLE}\)</box>", 999, lambda w, h: (w / 999, h / 999, 0, 0),  # noqa: E501
                "<box>({},{}),({},{})</box>", int),
    "qwen2.5-vl": (rf'\{{"bbox_2d": \[{WHOLE}, {WHOLE}, {WHOLE}, {WHOLE}\], "label": "[^"]*"\}}', None,
                   lambda w, h: (w / qwen_size(w, h)[0], h / qwen_size(w, h)[1], 0, 0), '{{"bbox_2d": [{}, {}, {}, {}], "label": "%s"}}', round),  # noqa: E501
}  # fmt: skip


def naive_iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return common / (areas - common) if areas - common > 0 and a[2] > a[0] and a[3] > a[1] else 0.0


def naive_boxes(family, answer, width, height):
    """(start, end, box in pixels) of every box in the answer that lies in the family's range and is not
    inverted.
    """
    pattern, last, space, _, _ = FAMILIES[family]
    sx, sy, ox, oy = space(width, height)
    limits = (last, last) if last else qwen_size(width, height)
    boxes = []
    for match in re.finditer(pattern, answer):
        x1, y1, x2, y2 = map(float, match.groups())
        if x1 <= x2 <= limits[0] and y1 <= y2 <= limits[1]:
            boxes.append(
                (match.start(), match.end(), (x1 * sx - ox, y1 * sy - oy, x2 * sx - ox, y2 * sy - oy))
            )
    return boxes


def naive_said(family, answer, width, height):
    """(phrase, its boxes) in order: the words between the last box or delimiter and a box; no words there:
    one more box of that phrase.

    A box that the answer's end cuts off, after two numbers or more, is a place without a box.
    """
    if family == "qwen2.5-vl":
        found = naive_boxes(family, answer, width, height)
        cut = re.search(r'"label": "([^"]*)"$', answer)
        return [
            (re.search(r'"label": "([^"]*)"', answer[start:end]).group(1), [box]) for start, end, box in found
        ] + ([(cut[1], [])] if cut else [])
    mentions, last = [], 0
    for start, end, box in naive_boxes(family, answer, width, height):
        between = answer[last:start].replace("<ref>", "").replace("</ref>", "")
        if mentions and between.strip() in ("", "and", ",", ", and", "&", ";"):
            mentions[-1][1].append(box)
        else:
            mentions.append((re.split(r"[.,;:!?()\[\]\n]", between)[-1], [box]))
        last = end
    start = min(
        (place for mark in "[<" if (place := answer.find(mark + "box" * (mark == "<"), last)) >= 0),
        default=None,
    )
    if start is not None and len(re.findall(r"\d+(?:\.\d+)?", answer[start:])) >= 2:
        between = answer[last:start].replace("<ref>", "").replace("</ref>", "")
        mentions.append((re.split(r"[.,;:!?()\[\]\n]", between)[-1], []))
    return mentions


def written(family, box, width, height):
    _, last, space, style, to_number = FAMILIES[family]
    sx, sy, ox, oy = space(width, height)
    limit = last if last else 10**6
    values = [(box[0] + ox) / sx, (box[1] + oy) / sy, (box[2] + ox) / sx, (box[3] + oy) / sy]
    return style.format(*(to_number(min(max(value, 0), limit)) for value in values)).replace("%s", "thing")


def said_by(rng, family, phrase, boxes, width, height):
    texts = [written(family, box, width, height) for box in boxes]
    if family == "qwen2.5-vl":
        return ", ".join(text.replace("thing", phrase) for text in texts)
    tagged = f"<ref>{phrase}</ref>" if family == "internvl" else f"{phrase} "
    return tagged + rng.choice([" ", ", ", " and ", ""]).join(texts)


def random_box(rng, width, height):
    x, y = sorted(rng.sample(range(width), 2)), sorted(rng.sample(range(height), 2))
    return [float(x[0]), float(y[0]), float(x[1]), float(y[1])]


def near(rng, box, width, height):
    dx, dy = (rng.gauss(0, 0.08) * (box[2 + k] - box[k]) for k in (0, 1))
    moved = [box[0] + dx, box[1] + dy, box[2] + dx * rng.choice([0, 1, 2]), box[3] + dy]
    return [min(max(v, 0), (width, height)[k % 2]) for k, v in enumerate(moved)]


def hostile(rng, text):
    """What models do to a box."""
    ways = [text, text, text, "It is at " + text + ".", text + " " + text, "", "I cannot see it", text[: len(text) // 2],  # noqa: E501
            "[0.5, 0.5]", "0.1, 0.2, 0.3, 0.4", "[9, 8, 1, 2] " + text, "[1e3, 2, nan, 4]", "[[]]" * 3, "<box></box>", "{" * 30,  # noqa: E501
            "\x00" + text, text.replace(",", ";"), "[-1, -2, -3, -4]" + text]  # fmt: skip
    return rng.choice(ways)
