"""Log-probs through the chunked head: values and gradients of the plain computation, memory that no
vocabulary moves.
"""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from spr_plugin.dpo import head
from spr_plugin.dpo.head import token_log_probs


def naive(hidden, weight, bias, tokens):
    return F.linear(hidden, weight, bias).float().log_softmax(-1).gather(1, tokens[:, None])[:, 0]


def case(dtype=torch.float64, bias=True, count=23, width=8, vocabulary=37):
    hidden, weight = torch.randn(count, width, dtype=dtype), torch.randn(vocabulary, width, dtype=dtype)
    return (
        hidden,
        weight,
        torch.randn(vocabulary, dtype=dtype) if bias else None,
        torch.randint(vocabulary, (count,)),
    )


@pytest.mark.parametrize("chunk", [1, 37 * 4, 1 << 24])
@pytest.mark.parametrize("trained", ["hidden", "hidden weight", "hidden weight bias", "weight"])
def test_values_and_gradients(monkeypatch, chunk, trained):
    monkeypatch.setattr(head, "CHUNK", chunk)
    hidden, weight, bias, tokens = case(dtype=torch.float32)
    named = {"hidden": hidden, "weight": weight, "bias": bias}
    leaves = [named[name].requires_grad_() for name in trained.split()]
    upstream = torch.randn(len(tokens))
    ours, theirs = token_log_probs(hidden, weight, bias, tokens), naive(hidden, weight, bias, tokens)
    assert torch.allclose(ours, theirs, atol=1e-5)
    for mine, other in zip(
        torch.autograd.grad(ours, leaves, upstream), torch.autograd.grad(theirs, leaves, upstream)
    ):
        assert torch.allclose(mine, other, atol=1e-5)


def test_half_precision_has_its_softmax_in_fp32():
    hidden, weight, _, tokens = case(torch.bfloat16, bias=False)
    ours = token_log_probs(hidden, weight, None, tokens)
    assert ours.dtype == torch.float32
    assert torch.equal(ours, naive(hidden, weight, None, tokens)) or torch.allclose(
        ours, naive(hidden, weight, None, tokens), atol=1e-6
    )


def test_under_autocast_the_products_are_in_half_precision_as_the_host_s_own():
    hidden, weight, _, tokens = case(torch.float32, bias=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = token_log_probs(hidden, weight, None, tokens), naive(hidden, weight, None, tokens)
    assert torch.allclose(ours, theirs, atol=1e-6)


class LargestTensor(TorchDispatchMode):
    """Bytes of the largest tensor that any operation inside returns."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.bytes = max(
            [
                self.bytes,
                *(
                    t.nbytes
                    for t in (out if isinstance(out, (tuple, list)) else [out])
                    if isinstance(t, torch.Tensor)
                ),
            ]
        )
        return out


def test_no_tensor_grows_with_the_vocabulary(monkeypatch):
    """600 positions: logits of 152,064 tokens would take 365 MB in fp32; a chunk of them takes 4 MB, as at
    32,000.
    """
    monkeypatch.setattr(head, "CHUNK", 1 << 20)
    seen = {}
    for vocabulary in (32000, 152064):
        hidden, weight, _, tokens = case(torch.float32, bias=False, count=600, width=4, vocabulary=vocabulary)
        hidden.requires_grad_()
        with LargestTensor() as largest:
            token_log_probs(hidden, weight, None, tokens).sum().backward()
        seen[vocabulary] = largest.bytes
    assert seen[152064] <= 1.05 * seen[32000] <= 5 << 20, seen
