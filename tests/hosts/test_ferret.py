"""Ferret's training script: region tokens and masks, decoding and log-probs against its own forward, whole
runs.
"""

import json
import re

import pytest
import torch
from PIL import Image

from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.files import read_json
from spr_plugin.hooks.ferret import FerretHost, spr_host
from spr_plugin.pairing import PreferencePair

from .checks import (
    assert_beginnings_are_shared,
    assert_decodes_as_its_own_forward,
    assert_engine_on,
    assert_log_probs_of_its_own_forward,
    assert_rows_in_another_process,
    assert_saved_lora_equals_live,
    assert_whole,
    saved_weights,
)
from .launch import launcher, zero_flags
from .tree import HERE, coco, run_in, source, trainer_of

TREE = source("ferret", "ferret/train/train.py")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(world, tmp_path_factory):
    """The tiny world's pictures as Ferret's own data: ``refexp``, with placeholders, and boxes in whole
    pixels apart from the text.
    """
    records = []
    for image in coco(world):
        label, box = image["objects"][0]
        box = [int(side) for side in box]
        asked = (
            {"from": "human", "value": f"<image>\nWhere is the {label}?"},
            {"from": "gpt", "value": "It is <bbox_location0>."},
        )
        named = (
            {"from": "human", "value": "What is <bbox_location0>?"},
            {"from": "gpt", "value": f"a {label}"},
        )
        size = {"image_w": image["width"], "image_h": image["height"]}
        records.append(
            {
                "image": image["file_name"],
                **size,
                "conversations": [*asked, *named],
                "box_x1y1x2y2": [[], [box], [box], []],
            }
        )
    file = tmp_path_factory.mktemp("ferret") / "refexp.json"
    file.write_text(json.dumps(records))
    return file


def settings(random_llava, world, data, out, *flags) -> list[str]:
    text = f"""--model_name_or_path {random_llava}/llm --version v1 --data_path {data} --image_folder {world}/images
        --vision_tower {random_llava}/clip --mm_vision_select_layer -2 --mm_use_im_start_end False --mm_use_im_patch_token False
        --resized_image_h 28 --resized_image_w 28 --add_region_feature True --region_geo_sampler True --point_input_sample segment_mask|center
        --output_dir {out} --max_steps 2 --per_device_train_batch_size 2 --save_strategy no --learning_rate 1e-4
        --logging_steps 1 --model_max_length 512 --lazy_preprocess True --report_to none --use_cpu True"""  # noqa: E501
    return [*text.split(), *map(str, flags)]


def spr_flags(world) -> list[str]:
    return f"""--spr --spr_plugin {HERE}/any_answer.py --spr_recipe any --spr_annotations {world}/spr.json --spr_image_folder {world}/images
        --spr_regions 12 --spr_max_new_tokens 12 --spr_sample_batch 6 --spr_batch_size 2""".split()  # noqa: E501


def whole_run(arguments, ranks: int = 1, zero: int | None = None) -> str:
    return run_in(
        TREE,
        [*launcher(ranks, bool(zero), TREE / "ferret" / "train" / "train.py"), *zero_flags(zero), *arguments],
        HERE,
    )


CONFIG = SPRConfig(spr=True, spr_annotations="a.json", spr_image_folder="images")


@pytest.fixture(params=["geometric", "mean"])
def host(request, random_llava, world, data, tmp_path, monkeypatch):
    flags = settings(
        random_llava, world, data, tmp_path, "--region_geo_sampler", request.param == "geometric"
    )
    trainer, namespace = trainer_of(TREE, "ferret.train.train", flags, monkeypatch)
    torch.nn.init.normal_(trainer.model.lm_head.weight, std=0.5)
    for parameter in trainer.model.get_model().layers.parameters():
        torch.nn.init.normal_(parameter, std=0.3) if parameter.ndim > 1 else None
    trainer.model.eval()
    found = spr_host(trainer=trainer, namespace=namespace, config=CONFIG)
    assert isinstance(found, FerretHost) and found.box_format.family == "ferret"
    return found


ASK = "Describe [100, 200, 500, 600] and [0, 0, 999, 999] here."


def test_a_box_in_a_question_brings_its_token_and_its_mask(host, world):
    path = world / "images" / coco(world)[0]["file_name"]
    width, height = Image.open(path).size
    row = host.row([str(path)], ASK, "a dog [1, 2, 3, 4]")
    token = host.llava.config.im_region_fea_token
    assert (row["input_ids"] == token).sum() == 2 == len(row["region_masks"])
    first, second = row["region_masks"]
    assert first.shape == (width, height)
    marked = first.nonzero()
    assert marked.min(0).values.tolist() == [int(0.1 * width), int(0.2 * height)] and marked.max(
        0
    ).values.tolist() == [int(0.5 * width), int(0.6 * height)]
    assert second.mean() > 0.98
    said = row["input_ids"][row["labels"] != -100]
    assert not (said == token).any() and "a dog [1, 2, 3, 4]" in host.texts([said.tolist()])[0]
    (plain,) = host.questions([Image.open(path).convert("RGB")], ["Describe the picture."])
    assert plain["region_masks"] == [] and host.fits(row)


def test_decoding_says_what_the_model_says_row_by_row(host, world):
    pictures = [Image.open(world / "images" / image["file_name"]).convert("RGB") for image in coco(world)[:2]]
    rows = [
        row
        for picture in pictures
        for row in host.questions([picture], [ASK, "Describe [1, 1, 700, 700].", "What is this?"])
    ]
    assert_decodes_as_its_own_forward(host, rows)
    assert_beginnings_are_shared(host, [row for row in rows if not row["region_masks"]], 2)


def test_a_region_in_a_question_is_not_taken_apart(host, world):
    picture = Image.open(world / "images" / coco(world)[0]["file_name"]).convert("RGB")
    regional = host.questions([picture], ["Describe [1, 1, 700, 700].", "Describe [1, 1, 600, 700]."])
    assert_beginnings_are_shared(host, regional, 2)


def test_log_probs_are_those_of_the_model_s_own_forward(host, world):
    files = [str(world / "images" / image["file_name"]) for image in coco(world)[:2]]
    answers = (
        ("red circle [100, 200, 300, 400]", "a ring"),
        ("green [1, 2, 3, 4] and", "blue square [5, 6, 7, 8] red"),
    )
    pairs = [
        PreferencePair(f"p{i}", f"r{i}", ASK * (i + 1), (file,), *answers[i], 1.0, 0.0, "a", "b")
        for i, file in enumerate(files)
    ]
    assert_rows_in_another_process(host, pairs)
    gradients = assert_log_probs_of_its_own_forward(host, pairs)
    assert any(host.part_of(name) == "projector" and "region_" in name for name in gradients)


def test_without_annotations_it_is_told_before_it_trains(host):
    for config in (SPRConfig(spr=True), SPRConfig(spr=True, spr_annotations="a.json")):
        with pytest.raises(UserError, match="--spr_annotations and --spr_image_folder"):
            spr_host(trainer=host.trainer, namespace=host.namespace, config=config)


def test_a_fork_under_another_name_and_one_that_lacks_an_entry_point(
    random_llava, world, data, tmp_path, monkeypatch
):
    for file in (TREE / "ferret").rglob("*.py"):
        copy = tmp_path / "tree" / "labcode" / file.relative_to(TREE / "ferret")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(
            re.sub(r"\b(from|import) ferret\b", r"\1 labcode", file.read_text()).replace(
                '"ferret"', '"labcode"'
            )
        )
    trainer, namespace = trainer_of(
        tmp_path / "tree", "labcode.train.train", settings(random_llava, world, data, tmp_path), monkeypatch
    )
    assert namespace["__name__"] == "labcode.train.train"
    assert isinstance(spr_host(trainer=trainer, namespace=namespace, config=CONFIG), FerretHost)
    without = {
        name: value for name, value in namespace.items() if name not in ("LazySupervisedDataset", "Image")
    }
    with pytest.raises(UserError, match="lacks LazySupervisedDataset, Image; supply a spr_host hook"):
        spr_host(trainer=trainer, namespace=without, config=CONFIG)


def test_a_run_saves_where_ferret_saves(random_llava, world, data, tmp_path):
    out = tmp_path / "ferret-spr"
    printed = whole_run(settings(random_llava, world, data, out, *spr_flags(world)))
    assert_whole(out)
    assert "share their prompt" in printed and not list(out.glob("*.safetensors"))
    live, saved = read_json(out / "spr" / "exit.json")["weights"], saved_weights(out / "final-checkpoint")
    from spr_plugin.training.weights import tensor_hash

    assert live and {name: tensor_hash(saved[name]) for name in live} == live
    entry = read_json(out / "spr" / "entry" / "index.json")
    moved = {name for name in live if live[name] != entry[name]}
    assert moved and all(".layers." in name and "vision" not in name for name in moved)
    assert any("region_geo_sampler" in name for name in live)


def test_lora_on_a_finished_model(random_llava, world, data, tmp_path):
    """The paper's own case: no training of the host's, its adapter, ``--spr_only``, two ranks under
    ZeRO-2.
    """
    out = tmp_path / "ferret-lora"
    lora = ["--spr_only", "--lora_enable", "True", "--lora_r", "4", "--lora_alpha", "8"]
    whole_run(settings(random_llava, world, data, out, *spr_flags(world), *lora), ranks=2, zero=2)
    assert_whole(out)
    assert_engine_on(out, ranks=2)
    assert_saved_lora_equals_live(out)
