"""SpatialThinker's reward read off its formulas, in plain Python and without anything of ours."""

import itertools
import json
import math
import re


def naive_reward(text, truth, right, width, height):
    """R of an answer whose boxes are pixels of the picture, against a graph and the right option."""
    parts = {}
    for tag in ("observe", "scene", "think", "answer"):
        if text.count(f"<{tag}>") != 1 or text.count(f"</{tag}>") != 1:
            return 0.0
        found = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        if not found:
            return 0.0
        parts[tag] = found[1]
    try:
        scene = json.loads(parts["scene"])
        objects, relations = scene["objects"], scene["relationships"]
    except (ValueError, KeyError, TypeError):
        return 0.0
    ids = [one.get("id") for one in objects]
    if len(ids) != len(set(ids)):
        return 0.0
    for one in objects:
        if (
            set(one) != {"id", "bbox"}
            or not re.fullmatch(r"[a-z ]+\.\d+", one["id"])
            or len(one["bbox"]) != 4
        ):
            return 0.0
    format_ = 1
    count = 1 - abs(len(objects) - len(truth["objects"])) / len(truth["objects"])
    count = max(0, count)
    if truth["relationships"]:
        between = 1 - abs(len(relations) - len(truth["relationships"])) / len(truth["relationships"])
        count = 0.7 * count + 0.3 * max(0, between)
    accuracy = 1 if parts["answer"].strip().lower() == right.lower() else 0
    spatial = naive_scene(objects, truth["objects"], width, height)
    return 0.1 * format_ + 0.2 * count + 0.5 * accuracy + (0.2 * spatial if accuracy else 0)


def naive_scene(objects, truth, width, height):
    """S: every one-to-one matching is tried."""
    best, value = None, 0
    short, long = (objects, truth) if len(objects) <= len(truth) else (truth, objects)
    for chosen in itertools.permutations(long, len(short)):
        pairs = list(zip(short, chosen))
        shares = [(naive_ciou(*scaled(a, b, width, height)) + 1) / 2 for a, b in pairs]
        names = [a["id"].split(".")[0] == b["id"].split(".")[0] for a, b in pairs]
        cost = sum((1 - share) + 2 * (1 - name) for share, name in zip(shares, names))
        if best is None or cost < best:
            best, value = cost, sum(shares) / len(truth)
    return value


def scaled(a, b, width, height):
    return [
        [x / side for x, side in zip(one["bbox"], (width, height, width, height))] for one in (a, b)
    ]  # fmt: skip


def naive_ciou(a, b):
    wa, ha, wb, hb = a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1]
    if min(wa, ha, wb, hb) <= 0:
        return -1
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = across * down if across > 0 and down > 0 else 0
    iou = shared / (wa * ha + wb * hb - shared)
    rho = math.hypot((a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2)
    c = math.hypot(max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1]))
    v = 4 / math.pi**2 * (math.atan(wa / ha) - math.atan(wb / hb)) ** 2
    alpha = v / (1 - iou + v) if v else 0
    return iou - rho**2 / c**2 - alpha * v
