"""The tiny LLaVA in transformers' layout says what it says in LLaVA's own, and comes back bit by bit."""

import pytest
from PIL import Image

from .world import WORLD, load

pytest.importorskip("llava")
torch = pytest.importorskip("torch")
pytest.importorskip("trl")  # not in the older environments, whose transformers lack LlavaImageProcessor
from safetensors.torch import load_file  # noqa: E402

convert, scenes = load("convert"), load("scenes")
painting, wording = scenes.painting, scenes.wording
TURNS = [
    (wording.REC.format(name="left red circle"), "[0.28, 0.34, 0.4, 0.71]"),
    (wording.DESCRIBE.format(box="[0.1, 0.2, 0.9, 0.8]"), None),
]


@pytest.fixture(scope="module")
def theirs():
    return convert.to_transformers()


@pytest.fixture(scope="module")
def own(theirs):
    """(tokenizer, model, image processor) of LLaVA, fp32."""
    return loaded(convert.TINY)


def loaded(folder):
    from llava.model.builder import load_pretrained_model

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(WORLD.parents[1])
        tokenizer, model, images, _ = load_pretrained_model(
            str(folder), None, "llava", device_map="cpu", device="cpu"
        )
    return tokenizer, model.float(), images


def pictures():
    scene = next(painting.scenes("val", 1))
    square = Image.fromarray(painting.render(scene)[0])
    return [square, square.crop((0, 10, 96, 70)), square.crop((30, 0, 60, 96))]


def asked(turns):
    """(LLaVA's prompt, transformers' conversation)."""
    from llava.conversation import conv_templates

    talk, messages = conv_templates["vicuna_v1"].copy(), []
    for place, (question, answer) in enumerate(turns):
        talk.append_message(talk.roles[0], f"<image>\n{question}" if place == 0 else question)
        talk.append_message(talk.roles[1], answer)
        shown = [{"type": "image"}] if place == 0 else []
        messages.append({"role": "user", "content": [*shown, {"type": "text", "text": question}]})
        messages += [{"role": "assistant", "content": [{"type": "text", "text": answer}]}] if answer else []
    return talk.get_prompt(), messages


@pytest.mark.parametrize("turns", [TURNS[1:], TURNS])
def test_prompts_are_the_same_tokens(own, theirs, turns):
    from llava.mm_utils import tokenizer_image_token

    prompt, messages = asked(turns)
    ours = tokenizer_image_token(prompt, own[0])
    text = theirs[1].apply_chat_template([messages], add_generation_prompt=True)
    (tokens,) = theirs[1](text=text, images=pictures()[:1], add_special_tokens=False)["input_ids"]
    image, patches = theirs[0].config.image_token_id, own[1].get_vision_tower().num_patches
    assert tokens == [token for one in ours for token in ([image] * patches if one == -200 else [one])]


def test_pictures_are_the_same_pixels(own, theirs):
    """Of any shape: padded to a square with CLIP's mean colour, then resized."""
    from llava.mm_utils import process_images

    for picture in pictures():
        made = theirs[1].image_processor(picture, return_tensors="pt")["pixel_values"]
        assert torch.equal(made, process_images([picture], own[2], own[1].config))


def test_logits_are_equal(own, theirs):
    """fp32, over a prompt with a picture and its answer: within 1e-4; the added token is never the likely
    one.
    """
    from llava.mm_utils import process_images, tokenizer_image_token

    prompt, messages = asked(TURNS)
    for picture in pictures():
        shown = process_images([picture], own[2], own[1].config)
        tokens = tokenizer_image_token(prompt, own[0], return_tensors="pt")[None]
        text = theirs[1].apply_chat_template([messages], add_generation_prompt=True)
        row = theirs[1](text=text, images=[picture], add_special_tokens=False, return_tensors="pt")
        with torch.no_grad():
            mine, other = own[1](input_ids=tokens, images=shown).logits, theirs[0].eval()(**row).logits
        assert mine.std() > 1 and torch.allclose(mine, other[..., : mine.shape[-1]], atol=1e-4, rtol=0)
        assert other.softmax(-1)[..., -1].max() < 1e-3


def test_back_again_bit_by_bit(theirs, own, tmp_path):
    convert.to_llava(theirs[0], convert.TINY, tmp_path / "llava")
    before, after = (
        {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
        for folder in (convert.TINY, tmp_path / "llava")
    )
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    _, again, _ = loaded(tmp_path / "llava")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in own[1].state_dict().items())
