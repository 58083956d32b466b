"""The tiny world's two tokenizers, written in the layouts that the real models use.

LLaVA's is a genuine Llama tokenizer (SentencePiece `tokenizer.model` and `tokenizer.json`, both from
one merge list), but trained on nothing: merges are chosen so that each known word, and each
coordinate from 0.0 to 1.0, is one token. Anything else falls apart into characters or bytes, never
into an error.
CLIP's is a plain table of words.
"""

import json
import re
from pathlib import Path

from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

import painting
import wording

SPACE = "▁"  # SentencePiece's visible space
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
COORDINATES = [wording.number(i / 100) for i in range(101)]
CLIP_LENGTH = 77

# What recipes ask in and answer with, beside the world's own texts. No weight has been taught these, but
# each is one token, so that a cold start is short.
RECIPE_WORDS = """
    A B C D left right none above below under over front behind near far middle inside between next
    larger smaller same than nearest farthest order from to at on by with one two three four five six
    seven eight nine ten zero how many count number objects object which where when who first second third
    fourth picture pictures patch patches piece pieces point points marked black original shuffled flipped
    mirrored vertically horizontally missing fits correct camera turned moved facing away depth closer
    farther answer options choose think step then write only your as that it its are was not but so
    because I see
"""
RELATIONS = "left right above below front behind larger smaller in"
ANSWERS = "above horizontal vertical middle behind right front below left none near far"
TAGS = [f"<{slash}{tag}>" for tag in ("think", "answer", "observe", "scene") for slash in ("", "/")]
GRAPH_KEYS = ("objects", "relationships", "id", "bbox", "subject", "predicate", "object")
PIXELS = [str(i) for i in range(10, painting.SIZE + 1)]


def known_words():
    """Every word of the world's texts, in order of first appearance."""
    texts = [SYSTEM, "USER: ASSISTANT:", *wording.TEMPLATES, *painting.COLORS, *painting.SHAPES]
    texts += [*wording.QUALIFIERS, "a an and", "Yes. No.", RECIPE_WORDS]
    return list(dict.fromkeys(re.findall(r"[A-Za-z]+", re.sub(r"{\w+}", "", " ".join(texts)))))


def openers():
    """Words that begin a question: after `<image>` and a line break they come without a space."""
    return sorted({template.split()[0] for template in wording.TEMPLATES})


def recipe_units():
    """Tags, `\\boxed{`, a scene graph's keys and first words of its values, answers within braces, pixels."""
    quoted = [f'"{key}":' for key in GRAPH_KEYS]
    quoted += [f'"{word}' for word in [*painting.COLORS, *painting.SHAPES, *RELATIONS.split()]]
    return [*TAGS, "\\boxed{", *quoted, *ANSWERS.split(), *PIXELS]


def _chain(units):
    """Merges that build a word from its left: (a, b), (ab, c), (abc, d) ..."""
    return [("".join(units[:i]), units[i]) for i in range(1, len(units))]


def merges():
    """All merges, the most urgent first; a merge's left part starts a word, so words cannot collide.

    A space goes to the word after it before a comma may claim it, and a comma claims it only where a
    number follows: `[0.28, 0.34` is `▁[`, `0.28`, `,▁`, `0.34`. What recipes write comes last, so that none
    of it can claim a part of these.
    """
    words = [_chain([SPACE, *word]) for word in known_words()]
    words += [[(SPACE, "[")], [(",", SPACE)]]
    words += [_chain(word) for word in [*openers(), *COORDINATES, *recipe_units()]]
    first = [chain[0] for chain in words if chain[0][0] == SPACE]
    rest = [pair for chain in words for pair in chain]
    return list(dict.fromkeys(first + rest))


def llama_pieces():
    """[(piece, kind)]: specials, 256 bytes, merged pieces by rank, then single characters."""
    merged = list(dict.fromkeys(a + b for a, b in merges()))
    characters = [SPACE, *(chr(c) for c in range(33, 127))]
    return (
        [("<unk>", "UNKNOWN"), ("<s>", "CONTROL"), ("</s>", "CONTROL")]
        + [(f"<0x{byte:02X}>", "BYTE") for byte in range(256)]
        + [(piece, "NORMAL") for piece in merged + characters]
    )


def sentencepiece_model():
    """The merges as a SentencePiece BPE model: there, a piece's score is its rank."""
    proto = sentencepiece_model_pb2.ModelProto()
    for rank, (piece, kind) in enumerate(llama_pieces()):
        kind = getattr(sentencepiece_model_pb2.ModelProto.SentencePiece, kind)
        proto.pieces.add(piece=piece, score=-float(rank), type=kind)
    proto.trainer_spec.model_type = sentencepiece_model_pb2.TrainerSpec.BPE
    proto.trainer_spec.vocab_size = len(proto.pieces)
    proto.trainer_spec.byte_fallback = True
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = True
    proto.normalizer_spec.remove_extra_whitespaces = False
    proto.normalizer_spec.escape_whitespaces = True
    return proto.SerializeToString()


def llama_tokenizer():
    """The same as a `tokenizers` object, in the form that Llama's checkpoints have."""
    vocabulary = {piece: i for i, (piece, _) in enumerate(llama_pieces())}
    model = models.BPE(
        vocab=vocabulary, merges=merges(), unk_token="<unk>", fuse_unk=True, byte_fallback=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def write_llava(folder):
    """Writes tokenizer.model, tokenizer.json and tokenizer_config.json."""
    folder = Path(folder)
    (folder / "tokenizer.model").write_bytes(sentencepiece_model())
    llama_tokenizer().save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<unk>",
        "legacy": True,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
        "padding_side": "right",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_clip(folder):
    """Writes a word-level tokenizer of 77 tokens for CLIP."""
    words = [*painting.COLORS, *painting.SHAPES, *wording.QUALIFIERS, "a", "an", "and", ",", "."]
    # With `<end>` at 2 transformers would pool at a text's largest token id, as OpenAI's old configs need.
    tokens = ["<pad>", "<unk>", "<start>", "<end>", *words]
    tokenizer = Tokenizer(models.WordLevel({t: i for i, t in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[(t, tokens.index(t)) for t in ("<start>", "<end>")]
    )
    tokenizer.add_special_tokens(tokens[:4])
    folder = Path(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<start>",
        "eos_token": "<end>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "model_max_length": CLIP_LENGTH,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return len(tokens)
