"""LLaVA-NeXT's training script: tiles, the Qwen2 template, a training loop of its own, a ``trl`` that hides
the real one.
"""

import json
from pathlib import Path

import certifi
import pytest
import torch
from PIL import Image

from spr_plugin import runs
from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.files import read_json
from spr_plugin.hooks.llava_next import LlavaNextHost, spr_host
from spr_plugin.pairing import PreferencePair
from spr_plugin.runs.log import Log
from spr_plugin.tools.cold_start import write_cold_start

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
from .launch import kill_when, launcher, zero_flags
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


def test_several_pictures_in_one_question(host, pictures):
    """Each is shown in its place, padded to one tile by the host; rows train and decode as those of a single
    picture do.
    """
    shown = [Image.open(file).convert("RGB") for file in pictures]
    (two,) = host.questions(shown[:2], ["Where is it?"])
    row = host.row(pictures[:2], "Where is it?", "a dog")
    assert (
        torch.equal(row["input_ids"][: len(two["input_ids"])], two["input_ids"]) and host.most_pictures == 5
    )
    assert (row["input_ids"] == -200).sum() == 2 and host.fits(row)
    for one, other, file in zip(row["image"], two["image"], pictures):
        assert torch.equal(one[0], other[0]) and one[0].ndim == 3 and one[1] == Image.open(file).size
    assert not torch.equal(row["image"][0][0], row["image"][1][0])
    rows = [
        two,
        *host.questions(shown[1::-1], ["Which?", "Where is it?"]),
        *host.questions(shown, ["Where?"]),
    ]
    assert_decodes_as_its_own_forward(host, rows)
    assert_beginnings_are_shared(host, host.questions(shown[:2], ["Which?", "Describe both.", "Where?"]), 1)
    sides = (
        ("Where?", tuple(pictures[:2]), "a red circle", "blue"),
        ("Which?", (pictures[2],), "a dog", "cat"),
    )
    pairs = [PreferencePair(f"p{i}", f"r{i}", *words, 1.0, 0.0, "a", "b") for i, words in enumerate(sides)]
    assert_log_probs_of_its_own_forward(host, pairs)


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


def test_questions_about_two_pictures_killed_and_gone_on_with(
    qwen, random_llava, posed_world, chat_server, tmp_path, monkeypatch
):
    """Actial on the script itself: its own training on worked answers, then a server guesses about other
    scenes, and the script's own rows of two pictures train.
    """
    end = "-----END CERTIFICATE-----\n"
    (tmp_path / "ca.pem").write_text(Path(certifi.where()).read_text().partition(end)[0] + end)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    out, log = tmp_path / "next-qwen", Log(tmp_path / "next-qwen" / "spr" / "candidates")
    with chat_server.ChatServer() as server:
        server.answers = chat_server.guess
        folder, cold = posed_world(scenes=4, views=12), tmp_path / "cold"
        write_cold_start(SPRConfig(spr=True, spr_recipe="actial", spr_regions=6), str(folder), str(cold))
        flags = f"""--spr --spr_recipe actial --spr_image_folder {folder} --spr_regions 12 --spr_samples 4
            --spr_batch_size 2 --spr_epochs 1 --spr_sampler openai --spr_sampler_url {server.url}
            --spr_sampler_concurrency 1 --spr_exclude {cold}/cold_start.json""".split()
        data = [random_llava, cold / "cold_start.json", cold / "images"]
        arguments = settings(qwen, *data, out, *flags)
        words = [*launcher(1, False, TREE / "llava" / "train" / "train.py"), *arguments]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(TREE))
            printed = tmp_path / "log"
            assert kill_when(words, lambda: len(log.read()) >= 9, printed), printed.read_text()[-3000:]
        before = log.read()
        assert runs.open(out).state != "finished" and 9 <= len(before) < 48
        whole_run(arguments)
    run = runs.open(out)
    assert run.state == "finished" and before.items() <= log.read().items()
    assert {len(query.pictures) for query in run.queries.values()} == {2} and len(run.pairs) >= 3
    shown = {row["file_name"].rpartition("/images/")[0] for row in read_json(cold / "cold_start.json")}
    asked = {query.pictures[0].id.rpartition("/images/")[0] for query in run.queries.values()}
    assert shown and asked and not shown & asked
    for pair in run.pairs:
        query = run.queries[pair.query]
        assert run.recipe.is_right(pair.chosen, query) and not run.recipe.is_right(pair.rejected, query)
        assert pair.pictures == query.sources
    assert_saved_equals_live(out)


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
