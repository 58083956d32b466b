"""The stage under a launcher, for tests/dpo/test_zero.py: ``zero_run.py FOLDER OUT [--zero N] [--modes lora
…]``.

Each rank runs the stage on the random LLaVA in FOLDER once for each mode, one engine after the other, and
rank 0 writes what was logged, the engine's class and hashes of what trained to OUT/MODE.json. Every rank's
stack is dumped if it takes too long.
"""

import argparse
import faulthandler
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

ROOT = Path(__file__).parents[2]
MODES = {
    "adapter": dict(spr_tune="lora"),
    "lora": dict(lora=True),
    "projector": dict(lora=True, spr_tune_projector=True),
    "full": dict(spr_tune="full"),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--zero", type=int)
    parser.add_argument("--modes", nargs="+", default=list(MODES))
    parser.add_argument("--pairs", type=int, default=11)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--die-at", type=int)
    parser.add_argument("--watchdog", type=int, default=400)
    parser.add_argument("--save-steps", type=int, default=100)
    parser.add_argument("--probe-steps", type=int, help="look at held-out regions every so many steps")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument(
        "--settings",
        type=json.loads,
        default={},
        help="JSON put over DeepSpeed's file, its zero_optimization over the file's",
    )
    parser.add_argument("--local_rank")
    options = parser.parse_args()
    faulthandler.dump_traceback_later(options.watchdog, exit=True)
    for mode in options.modes:
        run(options, mode)
    import torch.distributed as dist

    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def run(options, mode):
    from spr_plugin.hooks import shims

    if options.zero is not None:
        shims.prepare_deepspeed(use_cpu=True)
    from spr_plugin.dpo import choose_trainable, improve
    from spr_plugin.recipes.find import find_recipe
    from spr_plugin.runs.layout import Folder
    from spr_plugin.training import engine, ranks, weights
    from tests.dpo import live

    args = {}
    if options.zero is not None:
        file = ROOT / "tests" / "deepspeed" / f"zero{options.zero}.json"
        given = json.loads(file.read_text())
        zero = given["zero_optimization"] | options.settings.get("zero_optimization", {})
        args["deepspeed"] = (
            {**given, **options.settings, "zero_optimization": zero} if options.settings else str(file)
        )
        flags = {
            "per_device_train_batch_size": "train_micro_batch_size_per_gpu",
            "gradient_accumulation_steps": "gradient_accumulation_steps",
        }
        # A host's flags say what its file says.
        args |= {
            name: options.settings[theirs] for name, theirs in flags.items() if theirs in options.settings
        }
    args["bf16"] = options.bf16
    if options.checkpointing:
        args |= {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    sizes = dict(
        spr_batch_size=options.batch,
        spr_gradient_accumulation=options.accumulation,
        spr_save_steps=options.save_steps,
        spr_learning_rate=1e-3,
        spr_epochs=2.0,
    )
    if options.probe_steps:
        sizes |= dict(spr_probe_steps=options.probe_steps, spr_max_new_tokens=3)
    host, config = live.build(options.folder, options.out / "host", args=args, **MODES[mode], **sizes)
    logged = []

    class Listen(live.Reporter):
        def on_log(self, args, state, control, logs=None, **kwargs):
            logged.append(dict(logs))

        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == options.die_at:
                import os
                import signal

                os.kill(os.getpid(), signal.SIGKILL)

    host.trainer.add_callback(Listen())
    engine.detach_engine(host.trainer)
    engine.to_device(host.trainer)
    names = choose_trainable(host, config)
    improve(
        host,
        find_recipe(config, host.box_format),
        live.make_pairs(options.folder, options.pairs),
        watched(options),
        config,
        Folder(options.out / mode),
        entry="entry",
    )
    sums = {name: float(tensor.double().sum()) for name, tensor in weights.tensors(host.trainer.model, names)}
    wrapper = type(host.trainer.model_wrapped).__name__
    optimizer = type(getattr(host.trainer.model_wrapped, "basic_optimizer", host.trainer.optimizer)).__name__
    engine.detach_engine(host.trainer)
    if ranks.rank() == 0:
        steps = [entry for entry in logged if "rewards/margins" in entry]
        record = {
            "engine": wrapper,
            "optimizer": optimizer,
            "losses": [entry["spr/loss"] for entry in steps],
            "steps": steps,
            "weights": sums,
            "world": ranks.world(),
        }
        (options.out / f"{mode}.json").write_text(json.dumps(record))


def watched(options):
    from tests.dpo.test_probe import query

    return (
        [query(options.folder / "images" / f"{index}.png", index) for index in range(5)]
        if options.probe_steps
        else []
    )


if __name__ == "__main__":
    main()
