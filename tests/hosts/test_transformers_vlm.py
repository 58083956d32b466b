"""Hugging Face models under plain Trainer and TRL scripts: rows, decoding and log-probs against each model's
own forward; whole runs.
"""

import json
import sys
from types import SimpleNamespace

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file

from spr_plugin.config import SPRConfig
from spr_plugin.dpo import check_trainable, choose_trainable
from spr_plugin.dpo.pairs import batch_of
from spr_plugin.dpo.rows import answers
from spr_plugin.errors import UserError
from spr_plugin.files import read_json
from spr_plugin.hooks.transformers_vlm import TransformersHost, find_processor, spr_host
from spr_plugin.pairing import PreferencePair
from spr_plugin.sampling.decoding import shared_prefill
from spr_plugin.training.trainable import describe
from spr_plugin.training.weights import tensor_hash

from . import make_vlm
from .checks import (
    assert_beginnings_are_shared,
    assert_decodes_as_its_own_forward,
    assert_engine_on,
    assert_log_probs_of_its_own_forward,
    assert_rehearses,
    assert_rows_in_another_process,
    assert_whole,
    saved_weights,
)
from .launch import ROOT, TINY, launcher, run, zero_flags

SCRIPTS = ROOT / "tests" / "hosts" / "scripts"
FAMILIES = sorted(make_vlm.FAMILIES)
FORMATS = {
    "llava": "llava",
    "llava_onevision": "llava",
    "qwen2_5_vl": "qwen2.5-vl",
    "qwen3_vl": "qwen3-vl",
    "internvl": "internvl",
}
SIZES = ((90, 60), (48, 70))
ANSWERS = ("a red circle [0.1, 0.2, 0.3, 0.4]", "a blue square [0.5, 0.5, 0.75, 0.9] and green")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    files = [folder / f"{width}x{height}.png" for width, height in SIZES]
    for seed, (file, (width, height)) in enumerate(zip(files, SIZES)):
        pixels = torch.randint(
            0, 256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
        )
        Image.fromarray(pixels.numpy()).save(file)
    return [str(file) for file in files]


@pytest.fixture(scope="module", params=FAMILIES)
def host(request, tmp_path_factory):
    model, processor = make_vlm.make(request.param)
    arguments = transformers.TrainingArguments(
        str(tmp_path_factory.mktemp("out")), use_cpu=True, report_to=[], remove_unused_columns=False
    )
    trainer = transformers.Trainer(model.eval(), arguments, train_dataset=[0], processing_class=processor)
    config = SPRConfig(spr=True, spr_annotations="annotations.json")
    found = spr_host(trainer=trainer, namespace={}, config=config)
    assert isinstance(found, TransformersHost) and found.box_format.family == FORMATS[request.param]
    return found


def test_a_row_is_the_question_then_the_answer_and_its_end(host, pictures):
    with Image.open(pictures[0]) as picture:
        (question,) = host.questions([picture.convert("RGB")], ["Where is it?"])
    row = host.row([pictures[0]], "Where is it?", ANSWERS[0])
    asked = len(question["input_ids"])
    assert (
        torch.equal(row["input_ids"][:asked], question["input_ids"]) and (row["labels"][:asked] == -100).all()
    )
    answer = row["labels"][asked:].tolist()
    assert answer[-1] == host.tokenizer.eos_token_id and host.texts([answer[:-1]]) == [ANSWERS[0]]
    assert host.fits(row) and row["attention_mask"].all()


@pytest.mark.slow
def test_several_pictures_in_one_question(host, pictures):
    """Each is shown in its place; rows train and decode as those of a single picture do."""
    shown = [Image.open(file).convert("RGB") for file in pictures[:2]]
    one, two = host.questions(shown[:1], ["Where is it?"]) + host.questions(shown, ["Where is it?"])
    # OneVision shows several without their tiles: fewer tokens.
    assert two["input_ids"].tolist() != one["input_ids"].tolist()
    row = host.row(pictures[:2], "Where is it?", ANSWERS[0])
    assert torch.equal(row["input_ids"][: len(two["input_ids"])], two["input_ids"])
    assert torch.equal(row["pixel_values"], two["pixel_values"]) and host.most_pictures == 5
    assert_decodes_as_its_own_forward(host, [two, *host.questions(shown[::-1], ["Describe both.", "Where?"])])


def test_a_rehearsal(host, pictures):
    assert_rehearses(host, pictures[0])


def question_rows(host, pictures):
    """Questions of different lengths about pictures of different shapes."""
    texts = ["Where is it?", "Describe the objects in the region with their bounding boxes."]
    return [row for file in pictures for row in host.questions([Image.open(file).convert("RGB")], texts)]


@pytest.mark.slow
def test_decoding_says_what_the_model_says_row_by_row(host, pictures):
    assert_decodes_as_its_own_forward(host, question_rows(host, pictures))


@pytest.mark.slow
def test_questions_about_a_picture_share_its_beginning(host, pictures):
    rows = question_rows(host, pictures)
    assert_beginnings_are_shared(
        host, [rows[place] for place in (0, 2, 1, *range(3, len(rows)))], len(pictures)
    )
    shown = [Image.open(file).convert("RGB") for file in pictures[:2]]
    assert_beginnings_are_shared(host, host.questions(shown, ["Which?", "Describe both.", "Where?"]), 1)


@pytest.mark.parametrize(
    "seen",
    [
        {"layer_types": ["full_attention", "sliding_attention"]},
        {"layer_types": None, "sliding_window": 9, "use_sliding_window": True},
        {"layer_types": ["linear_attention", "full_attention"]},
    ],
)
def test_layers_that_see_so_many_places_share_nothing(host, pictures, seen, monkeypatch):
    """Padding between a beginning and its rest would take some of them."""
    config, rows, asked = host.language_model()[0].config, question_rows(host, pictures), []
    for name, value in seen.items():
        monkeypatch.setattr(config, name, value, raising=False)
    monkeypatch.setattr(host, "prefill", lambda rows: asked.append(len(rows)))
    shared_prefill(host, rows)
    assert asked == [len(rows)]


@pytest.mark.slow
def test_log_probs_are_those_of_the_model_s_own_forward(host, pictures):
    asked = [("Where is it?" * (i + 1), (file,), *ANSWERS[:: 1 - 2 * i]) for i, file in enumerate(pictures)]
    pairs = [PreferencePair(f"p{i}", f"r{i}", *words, 1.0, 0.0, "a", "b") for i, words in enumerate(asked)]
    # trained weights are sharp: in fp32 rounding alone moves their gradients by more than the bound
    host.trainer.model.double()
    assert_rows_in_another_process(host, pairs)
    gradients = assert_log_probs_of_its_own_forward(host, pairs)
    host.trainer.model.float()
    assert any(host.part_of(name) == "vision tower" for name in gradients)


def test_the_vision_tower_trains_where_it_is_asked_for(host, pictures):
    """Its features are computed with gradients, and all of its own weights are in the stage's hand."""
    flags = dict(spr=True, spr_annotations="annotations.json", spr_tune_vision_tower=True, spr_tune="full")
    config, model = SPRConfig(**flags), host.trainer.model
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    try:
        names = choose_trainable(host, config)
        of_tower = {name for name in before if host.part_of(name) == "vision tower"}
        assert of_tower and of_tower <= {*names} and "vision tower" in describe(host, config)
        pair = PreferencePair("p", "r", "Where?", (pictures[0],), *ANSWERS, 1.0, 0.0, "a", "b")
        inputs = batch_of(host, [pair])
        answers(host, model, inputs["batch"], inputs["unshared"], joined=True).sums[0].backward()
        grads = dict(model.named_parameters())
        assert any(grads[name].grad is not None and grads[name].grad.abs().max() > 0 for name in of_tower)
    finally:
        model.zero_grad()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(before[name])


def under_peft(folder, **adapter):
    """The host of a script that has wrapped its model in PEFT, and the model."""
    peft = pytest.importorskip("peft")
    model, processor = make_vlm.make("qwen2_5_vl")
    model = peft.get_peft_model(model, peft.LoraConfig(r=2, init_lora_weights=False, **adapter))
    arguments = transformers.TrainingArguments(str(folder), use_cpu=True, report_to=[])
    trainer = transformers.Trainer(model, arguments, train_dataset=[0], processing_class=processor)
    return spr_host(trainer=trainer, namespace={}, config=peft_flags()), model


def peft_flags(**flags):
    return SPRConfig(spr=True, spr_annotations="annotations.json", **flags)


@pytest.mark.parametrize("flag", ["spr_tune_vision_tower", "spr_tune_projector"])
def test_under_peft_parts_without_an_adapter_would_be_lost_and_are_refused(tmp_path, flag):
    host, _ = under_peft(tmp_path, target_modules=["q_proj"])
    with pytest.raises(UserError, match=f"--{flag}: PEFT saves its adapter alone"):
        check_trainable(host, peft_flags(**{flag: True}))


@pytest.mark.parametrize(
    "adapter",
    [
        dict(target_modules=["q_proj"], modules_to_save=["merger"]),
        dict(target_modules=r".*language_model.*q_proj|.*merger\.mlp\.[02]"),
    ],
    ids=["modules_to_save", "lora"],
)
def test_under_peft_a_part_trains_by_what_peft_saves_of_it(tmp_path, adapter):
    host, model = under_peft(tmp_path, **adapter)
    flags = peft_flags(spr_tune_projector=True)
    check_trainable(host, flags)
    trained = choose_trainable(host, flags)
    of_projector = [name for name in trained if host.part_of(name) == "projector"]
    assert of_projector and "projector" in describe(host, flags)
    with torch.no_grad():
        for name in of_projector:
            model.get_parameter(name).fill_(0.5)
    model.save_pretrained(tmp_path / "adapter")
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    halves = [name for name, tensor in saved.items() if "merger" in name and (tensor == 0.5).all()]
    assert len(halves) == len(of_projector)


def test_parts_and_layers(host):
    parts = {host.part_of(name) for name, _ in host.trainer.model.named_parameters()}
    assert parts == {"language model", "projector", "vision tower"}
    layers = host.language_layers()
    linear = {
        name for name, module in host.trainer.model.named_modules() if isinstance(module, torch.nn.Linear)
    }
    count = host.vlm.config.get_text_config().num_hidden_layers
    assert (
        len(layers) == 7 * count
        and set(layers) <= linear
        and all(host.part_of(name) == "language model" for name in layers)
    )


def test_qwen_2_5_counts_pixels_of_the_picture_as_its_processor_resizes_it(pictures):
    model, processor = make_vlm.make("qwen2_5_vl")
    trainer = SimpleNamespace(model=model, processing_class=processor, data_collator=None)
    host = spr_host(trainer=trainer, namespace={}, config=SPRConfig(spr=True, spr_annotations="a.json"))
    assert host.box_format.describe()["aspect"] == f"{56 * 56}-{28 * 28 * 40}"
    for file, (width, height) in zip(pictures, SIZES):
        (row,) = host.questions([Image.open(file).convert("RGB")], ["Where?"])
        _, rows, columns = row["image_grid_thw"][0].tolist()
        space = host.box_format.space(width, height)
        assert (round(width / space.scale[0]), round(height / space.scale[1])) == (columns * 14, rows * 14)


# --- what cannot work is one line


@pytest.fixture
def script():
    model, processor = make_vlm.make("internvl")
    return SimpleNamespace(model=model, processing_class=processor, data_collator=None)


CONFIG = SPRConfig(spr=True, spr_annotations="a.json")


def test_the_processor_is_found_where_scripts_keep_it(script):
    processor = script.processing_class
    for place in ("trainer", "collator", "globals"):
        collator = SimpleNamespace(processor=processor if place == "collator" else None)
        trainer = SimpleNamespace(
            processing_class=processor if place == "trainer" else None, data_collator=collator
        )
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


# --- whole runs of scripts that know nothing of us


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The tiny world's LLaVA as transformers saves it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    run([sys.executable, make_vlm.__file__, "llava", str(folder)])
    return folder


def trainer_command(world, checkpoint, out, *flags, ranks: int = 1, zero: int | None = None) -> list[str]:
    settings = f"""--model {checkpoint} --data {world}/sft.json --images {world}/images --output_dir {out} --max_steps 2
        --per_device_train_batch_size 2 --learning_rate 1e-5 --report_to none --save_strategy no --use_cpu True --remove_unused_columns False""".split()  # noqa: E501
    return [
        *launcher(ranks, bool(zero), ROOT / "examples" / "finetune_vlm.py"),
        *settings,
        *zero_flags(zero),
        *map(str, flags),
    ]


def spr_flags(world) -> list[str]:
    return f"""--spr --spr_annotations {world}/spr.json --spr_image_folder {world}/images --spr_clip {TINY}/clip --spr_regions 12
        --spr_max_new_tokens 80 --spr_sample_batch 6 --spr_batch_size 2""".split()  # noqa: E501


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "zero"), [(1, None), (2, 3)])
def test_a_trainer_script(world, checkpoint, tmp_path, ranks, zero):
    """Full fine-tuning: what the script saves is what the stage left, read back by transformers itself, and
    once more when all is done.
    """
    out = tmp_path / "out"
    printed = run(trainer_command(world, checkpoint, out, *spr_flags(world), ranks=ranks, zero=zero))
    assert_whole(out)
    assert "chosen and rejected share their prompt" in printed
    assert read_json(out / "config.json")["spr_box"] == {
        "family": "llava",
        "space": "padded_square",
        "aspect": "pad",
    }
    again, before = (
        transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
        for folder in (out, checkpoint)
    )
    saved, live = (
        {name: tensor_hash(p.detach()) for name, p in again.named_parameters()},
        read_json(out / "spr" / "exit.json")["weights"],
    )
    assert {name: saved[name] for name in live} == live
    entry = read_json(out / "spr" / "entry" / "index.json")
    moved = {name for name in live if live[name] != entry[name]}
    assert len(moved) == 7 * 4 and all("language_model" in name for name in moved)
    assert any(
        tensor_hash(p.detach()) != entry[name] for name, p in before.named_parameters() if name in entry
    ), "the script's own training did nothing"
    assert transformers.AutoProcessor.from_pretrained(out).chat_template == make_vlm.convert.TEMPLATE
    assert_engine_on(out, ranks) if zero else None
    kept = saved_weights(out)
    (out / "model.safetensors").unlink()
    # Nothing is left to train, in ZeRO-2 no engine is made.
    run(trainer_command(world, checkpoint, out, *spr_flags(world), ranks=ranks, zero=zero or 2))
    assert {name: tensor_hash(value) for name, value in saved_weights(out).items()} == {
        name: tensor_hash(value) for name, value in kept.items()
    }


@pytest.mark.slow
def test_a_trl_script_by_attach(world, checkpoint, tmp_path):
    """TRL's SFTTrainer with LoRA under argparse: the adapter that it saves is the stage's."""
    out = tmp_path / "out"
    places = (
        f"--model {checkpoint} --data {world}/sft.json --images {world}/images --output {out} --annotations"
        f" {world}/spr.json --pictures {world}/images"
    )
    run([sys.executable, str(SCRIPTS / "trl_sft.py"), *places.split(), "--clip", str(TINY / "clip")])
    assert_whole(out)
    live, adapter = (
        read_json(out / "spr" / "exit.json")["weights"],
        load_file(out / "adapter_model.safetensors"),
    )
    assert live and {name: tensor_hash(adapter[name.replace(".default", "")]) for name in live} == live
    entry = read_json(out / "spr" / "entry" / "index.json")
    assert all(live[name] != entry[name] for name in live if "lora_B" in name)


TRL = """
model_name_or_path: {checkpoint}
dataset_name: {data}
output_dir: {out}
max_steps: 2
per_device_train_batch_size: 2
learning_rate: 1.0e-5
max_length: null
report_to: none
save_strategy: "no"
use_cpu: true
bf16: false
dtype: float32
spr_annotations: {world}/spr.json
spr_image_folder: {world}/images
spr_clip: {clip}
spr_regions: 12
spr_max_new_tokens: 80
spr_sample_batch: 6
spr_epochs: 0.5
"""


@pytest.mark.slow
def test_trl_s_own_script_with_a_yaml_file(world, checkpoint, tmp_path):
    """``python -m trl.scripts.sft --config FILE --spr``, nothing of it edited; our flags stand in the
    file.
    """
    datasets = pytest.importorskip("datasets")
    rows = []
    for record in json.loads((world / "sft.json").read_text())[:8]:
        question, answer = (
            turn["value"].replace("<image>", "").strip() for turn in record["conversations"][:2]
        )
        asked, said = {"role": "user", "content": question}, {"role": "assistant", "content": answer}
        rows.append(
            {
                "images": [Image.open(world / "images" / record["image"])],
                "prompt": [asked],
                "completion": [said],
            }
        )
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "data" / "train.parquet")
    out = tmp_path / "out"
    places = {
        "checkpoint": checkpoint,
        "data": tmp_path / "data",
        "out": out,
        "world": world,
        "clip": TINY / "clip",
    }
    (tmp_path / "c.yaml").write_text(TRL.format(**places))
    printed = run(
        [
            sys.executable,
            "-m",
            "trl.scripts.sft",
            "--config",
            str(tmp_path / "c.yaml"),
            "--spr",
            "--spr_batch_size",
            "2",
        ]
    )
    assert_whole(out)
    again, live = (
        transformers.AutoModelForImageTextToText.from_pretrained(out, dtype=torch.float32),
        read_json(out / "spr" / "exit.json")["weights"],
    )
    saved = {name: tensor_hash(p.detach()) for name, p in again.named_parameters()}
    assert live and {name: saved[name] for name in live} == live
    assert "DPO on" in printed and "'train_loss'" in printed


@pytest.mark.slow
def test_a_script_without_annotations_is_told_before_it_trains(world, checkpoint, tmp_path):
    printed = run(trainer_command(world, checkpoint, tmp_path / "out", "--spr"), expect=2)
    (line,) = [line for line in printed.splitlines() if line.startswith("spr: error:")]
    assert "--spr_annotations" in line and "'loss'" not in printed and "Traceback" not in printed
