"""The reference's log: a record a pair, whatever the batches are."""

import pytest

from spr_plugin.config.dpo import DPOFlags
from spr_plugin.dpo.features import FeatureCache
from spr_plugin.dpo.pairs import measure_lengths
from spr_plugin.dpo.plan import Slot
from spr_plugin.dpo.reference import reference_log_probs
from spr_plugin.dpo.resume import Division
from spr_plugin.dpo.stage import Stage
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.log import lines_in
from spr_plugin.tools.status import log_of

pytestmark = pytest.mark.slow

# Epochs meet within a window of the plan, so that a batch holds pairs of which some were placed before it;
# a last batch is filled up with a pair that it holds already.
PLANS = {"neighbours": (0, 1, 1, 2, 2, 0), "filled": (0, 1, 2, 2, 0, 2), "one a batch": (0, 1, 2, 0, 1, 2)}


def test_a_pair_that_several_batches_hold_is_recorded_once(live_llava, pairs, tmp_path):
    host, config = live_llava()
    flags, given = config.only(DPOFlags), pairs(3)
    for name, plan in PLANS.items():
        folder = Folder(tmp_path / name)
        size = 1 if name == "one a batch" else 2
        stage = Stage(host, flags, folder, "entry", FeatureCache(0), None, Division(size, 1, 1))
        measured = measure_lengths(host, given, flags, stage.log("lengths"))
        slots = [Slot(pair, 1.0, 1.0) for pair in plan]
        first = reference_log_probs(stage, measured, slots)
        assert first.keys() == {pair.id for pair in given}, name
        assert lines_in(folder.path / "reference") == {"rank-00000.jsonl": 3}, name
        status = log_of(folder, "reference", 0)
        assert (status["done"], status["total"]) == (3, 3), name
        # What was lost is computed again in the batch that it had, and nothing else.
        file = folder.path / "reference" / "rank-00000.jsonl"
        kept = file.read_bytes().splitlines(keepends=True)
        for lost in range(3):
            file.write_bytes(b"".join(kept[:lost] + kept[lost + 1 :]))
            again = Stage(host, flags, folder, "entry", FeatureCache(0), None, Division(size, 1, 1))
            assert reference_log_probs(again, measured, slots) == first, name
            assert lines_in(folder.path / "reference") == {"rank-00000.jsonl": 3}, name
