"""What the tiny LLaVA answers to questions about unseen views, and how often it is right."""

from collections import Counter

import numpy as np
import torch

import painting
import wording
from quality import THRESHOLDS
from sequences import Conversations, expressions_of, in_pixels, region_of
from teach_tower import box_iou


@torch.no_grad()
def answer(model, features, prompts, conversations, longest):
    """Greedy answers, prompts of equal length together; features (n, ...), prompts a list of texts."""
    encoded = [conversations.prompt(p) for p in prompts]
    replies = [None] * len(prompts)
    for length in {len(e) for e in encoded}:
        rows = [i for i, e in enumerate(encoded) if len(e) == length]
        text = torch.tensor([encoded[i] for i in rows])
        inputs = model.embed(features[rows], conversations.prefix, text)
        mask = torch.ones(inputs.shape[:2], dtype=torch.long)
        made = model.llm.generate(
            inputs_embeds=inputs, attention_mask=mask, max_new_tokens=longest, do_sample=False, pad_token_id=0
        )
        for i, ids in zip(rows, made):
            replies[i] = conversations.tokenizer.decode(ids, skip_special_tokens=True).strip()
    return replies


def parse_box(text):
    """The first box of a text as four floats, or a box of no area."""
    try:
        values = [float(v) for v in text[text.index("[") + 1 : text.index("]")].split(",")]
        return values if len(values) == 4 else [0.0] * 4
    except ValueError:
        return [0.0] * 4


def named_boxes(text):
    """[(name, box)] of 'a red circle [..], a blue square [..] and ...'."""
    found = []
    for piece in text.split("]")[:-1]:
        words = [w for w in piece.split("[")[0].replace(",", " ").split() if w not in ("a", "an", "and")]
        found.append((" ".join(words), parse_box(piece[piece.find("[") :] + "]")))
    return found


def answer_scores(model, features, views, tokenizer, limit=150, seed=0):
    """Quality on unseen, uncropped views through the v1 conversation: name → [(value, view)], one a question.

    The first `limit` views are asked. "Qualified" expressions mean objects that only a word tells apart.
    """
    rng, conversations = np.random.default_rng([59, seed]), Conversations(tokenizer)
    rows = [i for i, cropped in enumerate(views.cropped) if not cropped][:limit]

    def ask(questions, longest):
        """[(row, question)] -> answers."""
        picked = torch.tensor([row for row, _ in questions])
        return answer(model, features[picked], [q for _, q in questions], conversations, longest)

    found = measure_expressions(views, rows, ask)
    found |= measure_descriptions(views, rows, ask, rng)
    for name, asker, times in (
        ("presence", wording.ask_presence, 4),
        ("color", wording.ask_color, 2),
        ("region's name", wording.ask_reg, 2),
    ):
        asked = [
            (row, *asker(painting.Scene(0, in_pixels(views.things[row])), rng, 0))
            for row in rows
            for _ in range(times)
        ]
        if name == "color":
            asked = [one for one in asked if wording.asks_color(one[1])]
        replies = ask([(row, question) for row, question, _ in asked], 6)
        found[name] = [(float(reply == true), row) for reply, (row, _, true) in zip(replies, asked)]
    return found


def measure_expressions(views, rows, ask):
    """REC of all expressions, of qualified and of plain ones; at 0.5 by thirds of the true area."""
    asked = [(row, name, index) for row in rows for name, index in expressions_of(views.things[row])]
    replies = ask([(row, wording.REC.format(name=name)) for row, name, _ in asked], 12)
    truth = torch.tensor([views.things[row][index].box for row, _, index in asked])
    iou = box_iou(torch.tensor([parse_box(reply) for reply in replies]), truth).tolist()
    areas = [painting.area(box) for box in truth.tolist()]
    bounds = np.quantile(areas, (1 / 3, 2 / 3))
    found = {}
    for (row, name, _), overlap, area in zip(asked, iou, areas):
        kind = "qualified" if wording.is_qualified(name) else "plain"
        third = ("smallest", "middle", "largest")[int(np.searchsorted(bounds, area))]
        for group in ("all", kind):
            for threshold in THRESHOLDS:
                found.setdefault(f"REC {group} {threshold}", []).append((float(overlap >= threshold), row))
        found.setdefault(f"REC {third} third 0.5", []).append((float(overlap >= 0.5), row))
    return found


def measure_descriptions(views, rows, ask, rng):
    """Of a region's objects: named, named with a box of IoU >= 0.5; of what is said: is it there, and no more
    often than there.
    """
    regions = [(row, *region_of(views.things[row], rng)) for row in rows]
    replies = ask(
        [(row, wording.DESCRIBE.format(box=wording.box_text(r, 1, 1))) for row, r, _ in regions], 160
    )
    found = {"named": [], "recall": [], "precision": []}
    for reply, (row, _, things) in zip(replies, regions):
        claims = named_boxes(reply)
        for thing in things:
            same = [box for name, box in claims if name == thing.name]
            near = box_iou(torch.tensor(same), torch.tensor([thing.box] * len(same))) if same else []
            found["named"].append((float(bool(same)), row))
            found["recall"].append((float(any(v >= 0.5 for v in near)), row))
        left = Counter(thing.name for thing in things)
        for name, _ in claims:
            found["precision"].append((float(left[name] > 0), row))
            left[name] -= 1
    return found
