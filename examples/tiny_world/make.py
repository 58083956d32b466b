"""Makes the tiny world's weights from nothing.

    python examples/tiny_world/make.py [detector|clip|llava|all]

Stages leave what they learned in --work and are skipped where that is already there, so an
interrupted run goes on at the stage that it had reached. Everything is seeded, but sums are added
in another order on another machine, so figures vary a little.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

import scenes
import teach_clip
import teach_llava
import teach_tower
import vocabulary

HERE = Path(__file__).resolve().parent
TOWER_PATH = "examples/tiny_world/llava/vision_tower"  # from the repository's root, where commands run
# Scenes and steps of each stage; `--quick` divides them to check the whole path in a minute or two.
PLAN = {
    "scenes": 16000,
    "tower": 2600,
    "projector": 600,
    "shorthand": 2800,
    "exact": 700,
    "coarse": 110,
    "clip": 300,
}
NOISE = 0.08  # of a box's side, on each edge, in what the shipped model was taught last


def say(*words):
    print(*words, flush=True)


def write_json(path, content):
    path.write_text(json.dumps(content, indent=2) + "\n")


def write_weights(folder, tensors):
    """model.safetensors, half precision on disk; renamed into place, so readers never see a part."""
    halves = {k: v.detach().half().contiguous() for k, v in tensors.items() if v.is_floating_point()}
    save_file(halves, folder / "model.safetensors.tmp", metadata={"format": "pt"})
    (folder / "model.safetensors.tmp").chmod(0o644)
    os.replace(folder / "model.safetensors.tmp", folder / "model.safetensors")


def write_config(folder, config, **more):
    """config.json that asks for full precision, whatever is on disk."""
    content = {k: v for k, v in config.to_dict().items() if k not in ("transformers_version", "dtype")}
    write_json(folder / "config.json", {**content, "torch_dtype": "float32", **more})


def write_processor(folder, size):
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "CLIPImageProcessor",
            "do_resize": True,
            "size": size,
            "resample": 3,
            "do_center_crop": True,
            "crop_size": {"height": scenes.SIZE, "width": scenes.SIZE},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(teach_tower.MEAN),
            "image_std": list(teach_tower.STD),
            "do_convert_rgb": True,
        },
    )


# ------------------------------------------------------------------------------------- checkpoints


def write_tower(folder, tower):
    """The tower with the last layer that LLaVA does not read, so that its index -2 means the same."""
    folder.mkdir(parents=True, exist_ok=True)
    full = teach_tower.new_tower(teach_tower.LAYERS)
    teach_tower.inner(full).load_state_dict(teach_tower.inner(tower).state_dict(), strict=False)
    tensors = teach_tower.inner(full).state_dict()
    write_weights(folder, {f"vision_model.{k}": v for k, v in tensors.items()})
    write_config(folder, full.config, architectures=["CLIPVisionModel"], model_type="clip_vision_model")
    write_processor(folder, {"shortest_edge": scenes.SIZE})


def write_llava(folder, model, tower):
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary.write_llava(folder)
    write_tower(folder / "vision_tower", tower)
    write_weights(folder, model.checkpoint())
    write_config(
        folder,
        model.llm.config,
        architectures=["LlavaLlamaForCausalLM"],
        model_type="llava_llama",
        rope_theta=10000.0,
        pretraining_tp=1,
        mm_vision_tower=TOWER_PATH,
        mm_hidden_size=teach_tower.WIDTH,
        mm_projector_type="mlp2x_gelu",
        mm_vision_select_layer=-2,
        mm_vision_select_feature="patch",
        mm_patch_merge_type="flat",
        mm_use_im_start_end=False,
        mm_use_im_patch_token=False,
        use_mm_proj=True,
        image_aspect_ratio="pad",
        tokenizer_padding_side="right",
        tokenizer_model_max_length=2048,
    )
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "max_length": 2048}
    write_json(folder / "generation_config.json", ends)


def write_clip(folder, clip):
    write_weights(folder, clip.state_dict())
    write_config(folder, clip.config, architectures=["CLIPModel"])
    write_processor(folder, {"height": scenes.SIZE, "width": scenes.SIZE})


# ------------------------------------------------------------------------------------------ stages


def kept(path, module, teach):
    """Loads what an earlier run left at `path` into `module`; else teaches it and keeps that."""
    if path.exists():
        module.load_state_dict(torch.load(path, weights_only=True))
        say(f"{path.name}: kept from an earlier run")
    else:
        start = time.time()
        torch.manual_seed(0)  # so that a stage does not depend on which others ran in this process
        teach(module)
        torch.save(module.state_dict(), path)
        say(f"{path.name}: {time.time() - start:.0f} s")
    return module


def make_detector(work, plan):
    def teach(detector):
        views = teach_tower.Views("pretrain", plan["scenes"], crops=0.25)
        held_out = teach_tower.Views("val", 200, crops=0.25)
        teach_tower.train_detector(detector, views, held_out, plan["tower"], log=say)

    detector = kept(work / "detector.pt", teach_tower.Detector(), teach)
    folder = HERE / "detector"
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder, detector.state_dict())
    return detector


def make_clip(work, plan):
    folder = HERE / "clip"
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary.write_clip(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    held_out = [(s, scenes.render(s)[0]) for s in scenes.scenes("val", 500)]

    def teach(clip):
        world = [(s, scenes.render(s)[0]) for s in scenes.scenes("pretrain", plan["scenes"])]
        teach_clip.train_clip(clip, tokenizer, world, held_out, plan["clip"], log=say)

    clip = teach_clip.new_clip(tokenizer, make_detector(work, plan).tower)
    kept(work / "clip.pt", clip, teach)
    write_clip(folder, clip)
    say("clip", teach_clip.measure(clip, tokenizer, held_out))


def make_llava(work, plan):
    folder = HERE / "llava"
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary.write_llava(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=False)
    tower = make_detector(work, plan).tower.eval()
    views = teach_tower.Views("pretrain", plan["scenes"], crops=0.25)
    features = teach_llava.all_features(tower, views)
    held_out = teach_tower.Views("val", 400)
    unseen = teach_llava.all_features(tower, held_out)

    def quality(model):
        return teach_llava.measure(model, unseen, held_out, tokenizer)

    def shorthand(model):
        teach_llava.train_projector(model, features, views, plan["projector"], log=say)
        teach_llava.train_shorthand(
            model, features, views, tokenizer, plan["shorthand"], batch=24, peak=1e-3, log=say
        )

    def exact(model):
        options = {"noise": 0.0, "turns": 5, "batch": 16, "peak": 7e-4, "warmup": 30, "log": say}
        teach_llava.train_conversations(model, features, views, tokenizer, plan["exact"], **options)
        say("v1, exact", quality(model))

    def coarse(model):
        options = {"noise": NOISE, "turns": 5, "batch": 16, "peak": 4e-4, "warmup": 20, "log": say}
        teach_llava.train_conversations(model, features, views, tokenizer, plan["coarse"], seed=1, **options)

    model = teach_llava.TinyLlava(tokenizer)
    for stage in (shorthand, exact, coarse):
        kept(work / f"llava_{stage.__name__}.pt", model, stage)
    write_llava(folder, model, tower)
    say("llava", quality(model))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", nargs="?", default="all", choices=["detector", "clip", "llava", "all"])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "tiny_world")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", type=int, default=1, metavar="N", help="divide all steps and scenes by N")
    arguments = parser.parse_args()
    plan = {name: max(2, count // arguments.quick) for name, count in PLAN.items()}
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    stages = {"detector": make_detector, "llava": make_llava, "clip": make_clip}
    for name in stages if arguments.stage == "all" else [arguments.stage]:
        stages[name](arguments.work, plan)


if __name__ == "__main__":
    main()
