"""Token ids and targets that the tiny LLaVA is taught: a dense shorthand, and LLaVA's own conversations.

Things have boxes in 0-1 of the square here, as a model sees them.
"""

import torch

import painting
import vocabulary
import wording
from tiny_llava import IGNORE, NAMES


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
