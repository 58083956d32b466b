"""A checkpoint's own prompts, pictures and stops, of LLaVA and of transformers' models."""

from pathlib import Path

import pytest
import torch
from PIL import Image

pytest.importorskip("llava")
from spr_plugin.errors import UserError
from spr_plugin.eval_tasks.questioned import QuestionedLlava, QuestionedVlm
from tests.hosts import make_vlm

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TINY = "examples/tiny_world/llava"
RED, BLUE = (Image.new("RGB", (112, 80), colour) for colour in ("red", "blue"))


@pytest.fixture(scope="module")
def llava():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)  # the checkpoint names its vision tower from there
        yield QuestionedLlava(TINY, "cpu", None, "vicuna_v1", "sdpa")


def test_a_template_that_nobody_has_is_refused():
    with pytest.raises(UserError, match="^conv_template vicuna is none of .*vicuna_v1"):
        QuestionedLlava(TINY, "cpu", None, "vicuna", "sdpa")


def test_a_llava_on_a_cpu_answers_in_full_precision(llava):
    assert llava.llava.dtype == torch.float32 and not llava.llava.training


def text_of(llava, row) -> str:
    """What is asked without its blanks, which decoding loses in part; a picture as PICTURE."""
    parts, ids = [[]], row["input_ids"].tolist()
    for token in ids:
        parts.append([]) if token < 0 else parts[-1].append(token)
    texts = (llava.tokenizer.decode(part, skip_special_tokens=True) for part in parts)
    return "PICTURE".join("".join(text.split()) for text in texts)


@pytest.mark.parametrize(
    ("pictures", "prompt", "asked"),
    [
        ([RED], "Where?", "PICTUREWhere?"),
        ([RED, BLUE], "Where?", "PICTUREPICTUREWhere?"),
        ([RED, BLUE], "A <image> and <image>.", "APICTUREandPICTURE."),
        ([], "Where?", "Where?"),
    ],
)
def test_pictures_stand_where_the_prompt_says_or_before_it(llava, pictures, prompt, asked):
    (row,) = llava.questions(pictures, [prompt])
    said = text_of(llava, row)
    assert said.startswith("Achatbetween") and said.endswith(f"USER:{asked}ASSISTANT:"), said
    assert len(row["images"]) == len(pictures) and row["sizes"] == [one.size for one in pictures]
    assert all(image.dtype == torch.float16 for image in row["images"])


def test_pictures_that_no_place_is_for_are_left_out_and_places_without_a_picture_refused(llava):
    (row,) = llava.questions([RED, BLUE], ["Only <image>."])
    (alone,) = llava.questions([RED], ["Only <image>."])
    assert len(row["images"]) == 1 and torch.equal(row["images"][0], alone["images"][0])
    with pytest.raises(UserError, match="a prompt with 2 times <image> comes with 1 pictures"):
        llava.questions([RED], ["<image> or <image>?"])


def test_a_batch_is_padded_at_its_end_and_pictures_lie_in_the_rows_order(llava):
    rows = [llava.questions([picture], [text])[0] for picture, text in ((RED, "A?"), (BLUE, "Is it blue?"))]
    short, long = (len(row["input_ids"]) for row in rows)
    batch = llava.batch(rows)
    assert short < long and batch["input_ids"].shape == (2, long)
    assert batch["attention_mask"].sum(1).tolist() == [short, long]
    assert (batch["input_ids"][0, short:] == llava.pad).all() and batch["attention_mask"][0, :short].all()
    assert torch.equal(batch["images"][1], rows[1]["images"][0]) and batch["image_sizes"] == [RED.size] * 2
    assert llava.batch(llava.questions([], ["A?"]))["images"] is None


def test_prompts_of_one_picture_share_its_tiles(llava):
    first, second = llava.questions([RED], ["A?", "B?"])
    (other,) = llava.questions([RED], ["A?"])
    assert llava.tiles(first) == llava.tiles(second) != llava.tiles(other) and len(llava.tiles(first)) == 1


def test_a_task_s_padding_counts_where_the_checkpoint_names_none(llava):
    own = llava.config.image_aspect_ratio
    llava.prepare({"image_aspect_ratio": "another"})
    assert llava.config.image_aspect_ratio == own
    del llava.config.image_aspect_ratio
    llava.prepare({"image_aspect_ratio": "another"})
    assert llava.config.image_aspect_ratio == "another"
    llava.config.image_aspect_ratio = own


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The embedded LLaVA in transformers' own layout."""
    folder = tmp_path_factory.mktemp("saved")
    model, processor = make_vlm.make("llava")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_pictures_of_a_vlm_stand_where_the_prompt_says(saved):
    vlm = QuestionedVlm(str(saved), "cpu", "float32", None)
    image = lambda picture: {"type": "image", "image": picture}
    text = lambda words: {"type": "text", "text": words}
    assert vlm.content([RED, BLUE], "A?") == [image(RED), image(BLUE), text("A?")]
    assert vlm.content([RED, BLUE], "A <image> and <image>") == [
        text("A "),
        image(RED),
        text(" and "),
        image(BLUE),
    ]
    with pytest.raises(UserError, match="a prompt with 2 times <image> comes with 1 pictures"):
        vlm.content([RED], "<image> or <image>?")
    assert vlm.texts([vlm.tokenizer("red circle")["input_ids"]])[0].strip() == "red circle"


def test_a_vlm_without_a_chat_template_is_refused(saved, tmp_path):
    _, processor = make_vlm.make("llava")
    processor.chat_template = processor.tokenizer.chat_template = None
    processor.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=f"^{tmp_path} has no chat template"):
        QuestionedVlm(str(tmp_path), "cpu", "float32", None)
