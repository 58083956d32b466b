"""The decoding loop: one prefill a prompt, its cache handed to k samples, and noise of each sample's own.

Token t of a sample is ``arg max (logits / temperature + g)`` over what top-k and top-p leave, with g standard Gumbel noise: exactly a draw
from the softmax. The noise comes from a generator that is seeded for the sample alone, so a sample's text does not depend on what else is
in its batch, but for the last bits of a matrix product. Knows nothing of images, prompts or tokenizers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch


def drawing(temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """``(logits (B, V), Gumbel noise (B, V))`` → tokens ``(B,)``; ``top_k`` 0 and ``top_p`` 1 leave all tokens."""
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    warpers = [TemperatureLogitsWarper(float(temperature))]
    warpers += [TopKLogitsWarper(top_k)] if top_k else []
    warpers += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    warp = LogitsProcessorList(warpers)
    return lambda logits, noise: (warp(None, logits.float()) + noise).argmax(-1)


class Noise:
    """Gumbel noise of each sample; its generator is seeded once and runs on from token to token."""

    def __init__(self, seeds: Sequence[int], device):
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, samples: Sequence[int], vocabulary: int) -> torch.Tensor:
        """The next noise ``(len(samples), vocabulary)`` of these samples: minus the log of an exponential variable."""
        drawn = torch.empty(len(samples), vocabulary, device=self.generators[0].device)
        for row, sample in zip(drawn, samples):
            row.exponential_(generator=self.generators[sample])
        return -drawn.log()


@torch.no_grad()
def decode(
    host,
    rows: Sequence[dict],
    seeds: Sequence[Sequence[int]],
    draw: Callable | None,
    max_new_tokens: int,
) -> list[list[list[int]]]:
    """k answers to each row, as token ids without the stop token.

    Args:
        host: see :meth:`spr_plugin.host.Host.prefill` and ``step``.
        rows: B rows of :meth:`spr_plugin.host.Host.question`.
        seeds: (B, k), one for each answer.
        draw: see :func:`drawing`; None takes the likeliest token (greedy).
        max_new_tokens: the longest answer.
    """
    logits, cache, mask = host.prefill(rows)
    k = len(seeds[0])
    logits, mask, cache = logits.repeat_interleave(k, 0), mask.repeat_interleave(k, 0), repeat(cache, k)
    count = len(rows) * k
    noise = Noise([seed for row in seeds for seed in row], logits.device)
    stops = torch.tensor(host.stop_tokens, device=logits.device)
    said = stops[0].repeat(count, max_new_tokens)
    writing = torch.arange(count, device=logits.device)  # the samples that the batch's rows belong to
    ended = torch.zeros(count, dtype=torch.bool, device=logits.device)
    for place in range(max_new_tokens):
        tokens = draw(logits, noise(writing.tolist(), logits.shape[-1])) if draw else logits.argmax(-1)
        tokens = torch.where(ended, stops[0], tokens)
        said[writing, place] = tokens
        ended |= torch.isin(tokens, stops)
        left = int((~ended).sum())
        if not left or place + 1 == max_new_tokens:
            break
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        if left <= len(writing) // 2:
            alive = (~ended).nonzero()[:, 0]
            writing, ended, tokens, mask, cache = writing[alive], ended[alive], tokens[alive], mask[alive], select(cache, alive)
        logits, cache = host.step(tokens[:, None], mask, cache)
    return [[_until_stop(said[i * k + j].tolist(), host.stop_tokens) for j in range(k)] for i in range(len(rows))]


def _until_stop(tokens: list[int], stops: Sequence[int]) -> list[int]:
    ends = [place for place, token in enumerate(tokens) if token in stops]
    return tokens[: ends[0]] if ends else tokens


def repeat(cache, times: int):
    """Each row of a key-value cache ``times`` times in a row: transformers' Cache, or its older tuple of layers."""
    if hasattr(cache, "batch_repeat_interleave"):
        cache.batch_repeat_interleave(times)
        return cache
    return tuple(tuple(part.repeat_interleave(times, 0) for part in layer) for layer in cache)


def select(cache, rows: torch.Tensor):
    """The given rows of a key-value cache."""
    if hasattr(cache, "batch_select_indices"):
        cache.batch_select_indices(rows)
        return cache
    return tuple(tuple(part[rows] for part in layer) for layer in cache)
