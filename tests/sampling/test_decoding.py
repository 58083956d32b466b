"""The decoding loop against the model's own distribution and its own ``generate``, on the embedded LLaVA."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import chisquare

from spr_plugin.sampling.decoding import (
    NUMBERS,
    ROOM,
    Noise,
    appended,
    chosen,
    decode,
    drawing,
    growing_in_place,
    shared_prefill,
)


@pytest.mark.parametrize(
    "temperature, top_p, top_k", [(1.0, 1.0, 0), (0.5, 1.0, 0), (1.7, 0.8, 0), (1.0, 1.0, 3), (0.9, 0.7, 4)]
)
def test_tokens_follow_the_distribution(temperature, top_p, top_k):
    """Frequencies over 400 seeds and 100 tokens of each against the softmax of what is left, by a chi-square
    test.
    """
    logits = torch.tensor([0.3, 2.0, -1.0, 1.1, 0.9, -3.0, 1.6])
    probabilities = np.exp(logits.double().numpy() / temperature)
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities)
    kept = order[: top_k or len(order)]
    ahead = (
        np.cumsum(probabilities[kept] / probabilities[kept].sum())
        - probabilities[kept] / probabilities[kept].sum()
    )
    kept = kept[ahead < top_p]
    expected = np.zeros(len(logits))
    expected[kept] = probabilities[kept] / probabilities[kept].sum()
    samples, tokens = 400, 100
    draws, draw, noise = (
        samples * tokens,
        drawing(temperature, top_p, top_k),
        Noise(range(samples), len(logits), "cpu"),
    )
    seen = np.bincount(
        torch.cat([draw(logits.repeat(samples, 1), noise()) for _ in range(tokens)]).numpy(),
        minlength=len(logits),
    )
    assert seen[expected == 0].sum() == 0
    assert chisquare(seen[expected > 0], draws * expected[expected > 0]).pvalue > 1e-3


@pytest.mark.parametrize("vocabulary", [NUMBERS // 3, 2 * NUMBERS])
def test_noise_is_each_sample_s_own(vocabulary):
    """The same numbers in any company, from token to token, also where the company leaves; other numbers for
    other tokens and samples.
    """
    alone, company, left = Noise([7], vocabulary, "cpu"), Noise([3, 7, 9], vocabulary, "cpu"), [0, 1, 2]
    seen = []
    for leaves in (None, 0, None, 2, None):
        if leaves is not None:
            row_that_ends = left.index(leaves)
            company.select(torch.tensor([row for row in range(len(left)) if row != row_that_ends]))
            left.remove(leaves)
        drawn = company()
        assert torch.equal(alone()[0], drawn[left.index(1)])
        seen += [row.tolist()[:5] for row in drawn]
    assert len({tuple(row) for row in seen}) == len(seen)


@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 5),
    st.lists(st.integers(1, ROOM), max_size=6),
    st.booleans(),
)
def test_what_is_appended_stands_behind_what_is_held(batch, heads, length, sizes, crossed):
    """Against `torch.cat`, from any layout, and nothing that was held before is touched."""
    past = torch.randn(batch, heads, length, 2)
    past = past.transpose(1, 2).contiguous().transpose(1, 2) if crossed else past
    expected, steps = past.clone(), []
    for size in sizes:
        new = torch.randn(batch, heads, size, 2)
        past, expected = appended(past, new), torch.cat([expected, new], -2)
        steps.append((past, expected))
    assert all(torch.equal(*step) for step in steps)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=5), st.booleans())
def test_what_is_chosen_has_room(rows, grown):
    past = torch.randn(3, 2, 5, 4)
    past = appended(past, torch.randn(3, 2, 1, 4)) if grown else past
    grown_rows = chosen(past, torch.tensor(rows))
    assert torch.equal(grown_rows, past[rows])
    more = torch.randn(len(rows), 2, ROOM, 4)
    whole = appended(grown_rows, more)
    assert whole.data_ptr() == grown_rows.data_ptr() and torch.equal(whole, torch.cat([past[rows], more], -2))


def test_room_is_made_once_in_many_tokens():
    past, moved = torch.zeros(2, 3, 5, 4), 0
    for _ in range(3 * ROOM):
        before, past = past, appended(past, torch.ones(2, 3, 1, 4))
        moved += past.data_ptr() != before.data_ptr()
    assert moved == 3


@pytest.fixture(scope="module")
def host(tiny_world, tmp_path_factory, embedded_llava):
    host = embedded_llava(tiny_world(sft=8, spr=4), tmp_path_factory.mktemp("live") / "llava")
    host.trainer.model.eval()
    return host


LIMIT = 300  # tokens, which no answer to these reaches
PROMPTS = [
    "Describe the objects in the region [0.1, 0.1, 0.9, 0.95] with their bounding boxes.",
    "Describe the objects in the image with their bounding boxes.",
]


@pytest.fixture(scope="module")
def rows(host):
    """Two pictures, two prompts each, of different lengths."""
    pictures = [
        Image.open(path).convert("RGB") for path in sorted(Path(host.image_folder).rglob("*.png"))[:2]
    ]
    return [row for picture in pictures for row in host.questions([picture], PROMPTS)]


def own_generate(host, row, steps):
    """transformers' own greedy ``generate`` of one row, with the gap between its two best logits at each
    step.
    """
    out = host.llava.generate(row["input_ids"][None], images=row["image"][None], do_sample=False, max_new_tokens=steps, max_length=None,  # noqa: E501
                              output_logits=True, return_dict_in_generate=True, pad_token_id=0)  # fmt: skip
    best = torch.cat(out.logits).topk(2, -1).values
    return out.sequences[0].tolist(), (best[:, 0] - best[:, 1]).tolist()


@pytest.mark.slow
def test_greedy_equals_generate_with_batch_1(host, rows):
    """All rows in one padded batch, features shared; equal up to the first step at which the two best logits
    nearly tie.
    """
    answers = decode(host, rows, [[0]] * len(rows), None, 48)
    lengths = set()
    for row, (said,) in zip(rows, answers):
        wanted, gaps = own_generate(host, row, 48)
        wanted = [token for token in wanted if token not in host.stop_tokens]
        sure = next((step for step, gap in enumerate(gaps) if gap <= 1e-4), len(gaps))
        assert said[:sure] == wanted[:sure] and (sure < len(gaps) or said == wanted)
        lengths.add(len(said))
    assert min(lengths) > 5


@pytest.mark.legacy
@pytest.mark.slow
def test_what_rows_of_a_picture_begin_with_is_computed_once(host, rows, monkeypatch):
    """Next-token logits and whole answers as without, in any order, with rows that share nothing or all."""
    first, _, last, *_ = sorted(Path(host.image_folder).rglob("*.png"))
    (lone,) = host.questions([Image.open(last).convert("RGB")], ["Is there a ring?"])
    asked = [PROMPTS[0], f"{PROMPTS[0]} Name all.", PROMPTS[0]]
    same, mixed = host.questions([Image.open(first).convert("RGB")], asked), [*rows[::-1], lone]
    asked, prefill = [], host.prefill
    monkeypatch.setattr(host, "prefill", lambda rows: asked.append(len(rows)) or prefill(rows))
    for batch, beginnings in ((rows, 2), (mixed, 3), (rows[1:], 2), (same, 1), ([lone, rows[0]], 2)):
        asked.clear()
        (alone, _, _), (shared, _, mask) = prefill(batch), shared_prefill(host, batch)
        assert beginnings in asked and int(mask.sum()) == int(prefill(batch)[2].sum())
        torch.testing.assert_close(shared, alone, atol=1e-5, rtol=1e-5)
    for draw, count in ((None, 48), (drawing(), 24)):
        alone = decode(host, mixed, [[1, 2]] * len(mixed), draw, count)
        assert decode(host, mixed, [[1, 2]] * len(mixed), draw, count, share=True) == alone


@pytest.mark.slow
def test_a_prompt_that_llava_may_cut_is_not_taken_apart(host, rows, monkeypatch):
    monkeypatch.setattr(
        host.llava.config, "tokenizer_model_max_length", len(rows[0]["input_ids"]) + 9, raising=False
    )
    assert host.sharing(rows[0]) is None
    torch.testing.assert_close(shared_prefill(host, rows)[0], host.prefill(rows)[0], atol=0, rtol=0)


@pytest.mark.slow
def test_a_sample_does_not_depend_on_its_batch(host, rows):
    """The same seeds alone, in company, and with other numbers of samples."""
    draw, seeds = drawing(), [[10 * number + index for index in range(3)] for number in range(len(rows))]
    together = decode(host, rows, seeds, draw, 40)
    alone = [decode(host, [row], [mine], draw, 40)[0] for row, mine in zip(rows, seeds)]
    single = [
        [decode(host, [row], [[seed]], draw, 40)[0][0] for seed in mine] for row, mine in zip(rows, seeds)
    ]
    assert together == alone == single
    assert len({tuple(said) for answers in together for said in answers}) > len(rows)


@pytest.mark.slow
def test_it_stops_when_all_have_ended_and_prefills_once(host, rows, monkeypatch):
    """One forward of the decoder a step, of ever fewer rows; the vision tower sees each picture once."""
    forwards, pictures = [], []
    decoder = host.language_model()[0]
    hooks = [
        decoder.register_forward_hook(
            lambda module, args, kwargs, out: forwards.append(out.last_hidden_state.shape[:2]),
            with_kwargs=True,
        ),
        host.llava.get_vision_tower().vision_tower.register_forward_hook(
            lambda module, args, out: pictures.append(len(args[0]))
        ),
    ]
    answers = decode(host, rows, [[1, 2], [3, 4], [5, 6], [7, 8]], drawing(), LIMIT)
    [hook.remove() for hook in hooks]
    longest = max(len(said) for pair in answers for said in pair)
    assert pictures == [2]
    assert forwards[0][0] == len(rows) and all(shape[1] == 1 for shape in forwards[1:])
    assert len(forwards) == longest + 1
    assert [shape[0] for shape in forwards[1:]] == sorted((shape[0] for shape in forwards[1:]), reverse=True)
    assert longest < LIMIT - 1 and forwards[-1][0] < 8


@pytest.mark.slow
def test_ranks_in_step_go_on_until_the_last_has_ended(host, rows):
    """A rank whose answers have ended steps on with the others, and says the same."""
    seeds, asked = [[1, 2], [3, 4], [5, 6], [7, 8]], []
    alone = decode(host, rows, seeds, drawing(), LIMIT)
    steps = LIMIT - 10
    assert (
        decode(host, rows, seeds, drawing(), LIMIT, lambda going: asked.append(going) or len(asked) < steps)
        == alone
    )
    assert (
        len(asked) == steps
        and not asked[-1]
        and asked.index(False) == max(len(said) for pair in alone for said in pair)
    )


@pytest.mark.slow
def test_the_cache_grows_in_place(host, rows):
    """Greedy tokens and last logits as with transformers' own cache."""
    transformers_cache = pytest.importorskip("transformers.cache_utils")
    if not hasattr(transformers_cache, "DynamicLayer"):
        pytest.skip("this version's caches keep their way")
    seen = []
    with torch.no_grad():
        for change in (lambda cache: cache, growing_in_place):
            logits, cache, mask = host.prefill(rows)
            cache, tokens = change(cache), []
            for _ in range(ROOM + 3):
                tokens.append(logits.argmax(-1))
                mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
                logits, cache = host.step(tokens[-1][:, None], mask, cache)
            seen.append((torch.stack(tokens), logits))
    assert torch.equal(seen[0][0], seen[1][0]) and torch.allclose(seen[0][1], seen[1][1], atol=1e-5)
    assert {type(layer).__name__ for layer in cache.layers} == {"InPlaceLayer"}
