import subprocess
import sys

import pytest

from spr_plugin.eval_tasks import catalogue
from spr_plugin.eval_tasks.catalogue import CATALOGUE, GROUPS, SPLITS


def test_the_files_are_the_generated_ones():
    """Mend with `python -m spr_plugin.eval_tasks.catalogue`."""
    written = {file.name: file.read_text() for file in catalogue.FOLDER.iterdir()}
    assert written.pop("one.json")
    assert written == catalogue.files()


def test_the_eight_splits_of_the_papers_mean():
    rec = [task for group in GROUPS["spr_rec"][0] for task in GROUPS[group][0]]
    assert len(rec) == len(set(rec)) == 8
    assert rec == [split.task for split in SPLITS if split.protocol == "rec" and split.published]


def test_one_group_holds_all_benchmarks():
    def tasks(name):
        return [task for member in GROUPS[name][0] for task in tasks(member)] if name in GROUPS else [name]

    of_recipes = {"spr_spatial_ssrl", "spr_spatial_thinker", "spr_viewpoint"}
    tiny = {split.task for split in SPLITS if split.task.startswith("spr_tiny")}
    assert set(tasks("spr")) == {split.task for split in SPLITS} - tiny - of_recipes
    assert set(tasks("spr_tiny_world")) == tiny
    assert tasks("spr_general") == ["gqa", "textvqa_val", "pope"]
    foreign = {group for group in GROUPS if not any(task.startswith("spr_") for task in tasks(group))}
    assert foreign == {*catalogue.FOREIGN}


def test_keys_are_distinct_and_fit_the_datasets_library():
    assert len(CATALOGUE) == len(SPLITS) and all(key.isidentifier() for key in CATALOGUE)


def test_importing_the_entry_point_is_quick(tmp_path):
    """Under 50 ms of work on top of what lmms-eval imports anyway; a loaded machine is no failure, so CPU
    time of the best of three counts.
    """
    pytest.importorskip("lmms_eval")
    code = (
        "import sys, time, importlib.metadata, lmms_eval.models.registry_v2; [sys.modules.pop(name) for name"
        " in list(sys.modules) if name.startswith('spr_plugin')]; start = time.process_time(); from"
        " spr_plugin.eval_tasks.register import register; register(); print(time.process_time() - start)"
    )
    seconds = [
        float(
            subprocess.run(
                [sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True
            ).stdout
        )
        for _ in range(3)
    ]
    assert min(seconds) < 0.05
