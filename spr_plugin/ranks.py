"""What a stage needs of the process group; with one process everything is a no-op."""

import torch.distributed as dist


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    if world() > 1:
        dist.barrier()


def agreed(decide):
    """Rank 0's ``decide()``, at every rank.

    Whatever is read from a folder that another rank may already be writing to is read here, once: ranks that saw different states
    would take different branches, and then wait for each other for ever.
    """
    if world() == 1:
        return decide()
    answer = [decide() if rank() == 0 else None]
    dist.broadcast_object_list(answer, src=0)
    return answer[0]


def rounds(batches: list) -> list[tuple[object, bool]]:
    """This rank's share of ``batches`` as ``(batch, mine)``; every rank gets equally many, so that collective forwards stay in step.

    A rank that has run out repeats the last batch with ``mine`` False and throws the result away.
    """
    if not batches:
        return []
    mine = [(batch, True) for batch in batches[rank() :: world()]]
    most = -(-len(batches) // world())
    return mine + [(batches[-1], False)] * (most - len(mine))
