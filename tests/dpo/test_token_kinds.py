"""Which tokens write coordinates, which are changed, and what weights do to the loss of a real LLaVA."""

import dataclasses
import functools
import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin.boxes import Box, Space
from spr_plugin.config import SPRConfig
from spr_plugin.dpo import choose_trainable, improve
from spr_plugin.dpo.loss import LossSettings, deltas, preference_losses
from spr_plugin.dpo.pairs import PairRows, batch_of, collate, measure_lengths, pair_rows
from spr_plugin.dpo.plan import Slot
from spr_plugin.dpo.rows import answers
from spr_plugin.dpo.token_kinds import (
    TokenWeights,
    answer_pieces,
    changed_spans,
    changed_tokens,
    coordinate_tokens,
    pieces_of,
    token_weights,
)
from spr_plugin.errors import UserError
from spr_plugin.formats import FAMILIES, box_format
from spr_plugin.hooks.vlm_model import VlmModel
from spr_plugin.recipes.find import find_recipe
from spr_plugin.runs.layout import Folder
from spr_plugin.training.host import IGNORED

SPACE = Space.pixels(1000, 1000)
BOXES = Box(123, 200, 457, 799, SPACE), Box(31, 480, 640, 901, SPACE)


def of_tiny_world():
    from transformers import AutoTokenizer

    from tests.dpo.test_loss import TINY

    return AutoTokenizer.from_pretrained(TINY / "llava", use_fast=False)


def of_vlm():
    from tests.hosts.make_vlm import tokenizer

    return tokenizer("<image>")


def straddling():
    """Byte-level, with merges over word ends, learned of such answers: "dog [1" and "], " are tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pieces.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=380, initial_alphabet=alphabet, show_progress=False)
    pieces.train_from_iterator([described(box_format(family)) for family in FAMILIES], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=pieces)


TOKENIZERS = {maker.__name__: functools.cache(maker) for maker in (of_tiny_world, of_vlm, straddling)}


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def reading(tokenizer):
    """What of a host reads its tokens: the code of the transformers host."""
    return SimpleNamespace(texts=functools.partial(VlmModel.texts, SimpleNamespace(tokenizer=tokenizer)))


def described(form):
    """An answer of two objects, in a sentence where the family writes sentences."""
    names = form.render([("a dog", BOXES[0]), ("the cat", BOXES[1])])
    return names if form.family.startswith(("qwen2.5", "qwen3")) else f"I see {names}, and a tree."


def beside_spaces(text, spans):
    """The spans in the text without its white space."""
    index = [sum(not one.isspace() for one in text[:end]) for end in range(len(text) + 1)]
    return [(index[start], index[end]) for start, end in spans]


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_of_coordinates_by_counting_characters(family, name):
    """A token is one of coordinates where any of its characters is, however many tokens a number takes."""
    form, tokenizer = box_format(family), TOKENIZERS[name]()
    text = described(form)
    ids = ids_of(tokenizer, text)
    if "".join(tokenizer.decode(ids).split()) != "".join(text.split()):
        assert name == "of_tiny_world"  # it has no words for other families' tags
        pytest.skip("this tokenizer loses the family's marks")
    pieces = pieces_of(reading(tokenizer), ids)
    told = coordinate_tokens(form, pieces)
    spans = beside_spaces(text, form.coordinate_spans(text))
    done, straddle = 0, 0
    for piece, one in zip(pieces, told):
        start, done = done, done + len("".join(piece.split()))
        if start < done:
            inside = sum(
                min(done, high) - max(start, low) for low, high in spans if low < done and high > start
            )
            assert one == (inside > 0), (piece, text)
            straddle += 0 < inside < done - start
    assert done == len("".join(text.split())) and len(ids) == len(told)
    assert sum(told) > len(spans) >= 2 and not all(told)
    if name == "straddling":
        assert straddle, "no token straddles a bracket here"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_number_that_changed_is_changed_in_all_its_tokens(name):
    tokenizer = TOKENIZERS[name]()
    texts = "a red circle [0.11, 0.2, 0.3, 0.4]", "a red circle [0.12, 0.2, 0.35, 0.4]"
    pieces = [pieces_of(reading(tokenizer), ids_of(tokenizer, text)) for text in texts]
    for own, told, numbers in zip(pieces, changed_tokens(pieces), (("0.11", "0.3"), ("0.12", "0.35"))):
        text = "".join(own)
        starts = [place for number in numbers for place in range(len(text)) if text.startswith(number, place)]
        spans = [(place, place + len(number)) for place, number in zip(starts, numbers)]
        done = 0
        for piece, one in zip(own, told):
            start, done = done, done + len(piece)
            assert one == any(start < high and done > low for low, high in spans), (piece, text)


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ("a dog", "a dog", ([], [])),
        ("a dog  and", "a dog and", ([], [])),
        ("a dog", "", (["a", "dog"], [])),
        ("", "", ([], [])),
        ("a red dog", "a dog", (["red"], [])),
        ("[0.1, 0.2]", "[0.1, 0.3]", (["0.2"], ["0.3"])),
        ("[12, 3]", "[1, 23]", (["12", "3"], ["1", "23"])),
        ("<patch_index_0044>", "<patch_index_0045>", (["0044"], ["0045"])),
        ("eine Tür", "eine Tor", (["Tür"], ["Tor"])),
    ],
)
def test_what_changed_by_hand(first, second, found):
    spans = changed_spans(first, second)
    assert tuple([text[slice(*s)] for s in own] for text, own in zip((first, second), spans)) == found


@given(*[st.text("ab 01.[],", max_size=12)] * 2)
def test_what_is_not_changed_is_the_same_in_both(first, second):
    left = []
    for text, spans in zip((first, second), changed_spans(first, second)):
        for start, end in reversed(spans):
            text = text[:start] + " " * (end - start) + text[end:]
        left.append("".join(text.split()))
    assert left[0] == left[1]
    assert changed_spans(first, first) == ([], [])


WEIGHTS = TokenWeights(words=0.5, coordinates=2.0, changed=3.0, unchanged=0.25)


def test_a_token_s_weight_is_the_product_of_its_two_kinds():
    pieces = [["dog", " [", "1", "]"], ["dog", " [", "2", "]"]]
    form = SimpleNamespace(coordinate_spans=lambda text: [(3, len(text))])
    assert token_weights(form, pieces, WEIGHTS) == [[0.125, 0.5, 6.0, 0.5]] * 2


# --- the loss of a real LLaVA


def naive_loss(host, pair, reference):
    """DPO and sft by the host's own forward, full logits and a loop over tokens."""
    heard, expand = [], host.llava.prepare_inputs_labels_for_multimodal
    host.llava.prepare_inputs_labels_for_multimodal = lambda *a, **k: (
        heard.append(expand(*a, **k)) or heard[-1]
    )
    rows = pair_rows(host, pair)
    try:
        logits = host.trainer.model(**host.batch(rows)).logits
    finally:
        del host.llava.prepare_inputs_labels_for_multimodal
    pieces = [answer_pieces(host, row) for row in rows]
    sums, counts = [], []
    for side, (row, labels) in enumerate(zip(logits, heard[0][-1])):
        told = coordinate_tokens(host.box_format, pieces[side])
        changed = changed_tokens(pieces)[side]
        total, count, number = 0.0, 0.0, 0
        for index in range(1, len(labels)):
            if labels[index] == IGNORED:
                continue
            weight = (2.0 if told[number] else 0.5) * (3.0 if changed[number] else 0.25)
            total = total + weight * row[index - 1].log_softmax(-1)[labels[index]]
            count, number = count + weight, number + 1
        assert number == len(pieces[side])
        sums.append(total)
        counts.append(count)
    ratios = [own - other for own, other in zip(sums, reference)]
    return -F.logsigmoid(0.3 * (ratios[0] - ratios[1])) - sums[0] / counts[0]


@pytest.mark.parametrize("joined", [True, False])
def test_value_and_gradient_are_those_of_a_loop_over_tokens(live_llava, pairs, joined):
    host, _ = live_llava()
    model = host.trainer.model
    for pair in pairs(4):
        found = []
        for ours in (False, True):
            model.zero_grad()
            if ours:
                slot = Slot(0, 1.0, 1.0)
                data = PairRows(host, [SimpleNamespace(pair=pair)], [slot], {pair.id: REFERENCE})
                inputs = collate(host, [data[0]], WEIGHTS)
                both = answers(host, model, inputs["batch"], inputs["unshared"], joined)
                both.weights = both.spread(torch.tensor(inputs["token_weights"]))
                of_chosen = torch.tensor([both.tokens[0].item()])
                pairs_ = deltas(both, torch.tensor(inputs["reference"]), of_chosen)
                (loss,) = preference_losses(pairs_, ["sigmoid", "sft"], [1.0, 1.0], LossSettings(0.3))
            else:
                loss = naive_loss(host, pair, list(REFERENCE.values()))
            loss.backward()
            grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
            found.append((loss.item(), grads))
        (value, expected), (mine, got) = found
        assert mine == pytest.approx(value, abs=1e-5, rel=1e-6) and got.keys() == expected.keys()
        for name in expected:
            scale = expected[name].abs().max().clamp(min=1)
            assert ((got[name] - expected[name]).abs().max() / scale) < 1e-5, name


REFERENCE = {"chosen": -20.0, "rejected": -21.0}


def trained(live_llava, pairs, folder, **settings):
    """The stage on four pairs: what moved, the reference's records, the steps."""
    settings = dict(spr_batch_size=2, spr_learning_rate=1e-3, spr_epochs=2.0) | settings
    host, config = live_llava(**settings)
    names = choose_trainable(host, config)
    out = Folder(folder)
    improve(host, find_recipe(config, host.box_format), pairs(4), [], config, out, entry="entry")
    moved = {name: p.detach().clone() for name, p in host.trainer.model.named_parameters() if name in names}
    steps = [json.loads(line) for line in (folder / "dpo" / "log.jsonl").read_text().splitlines()]
    return moved, {one["pair"]: one for one in out.log("reference").read().values()}, steps


def test_weights_reach_the_stage_and_weights_of_1_change_nothing(live_llava, pairs, tmp_path, capfd):
    plain, whole, _ = trained(live_llava, pairs, tmp_path / "plain")
    same, again, _ = trained(
        live_llava, pairs, tmp_path / "same", spr_token_weight=["words=1", "changed=1.0"]
    )
    assert again == whole and all(torch.equal(plain[name], same[name]) for name in plain)
    for kind in ("lengths", "reference"):
        (plain_file,), (same_file,) = (
            [*(tmp_path / run / kind).glob("*.jsonl")] for run in ("plain", "same")
        )
        assert plain_file.read_bytes() == same_file.read_bytes()

    capfd.readouterr()
    other, alone, told = trained(live_llava, pairs, tmp_path / "alone", spr_token_weight=["words=0"])
    assert any(not torch.equal(plain[name], other[name]) for name in plain)
    assert alone["pair0"]["chosen"] == pytest.approx(steps_logps(live_llava, pairs)[0], abs=1e-4)
    assert alone["pair1"]["rejected"] == 0.0  # "red"
    assert told[0]["rewards/margins"] == 0 and told[-1]["logps/chosen_words"] < 0
    assert told[-1]["logps/chosen"] == pytest.approx(told[-1]["logps/chosen_coordinates"], rel=1e-4)


def steps_logps(live_llava, pairs):
    """Of the first pair's chosen answer: what its coordinates alone have, by the model as it starts."""
    host, _ = live_llava()
    inputs = batch_of(host, pairs(1))
    both = answers(host, host.trainer.model, inputs["batch"], inputs["unshared"], False)
    return (both.token_log_probs * both.spread(inputs["coordinates"])).sum(1).tolist()


def test_words_are_held_at_the_entry(live_llava, pairs, tmp_path):
    """Coordinates alone move the words too; the term holds them, and starts at exactly nothing."""
    drifts = []
    for share in (0.01, 100.0):
        folder, kinds = tmp_path / str(share), dict(spr_loss_type=["sigmoid", "kl_words"])
        settings = kinds | dict(spr_loss_weights=[1.0, share], spr_token_weight=["words=0"], spr_epochs=3.0)
        _, known, steps = trained(live_llava, pairs, folder, **settings)
        assert all(len(one["tokens"]) == 2 for one in known.values()) and steps[0]["kl_words"] == 0
        assert sum(known["pair0"]["tokens"][0]) < known["pair0"]["chosen"]  # of all, not of coordinates
        drifts.append(steps[-1]["kl_words"])
    assert 0 < drifts[1] < drifts[0] / 2


def test_pairs_without_a_token_that_counts_are_left_out(live_llava, pairs, tmp_path, capfd):
    host, config = live_llava(spr_token_weight=["words=0"])
    bare = [dataclasses.replace(one, id=f"bare{n}", chosen="red", rejected="green ring") for n, one in
            enumerate(pairs(2))]  # fmt: skip
    log = lambda name: Folder(tmp_path / name).log("lengths")
    measured = measure_lengths(host, [*pairs(2), *bare], config, log("some"))
    assert [one.pair.id for one in measured] == ["pair0", "pair1"]
    assert "by --spr_token_weight words=0 no token counts in 2 of 4 pairs; they are left out" in (
        capfd.readouterr().err
    )
    with pytest.raises(UserError, match="no token counts in 2 of 2 pairs: nothing is left to train on"):
        measure_lengths(host, bare, config, log("none"))
    plain = measure_lengths(host, bare, SPRConfig(spr=True), log("some"))
    assert [one.chosen_tokens for one in plain] != [0, 0]  # the log tells weights apart


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["word=1"], "must be NAME=WEIGHT, of words, coordinates, changed, unchanged"),
        (["words=-1"], "0 or more"),
        (["words=x"], "NAME=WEIGHT"),
        (["words=nan"], "NAME=WEIGHT"),
        (["words=1", "words=2"], "each once"),
        (["words=0", "coordinates=0"], "no token would count"),
        (["changed=0", "unchanged=0"], "no token would count"),
    ],
)
def test_weights_that_make_no_sense_are_one_line(given, words):
    with pytest.raises(UserError, match=f"--spr_token_weight {' '.join(given)}: .*{words}"):
        SPRConfig(spr=True, spr_token_weight=given)
    assert TokenWeights(**SPRConfig(spr=True, spr_token_weight=["words=0"]).token_weights()).words == 0
