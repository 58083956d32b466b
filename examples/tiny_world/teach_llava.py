"""Teaches the tiny LLaVA to ground: a dense shorthand first, then LLaVA's own conversations.

The tower is done and frozen here, so its features are computed once. In order:

    projector   says each patch's object in the language model's own vectors
    shorthand   many objects a sequence, exact boxes: most of what the model will ever know
    v1, exact   LLaVA's conversation format, exact boxes
    v1, coarse  the same with noisy boxes, as instruction data has them: the shipped model knows
                more than it says, and that is what preference training can bring out
"""

import time
from collections import Counter

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import painting
import vocabulary
import wording
from quality import THRESHOLDS
from teach_tower import WIDTH, basis, box_iou, cosine, descend, half_products, patch_features, set_rate

HIDDEN = 192
LAYERS = 4
IGNORE = -100


def llama_config(vocabulary_size):
    return LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=HIDDEN,
        intermediate_size=512,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


NAMES = [*painting.COLORS, *painting.SHAPES]


HEAD = HIDDEN // 4  # width of an attention head
NAME_DIMS = slice(140, 140 + HEAD)  # where colours and shapes are written; boxes lie in 0-127
# Dimensions of a head that Llama rotates slowly: distance hardly changes what they compare.
SLOW = torch.cat([torch.arange(10, HEAD // 2), torch.arange(10 + HEAD // 2, HEAD)])
# In `[x1, y1, x2, y2]` the numbers before y2, how many tokens back, and where a patch's code has them.
BOX_BEHIND = ((6, slice(0, 32)), (4, slice(32, 64)), (2, slice(64, 96)))
CONSTANT = 191  # the same in every token: lets attention go by distance alone
IS_NAME = 190  # of words alone, so that attention finds what was named last


def short_code(values):
    """(n,) positions in 0-1 -> (n, WIDTH // 4): four of them, a box, fit in the tower's width."""
    return 0.3 * basis(values)[:, ::2]


def start_attention(attention, index):
    """Starts attention as a look-up, without which training waits thousands of steps for one.

    Layer 0: one head fetches the name in the token before, so that "circle" knows that it is red; three
    fetch the numbers before a box's last one, so that this token knows the whole box, as a patch does.
    Later: three heads compare names, each carrying a part of the found box; a fourth carries names, found by
    name in layer 1 and by box after that. In the last layer the third fetches what was found out before
    about the name said last: an answer of one word stands some words behind it. All of it goes on learning.
    """
    third, fourth, everywhere = 2 * HEAD, 3 * HEAD, slice(0, WIDTH)
    if index == 0:
        attend_back(attention, fourth, 1)
        carry(attention, fourth, NAME_DIMS)
        for head, (distance, part) in enumerate(BOX_BEHIND):
            attend_back(attention, head * HEAD, distance)
            carry(attention, head * HEAD, part)
        return
    names = torch.randn(len(SLOW), HEAD) / HEAD**0.5
    parts, last = (slice(0, 48), slice(48, 96), slice(96, 128)), index == LAYERS - 1
    for head, part in enumerate(parts[:2] if last else parts):
        compare(attention, head * HEAD, NAME_DIMS, 1.2 * names)
        carry(attention, head * HEAD, part)
    if last:
        attend_last_name(attention, third)
        carry(attention, third, NAME_DIMS)
    if index == 1:
        compare(attention, fourth, NAME_DIMS, 1.2 * names)
    else:
        boxes = torch.randn(len(SLOW), WIDTH) / WIDTH**0.5
        compare(attention, fourth, everywhere, 2.0 * boxes)
    carry(attention, fourth, NAME_DIMS)


def attend_back(attention, row, distance, strength=2.0):
    """Makes the head at `row` look `distance` tokens back: Llama's rotation of i and i + HEAD / 2, undone by
    it.
    """
    fast = torch.arange(6)
    angle = distance * 10000.0 ** (-2 * fast / HEAD)
    attention.q_proj.weight[row + fast, CONSTANT] += strength
    attention.k_proj.weight[row + fast, CONSTANT] += strength * angle.cos()
    attention.k_proj.weight[row + HEAD // 2 + fast, CONSTANT] += strength * angle.sin()


def attend_last_name(attention, row):
    """Makes the head at `row` look at names, at those a few tokens back above all."""
    attend_back(attention, row, 4, strength=0.35)
    slow = row + SLOW[:8]
    attention.q_proj.weight[slow, CONSTANT] += 0.7
    attention.k_proj.weight[slow, IS_NAME] += 0.7


def compare(attention, row, dims, mix):
    """Makes the head at `row` look where these dimensions are like its own, nearly free of distance."""
    attention.q_proj.weight[row + SLOW, dims] += mix
    attention.k_proj.weight[row + SLOW, dims] += mix


def carry(attention, row, dims):
    """Makes the head at `row` add these dimensions of what it looks at."""
    same = torch.eye(dims.stop - dims.start)
    attention.v_proj.weight[row : row + len(same), dims] += same
    attention.o_proj.weight[dims, row : row + len(same)] += 0.2 * same


def importance(tokenizer, name, answer):
    """(vocabulary,) weights of tokens in the loss: a sequence holds ten numbers and brackets for a name, and
    dozens or hundreds for a yes or no.
    """
    weights = torch.ones(len(tokenizer))
    for words, weight in ((NAMES, name), (("Yes", "No"), answer)):
        weights[tokenizer.convert_tokens_to_ids([vocabulary.SPACE + w for w in words])] = weight
    return weights


class TinyLlava(nn.Module):
    """Projector and language model, under the names that LLaVA's checkpoints use."""

    def __init__(self, tokenizer):
        super().__init__()
        self.llm = LlamaForCausalLM(llama_config(len(tokenizer)))
        self.projector = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN))
        with torch.no_grad():
            self.start_from_shared_codes(tokenizer)

    def start_from_shared_codes(self, tokenizer):
        """Coordinates and names mean the same vectors in words, in output rows and (soon) in patches.

        Attention starts near "look where it is like me, take what is there". Learning to look things up
        by a name then takes hundreds of steps, not thousands.
        """
        words = self.llm.get_input_embeddings().weight
        nn.init.normal_(words, std=0.05)
        rows = tokenizer.convert_tokens_to_ids(vocabulary.COORDINATES)
        words[rows] = 0
        words[rows, :WIDTH] = short_code(torch.arange(101) / 100).repeat(1, 4)
        names = tokenizer.convert_tokens_to_ids([vocabulary.SPACE + w for w in NAMES])
        words[names] = 0
        words[names, NAME_DIMS] = torch.randn(len(names), HEAD) * 0.3
        self.llm.lm_head.weight.copy_(0.3 * words)
        self.register_buffer("name_codes", words[names].clone(), persistent=False)
        words[:, CONSTANT] = 0.5
        words[names, IS_NAME] = 0.5
        for index, layer in enumerate(self.llm.model.layers):
            start_attention(layer.self_attn, index)

    def patch_codes(self, classes, boxes):
        """What a patch should say in the words' own vectors: (n,) classes, (n, 4) hundredths -> (n,
        HIDDEN).
        """
        names = torch.tensor([[0, 0]] + [[NAMES.index(w) for w in c.split()] for c in painting.CATEGORIES])
        codes = self.name_codes[names[classes]].sum(1)
        codes[:, :WIDTH] = torch.cat([short_code(boxes[:, i] / 100) for i in range(4)], 1)
        codes = codes * (classes > 0)[:, None]
        codes[:, CONSTANT] = 0.5
        return codes

    def embed(self, features, prefix, text):
        """(n, patches, WIDTH), (p,), (n, t) -> (n, p + patches + t, HIDDEN)."""
        embed = self.llm.get_input_embeddings()
        before = embed(prefix).expand(len(features), -1, -1)
        return torch.cat([before, self.projector(features), embed(text)], 1)

    def loss(self, features, prefix, text, targets, importance=None):
        """Mean cross-entropy of the marked targets (n, t), IGNORE elsewhere, weighted by token."""
        with half_products():
            inputs = self.embed(features, prefix, text)
            hidden = self.llm.model(inputs_embeds=inputs, use_cache=False).last_hidden_state.float()
        hidden = hidden[:, -text.shape[1] - 1 : -1]  # what predicts each text token
        marked = targets != IGNORE
        return F.cross_entropy(self.llm.lm_head(hidden[marked]), targets[marked], weight=importance)

    def checkpoint(self):
        """State dict in LLaVA's layout, without the tower."""
        tensors = dict(self.llm.state_dict())
        for name, tensor in self.projector.state_dict().items():
            tensors[f"model.mm_projector.{name}"] = tensor
        return tensors


# --------------------------------------------------------------------------------------- sequences


class Shorthand:
    """Token ids of a dense notation in the same vocabulary: boxes and names, no prose but in questions that
    one word answers.
    """

    def __init__(self, tokenizer):
        ids = tokenizer.convert_tokens_to_ids
        self.conversations = Conversations(tokenizer)
        self.numbers = ids(vocabulary.COORDINATES)
        self.word = {w: ids(vocabulary.SPACE + w) for w in vocabulary.known_words()}
        self.open, self.comma, self.close, self.end = ids([vocabulary.SPACE + "[", ",▁", "]", "</s>"])

    def name(self, name):
        return [self.word[w] for w in name.split()]

    def numbers_of(self, box):
        return [self.numbers[round(100 * min(1.0, max(0.0, v)))] for v in box]

    def box(self, box):
        a, b, c, d = self.numbers_of(box)
        return [self.open, a, self.comma, b, self.comma, c, self.comma, d, self.close]

    def sequence(self, things, rng):
        """(ids, targets): boxes of all named objects, the objects of two regions, all names, or short
        questions.

        The first has no brackets: the name's last word then finds the box itself, and prose can fetch it
        there later. With a bracket in between that word learns nothing, and conversations have no name to go
        by.
        """
        kind = rng.random()
        parts = []  # (ids, whether they are an answer)
        if kind < 0.30:
            found = expressions_of(things)
            for i in rng.permutation(len(found)):
                name, index = found[i]
                parts += [(self.name(name), False), (self.numbers_of(things[index].box), True)]
        elif kind < 0.70:
            for _ in range(2):
                region, chosen = region_of(things, rng)
                parts.append(([self.word["region"]] + self.box(region), False))
                for thing in wording.left_to_right(chosen):
                    parts.append((self.name(thing.name) + self.box(thing.box), True))
                parts.append(([self.end], True))
        elif kind < 0.77:
            for i in rng.permutation(len(things)):
                parts.append(([self.word["description"]] + self.box(things[i].box), False))
                parts.append((self.name(things[i].name), True))
        else:
            parts = self.short_questions(things, rng)
        ids = [i for part, _ in parts for i in part]
        targets = [i if answer else IGNORE for part, answer in parts for i in part]
        return ids, targets

    def short_questions(self, things, rng):
        """What is there and of what color, in the words of conversations, half of them cut off at the name.

        There the name's own token learns the answer, and through ever more words behind it the question's end
        learns to fetch it: from whole questions alone neither is learned. None is asked twice, which would
        teach to copy.
        """
        scene, plain = painting.Scene(0, in_pixels(things)), self.conversations.plain
        askers = rng.choice([wording.ask_presence, wording.ask_color], 18, p=(0.85, 0.15))
        asked = dict(asker(scene, rng, 0) for asker in askers)
        parts, names = [], {self.word[name] for name in NAMES}
        for question, answer in asked.items():
            ids = plain(f"{question} ASSISTANT:")
            named = max(place for place, i in enumerate(ids) if i in names) + 1
            cut = named if rng.random() < 0.5 else rng.integers(named, len(ids) + 1)
            parts.append((ids[:cut], False))
            parts.append((plain(answer)[:1], True))
        return parts


def expressions_of(things):
    return wording.expressions(in_pixels(things))


def in_pixels(things):
    """Things with boxes in 0-1 -> the same in pixels of the square, as painting.py has them."""
    return tuple(painting.Thing(t.color, t.shape, tuple(painting.SIZE * v for v in t.box)) for t in things)


def region_of(things, rng):
    """(region, its things), boxes in 0-1."""
    region = painting.random_region(painting.Scene(0, in_pixels(things)), rng)[0]
    region = [v / painting.SIZE for v in region]
    return region, [t for t in things if painting.inside(t.box, region)]


class Conversations:
    """Token ids of LLaVA's v1 conversations, masked as its `preprocess_v1` masks them."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        # Before the picture; the space in front of `<image>` is a token of its own.
        self.prefix = torch.tensor(tokenizer(f"{vocabulary.SYSTEM} USER: ").input_ids)

    def plain(self, text):
        return self.tokenizer(text).input_ids[1:]  # without <s>

    def sequence(self, turns):
        """(ids, targets) of what follows the picture."""
        ids, targets = [], []
        for i, (question, answer) in enumerate(turns):
            asked = self.prompt(question) if i == 0 else self.plain(f"USER: {question} ASSISTANT:")
            said = self.plain(answer) + [2]
            ids += asked + said
            targets += [IGNORE] * len(asked) + said
        return ids, targets

    def prompt(self, question):
        """Ids between the picture and the answer to a first question."""
        return self.plain(f"\n{question} ASSISTANT:")


# Times that a question is asked whose answer is short: one token of hundreds is never learned.
TIMES = {wording.ask_presence: 2, wording.ask_color: 2, wording.ask_reg: 2}


def random_turns(things, cropped, rng, noise, count):
    """Some questions of every kind about a view; a cropped one is also described as a whole."""
    scene = painting.Scene(0, in_pixels(things))
    turns = {}  # none is asked twice, which would teach to copy
    for i in rng.choice(len(wording.ASKERS), count, p=wording.ASKER_SHARES):
        turns |= [wording.ASKERS[i](scene, rng, noise) for _ in range(TIMES.get(wording.ASKERS[i], 1))]
    turns = list(turns.items())
    if cropped or rng.random() < 0.08:
        answer = wording.grounded_text(wording.left_to_right(scene.things), noise, rng)
        turns = [(wording.DESCRIBE_CROP, answer)] + turns[:2]
    return turns


def pad(sequences):
    """[(ids, targets)] -> two (n, t) tensors; padding is never a target."""
    length = max(len(ids) for ids, _ in sequences)
    ids = torch.zeros(len(sequences), length, dtype=torch.long)
    targets = torch.full((len(sequences), length), IGNORE)
    for row, (i, t) in enumerate(sequences):
        ids[row, : len(i)] = torch.tensor(i)
        targets[row, : len(t)] = torch.tensor(t)
    return ids, targets


# ---------------------------------------------------------------------------------------- training


@torch.no_grad()
def all_features(tower, views, batch=256):
    return torch.cat([patch_features(tower, p) for p in views.pictures.split(batch)])


def batches(make, views, batch, rng, pool=8):
    """Yields (rows, ids, targets) for ever; a batch holds sequences of like length, so little is padding."""
    while True:
        rows = rng.integers(views, size=pool * batch)
        made = [make(row, rng) for row in rows]
        by_length = sorted(range(len(rows)), key=lambda i: len(made[i][0]))
        for start in batch * rng.permutation(pool):
            picked = by_length[start : start + batch]
            yield rows[picked], *pad([made[i] for i in picked])


def train(model, features, make, prefix, steps, batch, peak, warmup=100, seed=0, importance=None, log=print):
    """One stage: `make(row, rng)` gives a sequence about view `row`."""
    rng, start, losses = np.random.default_rng([53, seed]), time.time(), []
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, peak, weight_decay=0.01, betas=(0.9, 0.98))
    for step, (rows, ids, targets) in zip(range(1, steps + 1), batches(make, len(features), batch, rng)):
        set_rate(optimizer, cosine(step, steps, peak, warmup))
        loss = model.loss(features[rows], prefix, ids, targets, importance)
        descend(optimizer, loss, parameters)
        losses.append(loss.item())
        if step % 50 == 0 or step == steps:
            spent = time.time() - start
            log(f"  {step}/{steps} {spent:.0f}s loss {np.mean(losses[-50:]):.3f}")


def train_projector(model, features, views, steps, batch=2048, peak=3e-3, log=print):
    """Fits the projector alone to say each patch's object in the language model's own vectors."""
    flat, classes, boxes = (features.flatten(0, 1), views.classes.flatten(), views.boxes.flatten(0, 1))
    optimizer = torch.optim.AdamW(model.projector.parameters(), peak)
    for step in range(1, steps + 1):
        set_rate(optimizer, cosine(step, steps, peak))
        rows = torch.randint(len(classes), (batch,))
        wanted = model.patch_codes(classes[rows], boxes[rows])
        loss = F.mse_loss(model.projector(flat[rows]), wanted) / wanted.pow(2).mean()
        descend(optimizer, loss, list(model.projector.parameters()))
    log(f"projector: {loss.item():.3f} of the variance left")


def train_shorthand(model, features, views, tokenizer, steps, **options):
    shorthand = Shorthand(tokenizer)
    train(
        model,
        features,
        lambda row, rng: shorthand.sequence(views.things[row], rng),
        torch.tensor([1]),
        steps,
        importance=importance(tokenizer, name=1, answer=4),  # with names at 3, numbers come at half the pace
        **options,
    )


def train_conversations(model, features, views, tokenizer, steps, noise, turns, **options):
    conversations = Conversations(tokenizer)

    def make(row, rng):
        asked = random_turns(views.things[row], views.cropped[row], rng, noise, turns)
        return conversations.sequence(asked)

    weights = importance(tokenizer, name=3, answer=8)
    train(model, features, make, conversations.prefix, steps, importance=weights, **options)


# -------------------------------------------------------------------------------------- evaluation


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
