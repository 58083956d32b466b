"""What the stage will ask of the host is asked once; what the host cannot give is said in one line."""

import random
import re

import numpy as np
import pytest
import torch
import transformers

from spr_plugin.config import SPRConfig
from spr_plugin.dpo.rehearsal import rehearse
from spr_plugin.errors import UserError
from spr_plugin.opening import find_host
from spr_plugin.recipes.find import find_recipe
from tests.hosts import make_vlm

from .test_probe import query

pytestmark = pytest.mark.slow


def rehearsed(host, config, queries) -> str | None:
    """The line of a refusal; None where there was none."""
    try:
        rehearse(host, find_recipe(config, host.box_format), queries, config.spr_max_new_tokens)
    except UserError as error:
        assert "\n" not in str(error)
        return str(error)
    return None


# --- tokenizers of a Hugging Face model


def no_end(model, processor):
    processor.tokenizer.eos_token = None


def special_boxes(model, processor):
    processor.tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<box>", "</box>", "<ref>", "</ref>"]},
        replace_extra_special_tokens=False,
    )
    model.resize_token_embeddings(len(processor.tokenizer))


def short(model, processor):
    processor.tokenizer.model_max_length = 40


TOKENIZERS = {
    "no end of sequence": (no_end, "no end-of-sequence token"),
    "boxes of special tokens": (
        special_boxes,
        "--spr_box_format internvl: the host's tokenizer loses a part of an answer",
    ),
    "a short maximum": (short, "maximum length of tokenizer and model is too short"),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_tokenizers_that_cannot_do_it(random_llava, tmp_path, kind):
    change, words = TOKENIZERS[kind]
    model, processor = make_vlm.make("internvl")
    arguments = transformers.TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    trainer = transformers.Trainer(model, arguments, train_dataset=[0], processing_class=processor)
    source = {"spr_annotations": "coco.json", "spr_image_folder": "images"}  # nobody reads them here
    config = SPRConfig(spr=True, spr_max_new_tokens=6, **source)
    asked = [query(random_llava / "images" / "0.png")]
    assert rehearsed(find_host(trainer, {}, config), config, asked) is None
    change(model, processor)
    line = rehearsed(find_host(trainer, {}, config), config, asked)
    assert line and re.search(words, line), line


# --- LLaVA


def no_padding(host):
    host.tokenizer.pad_token = None


LLAVAS = {
    "a short maximum": (
        dict(max_length=80, args={"model_max_length": 80}),
        "--model_max_length is too short",
    ),
    "answers longer than the maximum": (
        dict(spr_max_new_tokens=600),
        "--spr_max_new_tokens 600.*--model_max_length 512",
    ),
    "no padding": (dict(change=no_padding), "LlavaHost fails on query q0 of .*0.png: TypeError"),
}


@pytest.mark.parametrize("kind", LLAVAS)
def test_what_a_llava_cannot_do(live_llava, random_llava, kind):
    settings, words = LLAVAS[kind]
    settings = {"spr_max_new_tokens": 6, **settings}
    change = settings.pop("change", lambda host: None)
    host, config = live_llava(**settings)
    change(host)
    line = rehearsed(host, config, [query(random_llava / "images" / "0.png")])
    assert line and re.search(words, line), line


def test_a_broken_picture_is_passed_over_and_none_at_all_is_refused(live_llava, random_llava, tmp_path):
    host, config = live_llava(spr_max_new_tokens=6)
    data = (random_llava / "images" / "0.png").read_bytes()
    for name in ("0.png", "1.png"):
        (tmp_path / name).write_bytes(data[:200])  # the header is whole, the picture is not
    (tmp_path / "2.png").write_bytes(data)
    queries = [query(tmp_path / f"{index}.png", index) for index in range(3)]
    assert rehearsed(host, config, queries) is None
    line = rehearsed(host, config, queries[:2])
    assert line.startswith(f"no picture of the 2 queries can be read ({tmp_path / '0.png'})")


def test_answers_that_may_be_too_long_or_too_short_are_said_and_no_mistake(live_llava, random_llava, capfd):
    host, config = live_llava(spr_max_new_tokens=6)
    assert rehearsed(host, config, [query(random_llava / "images" / "0.png")]) is None
    assert re.search(r"--spr_max_new_tokens 6: the shortest answer takes \d+ tokens", capfd.readouterr().err)


def test_no_random_number_is_drawn(live_llava, random_llava):
    """Data sets draw them: which turn of a talk is shown, which points of a mask."""
    host, config = live_llava(spr_max_new_tokens=6)

    class Drawing(type(host.dataset)):
        drawn = 0

        def __getitem__(self, index):
            Drawing.drawn += len([torch.rand(1), np.random.rand(), random.random()])
            return super().__getitem__(index)

    host.dataset.__class__ = Drawing
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    expected = torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()
    random.setstate(states[0]), np.random.set_state(states[1]), torch.set_rng_state(states[2])
    assert rehearsed(host, config, [query(random_llava / "images" / "0.png")]) is None
    assert Drawing.drawn and (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()) == expected
