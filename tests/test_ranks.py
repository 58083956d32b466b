"""Every rank does equally many rounds, every batch is somebody's exactly once, and ranks agree on what the disk holds."""

import time

import pytest

from spr_plugin import ranks


@pytest.mark.parametrize("count", [0, 1, 2, 5, 8])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_rounds(monkeypatch, count, world):
    batches = [f"batch {i}" for i in range(count)]
    shares = []
    for rank in range(world):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(ranks, "world", lambda: world)
        shares.append(ranks.rounds(batches))
    assert len({len(share) for share in shares}) == 1
    assert sorted(batch for share in shares for batch, mine in share if mine) == sorted(batches)


def _late_reader(rank, folder):
    """Rank 0 decides and writes at once; rank 1 comes later, when the file is there."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    sign = folder / "sign"
    time.sleep(rank)
    seen = ranks.agreed(sign.exists)
    if rank == 0:
        sign.touch()
    (folder / f"seen-{rank}").write_text(str(seen))
    ranks.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_shares_are_whole_and_of_like_size(monkeypatch, world):
    batches, dealt = [(place, size) for place, size in enumerate([8, 1] * 9 + [5])], []
    monkeypatch.setattr(ranks, "world", lambda: world)
    for rank in range(world):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        dealt.append(ranks.share(batches, lambda batch: batch[1]))
        assert dealt[-1] == sorted(dealt[-1])
    assert sorted(sum(dealt, [])) == batches
    loads = [sum(size for _, size in share) for share in dealt]
    assert max(loads) - min(loads) <= (1 if world < 3 else 8)


def test_a_rank_that_comes_late_sees_what_the_first_one_saw(tmp_path):
    import torch.multiprocessing

    torch.multiprocessing.spawn(_late_reader, (tmp_path,), nprocs=2)
    assert [(tmp_path / f"seen-{rank}").read_text() for rank in (0, 1)] == ["False", "False"]
