"""Which checkpoint counts, and how a step's pairs are divided anew."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin.dpo.resume import MARK, Division, discard_torn, divided, latest
from spr_plugin.errors import UserError
from spr_plugin.files import write_json


def test_only_a_marked_checkpoint_counts_and_the_newest_wins(tmp_path):
    assert latest(tmp_path) is None
    for step in (2, 10, 9):
        write_json(tmp_path / f"checkpoint-{step}" / MARK, vars(Division(2, 1, step)))
    (tmp_path / "checkpoint-11").mkdir()
    (tmp_path / "tmp-checkpoint-12").mkdir()
    (tmp_path / "checkpoint-13").symlink_to(tmp_path / "checkpoint-11")
    assert latest(tmp_path) == (tmp_path / "checkpoint-10", Division(2, 1, 10))
    discard_torn(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-10",
        "checkpoint-2",
        "checkpoint-9",
    ]


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 8), st.integers(1, 8))
def test_a_step_keeps_its_pairs_on_other_ranks_or_is_refused_in_one_line(batch, accumulation, world, now):
    was = Division(batch, accumulation, world)
    try:
        new = divided(was, now, sharded=False)
    except UserError as error:
        assert was.pairs % now and "--spr_restart_dpo" in str(error) and "\n" not in str(error)
    else:
        assert new.pairs == was.pairs and new.world == now and (new.batch <= batch or world == now)


def test_an_optimizer_in_parts_needs_its_ranks():
    assert divided(Division(2, 1, 4), 4, sharded=True) == Division(2, 1, 4)
    with pytest.raises(UserError, match="left by 4 ranks.*cannot go on with 2.*--spr_restart_dpo"):
        divided(Division(2, 1, 4), 2, sharded=True)
