"""Makes the tiny world's weights from nothing.

    python examples/tiny_world/make.py run --work DIR [--seed N]   a whole run; weights, quality.json in DIR
    python examples/tiny_world/make.py embed DIR [DIR ...]         the best of these goes into this folder

Stages leave what they learned in --work and are skipped where that is already there, so an
interrupted run goes on at the stage that it had reached. Everything is seeded, but sums are added
in another order on another machine, so figures vary a little. Runs are chosen among on `val` scenes; what
README.md states was measured on `test` scenes, of all runs.
"""

import argparse
import functools
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

import ask_llava
import detector
import painting
import quality
import teach_clip
import teach_llava
import teach_tower
import tiny_llava
import vocabulary
import wording

HERE = Path(__file__).resolve().parent
TOWER_PATH = "examples/tiny_world/llava/vision_tower"  # from the repository's root, where commands run
# Scenes and steps of each stage; `--quick` divides them to check the whole path in a minute or two.
PLAN = {
    "scenes": 16000,
    "tower": 2600,
    "projector": 600,
    "shorthand": 2800,
    "exact": 400,
    "coarse": 110,
    "clip": 300,
    "asked": 150,  # of `val` and of `test`
}


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
            "crop_size": {"height": painting.SIZE, "width": painting.SIZE},
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
    write_processor(folder, {"shortest_edge": painting.SIZE})


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
    write_processor(folder, {"height": painting.SIZE, "width": painting.SIZE})


# ------------------------------------------------------------------------------------------ stages


@dataclass(frozen=True)
class Teaching:
    """One run of all stages: its folder, its seed, and how many scenes and steps each stage has."""

    work: Path
    seed: int
    plan: dict

    @property
    def weights(self):
        """Where clip/, llava/ and detector/ are written."""
        return self.work / "weights"

    def taught(self, name, module, teach):
        """Loads what this run left of stage `name` into `module`; else teaches it and keeps that."""
        path = self.work / f"{name}.pt"
        if path.exists():
            module.load_state_dict(torch.load(path, weights_only=True))
            say(f"{name}: kept from before")
        else:
            start = time.time()
            torch.manual_seed(
                self.seed
            )  # so that a stage does not depend on which others ran in this process
            teach(module)
            torch.save(module.state_dict(), path)
            write_json(self.work / f"{name}.json", {"seconds": round(time.time() - start)})
            say(f"{name}: {time.time() - start:.0f} s")
        return module


def make_detector(run):
    def teach(detector):
        views = teach_tower.Views("pretrain", run.plan["scenes"], crops=0.25)
        held_out = teach_tower.Views("val", 200, crops=0.25)
        teach_tower.train_detector(detector, views, held_out, run.plan["tower"], log=say)

    detector = run.taught("detector", teach_tower.Detector(), teach)
    folder = run.weights / "detector"
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder, detector.state_dict())
    return detector


def make_clip(run):
    folder = run.weights / "clip"
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary.write_clip(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def teach(clip):
        world = pictured("pretrain", run.plan["scenes"])
        options = {"held_out": pictured("val", 500), "seed": run.seed, "log": say}
        teach_clip.train_clip(clip, tokenizer, world, steps=run.plan["clip"], **options)

    clip = teach_clip.new_clip(tokenizer, make_detector(run).tower)
    run.taught("clip", clip, teach)
    write_clip(folder, clip)
    return clip, tokenizer


def pictured(split, count):
    """[(scene, picture)]"""
    return [(scene, painting.render(scene)[0]) for scene in painting.scenes(split, count)]


def make_llava(run):
    """(model, tower, tokenizer, quality on `val` and `test` before the coarse stage)"""
    folder = run.weights / "llava"
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary.write_llava(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=False)
    tower = make_detector(run).tower.eval()
    views = teach_tower.Views("pretrain", run.plan["scenes"], crops=0.25)
    features = teach_llava.all_features(tower, views)

    def shorthand(model):
        teach_llava.train_projector(model, features, views, run.plan["projector"], log=say)
        options = {"batch": 24, "peak": 1e-3, "seed": run.seed, "log": say}
        teach_llava.train_shorthand(model, features, views, tokenizer, run.plan["shorthand"], **options)

    def exact(model):
        options = {
            "noise": 0.0,
            "turns": 5,
            "batch": 16,
            "peak": 7e-4,
            "warmup": 30,
            "seed": run.seed,
            "log": say,
        }
        teach_llava.train_conversations(model, features, views, tokenizer, run.plan["exact"], **options)

    def coarse(model):
        options = {"noise": wording.NOISE, "turns": 5, "batch": 16, "peak": 4e-4, "warmup": 20, "log": say}
        seed = 1000 + run.seed  # other conversations than those of the stage before
        teach_llava.train_conversations(
            model, features, views, tokenizer, run.plan["coarse"], seed=seed, **options
        )

    model = tiny_llava.TinyLlava(tokenizer)
    for stage in (shorthand, exact):
        run.taught(f"llava_{stage.__name__}", model, stage)
    before = llava_quality(run, model, tower, tokenizer)
    run.taught("llava_coarse", model, coarse)
    write_llava(folder, model, tower)
    return model, tower, tokenizer, before


def llava_quality(run, model, tower, tokenizer):
    """Split → figure → {value, low, high, n} of unseen scenes."""
    splits = {}
    for split in ("val", "test"):
        views = teach_tower.Views(split, run.plan["asked"])
        asked = ask_llava.answer_scores(model, teach_llava.all_features(tower, views), views, tokenizer)
        splits[split] = {name: quality.with_interval(items) for name, items in asked.items() if items}
        say(split, {name: figure["value"] for name, figure in splits[split].items()})
    return splits


def helper_quality(hits_on):
    """Split → figure → {value, low, high, n} of 500 unseen scenes each."""
    splits = {
        split: {name: quality.with_interval(items) for name, items in hits_on(pictured(split, 500)).items()}
        for split in ("val", "test")
    }
    say({split: {name: figure["value"] for name, figure in found.items()} for split, found in splits.items()})
    return splits


def make_all(run):
    """All stages, and DIR/quality.json: seconds, and each model's figures on `val` and on `test`."""
    reported = run.weights / "detector"  # as it is stored, in half precision
    clip, clip_tokenizer = make_clip(run)
    model, tower, tokenizer, before = make_llava(run)
    say("after the coarse stage")
    marks = [path for path in sorted(run.work.glob("*.json")) if path.with_suffix(".pt").exists()]
    found = {
        "seed": run.seed,
        "before coarse": before,
        "llava": llava_quality(run, model, tower, tokenizer),
        "clip": helper_quality(lambda asked: teach_clip.retrieval_hits(clip, clip_tokenizer, asked)),
        "detector": helper_quality(
            functools.partial(detector.detection_hits, detector.TinyDetector(reported))
        ),
        "seconds": {path.stem: json.loads(path.read_text())["seconds"] for path in marks},
    }
    write_json(run.work / quality.FILE, found)


def embed(folders):
    """Copies the weights of the best run here; quality.json and README's table tell of all of them."""
    runs = {folder: json.loads((folder / quality.FILE).read_text()) for folder in folders}
    folder = max(runs, key=lambda folder: quality.rank(runs[folder]))
    for missed in quality.misses(runs[folder]):
        say(f"seed {runs[folder]['seed']} misses: {missed}")
    for name in ("clip", "detector", "llava"):
        shutil.copytree(folder / "weights" / name, HERE / name, dirs_exist_ok=True)
    write_json(HERE / quality.FILE, {"embedded": runs[folder]["seed"], "runs": list(runs.values())})
    quality.write_table(HERE)
    say(f"embedded: seed {runs[folder]['seed']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="teach everything, measure it")
    one.add_argument("--work", type=Path, required=True)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--threads", type=int, default=2)
    one.add_argument("--quick", type=int, default=1, metavar="N", help="divide all steps and scenes by N")
    several = commands.add_parser("embed", help="keep the best run")
    several.add_argument("folders", type=Path, nargs="+")
    arguments = parser.parse_args()
    if arguments.command == "embed":
        return embed(arguments.folders)
    plan = {name: max(2, count // arguments.quick) for name, count in PLAN.items()}
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    make_all(Teaching(arguments.work, arguments.seed, plan))


if __name__ == "__main__":
    main()
