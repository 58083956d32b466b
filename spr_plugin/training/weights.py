"""Parameters on disk and in hand, the same under one process, DDP and DeepSpeed ZeRO-3 (where each is
gathered for its turn).
"""

import contextlib
import hashlib
import os
from pathlib import Path

import torch

from spr_plugin.errors import UserError
from spr_plugin.files import read_json, remove, write_json
from spr_plugin.training import ranks

SHARD_BYTES = 2 << 30


@contextlib.contextmanager
def gathered(parameters, modify: bool = False):
    """Inside, ZeRO-3 parameters have their full values; with ``modify`` rank 0's changes are handed to all
    ranks. A no-op where all are whole already.
    """
    # One that is whole for the moment needs no gathering, unless it is to be changed for all.
    sharded = [p for p in parameters if hasattr(p, "ds_id") and (modify or p.numel() < p.ds_numel)]
    if not sharded:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(sharded, modifier_rank=0 if modify else None):
        yield


@contextlib.contextmanager
def loading_whole():
    """Inside, ``from_pretrained`` loads helper models (CLIP, a detector) whole, also in a process whose
    policy is under ZeRO-3.
    """
    from transformers.integrations import deepspeed as integration

    if not integration.is_deepspeed_zero3_enabled():
        yield
        return
    config = integration._hf_deepspeed_config_weak_ref()
    integration.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        integration.set_hf_deepspeed_config(config)


def forget_order(engine) -> None:
    """Before modules of a live ZeRO-3 engine are called outside its own forward: it records the order of
    modules to prefetch by, and what is called in between would make that record long and every later step
    slow with its size (measured: minutes a step).
    """
    optimizer = getattr(engine, "optimizer", None)
    # An engine without optimizer has it in that place.
    offload = getattr(optimizer, "parameter_offload", optimizer)
    coordinator = (
        offload.get_param_coordinator() if offload and hasattr(offload, "get_param_coordinator") else None
    )
    if coordinator is not None and not coordinator.is_invalid_trace():
        coordinator._invalidate_trace()


def show_own_types(model) -> None:
    """Have ZeRO-3's empty placeholders show the type of their parts. A cast changes the placeholder alone
    (LLaVA's, of its vision tower), and code that asks for the type of a weight before its module gathers it
    would go by that.
    """
    for parameter in model.parameters():
        if (
            hasattr(parameter, "ds_tensor")
            and not parameter.numel()
            and parameter.dtype != parameter.ds_tensor.dtype
        ):
            parameter.data = parameter.data.to(parameter.ds_tensor.dtype)


def share_type(parameters) -> None:
    """Give weights the narrowest type among them, their ZeRO-3 parts too: DeepSpeed trains parts of one type
    alone (PEFT's adapters are fp32 beside a projector in bf16). Its optimizer steps in fp32 either way.
    """
    parts = [(parameter, getattr(parameter, "ds_tensor", parameter).dtype) for parameter in parameters]
    narrowest = min((dtype for _, dtype in parts), key=lambda dtype: dtype.itemsize, default=None)
    for parameter in (parameter for parameter, dtype in parts if dtype != narrowest):
        parameter.data = parameter.data.to(narrowest)
        if hasattr(parameter, "ds_tensor"):
            parameter.ds_tensor.data = parameter.ds_tensor.data.to(narrowest)


def sharded(model) -> bool:
    """Whether ZeRO-3 holds the parameters in parts."""
    return any(hasattr(p, "ds_id") for p in model.parameters())


def numel(parameter) -> int:
    """Number of weights of a parameter, whole or in parts."""
    return getattr(parameter, "ds_numel", parameter.numel())


def whole_bytes(model) -> int:
    """What ZeRO-3's parts take when all are gathered."""
    return sum(numel(p) * p.element_size() for p in model.parameters() if hasattr(p, "ds_id"))


def tensors(model, names):
    """``(name, CPU tensor)`` of parameters and buffers, one gathered at a time; all ranks must walk it
    together.
    """
    named = dict(model.named_parameters()) | dict(model.named_buffers())
    for name in names:
        with gathered([named[name]]):
            # A copy: the gathered values go when the context ends.
            yield name, named[name].detach().cpu().clone().contiguous()


def trainable(model) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def persistent_buffers(model) -> list[str]:
    # A state dict leaves out the buffers that are not persistent.
    return sorted(model.state_dict().keys() & {name for name, _ in model.named_buffers()})


def tensor_hash(tensor: torch.Tensor) -> str:
    """Hash of a tensor's bytes, dtype and shape."""
    # As bytes: numpy has no bfloat16.
    raw = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return hashlib.blake2b(raw + f"{tensor.dtype}{tuple(tensor.shape)}".encode(), digest_size=16).hexdigest()


def save(model, names, directory) -> None:
    """Write the named tensors to ``directory`` (safetensors shards and ``index.json`` with their hashes),
    whole or not at all.

    Raises UserError on every rank if rank 0 cannot write.
    """
    from safetensors import SafetensorError

    directory = Path(directory)
    # Written beside it and renamed: a folder of that name is whole.
    draft = directory.with_name(directory.name + ".tmp")
    shards = _Shards(draft)
    failure = None
    for name, tensor in tensors(model, names):
        if ranks.rank() == 0 and failure is None:
            try:
                shards.add(name, tensor)
            except (OSError, SafetensorError, UserError) as error:
                failure = str(error)  # the other ranks go on handing over their parts: tell them at the end
    if ranks.rank() == 0 and failure is None:
        try:
            shards.close()
            remove(directory)
            draft.rename(directory)
        except (OSError, SafetensorError, UserError) as error:
            failure = str(error)
    if failure := ranks.from_rank_0(lambda: failure):
        if ranks.rank() == 0:
            with contextlib.suppress(UserError):
                remove(draft)
        raise UserError(
            f"{directory}: cannot be written ({failure}); make room and start the same command again"
        )


class _Shards:
    """Safetensors files of at most SHARD_BYTES in a fresh folder."""

    def __init__(self, folder: Path):
        self.folder, self.pending, self.size, self.count, self.index = folder, {}, 0, 0, {}

    def add(self, name: str, tensor: torch.Tensor) -> None:
        if self.size and self.size + tensor.nbytes > SHARD_BYTES:
            self._flush()
        self.pending[name], self.index[name] = tensor, tensor_hash(tensor)
        self.size += tensor.nbytes

    def _flush(self) -> None:
        from safetensors.torch import save_file

        if not self.count:
            remove(self.folder)
            self.folder.mkdir(parents=True)
        path = self.folder / f"{self.count:05d}.safetensors"
        save_file(self.pending, path)
        with open(path, "rb") as file:
            os.fsync(file.fileno())  # before the index, which says that all is there
        self.pending, self.size, self.count = {}, 0, self.count + 1

    def close(self) -> None:
        self._flush()
        write_json(self.folder / "index.json", self.index)


def load(model, directory) -> None:
    """Copy the tensors of ``directory`` into the model. UserError if the model has other parameters or a hash
    does not fit.
    """
    index = read_json(Path(directory) / "index.json")
    if not isinstance(index, dict):
        raise UserError(f"{directory} holds no weights: remove it and run the same command again")
    named = dict(model.named_parameters()) | dict(model.named_buffers())
    missing = sorted(index.keys() - named.keys())
    if missing:
        raise UserError(
            f"{directory} was written by a model of another structure ({missing[0]} …): use the command that"
            " wrote it, or --spr_overwrite"
        )
    rest = set(index)
    for path in sorted(Path(directory).glob("*.safetensors")):
        with _opened(path) as shard:
            for name in sorted(shard.keys()):
                rest.discard(name)
                tensor = shard.get_tensor(name)
                if tensor_hash(tensor) != index[name]:
                    raise UserError(
                        f"{path}: {name} is damaged; add --spr_overwrite to start the SPR stage over"
                    )
                _assign(named[name], tensor)
    if rest:
        raise UserError(
            f"{directory} lacks {min(rest)} and {len(rest) - 1} more of its weights: restore its files, or"
            " add --spr_overwrite to start the SPR stage over"
        )


def _opened(path: Path):
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, "pt")
    except SafetensorError as error:
        raise UserError(
            f"{path} is damaged ({error}); add --spr_overwrite to start the SPR stage over"
        ) from None


def _assign(parameter, tensor) -> None:
    with torch.no_grad(), gathered([parameter], modify=True):
        if not hasattr(parameter, "ds_id") or ranks.rank() == 0:
            parameter.data.copy_(tensor)


def digests(model, names) -> dict[str, str]:
    """name → hash of the live values."""
    return {name: tensor_hash(tensor) for name, tensor in tensors(model, names)}
