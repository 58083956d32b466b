"""What a stage needs of the process group; with one process everything is a no-op."""

import datetime
import secrets
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from spr_plugin.errors import UserError
from spr_plugin.lines import say as say_here

SEEN_WITHIN = 10.0  # seconds in which a network file system shows one machine's new folder to another


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def say(text: str) -> None:
    """One line, of rank 0 alone."""
    if rank() == 0:
        say_here(text)


def barrier() -> None:
    if world() > 1:
        dist.barrier()


def all_arrive(name: str, seconds: float = 20.0) -> bool:
    """Whether every rank calls this with ``name`` within ``seconds``; to be asked once.

    No collective, since a rank that fails alone leaves the others waiting in one: each leaves a word in the
    group's store.
    """
    if world() == 1:
        return True
    store = dist.distributed_c10d._get_default_store()
    words = [f"spr/{name}/{other}" for other in range(world())]
    store.set(words[rank()], "here")
    try:
        store.wait(words, datetime.timedelta(seconds=seconds))
    except RuntimeError:
        return False
    return True


def from_rank_0(decide):
    """Rank 0's ``decide()``, at every rank; so is the UserError that it raises, for nobody would end the
    ranks that wait for its answer.

    Whatever is read from a folder that another rank may already be writing to is read here, once: ranks that
    saw different states would take different branches, and then wait for each other for ever.
    """
    if world() == 1:
        return decide()
    # (answer, error): who raised here would leave the others in the broadcast.
    answer = [None, None]
    if rank() == 0:
        try:
            answer[0] = decide()
        except UserError as error:
            answer[1] = str(error)
    dist.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise UserError(answer[1])
    return answer[0]


def check_shared(directory: Path, flag: str = "--output_dir") -> None:
    """UserError at every rank unless all can write to the one folder ``directory`` of rank 0, which is left
    as it was found; ``flag`` names it."""
    if world() == 1:
        return
    # A name that nobody has asked for before is in no network file system's cache.
    meeting = Path(directory) / from_rank_0(lambda: f"ranks-{secrets.token_hex(8)}")
    trouble = _attempt(lambda: meeting.mkdir(parents=True)) if rank() == 0 else None
    barrier()
    trouble = trouble or _attempt((meeting / str(rank())).touch, SEEN_WITHIN)
    seen = from_all((trouble, f"rank {rank()} on {socket.gethostname()}: {Path(directory).absolute()}"))
    if rank() == 0:
        shutil.rmtree(meeting, ignore_errors=True)
        _attempt(Path(directory).rmdir)  # if there is nothing else in it
    if strangers := [f"{where} ({why})" for why, where in seen if why]:
        raise UserError(
            f"{flag}: every rank must write to the same folder as {seen[0][1]}, and "
            f"{len(strangers)} of {len(seen)} cannot, such as "
            f"{strangers[0]}: give all ranks one {flag} that they share"
        )


def _attempt(act: Callable, patience: float = 0.0) -> str | None:
    """Do it; else why it fails, a folder that is not there being waited for."""
    end = time.monotonic() + patience
    while True:
        try:
            return act()
        except FileNotFoundError as error:
            if time.monotonic() >= end:
                return error.strerror
            time.sleep(0.1)
        except OSError as error:
            return error.strerror


def share(batches: list, size: Callable) -> list:
    """This rank's share, in their order: the largest first, each was given to the rank that had least by
    ``size(batch)``.
    """
    loads, mine = [0] * world(), []
    # Negated, the largest first: at the end it would leave one rank alone with it.
    for index in sorted(range(len(batches)), key=lambda index: -size(batches[index])):
        # The first of the least: the same at every rank, and nobody asks.
        least = loads.index(min(loads))
        loads[least] += size(batches[index])
        if least == rank():
            mine.append(index)
    return [batches[index] for index in sorted(mine)]


def rounds(batches: list) -> list[tuple[object, bool]]:
    """This rank's share of ``batches`` as ``(batch, mine)``; every rank gets equally many, so that collective
    forwards stay in step.

    A rank that has run out repeats the last batch with ``mine`` False and throws the result away.
    """
    if not batches:
        return []
    mine = [(batch, True) for batch in batches[rank() :: world()]]
    most = -(-len(batches) // world())  # divided and rounded up: // rounds towards minus infinity
    return mine + [(batches[-1], False)] * (most - len(mine))


def any_of(flag: bool) -> bool:
    """Whether ``flag`` is true at any rank."""
    if world() == 1:
        return flag
    # nccl reduces what lies on a GPU alone. The maximum of 0 and 1 is an "or".
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    seen = torch.tensor([float(flag)], device=device)
    dist.all_reduce(seen, op=dist.ReduceOp.MAX)
    return bool(seen.item())


def from_all(value) -> list:
    """Every rank's ``value``, in the order of ranks, at every rank."""
    if world() == 1:
        return [value]
    values = [None] * world()
    dist.all_gather_object(values, value)
    return values


def total(values: torch.Tensor) -> torch.Tensor:
    """The sums of ``values`` over all ranks."""
    if world() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values
