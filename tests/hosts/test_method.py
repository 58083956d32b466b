"""What of SPR is optional, on the embedded LLaVA, which describes regions: sampled, judged and paired by the
stages themselves."""

import collections

import pytest

from spr_plugin.config import SPRConfig
from spr_plugin.opening import Round
from spr_plugin.pairing import find_pairing
from spr_plugin.pipeline import make_pairs
from spr_plugin.recipes.find import find_recipe
from spr_plugin.runs.layout import Folder

from .launch import TINY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def embedded(tiny_world, tmp_path_factory, embedded_llava):
    world = tiny_world(sft=8, spr=8)
    return world, embedded_llava(world, tmp_path_factory.mktemp("live") / "llava")


def test_missed_objects_are_added_and_answers_paired_with_themselves(
    embedded, write_queries, tmp_path, capfd
):
    world, host = embedded
    config = SPRConfig(
        spr=True, spr_annotations=f"{world}/spr.json", spr_image_folder=f"{world}/images",
        spr_clip=str(TINY / "clip"), spr_regions=8, spr_max_new_tokens=160, spr_greedy=True,
        spr_add_missed=True, spr_repair="item", spr_min_kept=0.3,
        spr_pairing=["repaired", "best_worst", "equal_length"],
    )  # fmt: skip
    folder, recipe = Folder(tmp_path), find_recipe(config, host.box_format)
    queries = write_queries(folder, config, host.box_format)
    pairing, entered = find_pairing(config), (folder.entry,)
    pairs = make_pairs(Round(host, config, recipe, pairing, folder, 1, entered, frozenset()), queries)
    err = capfd.readouterr().err
    assert "--spr_add_missed: the model names objects left to right" in err
    records = folder.log("scores").read()
    answers = [one for record in records.values() for one in record["candidates"]]
    repaired = [one for one in answers if one["repaired_score"] is not None]
    totals = collections.Counter()
    for one in repaired:
        totals.update(one["repaired_terms"])
        if not one["repaired_terms"]["missed"] and one["not_choosable"] is None:
            assert one["repaired_terms"]["s_loc"] > 0.9  # all objects of the region are there
    assert totals["added"] > len(repaired) / 2 and totals["missed"] < totals["added"]
    counts = (
        f"{totals['added']:.0f} missed objects added to repaired answers, {totals['missed']:.0f} are missed"
    )
    assert counts in err
    own = [one for one in pairs if one.chosen_candidate == one.rejected_candidate]
    assert own and len(pairs) > len(own) and all(one.chosen != one.rejected for one in own)
