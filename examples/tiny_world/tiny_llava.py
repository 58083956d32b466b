"""The tiny LLaVA: its projector and language model, and what they know before anything is taught.

Words, coordinates and (soon) patches start from shared codes, and attention from look-ups by them.
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import painting
import vocabulary
from teach_tower import WIDTH, basis, half_products

HIDDEN = 192
LAYERS = 4
IGNORE = -100  # a target that no loss is taken of


def llama_config(vocabulary_size):
    return LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=HIDDEN,
        intermediate_size=512,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


NAMES = [*painting.COLORS, *painting.SHAPES]


HEAD = HIDDEN // 4  # width of an attention head
NAME_DIMS = slice(140, 140 + HEAD)  # where colours and shapes are written; boxes lie in 0-127
# Dimensions of a head that Llama rotates slowly: distance hardly changes what they compare.
SLOW = torch.cat([torch.arange(10, HEAD // 2), torch.arange(10 + HEAD // 2, HEAD)])
# In `[x1, y1, x2, y2]` the numbers before y2, how many tokens back, and where a patch's code has them.
BOX_BEHIND = ((6, slice(0, 32)), (4, slice(32, 64)), (2, slice(64, 96)))
CONSTANT = 191  # the same in every token: lets attention go by distance alone
IS_NAME = 190  # of words alone, so that attention finds what was named last


def short_code(values):
    """(n,) positions in 0-1 -> (n, WIDTH // 4): four of them, a box, fit in the tower's width."""
    return 0.3 * basis(values)[:, ::2]


def start_attention(attention, index):
    """Starts attention as a look-up, without which training waits thousands of steps for one.

    Layer 0: one head fetches the name in the token before, so that "circle" knows that it is red; three
    fetch the numbers before a box's last one, so that this token knows the whole box, as a patch does.
    Later: three heads compare names, each carrying a part of the found box; a fourth carries names, found by
    name in layer 1 and by box after that. In the last layer the third fetches what was found out before
    about the name said last: an answer of one word stands some words behind it. All of it goes on learning.
    """
    third, fourth, everywhere = 2 * HEAD, 3 * HEAD, slice(0, WIDTH)
    if index == 0:
        attend_back(attention, fourth, 1)
        carry(attention, fourth, NAME_DIMS)
        for head, (distance, part) in enumerate(BOX_BEHIND):
            attend_back(attention, head * HEAD, distance)
            carry(attention, head * HEAD, part)
        return
    names = torch.randn(len(SLOW), HEAD) / HEAD**0.5
    parts, last = (slice(0, 48), slice(48, 96), slice(96, 128)), index == LAYERS - 1
    for head, part in enumerate(parts[:2] if last else parts):
        compare(attention, head * HEAD, NAME_DIMS, 1.2 * names)
        carry(attention, head * HEAD, part)
    if last:
        attend_last_name(attention, third)
        carry(attention, third, NAME_DIMS)
    if index == 1:
        compare(attention, fourth, NAME_DIMS, 1.2 * names)
    else:
        boxes = torch.randn(len(SLOW), WIDTH) / WIDTH**0.5
        compare(attention, fourth, everywhere, 2.0 * boxes)
    carry(attention, fourth, NAME_DIMS)


def attend_back(attention, row, distance, strength=2.0):
    """Makes the head at `row` look `distance` tokens back: Llama's rotation of i and i + HEAD / 2, undone by
    it.
    """
    fast = torch.arange(6)
    angle = distance * 10000.0 ** (-2 * fast / HEAD)
    attention.q_proj.weight[row + fast, CONSTANT] += strength
    attention.k_proj.weight[row + fast, CONSTANT] += strength * angle.cos()
    attention.k_proj.weight[row + HEAD // 2 + fast, CONSTANT] += strength * angle.sin()


def attend_last_name(attention, row):
    """Makes the head at `row` look at names, at those a few tokens back above all."""
    attend_back(attention, row, 4, strength=0.35)
    slow = row + SLOW[:8]
    attention.q_proj.weight[slow, CONSTANT] += 0.7
    attention.k_proj.weight[slow, IS_NAME] += 0.7


def compare(attention, row, dims, mix):
    """Makes the head at `row` look where these dimensions are like its own, nearly free of distance."""
    attention.q_proj.weight[row + SLOW, dims] += mix
    attention.k_proj.weight[row + SLOW, dims] += mix


def carry(attention, row, dims):
    """Makes the head at `row` add these dimensions of what it looks at."""
    same = torch.eye(dims.stop - dims.start)
    attention.v_proj.weight[row : row + len(same), dims] += same
    attention.o_proj.weight[dims, row : row + len(same)] += 0.2 * same


class TinyLlava(nn.Module):
    """Projector and language model, under the names that LLaVA's checkpoints use."""

    def __init__(self, tokenizer):
        super().__init__()
        self.llm = LlamaForCausalLM(llama_config(len(tokenizer)))
        self.projector = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN))
        with torch.no_grad():
            self.start_from_shared_codes(tokenizer)

    def start_from_shared_codes(self, tokenizer):
        """Coordinates and names mean the same vectors in words, in output rows and (soon) in patches.

        Attention starts near "look where it is like me, take what is there". Learning to look things up
        by a name then takes hundreds of steps, not thousands.
        """
        words = self.llm.get_input_embeddings().weight
        nn.init.normal_(words, std=0.05)
        rows = tokenizer.convert_tokens_to_ids(vocabulary.COORDINATES)
        words[rows] = 0
        words[rows, :WIDTH] = short_code(torch.arange(101) / 100).repeat(1, 4)
        names = tokenizer.convert_tokens_to_ids([vocabulary.SPACE + w for w in NAMES])
        words[names] = 0
        words[names, NAME_DIMS] = torch.randn(len(names), HEAD) * 0.3
        self.llm.lm_head.weight.copy_(0.3 * words)
        self.register_buffer("name_codes", words[names].clone(), persistent=False)
        words[:, CONSTANT] = 0.5
        words[names, IS_NAME] = 0.5
        for index, layer in enumerate(self.llm.model.layers):
            start_attention(layer.self_attn, index)

    def patch_codes(self, classes, boxes):
        """What a patch should say in the words' own vectors: (n,) classes, (n, 4) hundredths -> (n,
        HIDDEN).
        """
        names = torch.tensor([[0, 0]] + [[NAMES.index(w) for w in c.split()] for c in painting.CATEGORIES])
        codes = self.name_codes[names[classes]].sum(1)
        codes[:, :WIDTH] = torch.cat([short_code(boxes[:, i] / 100) for i in range(4)], 1)
        codes = codes * (classes > 0)[:, None]
        codes[:, CONSTANT] = 0.5
        return codes

    def embed(self, features, prefix, text):
        """(n, patches, WIDTH), (p,), (n, t) -> (n, p + patches + t, HIDDEN)."""
        embed = self.llm.get_input_embeddings()
        before = embed(prefix).expand(len(features), -1, -1)
        return torch.cat([before, self.projector(features), embed(text)], 1)

    def loss(self, features, prefix, text, targets, importance=None):
        """Mean cross-entropy of the marked targets (n, t), IGNORE elsewhere, weighted by token."""
        with half_products():
            inputs = self.embed(features, prefix, text)
            hidden = self.llm.model(inputs_embeds=inputs, use_cache=False).last_hidden_state.float()
        hidden = hidden[:, -text.shape[1] - 1 : -1]  # what predicts each text token
        marked = targets != IGNORE
        return F.cross_entropy(self.llm.lm_head(hidden[marked]), targets[marked], weight=importance)

    def checkpoint(self):
        """State dict in LLaVA's layout, without the tower."""
        tensors = dict(self.llm.state_dict())
        for name, tensor in self.projector.state_dict().items():
            tensors[f"model.mm_projector.{name}"] = tensor
        return tensors
