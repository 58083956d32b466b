"""What scoring costs: ours, the naive way and CLIP's bare forward side by side; parsing with refinement;
memory over many pictures.

    python benchmarks/scoring.py --json benchmarks/results/scoring.json

One process on one thread, in CPU seconds, so that a busy machine disturbs little; the three ways take turns
on the same pictures, figures are medians over the rounds. CLIP is ViT-B/32 with random weights, since speed
does not depend on them. *Naive* is one forward for each region and text: crop, masked full picture and text,
each alone. *Limit* is CLIP's bare forward on the unique pictures, crops, masked last blocks and texts, their
tensors ready: no picture opened, no text read, no box compared. *Ours* is everything from file to record,
`judge_queries`.

Keys: ``speedup_vs_naive``, ``over_limit`` (ours / limit in time), ``parse_refine_per_s``,
``memory_growth_mb`` (peak of resident memory over `--pictures` pictures after the first fifth of them).
"""

import argparse
import json
import random
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from spr_plugin.boxes import Box, Space
from spr_plugin.config import SPRConfig
from spr_plugin.data.annotations import AnnotatedImage, Annotation
from spr_plugin.files import write_json
from spr_plugin.formats import FAMILIES, box_format
from spr_plugin.hooks.clip import covered_patches, load
from spr_plugin.judging import judge_queries
from spr_plugin.recipes.spr.recipe import SPR
from spr_plugin.recipes.spr.refinement import refine
from spr_plugin.recipes.spr.regions import region_query
from spr_plugin.recipes.spr.scoring import SPRScorer

SIZE, REGIONS, CANDIDATES, TOKENS = (640, 480), 8, 6, 40
NAIVE_EVERY = 4  # its pairs cost the same each, so every fourth is timed
FORM = box_format("llava", "pad")


def save_clip(folder: Path, **vision) -> str:
    """A random CLIP whose tokens are letters, in the files that a real one has."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {
        letter: id for id, letter in enumerate(["<s>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz.,"])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("", "isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3})
    )
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = transformers.CLIPConfig(
        text_config={**ends, **vision.pop("text", {})},
        vision_config={"image_size": 224, "patch_size": 32, **vision},
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    return str(folder)


def region_rows(rng: random.Random, folder: Path, place: int):
    """One picture's queries and candidates: descriptions of TOKENS tokens (letters, with begin and end) with
    five boxes each.
    """
    path = folder / f"{place}.png"
    Image.fromarray(
        np.random.default_rng(place).integers(0, 255, (SIZE[1] // 8, SIZE[0] // 8, 3), dtype=np.uint8)
    ).resize(SIZE).save(path)
    space, objects = Space.pixels(*SIZE), []
    for number in range(20):
        x, y = rng.uniform(0, 500), rng.uniform(0, 380)
        objects.append(
            Annotation(number, "thing", Box(x, y, x + rng.uniform(30, 140), y + rng.uniform(30, 100), space))
        )
    image = AnnotatedImage(str(place), str(path), *SIZE, tuple(objects))
    queries = [region_query(image, Box(10.0 + 3 * r, 10, 600 + r, 470, space), r) for r in range(REGIONS)]
    return queries, [
        [{"id": f"{q.id}-{c}", "text": description(rng, q.truth)} for c in range(CANDIDATES)] for q in queries
    ]


def description(rng: random.Random, truth) -> str:
    """Five objects with boxes near the true ones: TOKENS - 2 letters and marks without the coordinates."""
    lengths = [8, 6, 6, 6, 7]  # and four commas, a full stop
    shifted = []
    for annotation, length in zip(rng.sample(truth, 5), lengths):
        dx, dy = rng.gauss(0, 6), rng.gauss(0, 6)
        box = Box(
            annotation.box.x1 + dx,
            annotation.box.y1 + dy,
            annotation.box.x2 + dx,
            annotation.box.y2 + dy,
            annotation.box.space,
        )
        shifted.append(("".join(rng.choices("abcdefgh", k=length)), box.clip()))
    return FORM.render(shifted) + "."


class Bare:
    """CLIP without anything around it: the naive way, and the limit."""

    def __init__(self, folder: str, similarity):
        import transformers

        self.model = transformers.CLIPModel.from_pretrained(folder).eval()
        self.similarity = similarity

    def mask(self, regions) -> torch.Tensor:
        """(r, 1, 1 + patches, 1 + patches), added to the attention of the last block: the class token sees
        its region alone.
        """
        seen = np.stack([covered_patches(region, 224, 32) for region in regions])
        mask = torch.zeros(len(regions), 1, seen.shape[1] + 1, seen.shape[1] + 1)
        mask[:, 0, 0, 1:][~torch.from_numpy(seen)] = torch.finfo(torch.float32).min
        return mask

    def pixels(self, pictures) -> torch.Tensor:
        return torch.from_numpy(np.stack([self.similarity._pixels(picture) for picture in pictures]))

    def tokens(self, texts):
        return self.similarity.tokenizer(texts, padding=True, return_tensors="pt")

    def full(self, pixels, mask) -> torch.Tensor:
        vision = self.model.vision_model
        hidden = vision.pre_layrnorm(vision.embeddings(pixels))
        for block in vision.encoder.layers[:-1]:
            hidden = block(hidden, None)
        hidden = vision.encoder.layers[-1](hidden.expand(len(mask), -1, -1), mask)
        return self.model.visual_projection(vision.post_layernorm(hidden[:, 0]))

    @torch.no_grad()
    def naive(self, picture, asked) -> list[tuple[float, float]]:
        similarities = []
        for region, text in asked:
            crop = self.model.get_image_features(
                pixel_values=self.pixels([picture.crop(tuple(map(int, region.xyxy)))])
            ).pooler_output
            views = torch.cat([crop, self.full(self.pixels([picture]), self.mask([region]))])
            words = self.model.get_text_features(**self.tokens([text])).pooler_output
            similarities.append(torch.cosine_similarity(views, words).tolist())
        return similarities

    @torch.no_grad()
    def limit(self, picture, crops, mask, tokens) -> None:
        self.full(picture, mask)
        self.model.get_image_features(pixel_values=crops)
        self.model.get_text_features(**tokens)


def seconds(call, *arguments) -> float:
    start = time.process_time()
    call(*arguments)
    return time.process_time() - start


def compare(folder: Path, rounds: int) -> dict:
    clip = save_clip(folder)
    similarity = load(clip)
    recipe, bare, rng = (
        SPR(SPRConfig(), FORM, refine, SPRScorer(similarity)),
        Bare(clip, similarity),
        random.Random(0),
    )
    times = {"ours": [], "naive": [], "limit": []}
    for turn in range(rounds + 1):  # the first round warms up
        queries, candidates = region_rows(rng, folder, turn)
        picture = Image.open(queries[0].image.path).convert("RGB")
        texts = [[FORM.words(c["text"], FORM.parse(c["text"], *SIZE)) for c in row] for row in candidates]
        asked = [(query.region, text) for query, own in zip(queries, texts) for text in own]
        assert {len(row) for row in bare.tokens([text for _, text in asked])["input_ids"]} == {TOKENS}
        crops = bare.pixels([picture.crop(tuple(map(int, query.region.xyxy))) for query in queries])
        whole, mask, tokens = (
            bare.pixels([picture]),
            bare.mask([query.region for query in queries]),
            bare.tokens([text for _, text in asked]),
        )
        spent = {
            "ours": seconds(judge_queries, queries, candidates, recipe),
            "limit": seconds(bare.limit, whole, crops, mask, tokens),
            "naive": seconds(bare.naive, picture, asked[::NAIVE_EVERY]) * NAIVE_EVERY,
        }
        if turn:
            for name, value in spent.items():
                times[name].append(value)
    middle = {name: statistics.median(values) for name, values in times.items()}
    count = REGIONS * CANDIDATES
    for name, value in middle.items():
        print(
            f"{name:8} {count / value:8.1f} candidates/s   {value:7.3f} s a picture ({min(times[name]):.3f}"
            f" to {max(times[name]):.3f})"
        )
    return {
        "candidates_per_s": {name: count / value for name, value in middle.items()},
        "speedup_vs_naive": statistics.median(
            naive / ours for naive, ours in zip(times["naive"], times["ours"])
        ),
        "over_limit": statistics.median(ours / limit for ours, limit in zip(times["ours"], times["limit"])),
    }


def parse_refine(folder: Path, seconds_each: float = 1.0) -> dict:
    """Descriptions/s of each family, parsed and repaired against the truth of their region."""
    rng = random.Random(0)
    queries, candidates = region_rows(rng, folder, 0)
    rates = {}
    for family in FAMILIES:
        form, rows = box_format(family), []
        for query, row in zip(queries, candidates):
            truth = np.array([annotation.box.xyxy for annotation in query.truth])
            for candidate in row:
                read = FORM.parse(candidate["text"], *SIZE)
                rows.append(
                    (
                        form.render(
                            (mention.phrase, box) for mention in read.mentions for box in mention.boxes
                        ),
                        truth,
                    )
                )
        done, start = 0, time.process_time()
        while time.process_time() - start < seconds_each:
            for text, truth in rows:
                refine(text, truth, form, *SIZE)
            done += len(rows)
        rates[family] = done / (time.process_time() - start)
        print(f"{family:11} {rates[family]:8.0f} descriptions/s parsed and refined")
    return {"parse_refine_per_s": min(rates.values()), "parse_refine_per_s_by_family": rates}


def memory(folder: Path, pictures: int) -> dict:
    """Growth of the peak resident memory, in MB, with a small CLIP so that pictures are many."""
    small = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    recipe = SPR(SPRConfig(), FORM, refine, SPRScorer(load(save_clip(folder, **small, text=small))))
    rng = random.Random(0)
    first = 0
    for number in range(pictures):
        queries, candidates = region_rows(rng, folder, number)
        judge_queries(queries, candidates, recipe)
        (folder / f"{number}.png").unlink()
        if number == pictures // 5:
            first = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - first) / 1024
    print(f"peak memory grew by {growth:.1f} MB over the last four fifths of {pictures} pictures")
    return {"memory_growth_mb": growth, "memory_pictures": pictures}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        results = memory(Path(folder), options.pictures)  # first, as it is about the process's peak
    with tempfile.TemporaryDirectory() as folder:
        results |= compare(Path(folder), options.rounds) | parse_refine(Path(folder))
    results |= {
        "threads": 1,
        "rounds": options.rounds,
        "torch": torch.__version__,
        "clip": "ViT-B/32, random weights, float32",
    }
    for key in ("speedup_vs_naive", "over_limit", "parse_refine_per_s", "memory_growth_mb"):
        print(f"{key:20} {results[key]:.2f}")
    if options.json:
        write_json(options.json, results)


if __name__ == "__main__":
    main()
