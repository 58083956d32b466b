"""Teaches the tiny LLaVA to ground: a dense shorthand first, then LLaVA's own conversations.

The tower is done and frozen here, so its features are computed once. In order:

    projector   says each patch's object in the language model's own vectors
    shorthand   many objects a sequence, exact boxes: most of what the model will ever know
    v1, exact   LLaVA's conversation format, exact boxes
    v1, coarse  the same with noisy boxes, as instruction data has them: the shipped model knows
                more than it says, and that is what preference training can bring out
"""

import time

import numpy as np
import torch
import torch.nn.functional as F

import vocabulary
from sequences import Conversations, Shorthand, pad, random_turns
from teach_tower import cosine, descend, patch_features, set_rate
from tiny_llava import NAMES


def importance(tokenizer, name, answer):
    """(vocabulary,) weights of tokens in the loss: a sequence holds ten numbers and brackets for a name, and
    dozens or hundreds for a yes or no.
    """
    weights = torch.ones(len(tokenizer))
    for words, weight in ((NAMES, name), (("Yes", "No"), answer)):
        weights[tokenizer.convert_tokens_to_ids([vocabulary.SPACE + w for w in words])] = weight
    return weights


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
