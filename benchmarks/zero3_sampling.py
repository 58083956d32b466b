"""Sampling under ZeRO-3, both ways: the whole model gathered once, each rank for itself; or layer by layer at
every token, all ranks together.

    python benchmarks/zero3_sampling.py [--ranks 2] [--tokens 32] [--rounds 3] [--json FILE]

The embedded LLaVA on gloo; a batch is the stage's default, 8 prompts and 2 samples each, with the stop token
suppressed, so that in the second way no rank ends before the others. Seconds of the slowest rank, medians;
the engine is there in the second way alone.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent)]
from live_llava import ROOT, tiny_llava, tiny_world  # noqa: E402

ZERO3 = ROOT / "tests" / "deepspeed" / "zero3.json"


def one_rank(world: Path, out: Path, tokens: int, rounds: int, result: str | None) -> None:
    from spr_plugin.hooks import shims

    shims.prepare_deepspeed(use_cpu=True)
    import torch
    from sampling import PROMPTS, suppress_stop

    from spr_plugin.files import write_json
    from spr_plugin.sampling.decoding import decode, drawing
    from spr_plugin.training import engine, ranks, weights

    torch.set_num_threads(1)
    host = tiny_llava(world, out, "--deepspeed", str(ZERO3))
    model = host.trainer.model
    suppress_stop(host)
    rows = two_pictures(host, PROMPTS)
    seconds = {"gather": [], "gathered_batch": [], "together_batch": []}

    def batch() -> float:
        ranks.barrier()
        start = time.perf_counter()
        decode(host, rows, [[2 * row, 2 * row + 1] for row in range(len(rows))], drawing(), tokens)
        return max(ranks.from_all(time.perf_counter() - start))

    for _ in range(rounds + 1):
        ranks.barrier()
        start = time.perf_counter()
        with engine.generating(host):
            seconds["gather"].append(max(ranks.from_all(time.perf_counter() - start)))
            seconds["gathered_batch"].append(batch())
        engine.attach_engine(host.trainer)
        with engine.generating(host):
            seconds["together_batch"].append(batch())
        engine.detach_engine(host.trainer)
    if ranks.rank() == 0:
        results = {f"{name}_s": statistics.median(values[1:]) for name, values in seconds.items()}
        results["together_over_gathered"] = results["together_batch_s"] / results["gathered_batch_s"]
        results |= {
            "ranks": ranks.world(),
            "tokens": tokens,
            "parameters": sum(map(weights.numel, model.parameters())),
        }
        print("\n".join(f"{name:30} {value:,.3f}" for name, value in results.items()), flush=True)
        if result:
            write_json(result, results)
    ranks.barrier()


def two_pictures(host, prompts: list[str]) -> list[dict]:
    from PIL import Image

    pictures = [
        Image.open(path).convert("RGB") for path in sorted(Path(host.image_folder).rglob("*.png"))[:2]
    ]
    return [row for picture in pictures for row in host.questions([picture], prompts)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    parser.add_argument("--rank-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank_of:
        return one_rank(
            Path(arguments.rank_of),
            Path(arguments.rank_of) / "out",
            arguments.tokens,
            arguments.rounds,
            arguments.json,
        )
    with tempfile.TemporaryDirectory() as folder:
        tiny_world(folder, sft=16, spr=4)
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(arguments.ranks)]
        environment = {
            **os.environ,
            "DS_ACCELERATOR": "cpu",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
        }
        subprocess.run(
            [sys.executable, *launcher, __file__, *sys.argv[1:], "--rank-of", folder],
            env=environment,
            check=True,
        )


if __name__ == "__main__":
    main()
