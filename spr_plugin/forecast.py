"""What a run will take: memory of each stage from shapes alone, time of the whole from a trial's.

Pure functions on plain data; nothing here knows torch or a model. All memory is in bytes, of one rank, above
the process that has imported everything: on a GPU what is allocated there, on a CPU all of it. Formulas:

* what ZeRO's stages leave of weights, gradients and Adam's states: Rajbhandari et al., *ZeRO: Memory
  Optimizations Toward Training Trillion Parameter Models* (arXiv 1910.02054), section 3 and figure 1;
* what a layer keeps for backward: counted as Korthikanti et al. count, *Reducing Activation Recomputation in
  Large Transformer Models* (arXiv 2205.05198), section 4, for layers with RMSNorm, a gated MLP, attention
  that keeps no scores (theirs: ``s b h (34 + 5 a s / h)`` bytes, of LayerNorm, GELU, dropout and scores).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

CHUNK = 1 << 24  # logits that dpo/head.py holds at a time
SHARD = 2 << 30  # bytes of a file that training/weights.py writes at a time
FP32 = 4
ADAM = 2 * FP32  # bytes of a trained number's two moments
MASTER = FP32  # and of the fp32 copy that DeepSpeed keeps of it
STAGES = ("sampling", "scoring", "dpo", "probe", "save")


@dataclass(frozen=True)
class Stack:
    """The layers of one transformer.

    Attributes:
        width, inner: of a token's hidden state, and inside the MLP.
        heads, key_heads, head_width: of attention; `key_heads` of keys and values.
        products: matrices of the MLP: 3 where it is gated, else 2.
    """

    layers: int
    width: int
    inner: int
    heads: int
    key_heads: int
    head_width: int
    products: int = 3

    @property
    def queries(self) -> int:
        return self.heads * self.head_width

    @property
    def keys(self) -> int:
        return self.key_heads * self.head_width

    @property
    def matrices(self) -> list[tuple[int, int]]:
        """(numbers in, numbers out) of each linear layer of one layer."""
        attention = [(self.width, self.queries), *[(self.width, self.keys)] * 2, (self.queries, self.width)]
        return [*attention, *[(self.width, self.inner)] * (self.products - 1), (self.inner, self.width)]

    @property
    def weights(self) -> int:
        """Numbers of all matrices of all layers."""
        return self.layers * sum(a * b for a, b in self.matrices)

    def adapter(self, rank: int) -> int:
        """Numbers of a LoRA adapter on all of them (Hu et al., arXiv 2106.09685: r (in + out) a matrix)."""
        return self.layers * rank * sum(a + b for a, b in self.matrices)


@dataclass(frozen=True)
class Shape:
    """A vision-language model in numbers.

    Attributes:
        weights: bytes of all parameters and buffers as they are loaded.
        trained: how many numbers DPO trains, and `trained_bytes` each of them takes.
        image_tokens: that a picture takes in the language model; `patches` in the tower.
        scorer: bytes of the model that scores (CLIP, in fp32).
        saved: bytes of the checkpoint that the host writes.
    """

    language: Stack
    tower: Stack
    vocabulary: int
    weights: int
    trained: int
    trained_bytes: int
    image_tokens: int
    patches: int
    scorer: int = 0
    saved: int = 0


@dataclass(frozen=True)
class Plan:
    """How it is run.

    Attributes:
        compute: bytes of a number that the model computes in; `loaded` of one of its frozen weights.
        zero: DeepSpeed's stage, 0 without it; `ranks` share what it shares.
        pairs: in one step on one rank.
        prompt, answer: tokens of the longest question with its picture, and of an answer.
        prompts, samples, new_tokens: of a sampling batch: questions, answers to each, their tokens.
        probes: questions of a look at held-out queries that are answered at once.
        pictures: whose features are kept, up to `cache` bytes, in the host's memory.
        gpu: what lies in the host's memory does not count.
    """

    compute: int
    loaded: int
    pairs: int
    prompt: int
    answer: int
    prompts: int
    samples: int
    new_tokens: int
    probes: int = 0
    pictures: int = 0
    cache: int = 0
    zero: int = 0
    ranks: int = 1
    checkpointing: bool = False
    joined: bool = True
    gpu: bool = False


CLIP_L = 427_944_193 * FP32  # of CLIP-L/14-336 with both towers, as a scorer holds it


def _llava(language: Stack, language_weights: int, projector: int) -> Shape:
    """LLaVA-1.5 in bf16 with the stage's adapter in fp32: Llama 2, CLIP-L/14-336, a projector."""
    tower = Stack(24, 1024, 4096, heads=16, key_heads=16, head_width=64, products=2)
    own, adapter = language_weights + projector, language.adapter(16)
    loaded, tokens = 2 * (own + 303_507_456) + FP32 * adapter, 576
    return Shape(language, tower, 32000, loaded, adapter, FP32, tokens, tokens + 1, CLIP_L, saved=2 * own)


LLAVA_7B = _llava(Stack(32, 4096, 11008, heads=32, key_heads=32, head_width=128), 6_738_415_616, 20_979_712)
LLAVA_13B = _llava(Stack(40, 5120, 13824, heads=40, key_heads=40, head_width=128), 13_015_864_320, 31_467_520)


def memory(shape: Shape, plan: Plan) -> dict[str, int]:
    """Stage → bytes at its peak."""
    all_weights = weights(shape, plan)
    of_training = all_weights + states(shape, plan) + features(shape, plan)
    return {
        "sampling": all_weights + answering(shape, plan, plan.prompts, plan.samples),
        "scoring": all_weights + shape.scorer,
        "dpo": of_training + gradients(shape, plan) + step(shape, plan),
        "probe": of_training + answering(shape, plan, plan.probes, 1),
        "save": of_training + (0 if plan.gpu else min(shape.saved, SHARD)),
    }


# --- what is there all the time (ZeRO, section 3)


def weights(shape: Shape, plan: Plan) -> int:
    """All weights, those that train among them; ZeRO-3 deals them among the ranks."""
    return shape.weights // (plan.ranks if plan.zero == 3 else 1)


def gradients(shape: Shape, plan: Plan) -> int:
    """Of what trains; dealt from ZeRO-2 on."""
    return shape.trained * shape.trained_bytes // (plan.ranks if plan.zero >= 2 else 1)


def states(shape: Shape, plan: Plan) -> int:
    """Adam's two moments, in the type of the weights; under DeepSpeed in fp32 beside an fp32 copy, dealt from
    ZeRO-1 on (its K = 12 with fp16 weights)."""
    dealt = shape.trained * (ADAM + MASTER) // plan.ranks
    return dealt if plan.zero else shape.trained * 2 * shape.trained_bytes


def features(shape: Shape, plan: Plan) -> int:
    """Image features that are kept between the steps, in the host's memory."""
    wanted = plan.pictures * shape.image_tokens * shape.language.width * plan.compute
    return 0 if plan.gpu else min(plan.cache, wanted)


# --- a DPO step


def row(plan: Plan) -> int:
    """Tokens of a pair's row or rows: joined they have their prompt once."""
    return (plan.prompt if plan.joined else 2 * plan.prompt) + 2 * plan.answer


def kept(stack: Stack, compute: int, trained_bytes: int) -> int:
    """Bytes a token that one layer keeps for backward, frozen matrices with adapters or all training alike
    (Korthikanti, section 4.1, counted anew): the inputs of the matrices, each once; queries, keys, values and
    what attention gives; both norms' inputs, in fp32; gate, its activation, the other factor, their product.

    Where an adapter has another type than what it is given, PEFT casts that: each of the seven keeps its own.
    """
    norms = 2 * FP32 * stack.width
    attention = compute * (2 * stack.queries + 2 * stack.keys)
    mlp = compute * (stack.products + (stack.products == 3) - 1) * stack.inner
    if trained_bytes == compute:
        return norms + attention + mlp + compute * (2 * stack.width + stack.inner)
    return norms + attention + mlp + trained_bytes * sum(given for given, _ in stack.matrices)


def activations(shape: Shape, plan: Plan) -> int:
    """Bytes a token that a forward keeps for backward, with `checkpointing` each layer's input and the inside
    of one (Korthikanti, section 5: full recomputation, ``2 s b h L``)."""
    stack = shape.language
    one = kept(stack, plan.compute, shape.trained_bytes)
    return stack.layers * plan.compute * stack.width + one if plan.checkpointing else stack.layers * one


def logits(tokens: int, vocabulary: int, compute: int) -> int:
    """Bytes of so many tokens' log-softmax: the logits as the head gives them, in fp32, and once more so."""
    return tokens * vocabulary * (2 * FP32 + (compute if compute != FP32 else 0))


def head(shape: Shape, plan: Plan) -> int:
    """Of the log-probs of a step's answers: never more than CHUNK logits at a time, whatever the
    vocabulary."""
    scored = 2 * plan.answer * plan.pairs
    return logits(min(scored, max(1, CHUNK // shape.vocabulary)), shape.vocabulary, plan.compute)


def attention_mask(plan: Plan) -> int:
    """Of joined rows: one number for each two tokens, and the truth values that it is made of."""
    return plan.pairs * row(plan) ** 2 * (plan.compute + 3) if plan.joined else 0


def step(shape: Shape, plan: Plan) -> int:
    """Beyond weights, gradients and states: activations, mask, the head's logits or the backward of one
    layer's MLP, whichever is more."""
    tokens = plan.pairs * row(plan)
    backward = tokens * plan.compute * (3 * shape.language.inner + 2 * shape.language.width)
    return tokens * activations(shape, plan) + attention_mask(plan) + max(head(shape, plan), backward)


# --- answering


def cache(shape: Shape, plan: Plan, answers: int) -> int:
    """Keys and values of so many answers behind their prompts."""
    stack = shape.language
    return answers * (plan.prompt + plan.new_tokens) * stack.layers * 2 * stack.keys * plan.compute


def tower(shape: Shape, plan: Plan, pictures: int) -> int:
    """The hidden states of all layers of the vision tower, which LLaVA asks for, and one layer's inside."""
    stack = shape.tower
    inside = 2 * stack.inner + 4 * stack.width
    return pictures * shape.patches * plan.compute * ((stack.layers + 1) * stack.width + inside)


def answering(shape: Shape, plan: Plan, prompts: int, samples: int) -> int:
    """Key-value cache of all answers, and beside it the tower, the prompts' forward, or a token's logits with
    their noise: as they are, in fp32, by temperature, with the noise."""
    stack = shape.language
    prefill = prompts * plan.prompt * (plan.compute * 3 * stack.inner + (plan.compute + FP32) * stack.width)
    a_token = prompts * samples * shape.vocabulary * (plan.compute + 4 * FP32)
    most = max(tower(shape, plan, prompts), prefill, a_token)
    return cache(shape, plan, prompts * samples) + most


# --- time


@dataclass(frozen=True)
class Workload:
    """What a run has to do.

    Attributes:
        queries: that are asked, of which `watched` are held out.
        step: pairs of a step on one rank, of which `accumulation` make one of the optimizer.
        looks_every: steps of the optimizer between two looks at what is held out.
    """

    queries: int
    ranks: int
    step: int
    accumulation: int
    epochs: float
    watched: int = 0
    looks_every: int = 50

    @property
    def steps(self) -> int:
        """Of the optimizer, where each query gives a pair."""
        pairs = (self.queries - self.watched) * self.epochs
        return math.ceil(pairs / (self.step * self.accumulation * self.ranks))

    @property
    def looks(self) -> int:
        """The first, every few steps, and the last."""
        return 1 + math.ceil(self.steps / self.looks_every)


@dataclass(frozen=True)
class Trial:
    """Seconds that doctor's trial took on one rank.

    Attributes:
        queries: that were sampled, in `sampling` seconds, and their answers judged in `judging`.
        answers: to each of them.
        step: of one DPO step, forward and backward.
    """

    queries: int
    answers: int
    sampling: float
    judging: float
    step: float

    def seconds(self, workload: Workload) -> float:
        """Of the whole run, where each query gives a pair as long as the trial's: sampling and judging, dealt
        among the ranks; DPO's steps, the dry one, and the proof of its row layout, as much again; the
        reference, one forward of each pair, of a step a third or half; the looks, an answer to each query
        that is held out."""
        judged = workload.queries / self.queries * (self.sampling + self.judging) / workload.ranks
        forward = workload.steps / workload.epochs * workload.accumulation * self.step / 3
        answer = self.sampling / self.queries / self.answers
        looks = workload.looks * workload.watched * answer / workload.ranks
        return judged + (workload.steps * workload.accumulation + 2) * self.step + forward + looks


@dataclass(frozen=True)
class Device:
    """Operations in bf16 and bytes from memory a second, as its maker says; the share assumed to be had."""

    operations: float
    bandwidth: float
    computing: float = 0.4
    reading: float = 0.5


A100 = Device(operations=312e12, bandwidth=2.039e12)  # the one with 80 GB


def by_arithmetic(shape: Shape, plan: Plan, device: Device, kinds: int) -> Trial:
    """What a trial of one query would take where nobody has tried: `kinds` prompts a query.

    A token is two operations a weight; a decoding step of a batch reads all weights and its cache once;
    backward through frozen weights is as much as forward, one more with checkpointing.
    """
    rate, parameters = device.operations * device.computing, shape.weights / plan.loaded
    prefill = kinds * plan.prompt * 2 * parameters / rate
    bytes_read = shape.weights + cache(shape, plan, plan.prompts * plan.samples)
    decoding = kinds / plan.prompts * plan.new_tokens * bytes_read / (device.bandwidth * device.reading)
    answers = kinds * plan.samples
    judging = (1 + answers) * shape.patches * 2 * shape.scorer / FP32 / rate
    step = plan.pairs * row(plan) * (2 + plan.checkpointing) * 2 * parameters / rate
    return Trial(1, answers, prefill + decoding, judging, step)
