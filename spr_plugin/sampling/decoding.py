"""The decoding loop: one prefill a prompt, its cache handed to k samples, and noise of each sample's own.

Token t of a sample is ``arg max (logits / temperature + g)`` over what top-k and top-p leave, with g standard
Gumbel noise: exactly a draw from the softmax. The noise comes from a generator that is seeded for the sample
alone, so a sample's text does not depend on what else is in its batch, but for the last bits of a matrix
product. Knows nothing of images, prompts or tokenizers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import takewhile

import torch

NUMBERS = 1 << 14  # drawn at once for a sample: fewer calls, at most 64 KiB
ROOM = 64  # tokens


def drawing(
    temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """``(logits (B, V), Gumbel noise (B, V))`` → tokens ``(B,)``; ``top_k`` 0 and ``top_p`` 1 leave all
    tokens.
    """
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    warpers = [TemperatureLogitsWarper(float(temperature))]
    warpers += [TopKLogitsWarper(top_k)] if top_k else []
    warpers += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    warp = LogitsProcessorList(warpers)
    return lambda logits, noise: (warp(None, logits.float()) + noise).argmax(-1)


class Noise:
    """Gumbel noise of a batch's samples: minus the log of an exponential variable. A sample's generator is
    seeded once and runs on from token to token; with a small vocabulary, numbers for several tokens are drawn
    at once.
    """

    def __init__(self, seeds: Sequence[int | None], vocabulary: int, device):
        self.generators = [
            None if seed is None else torch.Generator(device).manual_seed(seed) for seed in seeds
        ]
        self.drawn = torch.empty(len(seeds), max(1, NUMBERS // vocabulary), vocabulary, device=device)
        # Nothing is drawn yet: the first call does.
        self.used = self.drawn.shape[1]

    def __call__(self) -> torch.Tensor:
        """The noise ``(B, V)`` of the next token."""
        if self.used == self.drawn.shape[1]:
            for numbers, generator in zip(self.drawn, self.generators):
                if generator is None:
                    numbers.fill_(1.0)  # of which the noise is 0
                else:
                    numbers.exponential_(generator=generator)
            self.drawn.log_().neg_()
            self.used = 0
        self.used += 1
        return self.drawn[:, self.used - 1]

    def select(self, rows: torch.Tensor) -> None:
        """Go on with these samples alone."""
        self.generators = [self.generators[row] for row in rows.tolist()]
        self.drawn = self.drawn[rows]


@torch.no_grad()
def decode(
    host,
    rows: Sequence[dict],
    seeds: Sequence[Sequence[int | None]],
    draw: Callable | None,
    max_new_tokens: int,
    anybody: Callable[[bool], bool] = bool,
    share: bool = False,
) -> list[list[list[int]]]:
    """k answers to each row, as token ids without the stop token.

    Args:
        host: see :meth:`spr_plugin.training.host.Host.prefill` and ``step``.
        rows: B rows of :meth:`spr_plugin.training.host.Host.questions`.
        seeds: (B, k), one for each answer; None for one without noise, the likeliest token at each.
        draw: see :func:`drawing`; None takes the likeliest token (greedy).
        max_new_tokens: the longest answer.
        anybody: whether this batch's answers go on → whether to go on;
            :func:`spr_plugin.training.ranks.any_of` where ranks take each step together.
        share: what rows of the same pictures begin with is computed once (:func:`shared_prefill`).
    """
    logits, cache, mask = shared_prefill(host, rows) if share else host.prefill(rows)
    k = len(seeds[0])
    # Samples of a prompt lie side by side: row i * k + j is sample j of prompt i.
    if k > 1:
        logits, mask, cache = logits.repeat_interleave(k, 0), mask.repeat_interleave(k, 0), repeat(cache, k)
    cache = growing_in_place(cache)
    count = len(rows) * k
    noise = Noise([seed for row in seeds for seed in row], logits.shape[-1], logits.device)
    stops = torch.tensor(host.stop_tokens, device=logits.device)
    # Full of stops: an answer that ends early needs no filling up.
    answers = stops[0].repeat(count, max_new_tokens)
    writing = torch.arange(count, device=logits.device)  # the samples that the batch's rows belong to
    ended = torch.zeros(count, dtype=torch.bool, device=logits.device)
    for index in range(max_new_tokens):
        tokens = draw(logits, noise()) if draw else logits.argmax(-1)
        # What has ended stays in the batch for a while, and writes stops.
        tokens = torch.where(ended, stops[0], tokens)
        answers[writing, index] = tokens
        ended |= torch.isin(tokens, stops)
        left = int((~ended).sum())
        if index + 1 == max_new_tokens or not anybody(left > 0):
            break
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        # Not at each end: taking rows out copies the cache, which costs as much as some tokens.
        if 0 < left <= len(writing) // 2:
            alive = (~ended).nonzero()[:, 0]
            writing, ended, tokens, mask, cache = (
                writing[alive],
                ended[alive],
                tokens[alive],
                mask[alive],
                select(cache, alive),
            )
            noise.select(alive)
        logits, cache = host.step(tokens[:, None], mask, cache)
    return [
        [_until_stop(answers[i * k + j].tolist(), host.stop_tokens) for j in range(k)]
        for i in range(len(rows))
    ]


@torch.no_grad()
def shared_prefill(host, rows: Sequence[dict]) -> tuple:
    """``host.prefill(rows)``, but for the last bits, with what rows of the same pictures begin with forwarded
    once; their other tokens, plain text, then follow on a copy of its keys and values.
    """
    families = beginnings(host, rows)
    if len(families) == len(rows) or not _sees_all(host.language_model()[0].config):
        return host.prefill(rows)
    _, cache, mask = host.prefill([_beginning(rows[indices[0]], cut) for indices, cut in families])
    if isinstance(cache, tuple) and not mask.all():
        # transformers 4.37 shows the padding to tokens that come behind it together
        return host.prefill(rows)
    family, rest = [0] * len(rows), [torch.empty(0)] * len(rows)
    for number, (indices, cut) in enumerate(families):
        for index in indices:
            family[index], rest[index] = number, rows[index]["input_ids"][cut:]
    # The beginning that each row goes on from.
    of = torch.tensor(family, device=mask.device)
    longest = max(map(len, rest))
    tokens, shown = rest[0].new_zeros(len(rows), longest), mask.new_zeros(len(rows), longest)
    for index, own in enumerate(rest):
        # Padded on the left: the logits of the last column are the next token's of every row.
        tokens[index, longest - len(own) :], shown[index, longest - len(own) :] = own, 1
    mask = torch.cat([mask[of], shown], 1)
    logits, cache = host.step(tokens.to(mask.device), mask, select(growing_in_place(cache), of))
    return logits, cache, mask


def beginnings(host, rows: Sequence[dict]) -> list[tuple[list[int], int]]:
    """(indices of rows that begin alike, with how many tokens); one token at least is left to each row. All
    rows apart where one cannot be cut.
    """
    apart = [([index], len(row["input_ids"]) - 1) for index, row in enumerate(rows)]
    alike: dict = {}
    for index, row in enumerate(rows):
        pictures, start = host.sharing(row) or ((), len(row["input_ids"]))
        if start >= len(row["input_ids"]):
            return apart
        alike.setdefault((pictures, *row["input_ids"][:start].tolist()), (start, []))[1].append(index)
    families = []
    for start, indices in alike.values():
        ids = [rows[index]["input_ids"].tolist() for index in indices]
        first, last = min(ids), max(ids)  # in the order of words, so that what these two share, all share
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last)))
        cut = min(common, len(first) - 1)
        families += [(indices, cut)] if cut >= max(start, 1) else [apart[index] for index in indices]
    return families


def _beginning(row: dict, cut: int) -> dict:
    """A row's first tokens, with all its pictures."""
    shape = row["input_ids"].shape
    return {
        name: value[:cut] if getattr(value, "shape", None) == shape else value for name, value in row.items()
    }


def _sees_all(config) -> bool:
    """Whether each layer attends to all tokens before: where it sees but so many places, padding between a
    beginning and what follows would take some.
    """
    if kinds := getattr(config, "layer_types", None):
        return set(kinds) == {"full_attention"}
    return not (getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True))


def _until_stop(tokens: list[int], stops: Sequence[int]) -> list[int]:
    ends = [index for index, token in enumerate(tokens) if token in stops]
    return tokens[: ends[0]] if ends else tokens


def repeat(cache, times: int):
    """Each row of a key-value cache ``times`` times in a row: transformers' Cache, or its older tuple of
    layers.
    """
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


def growing_in_place(cache):
    """Let the layers of transformers' Cache write a token's keys and values behind those they hold; their own
    way copies all of them at each token. Layers of other kinds (a sliding window) and older versions' caches
    keep their way.
    """
    for layer in getattr(cache, "layers", ()):
        kind, in_place = _layers()
        if type(layer) is kind:
            # Its tensors stay: it only grows in another way.
            layer.__class__ = in_place
    return cache


@functools.cache
def _layers() -> tuple[type, type]:
    from transformers.cache_utils import DynamicLayer

    class InPlaceLayer(DynamicLayer):
        def update(self, keys, values, *args, **kwargs):
            self.keys, self.values = appended(self.keys, keys), appended(self.values, values)
            return self.keys, self.values

        def batch_select_indices(self, indices):
            if self.get_seq_length():
                self.keys, self.values = chosen(self.keys, indices), chosen(self.values, indices)

    return DynamicLayer, InPlaceLayer


def chosen(past: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """``past[rows]``, with room for more tokens behind: what is chosen is about to grow."""
    *outer, length, width = past.shape[1:]
    # A part of a larger tensor: its strides still tell of the room behind it.
    room = past.new_empty(len(rows), *outer, length + ROOM, width)[..., :length, :]
    return torch.index_select(past, 0, rows, out=room)


def appended(past: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """``past (B, H, T, D)`` with ``new (B, H, t, D)`` behind it. Where `past` is a part of a tensor that this
    function made, its free room is used; else it is copied once into one with room for more.
    """
    *outer, length, width = past.shape
    total = length + new.shape[-2]
    # A part keeps the whole tensor's stride between heads; by a token's, that is how many it has room for.
    if past.stride(-3) // past.stride(-2) < total:
        wider = past.new_empty(*outer, total + ROOM, width)
        wider[..., :length, :] = past
        past = wider
    # The same memory with more tokens: what lies behind the part is its free room.
    whole = past.as_strided((*outer, total, width), past.stride())
    whole[..., length:, :] = new
    return whole
