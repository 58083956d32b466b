"""Every rank does equally many rounds, and every batch is somebody's exactly once."""

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
