"""Sampling side by side: ours, a batch-1 loop, ``generate(num_return_sequences=k)``, and the bare forwards
that nobody can do without.

    python benchmarks/sampling.py [--parts tiny large shared ranks] [--images 4] [--tokens 64] [--rounds 3]
        [--json FILE]

An image has 4 prompts that show it whole and 2 that show crops, 4 samples each; the stop token is suppressed,
so that every answer has ``--tokens`` tokens. Rows alternate in one process with one thread; medians. The
limit is there with transformers' own cache and with one that grows in place, as ours does. ``tiny`` is the
embedded LLaVA, ``large`` a random one of about 100 M parameters with 576 image tokens; ``shared`` is what the
prompts that show a picture whole gain by its tokens being forwarded once, on such a model with 576 and with
2,916 image tokens; ``ranks`` is sampling and scoring in two processes against one.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tests")]
from live_llava import TINY, live_llava, tiny_llava, tiny_world  # noqa: E402

from spr_plugin.files import read_json, write_json  # noqa: E402
from spr_plugin.sampling.decoding import decode, drawing, growing_in_place, repeat  # noqa: E402

SAMPLES = 4
WORDS = "Describe the objects in the region [0.1, 0.12, 0.87, 0.9] with their bounding boxes."
PROMPTS = [WORDS + " It contains a red circle [0.1, 0.2, 0.3, 0.4]." * place for place in range(4)]
LARGE = {
    "hidden_size": 640,
    "intermediate_size": 1792,
    "num_hidden_layers": 16,
    "num_attention_heads": 10,
    "num_key_value_heads": 10,
}
LARGE_TOWER = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 336,
    "patch_size": 14,
}


def questions(host, count: int) -> list[list[dict]]:
    """The rows of each image."""
    from PIL import Image

    pictures = [
        Image.open(path).convert("RGB") for path in sorted(Path(host.image_folder).rglob("*.png"))[:count]
    ]
    boxes = [(0, 0, *(side * 2 // 3 for side in picture.size)) for picture in pictures]
    return [
        host.questions([p], PROMPTS)
        + host.questions([p.crop(box)], PROMPTS[:1])
        + host.questions([p.crop(box[:2] + tuple(s // 2 for s in p.size))], PROMPTS[:1])
        for p, box in zip(pictures, boxes)
    ]


def ours(host, images, tokens):
    """All prompts of all images in one batch, as the stage has them answered."""
    rows = [row for image in images for row in image]
    decode(
        host,
        rows,
        [[place * SAMPLES + index for index in range(SAMPLES)] for place in range(len(rows))],
        drawing(),
        tokens,
        share=True,
    )


def generate(host, images, tokens, k, times):
    """LLaVA's own generate, prompt by prompt."""
    for image in images:
        for row in image:
            for _ in range(times):
                host.llava.generate(row["input_ids"][None], images=row["image"][None], do_sample=True, temperature=1.0, top_k=0, top_p=1.0,  # noqa: E501
                                    num_return_sequences=k, max_new_tokens=tokens, max_length=None, pad_token_id=0)  # fmt: skip  # noqa: E501


def limit(host, images, tokens, cached=lambda cache: cache):
    """One prefill a prompt, its cache expanded once, and bare forwards at the same batch."""
    rows = [row for image in images for row in image]
    _, cache, mask = host.prefill(rows)
    mask, cache = mask.repeat_interleave(SAMPLES, 0), cached(repeat(cache, SAMPLES))
    token = torch.full((len(rows) * SAMPLES, 1), 5)
    for _ in range(tokens - 1):
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        _, cache = host.step(token, mask, cache)


def measured(host, images, tokens, rounds) -> dict:
    ways = {
        "ours": lambda: ours(host, images, tokens),
        "batch1": lambda: generate(host, images, tokens, 1, SAMPLES),
        "num_return_sequences": lambda: generate(host, images, tokens, SAMPLES, 1),
        "limit": lambda: limit(host, images, tokens),
        "limit_in_place": lambda: limit(host, images, tokens, growing_in_place),
    }
    seconds = {name: [] for name in ways}
    with torch.no_grad():
        ways["ours"](), ways["limit"]()  # imports, first calls, memory
        for _ in range(rounds):
            for name, way in ways.items():
                start = time.process_time()  # CPU time: the machine may be shared, and one thread does all
                way()
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def suppress_stop(host):
    """No answer ends before its last token: the stop token's logit never wins, in our loop and in theirs."""
    head = host.llava.get_output_embeddings()
    head.register_forward_hook(
        lambda module, args, out: out.index_fill(-1, torch.tensor(host.stop_tokens), -1e9)
    )


def ratios(seconds: dict) -> dict:
    return {
        "speedup_vs_batch1": seconds["batch1"] / seconds["ours"],
        "speedup_vs_num_return_sequences": seconds["num_return_sequences"] / seconds["ours"],
        "over_limit": seconds["ours"] / seconds["limit"],
        "over_limit_in_place": seconds["ours"] / seconds["limit_in_place"],
    }


def shared_gain(folder: Path, tokens: int) -> dict:
    """Seconds of one picture's prompts, each with all its image tokens and with those of the whole picture
    once.
    """
    found = {}
    for side in (336, 756):
        host, count = large_host(folder / str(side), side), (side // LARGE_TOWER["patch_size"]) ** 2
        host.trainer.model.eval()
        suppress_stop(host)
        (rows,) = questions(host, 1)
        seeds = [[place * SAMPLES + index for index in range(SAMPLES)] for place in range(len(rows))]
        for name, share in (("apart", False), ("shared", True)):
            start = time.process_time()
            decode(host, rows, seeds, drawing(), tokens, share=share)
            found[f"{name}_{count}_s"] = time.process_time() - start
        found[f"shared_{count}_speedup"] = found[f"apart_{count}_s"] / found[f"shared_{count}_s"]
    return found


def large_host(folder: Path, side: int = LARGE_TOWER["image_size"]):
    """A random LLaVA of about 100 M parameters with 576 image tokens, or as many as pictures of that side
    have.
    """
    import random_llava

    tower = {**LARGE_TOWER, "image_size": side}
    random_llava.write(folder, {**LARGE, "max_position_embeddings": 4096}, tower)
    return live_llava(
        folder / "llm", folder / "clip", folder / "data.json", folder / "images", folder / "out"
    )


def ranks_speedup(folder: Path, regions: int) -> dict:
    """Sampling and scoring so many regions in two processes against one, one thread each; start-up not
    counted, the slower rank's time.
    """
    seconds = {}
    for turn, count in enumerate((1, 2, 1, 2)):
        launcher = (
            ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
            if count > 1
            else []
        )
        command = [
            sys.executable,
            *launcher,
            __file__,
            "--rank-of",
            str(folder),
            str(folder / f"out-{turn}"),
            "--regions",
            str(regions),
        ]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        for stage in ("sampling", "scoring"):
            taken = max(float(line.split()[1]) for line in out.splitlines() if line.startswith(stage))
            seconds.setdefault(f"ranks{count}_{stage}_s", []).append(taken)
    best = {name: min(values) for name, values in seconds.items()}
    for stage in ("sampling", "scoring"):
        best[f"ranks2_{stage}_speedup"] = best[f"ranks1_{stage}_s"] / best[f"ranks2_{stage}_s"]
    return {**best, "ranks2_speedup": min(best["ranks2_sampling_speedup"], best["ranks2_scoring_speedup"])}


def one_rank(world: Path, out: Path, regions: int) -> None:
    """The two stages themselves on this rank; prints the seconds of each."""
    from spr_plugin.config import SPRConfig
    from spr_plugin.judging import judge_all
    from spr_plugin.opening import open_run
    from spr_plugin.sampling.stage import sample

    host = tiny_llava(world, out)
    suppress_stop(host)
    flags = {
        "spr_annotations": f"{world}/spr.json",
        "spr_image_folder": f"{world}/images",
        "spr_clip": str(TINY / "clip"),
    }
    config = SPRConfig(spr=True, spr_regions=regions, spr_regions_per_image=4, spr_max_new_tokens=64, **flags)
    run, queries = open_run(host, config)
    start = time.perf_counter()
    sample(run.host, queries, run.recipe, run.config, run.log("candidates"), run.log("batches"))
    # In one write: two ranks share the line's place.
    sys.stdout.write(f"sampling {time.perf_counter() - start}\n")
    start = time.perf_counter()
    candidates = run.log("candidates").read()
    judge_all(queries, run.recipe, host.trainer.args.device, candidates, run.log("scores"))
    sys.stdout.write(f"scoring {time.perf_counter() - start}\n")


def part(name: str, world: Path, folder: Path, arguments) -> dict:
    """Figures of one of ``--parts``."""
    if name == "ranks":
        return ranks_speedup(world, arguments.regions)
    if name == "shared":
        return shared_gain(folder / name, arguments.tokens)
    if name == "tiny":
        prefix, host, images, rounds = (
            "",
            tiny_llava(world, folder / name),
            arguments.images,
            arguments.rounds,
        )
    else:
        prefix, host, images, rounds = "large_", large_host(folder / name), 1, 1
    host.trainer.model.eval()
    suppress_stop(host)
    seconds = measured(host, questions(host, images), arguments.tokens, rounds)
    results = {
        **{f"{row}_s": value for row, value in seconds.items()},
        **ratios(seconds),
        "parameters": sum(p.numel() for p in host.llava.parameters()),
    }
    return {f"{prefix}{key}": value for key, value in results.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=["tiny"], choices=["tiny", "large", "shared", "ranks"])
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--regions", type=int, default=128, help="of the part ranks")
    parser.add_argument("--rank-of", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", help="keeps what another run wrote there of other parts")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.rank_of:
        return one_rank(*arguments.rank_of, arguments.regions)
    with tempfile.TemporaryDirectory() as folder:
        world = tiny_world(Path(folder) / "world", sft=16, spr=64)
        for name in arguments.parts:
            results = part(name, world, Path(folder), arguments)
            print("\n".join(f"{key:40} {value:,.2f}" for key, value in results.items()), flush=True)
            if arguments.json:
                common = {
                    "images": arguments.images,
                    "tokens": arguments.tokens,
                    "clock": "CPU seconds, one thread; of ranks wall seconds",
                }
                write_json(arguments.json, {**(read_json(arguments.json) or {}), **common, **results})


if __name__ == "__main__":
    main()
