"""Log-probs of given tokens from hidden states, without ever holding their logits.

    log p(y | h) = (h W^T)_y − logsumexp(h W^T)        d log p / d h = W_y − softmax(h W^T) W

The second line needs nothing that backward brings but a factor: with a frozen head (LoRA) it is computed
chunk by chunk beside the first, the logits are dropped, and backward is one product. A head that trains is
gone through once more in backward.
"""

import torch
import torch.nn.functional as F

CHUNK = 1 << 24  # logits held at a time: 64 MiB in fp32, whatever the vocabulary


def token_log_probs(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, tokens: torch.Tensor
) -> torch.Tensor:
    """log p of ``tokens`` ``(N,)`` by the head ``weight`` ``(V, H)``, ``bias`` ``(V,)`` at ``hidden`` ``(N,
    H)``: ``(N,)``, softmax in fp32.
    """
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight, bias = hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        return _TokenLogProbs.apply(hidden, weight, bias, tokens)


def _chunks(count: int, vocabulary: int):
    size = max(1, CHUNK // vocabulary)
    return (slice(start, start + size) for start in range(0, count, size))


def _log_probs_and_slope(hidden, weight, bias, tokens, slope: bool):
    """log p ``(n,)`` of one chunk and d log p / d logits ``(n, V)``, the latter in the memory of the
    logits.
    """
    # The largest tensor of a step: what is worked out of it below is written over it (names that end in _).
    logits = F.linear(hidden, weight, bias).float()
    chosen = logits.gather(1, tokens[:, None])
    norm = logits.logsumexp(1, keepdim=True)
    if not slope:
        return (chosen - norm)[:, 0], None
    # −softmax; the token's own entry gets its 1 below.
    slopes = logits.sub_(norm).exp_().neg_()
    return (chosen - norm)[:, 0], slopes.scatter_add_(1, tokens[:, None], torch.ones_like(chosen))


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, tokens):
        ctx.head_trains = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        # With a frozen head the gradient is known up to a factor: (N, H) is kept, and the logits (N, V) go.
        keep = ctx.needs_input_grad[0] and not ctx.head_trains
        log_probs = hidden.new_empty(len(tokens), dtype=torch.float32)
        gradient = torch.empty_like(hidden) if keep else None
        for part in _chunks(len(tokens), len(weight)):
            log_probs[part], slopes = _log_probs_and_slope(hidden[part], weight, bias, tokens[part], keep)
            if keep:
                gradient[part] = slopes.to(weight.dtype) @ weight
        if ctx.head_trains:
            ctx.save_for_backward(hidden, weight, bias, tokens)
        elif keep:
            ctx.save_for_backward(gradient)
        return log_probs

    @staticmethod
    def backward(ctx, upstream):
        if not ctx.head_trains:
            (gradient,) = ctx.saved_tensors
            return gradient * upstream[:, None].to(gradient.dtype), None, None, None
        # A token's factor counts before the sums over tokens, so that the chunks are gone through anew.
        hidden, weight, bias, tokens = ctx.saved_tensors
        d_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        d_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        d_bias = torch.zeros_like(bias) if ctx.needs_input_grad[2] else None
        for part in _chunks(len(tokens), len(weight)):
            _, slopes = _log_probs_and_slope(hidden[part], weight, bias, tokens[part], True)
            slopes = slopes.mul_(upstream[part][:, None]).to(weight.dtype)
            if d_hidden is not None:
                d_hidden[part] = slopes @ weight
            if d_weight is not None:
                d_weight += slopes.T @ hidden[part]
            if d_bias is not None:
                d_bias += slopes.sum(0)
        return d_hidden, d_weight, d_bias, None
