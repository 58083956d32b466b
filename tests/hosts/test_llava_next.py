"""LLaVA-NeXT's training script: tiles, the Qwen2 template, a training loop of its own, a ``trl`` that hides
the real one.
"""

import json

import pytest
import torch
from PIL import Image

from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.files import read_json
from spr_plugin.hooks.llava_next import LlavaNextHost, spr_host
from spr_plugin.pairing import PreferencePair

from . import make_vlm
from .checks import (
    assert_beginnings_are_shared,
    assert_decodes_as_its_own_forward,
    assert_engine_on,
    assert_log_probs_of_its_own_forward,
    assert_rehearses,
    assert_rows_in_another_process,
    assert_saved_equals_live,
    assert_saved_lora_equals_live,
    assert_whole,
)
from .launch import launcher, zero_flags
from .tree import HERE, run_in, source, trainer_of

TREE = source("llava_next", "llava/model/language_model/llava_qwen.py")
pytestmark = pytest.mark.slow
SHAPES = ((120, 50), (40, 100), (60, 60))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    """A Qwen2 with random weights; the script picks its class by the folder's name."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("weights") / "tiny-qwen2"
    torch.manual_seed(0)
    tokens = make_vlm.tokenizer("<image>")
    # As Qwen2's names them, and no others.
    tokens.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    end = tokens.eos_token_id
    Qwen2ForCausalLM(
        Qwen2Config(vocab_size=len(tokens), eos_token_id=end, bos_token_id=end, **make_vlm.TEXT)
    ).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


def settings(qwen, random_llava, data, images, out, *flags) -> list[str]:
    text = f"""--model_name_or_path {qwen} --version qwen_1_5 --data_path {data} --image_folder {images} --vision_tower {random_llava}/clip
        --mm_projector_type mlp2x_gelu --mm_vision_select_layer -2 --mm_use_im_start_end False --mm_use_im_patch_token False
        --mm_tunable_parts mm_mlp_adapter,mm_language_model --image_aspect_ratio anyres --image_grid_pinpoints [[28,56],[56,28],[56,56]]
        --mm_patch_merge_type spatial_unpad --output_dir {out} --max_steps 2 --per_device_train_batch_size 2 --save_strategy no
        --learning_rate 1e-4 --logging_steps 1 --model_max_length 700 --lazy_preprocess True --report_to none --use_cpu True
        --attn_implementation sdpa --gradient_checkpointing True"""  # noqa: E501
    return [*text.split(), *map(str, flags)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    for number, (width, height) in enumerate(SHAPES):
        pixels = torch.randint(
            0, 256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(number)
        )
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    return [str(folder / f"{number}.png") for number in range(len(SHAPES))]


@pytest.fixture
def host(qwen, random_llava, tmp_path, monkeypatch):
    arguments = settings(
        qwen,
        random_llava,
        random_llava / "data.json",
        random_llava / "images",
        tmp_path,
        "--gradient_checkpointing",
        "False",
    )
    trainer, namespace = trainer_of(TREE, "llava.train.train", arguments, monkeypatch)
    trainer.model.float().eval()
    found = spr_host(trainer=trainer, namespace=namespace, config=SPRConfig(spr=True))
    assert isinstance(found, LlavaNextHost)
    return found


def test_a_row_s_labels_are_its_answer_and_the_end_of_turn(host, pictures):
    """The template's own tokens carry labels in every turn of the host's."""
    row = host.row([pictures[0]], "Where?\nSay it.", "a dog [0.1, 0.2, 0.3, 0.4]")
    theirs = super(LlavaNextHost, host).row([pictures[0]], "Where?", "a dog")
    assert theirs["labels"][theirs["input_ids"] == host.tokenizer.eos_token_id].ne(-100).sum() == 3
    answer = row["labels"][row["labels"] != -100]
    assert answer[-1] == host.tokenizer.eos_token_id and host.texts([answer[:-1].tolist()]) == [
        "a dog [0.1, 0.2, 0.3, 0.4]"
    ]
    (question,) = host.questions([Image.open(pictures[0])], ["Where?\nSay it."])
    assert torch.equal(question["input_ids"], row["input_ids"][: len(question["input_ids"])]) and (
        row["labels"] != -100
    ).nonzero()[0] == len(question["input_ids"])
    assert torch.equal(question["image"][0][0], row["image"][0][0])
    assert host.box_format.describe() == {"family": "llava", "space": "normalized", "aspect": "anyres"}


def test_a_rehearsal(host, pictures):
    assert_rehearses(host, pictures[0])


def test_decoding_says_what_the_model_says_row_by_row(host, pictures):
    rows = [
        row
        for file in pictures
        for row in host.questions([Image.open(file).convert("RGB")], ["Where is it?", "Describe all."])
    ]
    assert len({row["image"][0][0].shape for row in rows}) > 1
    assert_decodes_as_its_own_forward(host, rows)
    assert_beginnings_are_shared(host, rows, len(pictures))


def test_a_picture_s_tiles_are_encoded_once(host, pictures, monkeypatch):
    rows = host.questions([Image.open(pictures[0]).convert("RGB")], ["Where is it?", "Describe all."])
    tower = host.llava.get_vision_tower().vision_tower
    seen = []
    tower.register_forward_pre_hook(lambda module, args, kwargs: seen.append(len(args[0])), with_kwargs=True)
    with torch.no_grad():
        host.prefill(rows)
    assert seen == [len(rows[0]["image"][0][0])]


def test_log_probs_are_those_of_the_model_s_own_forward(host, pictures):
    asked = [
        ("Where?" * (i + 1), (file,), "a red circle [0.1, 0.2]", "blue") for i, file in enumerate(pictures)
    ]
    pairs = [PreferencePair(f"p{i}", f"r{i}", *words, 1.0, 0.0, "a", "b") for i, words in enumerate(asked)]
    assert_rows_in_another_process(host, pairs)
    gradients = assert_log_probs_of_its_own_forward(host, pairs)
    assert any("image_newline" in name and host.part_of(name) == "projector" for name in gradients)


@pytest.mark.parametrize("file", range(len(SHAPES)))
def test_what_fits_is_what_the_host_s_expansion_leaves_whole(host, pictures, file):
    """The picture's number of tokens depends on its shape; at the limit one token decides."""
    row = host.row([pictures[file]], "Where?", "a dog [0.1, 0.2, 0.3, 0.4]")
    with host.labels_overheard() as heard, torch.no_grad():
        host.trainer.model(**host.batch([row]))
    length = int((heard[0][0] != -100).nonzero()[-1]) + 1
    for limit, fits in ((length, True), (length - 1, False)):
        host.llava.config.tokenizer_model_max_length = limit
        assert host.fits(row) == fits


def test_several_data_files_are_not_mined(host):
    for path in ("data.yaml", "folder/{a,b}.json"):
        host.trainer.train_dataset.data_args.data_path = path
        with pytest.raises(UserError, match="name --spr_annotations"):
            spr_host(trainer=host.trainer, namespace=host.namespace, config=SPRConfig(spr=True))


def whole_run(arguments, ranks: int = 1, zero: int | None = None) -> str:
    words = [
        *launcher(ranks, bool(zero), TREE / "llava" / "train" / "train.py"),
        *zero_flags(zero),
        *arguments,
    ]
    return run_in(TREE, words, TREE)  # from its root, where its trl lies


@pytest.fixture
def spr_flags(world):
    return f"""--spr --spr_plugin {HERE}/any_answer.py --spr_recipe any --spr_annotations {world}/spr.json --spr_image_folder {world}/images
        --spr_regions 12 --spr_max_new_tokens 12 --spr_sample_batch 6 --spr_batch_size 2""".split()  # noqa: E501


@pytest.mark.parametrize(
    ("lora", "ranks", "zero", "flags"),
    [
        (False, 1, None, []),
        (True, 1, None, ["--spr_preset", "author"]),
        (True, 1, None, ["--spr_only"]),
        (False, 2, 3, []),
    ],
)
def test_a_run(qwen, random_llava, world, spr_flags, tmp_path, lora, ranks, zero, flags):
    out = tmp_path / "next-spr"
    lora_flags = ["--lora_enable", "True", "--lora_r", "4", "--lora_alpha", "8"] if lora else []
    printed = whole_run(
        settings(
            qwen, random_llava, world / "sft.json", world / "images", out, *spr_flags, *flags, *lora_flags
        ),
        ranks,
        zero,
    )
    assert_whole(out)
    assert_engine_on(out, ranks) if zero else None
    assert "share their prompt" in printed
    (assert_saved_lora_equals_live if lora else assert_saved_equals_live)(out)
    live, entry = (read_json(out / "spr" / name) for name in ("exit.json", "entry/index.json"))
    moved = {name for name, value in live["weights"].items() if entry[name] != value}
    tower = {name for name in moved if "vision_tower" in name}
    assert moved - tower and all("lora_" in name if lora else ".layers." in name for name in moved - tower)
    told = json.loads((out / "config.json").read_text())
    assert bool(tower) == bool(told.get("unfreeze_mm_vision_tower")) == ("author" in flags)
    if tower:  # as the host saves what it trains beside the adapter
        saved = torch.load(out / "non_lora_trainables.bin", weights_only=True)
        assert any("vision_tower" in name for name in saved)
    assert json.loads((out / "config.json").read_text())["spr_box"]["aspect"] == "anyres"
