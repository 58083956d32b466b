"""Every rank does equally many rounds, every batch is somebody's exactly once, and ranks agree on what the
disk holds.
"""

import json
import time

import pytest

from spr_plugin.errors import UserError
from spr_plugin.training import ranks


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
    seen = ranks.from_rank_0(sign.exists)
    if rank == 0:
        sign.touch()
    (folder / f"seen-{rank}").write_text(str(seen))
    ranks.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_shares_are_whole_and_of_like_size(monkeypatch, world):
    batches, dealt = [(index, size) for index, size in enumerate([8, 1] * 9 + [5])], []
    monkeypatch.setattr(ranks, "world", lambda: world)
    for rank in range(world):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        dealt.append(ranks.share(batches, lambda batch: batch[1]))
        assert dealt[-1] == sorted(dealt[-1])
    assert sorted(batch for share in dealt for batch in share) == batches
    loads = [sum(size for _, size in share) for share in dealt]
    assert max(loads) - min(loads) <= (1 if world < 3 else 8)


@pytest.mark.slow
def test_a_rank_that_comes_late_sees_what_the_first_one_saw(tmp_path):
    import torch.multiprocessing

    torch.multiprocessing.spawn(_late_reader, (tmp_path,), nprocs=2)
    assert [(tmp_path / f"seen-{rank}").read_text() for rank in (0, 1)] == ["False", "False"]


def _share(folder, *outputs):
    ranks.SEEN_WITHIN = 0.3
    ranks.check_shared(folder / outputs[ranks.rank()])


def _refuse(folder):
    def decide():
        assert ranks.rank() == 0
        raise UserError("--flag: no")

    ranks.from_rank_0(decide)


SCENES = {
    "apart": (_share, "a/spr", "b/spr", "a/spr"),
    "a link": (_share, "held/spr", "link/spr", "held/spr"),
    "a file in the way": (_share, "file/spr", "file/spr", "file/spr"),
    "refused": (_refuse,),
}


def _play(rank, folder):
    """One of three gloo processes; what each scene raises is written to ``said-RANK``."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=3)
    lines = {}
    for name, (act, *places) in SCENES.items():
        try:
            lines[name] = act(folder, *places)
        except UserError as error:
            lines[name] = str(error)
    (folder / f"said-{rank}").write_text(json.dumps(lines))
    ranks.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """(folder, scene → what every rank said)."""
    import torch.multiprocessing

    folder = tmp_path_factory.mktemp("ranks")
    (folder / "held" / "spr").mkdir(parents=True)
    (folder / "held" / "spr" / "manifest.json").write_text("{}")
    (folder / "link").symlink_to(folder / "held")
    (folder / "file").write_text("a file where a folder must be")
    torch.multiprocessing.spawn(_play, (folder,), nprocs=3)
    everyone = [json.loads((folder / f"said-{rank}").read_text()) for rank in range(3)]
    assert everyone[0] == everyone[1] == everyone[2]
    return folder, everyone[0]


@pytest.mark.slow
def test_ranks_that_do_not_share_the_output_folder_all_say_so(said):
    folder, lines = said
    line = lines["apart"]
    assert (
        line.startswith("--output_dir: ") and f"{folder}/a/spr, and 1 of 3 cannot, such as rank 1 on " in line
    )
    assert f"{folder}/b/spr (No such file or directory)" in line and "\n" not in line
    assert not (folder / "a" / "spr").exists() and not (folder / "b").exists()


@pytest.mark.slow
def test_a_folder_by_another_name_is_shared_and_what_is_in_it_stays(said):
    folder, lines = said
    assert lines["a link"] is None and [path.name for path in (folder / "held" / "spr").iterdir()] == [
        "manifest.json"
    ]


@pytest.mark.slow
def test_a_folder_that_cannot_be_made(said):
    _, lines = said
    assert (
        "3 of 3 cannot, such as rank 0 on " in lines["a file in the way"]
        and "(Not a directory)" in lines["a file in the way"]
    )


@pytest.mark.slow
def test_what_rank_0_refuses_every_rank_refuses(said):
    assert said[1]["refused"] == "--flag: no"
