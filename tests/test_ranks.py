"""Every rank does equally many rounds, every batch is somebody's exactly once, and ranks agree on what the disk holds."""

import time

import pytest

from spr_plugin import ranks
from spr_plugin.errors import UserError


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


def _rank(rank, folder, act, *outputs):
    """One of as many gloo processes as there are ``outputs``; what ``act`` raises is written to ``said-RANK``."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=len(outputs))
    try:
        act(rank, outputs[rank])
        said = "passed"
    except UserError as error:
        said = str(error)
    (folder / f"said-{rank}").write_text(said)
    ranks.barrier()
    dist.destroy_process_group()


def together(folder, act, *outputs) -> list[str]:
    import torch.multiprocessing

    torch.multiprocessing.spawn(_rank, (folder, act, *outputs), nprocs=len(outputs))
    return [(folder / f"said-{rank}").read_text() for rank in range(len(outputs))]


def _share(rank, output):
    ranks.SEEN_WITHIN = 0.3
    ranks.check_shared(output)


def test_ranks_that_do_not_share_the_output_folder_all_say_so(tmp_path):
    said = together(tmp_path, _share, tmp_path / "a" / "spr", tmp_path / "b" / "spr", tmp_path / "a" / "spr")
    assert said[0] == said[1] == said[2]
    assert said[0].startswith("--output_dir: ") and f"{tmp_path}/a/spr, and 1 of 3 cannot, such as rank 1 on " in said[0]
    assert f"{tmp_path}/b/spr (No such file or directory)" in said[0] and "\n" not in said[0]
    assert not (tmp_path / "a" / "spr").exists() and not (tmp_path / "b").exists()


def test_a_folder_by_another_name_and_one_that_holds_something_are_shared(tmp_path):
    (tmp_path / "a" / "spr").mkdir(parents=True)
    (tmp_path / "a" / "spr" / "manifest.json").write_text("{}")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert together(tmp_path, _share, tmp_path / "a" / "spr", tmp_path / "b" / "spr") == ["passed"] * 2
    assert [path.name for path in (tmp_path / "a" / "spr").iterdir()] == ["manifest.json"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "a").write_text("a file where a folder must be")
    said = together(tmp_path, _share, tmp_path / "a" / "spr", tmp_path / "a" / "spr")
    assert said[0] == said[1] and "2 of 2 cannot, such as rank 0 on " in said[0] and "(Not a directory)" in said[0]


def _refuse(rank, output):
    def decide():
        assert rank == 0
        raise UserError("--flag: no")

    ranks.agreed(decide)


def test_what_rank_0_refuses_every_rank_refuses(tmp_path):
    assert together(tmp_path, _refuse, None, None) == ["--flag: no"] * 2
