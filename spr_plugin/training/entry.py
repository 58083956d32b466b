"""``OUTPUT_DIR/spr/entry``: the weights as the host's training left them, which training that was, and the
way back to them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from spr_plugin.config.dpo import DPOFlags
from spr_plugin.config.run import RunFlags
from spr_plugin.errors import UserError
from spr_plugin.files import read_json, write_json
from spr_plugin.runs.layout import Folder
from spr_plugin.training import engine, ranks, weights
from spr_plugin.training.host import Host
from spr_plugin.training.trainable import beside, remove_adapter

OF_THIS_RANK = {"is_local_process_zero", "is_world_process_zero"}  # in a trainer's state


def training_of(trainer, config: RunFlags) -> dict:
    """What the host trains: what makes an entry the end of this training and of no other one. The same on any
    number of ranks."""
    model = trainer.model
    shapes = {
        name: list(getattr(p, "ds_shape", p.shape)) for name, p in model.named_parameters() if p.requires_grad
    }
    base = getattr(getattr(model, "config", None), "_name_or_path", None)
    start = {"model": base, "trainable": {name: shapes[name] for name in sorted(shapes)}}
    if config.spr_only:
        return {"trained": False, **start}
    args, data = trainer.args, trainer.train_dataset
    steps = (
        {"max_steps": args.max_steps} if args.max_steps > 0 else {"num_train_epochs": args.num_train_epochs}
    )
    examples = {"examples": len(data)} if hasattr(data, "__len__") else {}
    return {"trained": True, **steps, **examples, "learning_rate": args.learning_rate, **start}


def is_end_of(folder: Folder, training: dict) -> bool:
    """Whether the entry in ``folder`` is the end of ``training``: this command was started again.
    UserError where it, or what was made from it, is that of another one."""
    known, whole = ranks.from_rank_0(lambda: (_known(folder), is_whole(folder.entry)))
    if known is None:
        return False
    names = sorted({*known, *training} - {"trainable"})
    changed = [
        f"{name} {known.get(name)} became {training.get(name)}"
        for name in names
        if known.get(name) != training.get(name)
    ]
    was, now = known.get("trainable", {}), training["trainable"]
    if other := sorted(name for name in {*was, *now} if was.get(name) != now.get(name)):
        changed.append(f"other parameters are trained, {len(other)} of them, such as {other[0]}")
    if changed:
        raise UserError(
            f"{folder.entry} holds the weights of another training ({'; '.join(changed)}), or the folder what"
            " was made from them: take another --output_dir, or --spr_overwrite to train again"
        )
    return whole


def _known(folder: Folder) -> dict | None:
    """The training that what is in ``folder`` comes from; None where nothing comes from any."""
    whole = is_whole(folder.entry)
    known = read_json(folder.training)
    if known is None:
        return {} if whole else None
    if not (isinstance(known, dict) and isinstance(known.get("trainable", {}), dict)):
        raise UserError(f"{folder.training} is damaged: restore it, or add --spr_overwrite to train again")
    made = whole or folder.is_finished() or any(folder.log("candidates").directory.glob("*.jsonl"))
    return known if made else None


def is_whole(entry: Path) -> bool:
    return (entry / "index.json").exists()


def save(host: Host, config: DPOFlags, folder: Folder, training: dict) -> None:
    """The weights that the host has trained, what the stage may change beside them, and which training it
    was."""
    engine.detach_engine(host.trainer)
    model = host.trainer.model
    names = {*weights.trainable(model), *beside(host, config)}
    if ranks.rank() == 0:
        write_json(folder.training, training)
        write_json(folder.state, dataclasses.asdict(host.trainer.state))
    weights.save(model, sorted(names) + weights.persistent_buffers(model), folder.entry)


def load(trainer, folder: Folder) -> None:
    """The host's weights, and its trainer's state, as its training left them."""
    weights.load(trainer.model, folder.entry)
    state = ranks.from_rank_0(lambda: read_json(folder.state)) or {}
    for name in state.keys() & vars(trainer.state).keys() - OF_THIS_RANK:
        setattr(trainer.state, name, state[name])


def go_back(host: Host, folder: Folder, own_flags: dict[str, bool]) -> None:
    """The model as the host has trained it, in the host's own structure and with its ``requires_grad``, for
    the host to save."""
    trainer = host.trainer
    engine.detach_engine(trainer)
    remove_adapter(trainer.model)
    for name, parameter in trainer.model.named_parameters():
        parameter.requires_grad_(own_flags[name])
    if ranks.from_rank_0(lambda: is_whole(folder.entry)):
        weights.load(trainer.model, folder.entry)
    vars(trainer.model.config).pop("spr_box", None)
    engine.attach_engine(trainer)


def requires_grad(model) -> dict[str, bool]:
    return {name: parameter.requires_grad for name, parameter in model.named_parameters()}
