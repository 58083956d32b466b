"""Log-probs of the answers of preference pairs, through the host's own forward.

The host expands its ordinary chosen and rejected rows (an ``<image>`` becomes patch embeddings). Between that
and its language model we join the two rows of a pair to one, ``[prompt | chosen | rejected]``: positions
restart at ``rejected``, and a 4-D mask hides ``chosen`` from it, so that every token sees what it saw in its
own row and the prompt with its picture is computed once. The language-model head sees the hidden states
before completion tokens alone.

Hooks on the backbone and on the head, taken off after the forward, do this inside one call of whatever wraps
the model (DDP, a DeepSpeed engine, PEFT), so that gradients are reduced and parameters gathered as in any
other step.
"""

import contextlib
from dataclasses import dataclass

import torch

from spr_plugin.dpo.head import token_log_probs
from spr_plugin.imports import replaced
from spr_plugin.training.host import IGNORED, Host


@dataclass
class Answers:
    """Log-probs of the 2B answers of B pairs, chosen first.

    Attributes:
        token_log_probs: ``(2B, T)`` fp32, 0 where ``scored`` is False.
        scored: ``(2B, T)`` bool, the completion tokens.
        weights: ``(2B, T)``, what each of them counts; None for 1 each.
    """

    token_log_probs: torch.Tensor
    scored: torch.Tensor
    weights: torch.Tensor | None = None

    @property
    def sums(self) -> torch.Tensor:
        """``(2B,)``, weighted."""
        if self.weights is None:
            return self.token_log_probs.sum(1)
        return (self.token_log_probs * self.weights).sum(1)

    @property
    def tokens(self) -> torch.Tensor:
        """How many there are, as they count, ``(2B,)``."""
        return (self.scored if self.weights is None else self.weights).sum(1)

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """``values`` of the completion tokens, row by row, at their places ``(2B, T)``; 0 elsewhere."""
        there = values.to(self.scored.device)
        return torch.zeros_like(self.scored, dtype=there.dtype).masked_scatter(self.scored, there)


@dataclass
class Join:
    """Where each token of the joined rows ``(B, L)`` comes from.

    Attributes:
        index: ``(B, L)`` into the flattened ``(2B · T)`` tokens of the host's rows.
        branch: ``(B, L)``: 0 prompt, 1 chosen, 2 rejected, -1 padding.
        inverse: ``(2B, T)``: where a token of the host's rows lies in the flattened ``(B · L)`` joined ones.
    """

    index: torch.Tensor
    branch: torch.Tensor
    inverse: torch.Tensor


def join_rows(starts: list[int], lengths: list[int], prompts: list[int], width: int) -> Join:
    """Plan of the joined rows of B pairs.

    Args:
        starts, lengths: of the 2B rows, chosen first: first valid position and number of valid positions.
        prompts: of the B pairs: how many leading tokens both rows share.
        width: T of the host's rows.
    """
    pairs = len(prompts)
    # A joined row holds the prompt once: both rows' tokens, less one prompt.
    longest = max(lengths[i] + lengths[pairs + i] - prompts[i] for i in range(pairs))
    # Padding points at token 0: any valid index will do, as the mask hides it and no label reads it.
    index = torch.zeros(pairs, longest, dtype=torch.long)
    branch = torch.full((pairs, longest), -1)
    inverse = torch.zeros(2 * pairs, width, dtype=torch.long)
    for i, prompt in enumerate(prompts):
        chosen, rejected, total = lengths[i], lengths[pairs + i], lengths[i] + lengths[pairs + i] - prompt
        # Rows lie one behind the other when flattened, so a token of row r is at r * width + its position.
        first, second = i * width + starts[i], (pairs + i) * width + starts[pairs + i]
        index[i, :chosen] = torch.arange(first, first + chosen)
        # Of the rejected row only what stands behind the shared prompt.
        index[i, chosen:total] = torch.arange(second + prompt, second + rejected)
        branch[i, :prompt], branch[i, prompt:chosen], branch[i, chosen:total] = 0, 1, 2
        own = i * longest
        inverse.view(-1)[first : first + chosen] = torch.arange(own, own + chosen)
        # The rejected row's prompt was computed in the chosen row's: both point at the same states.
        inverse.view(-1)[second : second + prompt] = torch.arange(own, own + prompt)
        inverse.view(-1)[second + prompt : second + rejected] = torch.arange(own + chosen, own + total)
    return Join(index, branch, inverse)


def pair_mask(
    branch: torch.Tensor, positions: torch.Tensor, window: int | None, dtype: torch.dtype
) -> torch.Tensor:
    """Additive mask ``(B, 1, L, L)``: a token sees itself and what came before it in its own row, at most
    ``window`` positions back.
    """
    order = torch.arange(branch.shape[1], device=branch.device)
    query, key = branch[:, :, None], branch[:, None, :]
    # Causal; keys of the prompt (0) are for all, an answer's for itself alone, padding's (-1) for nobody.
    seen = (order[:, None] >= order[None, :]) & ((key == 0) | (key == query)) & (key >= 0)
    if window is not None:
        # By positions, not by order: rejected lies behind chosen, and is no farther from the prompt.
        seen &= positions[:, :, None] - positions[:, None, :] < window
    seen |= order[:, None] == order[None, :]  # padding sees itself: a row of nothing has no softmax
    return torch.zeros(seen.shape, dtype=dtype, device=branch.device).masked_fill_(
        ~seen, torch.finfo(dtype).min
    )[:, None]


def sliding_window(config) -> int | None:
    """The window that every layer of the model has; None for full attention. ValueError where layers
    differ.
    """
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds == {"full_attention"}:
        return None
    if kinds - {"sliding_attention"}:
        raise ValueError(f"its layers mix {' and '.join(sorted(kinds))}")
    return getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None


def no_joining(config) -> str | None:
    """Why the model's attention cannot take joined rows; None where it can."""
    kind = getattr(config, "_attn_implementation", "eager")
    if kind not in ("eager", "sdpa"):
        return f"{kind} takes no 4-D mask here"
    try:
        sliding_window(config)
    except ValueError as why:
        return str(why)
    return None


def answers(host: Host, model, batch: dict, unshared: list[int], joined: bool) -> Answers:
    """Forward a host batch of ``[chosen …, rejected …]`` rows.

    Args:
        model: what wraps the live model.
        batch: keyword arguments of its forward.
        unshared: of the 2B rows: how many of the last valid tokens are not shared with the other row of the
            pair.
        joined: whether the two rows of a pair share their prompt.

    Raises:
        ValueError: the host cut a row, so that the two prompts of a pair differ in length.
    """
    backbone, head = host.language_model()
    state = {}

    def enter(module, args, kwargs):
        embeddings = kwargs["inputs_embeds"]
        kwargs["use_cache"] = False
        state["width"] = embeddings.shape[1]
        if joined:
            kwargs.update(_joined(embeddings, kwargs, unshared, state, sliding_window(module.config)))
        if (
            torch.is_grad_enabled()
            and not kwargs["inputs_embeds"].requires_grad
            and getattr(module, "gradient_checkpointing", False)
        ):
            # Reentrant checkpoints give no gradients without.
            kwargs["inputs_embeds"] = kwargs["inputs_embeds"].detach().requires_grad_()
        return args, kwargs

    def score(hidden):
        labels = heard[0]
        scored = torch.zeros_like(labels, dtype=torch.bool)
        # Nothing stands before the first token that could predict it.
        scored[:, 1:] = labels[:, 1:] != IGNORED
        # The hidden state before a token predicts it.
        before = (
            state["inverse"] if joined else torch.arange(labels.numel(), device=labels.device).view_as(labels)
        )
        sources = before[:, :-1][scored[:, 1:]]
        log_probs = token_log_probs(hidden.flatten(0, 1)[sources], head.weight, head.bias, labels[scored])
        state["scored"] = scored
        return torch.zeros(labels.shape, dtype=torch.float32, device=hidden.device).masked_scatter(
            scored, log_probs
        )

    # Of the head its forward alone is replaced: its hooks, which gather its weights under ZeRO-3, stay.
    with host.labels_overheard() as heard, _hooked(backbone, enter), replaced(head, "forward", score):
        out = model(**batch).logits
    return Answers(out, state["scored"])


def _joined(embeddings, kwargs, unshared, state, window) -> dict:
    """The backbone's arguments for joined rows."""
    rows, width = embeddings.shape[:2]
    mask = kwargs.get("attention_mask")
    if mask is None:
        starts, lengths = [0] * rows, [width] * rows
    else:
        # argmax gives the first of equal values, here the first 1: rows may be padded on either side.
        starts, lengths = torch.stack([mask.bool().int().argmax(1), mask.sum(1).int()]).tolist()
    prompts = [length - tail for length, tail in zip(lengths, unshared)]
    pairs = rows // 2
    if prompts[:pairs] != prompts[pairs:] or min(prompts) < 1:
        raise ValueError(
            f"the host expanded the prompts of a pair to {prompts[:pairs]} and {prompts[pairs:]} tokens: it"
            " cut a row"
        )
    plan = join_rows(starts, lengths, prompts[:pairs], width)
    index, branch = plan.index.to(embeddings.device), plan.branch.to(embeddings.device)
    state["inverse"] = plan.inverse.to(embeddings.device)
    positions = kwargs.get("position_ids")
    if positions is None:
        offsets = torch.tensor(starts, device=embeddings.device)[:, None]
        # As transformers counts them: 0 at the first valid token, whatever padding stands before it.
        positions = (torch.arange(width, device=embeddings.device)[None] - offsets).clamp(min=0)
    # (…, B, L), e.g. three of them with M-RoPE.
    positions = positions.expand(*positions.shape[:-2], rows, width).flatten(-2)[..., index]
    # The window is counted along the first of M-RoPE's axes.
    rank_positions = positions.reshape(-1, *index.shape)[0]
    return {
        **_deep_pictures(kwargs, index, branch),
        "inputs_embeds": embeddings.flatten(0, 1)[index],
        "position_ids": positions,
        "attention_mask": pair_mask(branch, rank_positions, window, embeddings.dtype),
    }


def _deep_pictures(kwargs: dict, index: torch.Tensor, branch: torch.Tensor) -> dict:
    """Qwen3-VL adds features of the picture's tokens, in the order of those tokens, in its first layers too:
    moved with the tokens.
    """
    shown = kwargs.get("visual_pos_masks")
    if shown is None:
        return {}
    moved = shown.flatten()[index] & (branch >= 0)
    # The running count of picture tokens numbers each one's row among the features.
    feature_rows = (shown.flatten().cumsum(0) - 1)[index][moved]
    return {
        "visual_pos_masks": moved,
        "deepstack_visual_embeds": [features[feature_rows] for features in kwargs["deepstack_visual_embeds"]],
    }


@contextlib.contextmanager
def _hooked(module, hook):
    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
