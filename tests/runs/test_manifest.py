"""A manifest a stage: what changed is made again, and nothing before; what no run of ours made stays."""

import shutil

import pytest

from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.files import read_json, remove, write_json
from spr_plugin.plugins import load_file, manager
from spr_plugin.runs import clearing, manifest
from spr_plugin.runs.layout import PARTS_OF, Folder
from spr_plugin.runs.log import Log
from spr_plugin.runs.manifest import bind, changes, settings_of

from .binding import OTHER_SEED, SETTINGS, bound, tree, whole_run


def changed(stage, name, value) -> dict:
    return {**SETTINGS, stage: {**SETTINGS[stage], name: value}}


def records(folder) -> dict[str, list]:
    return {
        stage: list(Folder(folder).log(stage).read())
        for stage in ("queries", "candidates", "scores", "pairs")
    }


CHANGES = {
    "queries": ("spr_seed", 1, "--spr_seed was 0, is 1"),
    "candidates": ("spr_top_p", 0.9, "--spr_top_p was 1.0, is 0.9"),
    "scores": ("spr_plugin", {"path": "lab.py", "hash": "abc"}, "--spr_plugin was None, is lab.py"),
    "pairs": ("spr_min_gap", 0.1, "--spr_min_gap was 0.0, is 0.1"),
    "dpo": ("spr_beta", 0.1, "--spr_beta was 0.5, is 0.1"),
}


@pytest.mark.parametrize("stage", CHANGES)
def test_a_changed_flag_makes_its_stage_and_those_behind_it_again_and_nothing_before(tmp_path, stage, capsys):
    whole_run(tmp_path)
    name, value, words = CHANGES[stage]
    order = list(PARTS_OF)
    again = order[order.index(stage) :]
    bound(tmp_path, changed(stage, name, value))
    before = records(tmp_path)
    for one in order[:-1]:
        assert before[one] == ([] if one in again else [one])
        if one in again:
            assert list(Log(tmp_path / f"{one}.replaced").read()) == [one]  # nothing is lost
    folder = Folder(tmp_path)
    assert not any(
        path.exists() for path in (folder.policy, folder.bad_pairs, folder.exit, folder.round(2).path)
    )
    assert folder.entry.exists() and list(folder.log("reference").read()) == ["reference"]
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line and ("candidates (1 records, 7200 s)" in line) == ("candidates" in again)
    assert read_json(folder.manifest)["config"][name] == value
    bound(tmp_path, changed(stage, name, value))
    assert not capsys.readouterr().err


def test_a_flag_that_changes_before_its_stage_has_made_anything_is_no_word(tmp_path, capsys):
    bound(tmp_path, SETTINGS)
    bound(tmp_path, changed("queries", "spr_seed", 5))
    assert not capsys.readouterr().err and read_json(tmp_path / "manifest.json")["seed"] == 5


def test_queries_that_come_out_the_same_make_nothing_behind_them_again(tmp_path):
    whole_run(tmp_path)
    bound(tmp_path, changed("queries", "spr_image_folder", "elsewhere"), stays={"queries"})
    before = records(tmp_path)
    assert before == {"queries": [], "candidates": ["candidates"], "scores": ["scores"], "pairs": ["pairs"]}
    assert Folder(tmp_path).is_finished()


def test_a_file_counts_by_its_content_wherever_it_lies(tmp_path):
    whole_run(tmp_path)
    bound(tmp_path, changed("queries", "data_path", {"path": "b.json", "hash": "x"}))
    assert records(tmp_path)["candidates"] == ["candidates"]
    known = changes(Folder(tmp_path), changed("queries", "data_path", {"path": "b.json", "hash": "y"}))
    assert known.words == {"queries": ["--data_path b.json has another content"]}


def test_a_restarted_dpo_stage_deletes_no_more_than_its_own(tmp_path):
    whole_run(tmp_path / "spr")
    spr = Folder(tmp_path / "spr")
    remove(spr.dpo)
    (tmp_path / "scratch").mkdir()
    spr.dpo.symlink_to(tmp_path / "scratch")
    for name in ("policy.tmp", "round-table"):
        (spr.path / name).mkdir()
    bound(spr.path, SETTINGS, restart={"dpo"})
    assert not any(path.exists() for path in (spr.policy, spr.path / "policy.tmp", spr.round(2).path))
    assert (
        (tmp_path / "scratch").exists() and (spr.path / "round-table").exists() and not spr.dpo.is_symlink()
    )
    assert all(records(spr.path).values()) and list(spr.log("lengths").read())


def test_a_change_that_was_cut_short_goes_on(tmp_path, monkeypatch):
    """After any number of deletions, renames and writes the same command finds the same left to do."""
    cut, done = 0, False
    whole_run(tmp_path / "whole")  # once: each of its files is waited for until it is on the disk
    while not done:
        path = shutil.copytree(tmp_path / "whole", tmp_path / str(cut))
        left = [cut]

        def dying(function, left=left):
            def counted(*args):
                if not left[0]:
                    raise KeyboardInterrupt
                left[0] -= 1
                return function(*args)

            return counted

        with monkeypatch.context() as patch:
            for module, name in ((clearing, "remove"), (manifest, "write_json"), (clearing, "_set_aside")):
                patch.setattr(module, name, dying(getattr(module, name)))
            try:
                bound(path, changed("candidates", "spr_top_p", 0.9))
                done = True
            except KeyboardInterrupt:
                cut += 1
        bound(path, changed("candidates", "spr_top_p", 0.9))
        assert records(path) == {"queries": ["queries"], "candidates": [], "scores": [], "pairs": []}
        assert list(Log(path / "candidates.replaced").read()) == ["candidates"]
        assert not Folder(path).is_finished()
    assert cut > 10


def test_going_back_and_forth_loses_no_records(tmp_path):
    whole_run(tmp_path)
    bound(tmp_path, changed("candidates", "spr_top_p", 0.9))
    Folder(tmp_path).log("candidates").append({"id": "one"})
    bound(tmp_path, SETTINGS)
    kept = [list(Log(tmp_path / f"candidates.replaced{number}").read()) for number in ("", "-2")]
    assert kept == [["candidates"], ["one"]] and not records(tmp_path)["candidates"]
    bound(tmp_path, OTHER_SEED, overwrite=True)
    assert tree(tmp_path) == ["manifest.json"]


def test_a_manifest_that_is_gone_before_others_vouches_for_nothing_behind_it(tmp_path):
    """A death between the queries' renaming and their manifest, then other flags."""
    whole_run(tmp_path)
    Folder(tmp_path).stage_manifest("queries").unlink()
    known = changes(Folder(tmp_path), changed("queries", "spr_seed", 7))
    assert known.again == tuple(PARTS_OF) and known.words == {"queries": ["the manifest of queries is gone"]}


def test_a_list_of_exclusions_counts_by_its_content(tmp_path):
    (tmp_path / "val.txt").write_text("1.jpg\n")
    config = SPRConfig(spr=True, spr_exclude=[str(tmp_path / "val.txt")])
    before = settings_of(config, {})
    (tmp_path / "val.txt").write_text("1.jpg\n2.jpg\n")
    assert (
        settings_of(config, {})["queries"]["spr_exclude"]["hash"] != before["queries"]["spr_exclude"]["hash"]
    )


def test_other_marked_pairs_make_the_dpo_stage_again_and_the_same_ones_nothing(tmp_path):
    """Wherever the marks lie; that none is marked is as if none were named."""

    def again(excluded, file="marks.jsonl"):
        config = SPRConfig(spr=True, spr_annotations="x.json", spr_exclude_pairs=file)
        return changes(Folder(tmp_path), settings_of(config, {}, excluded=frozenset(excluded))).again

    bound(tmp_path, settings_of(SPRConfig(spr=True, spr_annotations="x.json"), {}))
    assert again("") == () and again("ab") == ("dpo",)
    config = SPRConfig(spr=True, spr_annotations="x.json", spr_exclude_pairs="marks.jsonl")
    bound(tmp_path, settings_of(config, {}, excluded=frozenset("ab")))
    assert again("ba") == again("ab", "elsewhere.jsonl") == () and again("a") == again("") == ("dpo",)


def test_other_box_text_asks_again(tmp_path):
    """Regions of annotations come out the same, and the answers to them do not."""
    config = SPRConfig(spr=True, spr_annotations="x.json")
    bound(tmp_path, settings_of(config, {"family": "llava"}))
    Folder(tmp_path).log("candidates").append({"id": "a"})
    known = changes(Folder(tmp_path), settings_of(config, {"family": "shikra"}), stays={"queries"})
    assert known.again == ("candidates", "scores", "pairs", "dpo")


@pytest.mark.parametrize(
    "known, says",
    [
        ({"hash": "x", "config": {}, "inputs": {}, "versions": {}}, "of an older version in layout 1"),
        ({"layout": 1, "version": "0.0.9", "config": {}}, "spr-plugin 0.0.9 in layout 1"),
        ({"layout": 3, "version": "0.1.0", "config": {}}, "spr-plugin 0.1.0 in layout 3"),
        ({"layout": 99, "version": "7.0", "config": {}}, "spr-plugin 7.0 in layout 99"),
    ],
)
def test_a_folder_of_another_version_is_refused_by_name_and_overwritten_when_asked(
    tmp_path, known, says, capsys
):
    write_json(tmp_path / "manifest.json", known)
    queries = Log(tmp_path / "regions")  # where layouts before 4 kept them
    queries.append({"id": "a"})
    queries.close()
    with pytest.raises(
        UserError, match=f"^{tmp_path} was written by .*{says}.*--output_dir, or --spr_overwrite"
    ):
        bound(tmp_path)
    bound(tmp_path, overwrite=True)
    assert not queries.directory.exists() and "stays" not in capsys.readouterr().err
    bound(tmp_path)


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "null", '{"stage": "pairs"}', '{"settings": 3}', "\0" * 50, "[" * 10**5]
)
def test_a_damaged_manifest_of_a_stage_is_one_line(tmp_path, damage):
    whole_run(tmp_path)
    path = Folder(tmp_path).stage_manifest("pairs")
    path.write_text(damage)
    with pytest.raises(UserError, match=f"^{path} is damaged.*remove it and run the same command again$"):
        bound(tmp_path, SETTINGS)
    path.unlink()
    bound(tmp_path, SETTINGS)
    # Nobody knows what the pairs were made with: they are made again, and nothing before.
    before = records(tmp_path)
    assert before == {"queries": ["queries"], "candidates": ["candidates"], "scores": ["scores"], "pairs": []}


def test_settings_bind_each_flag_and_file_to_its_stage(tmp_path):
    for name, hook in (("one.py", "spr_scorer(config, device)"), ("two.py", "spr_annotations(source)")):
        text = f"from spr_plugin.hookspecs import hookimpl\n@hookimpl\ndef {hook}:\n    return None\n"
        (tmp_path / name).write_text(text)
        load_file(str(tmp_path / name))
    (tmp_path / "data.json").write_text("[]")
    files = [str(tmp_path / "one.py"), str(tmp_path / "two.py")]
    try:
        settings = settings_of(
            SPRConfig(spr=True, spr_plugin=files), {"family": "x"}, str(tmp_path / "data.json")
        )
    finally:
        for file in files:
            manager().unregister(name=file)
    assert settings["queries"]["data_path"]["hash"] and settings["queries"]["box"] == {"family": "x"}
    assert (
        settings["scores"]["spr_plugin"]["path"] == files[0]
        and settings["queries"]["spr_plugin"]["path"] == files[1]
    )
    flags = [name for stage in settings.values() for name in stage]
    # A flag shapes one stage, --spr_plugin those of its hooks, box text the answers, and regions that are
    # mined; the recipe's, how its queries are asked and judged too.
    thrice = ["spr_recipe", "spr_recipe_config"] * 2
    assert sorted(flags) == sorted([*set(flags), "spr_plugin", "box", *thrice])


RECIPE = """
from spr_plugin.hookspecs import hookimpl
# {mark}
@hookimpl
def spr_recipe(name, config):
    return None
"""


def of_recipe(tmp_path, mark="a", **flags):
    """Settings of a run whose recipe is in a file of a lab's."""
    file = tmp_path / "recipe.py"
    file.write_text(RECIPE.format(mark=mark))
    load_file(str(file))
    try:
        return settings_of(SPRConfig(spr=True, spr_plugin=[str(file)], **flags), {"family": "x"})
    finally:
        manager().unregister(name=str(file))


@pytest.mark.parametrize(
    "other",
    [{"spr_recipe": "other"}, {"spr_recipe_config": "b.yaml"}, {"mark": "b"}],
    ids=["another recipe", "its settings", "its code"],
)
def test_what_a_recipe_is_makes_answers_and_scores_again_though_its_queries_stay(tmp_path, other):
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text(f"names: {{together: {ord(name)}}}")
    paths = lambda flags: {k: str(tmp_path / v) if k == "spr_recipe_config" else v for k, v in flags.items()}
    first = {"spr_recipe": "names", "spr_recipe_config": "a.yaml", "mark": "a"}
    if "spr_recipe" in other:
        (tmp_path / "a.yaml").write_text("names: {together: 1}\nother: {together: 1}\n")
    folder = Folder(tmp_path / "spr")
    before = of_recipe(tmp_path, **paths(first))
    bind(folder, before, changes(folder, before))
    after = of_recipe(tmp_path, **paths({**first, **other}))
    again = changes(folder, after, stays={"queries"}).again
    assert {"candidates", "scores", "pairs", "dpo"} <= set(again)
