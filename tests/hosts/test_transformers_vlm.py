"""Hugging Face models under plain Trainer and TRL scripts: rows, decoding and log-probs against each model's own forward; whole runs."""

import re
from types import SimpleNamespace

import pytest
import torch
import transformers
from PIL import Image

from spr_plugin.config import SPRConfig
from spr_plugin.decoding import decode
from spr_plugin.dpo.pairs import collate, pair_rows
from spr_plugin.dpo.rows import answers, no_joining
from spr_plugin.errors import UserError
from spr_plugin.hooks.transformers_vlm import TransformersHost, find_processor, spr_host
from spr_plugin.pairing import PreferencePair

from . import make_vlm

FAMILIES = sorted(make_vlm.FAMILIES)
FORMATS = {"llava": "llava", "llava_onevision": "llava", "qwen2_5_vl": "qwen2.5-vl", "qwen3_vl": "qwen3-vl", "internvl": "internvl"}
SIZES = ((90, 60), (48, 70))
ANSWERS = ("a red circle [0.1, 0.2, 0.3, 0.4]", "a blue square [0.5, 0.5, 0.75, 0.9] and green")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    files = [folder / f"{width}x{height}.png" for width, height in SIZES]
    for seed, (file, (width, height)) in enumerate(zip(files, SIZES)):
        pixels = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
        Image.fromarray(pixels.numpy()).save(file)
    return [str(file) for file in files]


@pytest.fixture(scope="module", params=FAMILIES)
def host(request, tmp_path_factory):
    model, processor = make_vlm.make(request.param)
    arguments = transformers.TrainingArguments(str(tmp_path_factory.mktemp("out")), use_cpu=True, report_to=[], remove_unused_columns=False)
    trainer = transformers.Trainer(model.eval(), arguments, train_dataset=[0], processing_class=processor)
    config = SPRConfig(spr=True, spr_annotations="annotations.json")
    found = spr_host(trainer=trainer, namespace={}, config=config)
    assert isinstance(found, TransformersHost) and found.box_format.family == FORMATS[request.param]
    return found


def test_a_row_is_the_question_then_the_answer_and_its_end(host, pictures):
    with Image.open(pictures[0]) as picture:
        (question,) = host.questions(picture.convert("RGB"), ["Where is it?"])
    row = host.row(pictures[0], "Where is it?", ANSWERS[0])
    asked = len(question["input_ids"])
    assert torch.equal(row["input_ids"][:asked], question["input_ids"]) and (row["labels"][:asked] == -100).all()
    said = row["labels"][asked:].tolist()
    assert said[-1] == host.tokenizer.eos_token_id and host.texts([said[:-1]]) == [ANSWERS[0]]
    assert host.fits(row) and row["attention_mask"].all()


def question_rows(host, pictures):
    """Questions of different lengths about pictures of different shapes."""
    texts = ["Where is it?", "Describe the objects in the region with their bounding boxes."]
    return [host.questions(Image.open(file).convert("RGB"), [text])[0] for file in pictures for text in texts]


@torch.no_grad()
def greedy(host, row, count):
    """``count`` likeliest tokens by whole forwards of one row, without cache, padding or a position of ours."""
    said = []
    for _ in range(count):
        longer = dict(row)
        for name in host._along_tokens(row):
            longer[name] = torch.cat([row[name], row[name].new_zeros(len(said))])
        longer["input_ids"][len(row["input_ids"]) :] = torch.tensor(said, dtype=torch.long)
        longer["attention_mask"][:] = 1
        said.append(int(host.vlm(**host.batch([longer])).logits[0, -1].argmax()))
    return said


def test_decoding_says_what_the_model_says_row_by_row(host, pictures):
    rows, count = question_rows(host, pictures), 6
    with torch.no_grad():
        told = decode(host, rows, [[0, 1]] * len(rows), None, count)
    for row, (first, second) in zip(rows, told):
        expected = greedy(host, row, count)
        stops = [place for place, token in enumerate(expected) if token in host.stop_tokens]
        assert first == second == expected[: stops[0] if stops else count]


def pair_batch(host, pictures):
    pairs = [PreferencePair(f"p{i}", f"r{i}", "Where is it?" * (i + 1), file, *ANSWERS[:: 1 - 2 * i], 1.0, 0.0, "a", "b") for i, file in enumerate(pictures)]
    return collate(host, [{"id": p.id, "rows": pair_rows(host, p), "weight": 1.0, "reference": [0.0, 0.0]} for p in pairs])


def test_log_probs_are_those_of_the_model_s_own_forward(host, pictures):
    inputs = pair_batch(host, pictures)
    assert no_joining(host.language_model()[0].config) is None
    batch, model = dict(inputs["batch"]), host.trainer.model
    labels = batch["labels"]
    scored = labels[:, 1:] != -100
    gradients, sums = [], []
    for way in ("plain", "two rows", "joined"):
        model.zero_grad()
        if way == "plain":
            logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits[:, :-1].float()
            own = logits.log_softmax(-1).gather(-1, labels[:, 1:].clamp(min=0)[..., None])[..., 0]
            total = (own * scored).sum(1)
        else:
            total = answers(host, model, dict(batch), inputs["tails"], joined=way == "joined").sums
        (total * torch.linspace(-1, 1, len(total))).sum().backward()
        sums.append(total.detach())
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert sums[0].abs().min() > 1
    for total, gradient in zip(sums[1:], gradients[1:]):
        assert torch.allclose(total, sums[0], atol=5e-5, rtol=1e-5), (total - sums[0]).abs().max()
        for name, expected in gradients[0].items():
            assert (gradient[name] - expected).abs().max() < 1e-4 * max(1.0, expected.abs().max()), name
    assert any(host.part_of(name) == "vision tower" for name in gradients[0])


def test_parts_and_layers(host):
    parts = {host.part_of(name) for name, _ in host.trainer.model.named_parameters()}
    assert parts == {"language model", "projector", "vision tower"}
    layers = host.language_layers()
    linear = {name for name, module in host.trainer.model.named_modules() if isinstance(module, torch.nn.Linear)}
    count = host.vlm.config.get_text_config().num_hidden_layers
    assert len(layers) == 7 * count and set(layers) <= linear and all(host.part_of(name) == "language model" for name in layers)


def test_qwen_2_5_counts_pixels_of_the_picture_as_its_processor_resizes_it(pictures):
    model, processor = make_vlm.make("qwen2_5_vl")
    trainer = SimpleNamespace(model=model, processing_class=processor, data_collator=None)
    host = spr_host(trainer=trainer, namespace={}, config=SPRConfig(spr=True, spr_annotations="a.json"))
    for file, (width, height) in zip(pictures, SIZES):
        (row,) = host.questions(Image.open(file).convert("RGB"), ["Where?"])
        _, rows, columns = row["image_grid_thw"][0].tolist()
        space = host.box_format.space(width, height)
        assert (round(width / space.scale[0]), round(height / space.scale[1])) == (columns * 14, rows * 14)


# --- what cannot work is one line -------------------------------------------------------------------------------------------------


@pytest.fixture
def script():
    model, processor = make_vlm.make("internvl")
    return SimpleNamespace(model=model, processing_class=processor, data_collator=None)


CONFIG = SPRConfig(spr=True, spr_annotations="a.json")


def test_the_processor_is_found_where_scripts_keep_it(script):
    processor = script.processing_class
    for place in ("trainer", "collator", "globals"):
        trainer = SimpleNamespace(processing_class=processor if place == "trainer" else None, data_collator=SimpleNamespace(processor=processor if place == "collator" else None))
        assert find_processor(trainer, {"anything": processor} if place == "globals" else {}) is processor
    script.processing_class = processor.tokenizer
    with pytest.raises(UserError, match="no processor found"):
        spr_host(trainer=script, namespace={}, config=CONFIG)


def test_a_family_without_a_box_format_is_named(script):
    script.model.config.model_type = "blip-9"
    with pytest.raises(UserError, match="--spr_box_format: nobody knows how blip-9 writes boxes"):
        spr_host(trainer=script, namespace={}, config=CONFIG)
    named = SPRConfig(spr=True, spr_annotations="a.json", spr_box_format="ferret")
    assert spr_host(trainer=script, namespace={}, config=named).box_format.family == "ferret"


def test_annotations_and_a_chat_template_are_needed(script):
    with pytest.raises(UserError, match="name --spr_annotations"):
        spr_host(trainer=script, namespace={}, config=SPRConfig(spr=True))
    script.processing_class.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        spr_host(trainer=script, namespace={}, config=CONFIG)


def test_a_language_model_is_no_host_of_ours():
    assert spr_host(trainer=SimpleNamespace(model=torch.nn.Linear(2, 2)), namespace={}, config=CONFIG) is None
