"""Teaches the tiny CLIP: region crops and whole scenes against "a red circle and a green ring."

Its vision part starts from the taught tower; text part and joint space start from nothing. Pictures
of any shape are resized to CLIP's square, as its image processor does.
"""

import time

import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig

import painting
import vocabulary
import wording
from teach_tower import LAYERS, WIDTH, cosine, descend, inner, normalize, set_rate, tower_config


def new_clip(tokenizer, tower):
    """CLIP whose first vision layers are the tower's."""
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=vocabulary.CLIP_LENGTH,
        projection_dim=WIDTH,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    vision = tower_config(LAYERS)
    clip = CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=WIDTH)
    )
    learned = {k: v for k, v in inner(tower).state_dict().items() if "post_layernorm" not in k}
    inner(clip.vision_model).load_state_dict(learned, strict=False)
    return clip


def example(scene, rng, picture=None):
    """(picture of a region or of all, resized to the square; text of what is in it, in random order)."""
    picture = painting.render(scene)[0] if picture is None else picture
    kind = rng.random()
    if kind < 0.15:
        region, things = (0, 0, painting.SIZE, painting.SIZE), list(scene.things)
    elif kind < 0.3:
        region, things = painting.crop(scene.things[rng.integers(len(scene.things))].box, scene.things)[:2]
    else:
        region, things = painting.crop(painting.random_region(scene, rng)[0], scene.things)[:2]
    cut = Image.fromarray(picture).crop(region).resize((painting.SIZE, painting.SIZE), Image.BICUBIC)
    ordered = [things[i] for i in rng.permutation(len(things))]
    return np.asarray(cut), wording.clip_text(ordered)


def batch_of(world, rows, tokenizer, rng):
    """CLIPModel's inputs for rows of `world`, a list of (scene, picture)."""
    made = [example(world[row][0], rng, world[row][1]) for row in rows]
    tokens = tokenizer([text for _, text in made], padding=True, truncation=True, return_tensors="pt")
    pixels = normalize(torch.from_numpy(np.stack([picture for picture, _ in made])))
    return {
        "input_ids": tokens["input_ids"],
        "attention_mask": tokens["attention_mask"],
        "pixel_values": pixels,
    }


def train_clip(clip, tokenizer, world, steps, held_out, batch=64, peak=8e-4, seed=0, log=print):
    rng, start = np.random.default_rng([61, seed]), time.time()
    parameters = list(clip.parameters())
    optimizer = torch.optim.AdamW(parameters, peak, weight_decay=0.02)
    for step in range(1, steps + 1):
        set_rate(optimizer, cosine(step, steps, peak))
        rows = rng.integers(len(world), size=batch)
        loss = clip(**batch_of(world, rows, tokenizer, rng), return_loss=True).loss
        descend(optimizer, loss, parameters)
        with torch.no_grad():
            clip.logit_scale.clamp_(max=4.6)
        if step % 250 == 0 or step == steps:
            spent = time.time() - start
            asked = retrieval_hits(clip, tokenizer, held_out)
            shares = {
                name: round(float(np.mean([hit for hit, _ in hits])), 3) for name, hits in asked.items()
            }
            log(f"  {step}/{steps} {spent:.0f}s loss {loss.item():.3f} {shares}")
    return clip


@torch.no_grad()
def retrieval_hits(clip, tokenizer, held_out, seed=0):
    """Top-1 retrieval among 100 unseen pictures or texts, and one wrong colour told from the truth: name →
    [(hit, scene)], one a scene.
    """
    rng = np.random.default_rng([67, seed])
    to_text, to_picture = [], []
    for chunk in range(0, len(held_out) - 99, 100):
        inputs = batch_of(held_out, range(chunk, chunk + 100), tokenizer, rng)
        logits = clip(**inputs).logits_per_image
        right = torch.arange(100)
        to_text += (logits.argmax(1) == right).tolist()
        to_picture += (logits.argmax(0) == right).tolist()
    found = {"to_text": to_text, "to_picture": to_picture}
    found["wrong_color"] = wrong_color(clip, tokenizer, held_out, rng)
    return {name: [(float(hit), scene) for scene, hit in enumerate(hits)] for name, hits in found.items()}


def wrong_color(clip, tokenizer, held_out, rng):
    """Whether the true text beats the same text with one object's colour changed, for each scene."""
    pictures, true, false = [], [], []
    for scene, picture in held_out:
        region, things = painting.crop(painting.random_region(scene, rng)[0], scene.things)[:2]
        cut = Image.fromarray(picture).crop(region).resize((painting.SIZE, painting.SIZE), Image.BICUBIC)
        pictures.append(np.asarray(cut))
        index = int(rng.integers(len(things)))
        others = [c for c in painting.COLORS if f"{c} {things[index].shape}" not in {t.name for t in things}]
        changed = painting.Thing(others[rng.integers(len(others))], things[index].shape, things[index].box)
        true.append(wording.clip_text(things))
        false.append(wording.clip_text([*things[:index], changed, *things[index + 1 :]]))
    tokens = tokenizer(true + false, padding=True, truncation=True, return_tensors="pt")
    pixels = normalize(torch.from_numpy(np.stack(pictures)))
    inputs = {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}
    logits = clip(pixel_values=pixels, **inputs).logits_per_image
    count = torch.arange(len(pictures))
    return (logits[count, count] > logits[count, count + len(pictures)]).tolist()
