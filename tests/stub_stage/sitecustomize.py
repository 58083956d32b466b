"""Stands in for the SPR stage where only boot and shims are tested: put this folder on PYTHONPATH.

The host trains, the live model generates, and what a stage would see is appended to the file
``SPR_STUB_RECORD``, one line a rank.
"""

import json
import os
import sys
import types


def train(trainer, config, namespace, host_train):
    result = None if config.spr_only else host_train()
    record = {
        "rank": int(os.environ.get("RANK", "0")),
        "steps": trainer.state.global_step,
        "trainer": type(trainer).__name__,
        "wrapped": type(trainer.model_wrapped).__name__,
        "beta": config.spr_beta,
        "namespace": "make_supervised_data_module" in namespace,
        "local_rank": trainer.args.local_rank,
        "warmup": getattr(trainer.args, "warmup_ratio", None) or trainer.args.warmup_steps,
        "new_tokens": new_tokens(trainer),
        "optimizer_groups": len(trainer.optimizer.param_groups) if trainer.optimizer else 0,
    }
    with open(os.environ["SPR_STUB_RECORD"], "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    return types.SimpleNamespace(result=result, followed=True, failure=None)


def new_tokens(trainer) -> int:
    """Length of what the live model generates for the first training picture; on every rank, since ZeRO-3
    gathers together.
    """
    import torch

    if type(trainer).__name__ == "Trainer":
        return 0
    row = trainer.data_collator([trainer.train_dataset[0]])
    model = trainer.model.eval()
    images = row["images"].to(next(model.parameters()).device)
    ids = row["input_ids"][:, : int((row["labels"][0] != -100).nonzero()[0])].to(images.device)
    zero3 = any(hasattr(p, "ds_id") for p in model.parameters())
    with torch.no_grad():
        out = model.generate(
            ids,
            images=images,
            max_new_tokens=5,
            min_new_tokens=5,
            do_sample=False,
            use_cache=True,
            synced_gpus=zero3,
        )
    model.train()
    return out.shape[1]


sys.modules["spr_plugin.follow"] = types.SimpleNamespace(train=train)

if os.environ.get("SPR_STUB_WITHOUT"):
    # Boot has run by now; a shim's change of a class is looked up when its module arrives, so it can still be
    # left out.
    from spr_plugin.hooks import shims

    getattr(shims, os.environ["SPR_STUB_WITHOUT"])
    setattr(shims, os.environ["SPR_STUB_WITHOUT"], lambda cls: None)
