"""A manifest a stage: what changed is made again, and nothing before; what no run of ours made stays."""

import pytest

from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.files import read_json, remove, write_json
from spr_plugin.plugins import load_file, manager
from spr_plugin.runs import clearing, manifest
from spr_plugin.runs.layout import PARTS_OF, Folder
from spr_plugin.runs.lock import lock
from spr_plugin.runs.log import Log
from spr_plugin.runs.manifest import bind, changes, check_layout, settings_of, took

SEED, OTHER_SEED = {"regions": {"spr_seed": 0}}, {"regions": {"spr_seed": 1}}
SETTINGS = {
    "regions": {"spr_seed": 0, "data_path": {"path": "a.json", "hash": "x"}},
    "candidates": {"spr_top_p": 1.0},
    "scores": {"spr_lambda": 0.8},
    "pairs": {"spr_min_gap": 0.0},
    "dpo": {"spr_beta": 0.5},
}


def bound(folder, settings=SEED, overwrite=False, restart=frozenset(), stays=frozenset()):
    """What a command does to ``folder`` before it trains."""
    folder = Folder(folder)
    if not overwrite:
        check_layout(folder)
    bind(folder, settings, changes(folder, {} if overwrite else settings, restart, stays), overwrite)


def changed(stage, name, value) -> dict:
    return {**SETTINGS, stage: {**SETTINGS[stage], name: value}}


def whole_run(path) -> dict[str, set]:
    """A finished run; stage → its parts."""
    bound(path, SETTINGS)
    folder = Folder(path)
    for stage in ("regions", "batches", "candidates", "scores", "pairs", "lengths", "reference"):
        log = folder.log(stage)
        log.append({"id": stage})
        log.close()
    for weights in (folder.entry, folder.policy, folder.dpo, folder.bad_pairs):
        write_json(weights / "index.json", {})
    write_json(folder.exit, {})
    bound(folder.round(2).path, SETTINGS)
    took(folder, "candidates", 7200.0)
    return {stage: {folder.path / part for part in parts} for stage, parts in PARTS_OF.items()}


def records(folder) -> dict[str, list]:
    return {
        stage: list(Folder(folder).log(stage).read())
        for stage in ("regions", "candidates", "scores", "pairs")
    }


CHANGES = {
    "regions": ("spr_seed", 1, "--spr_seed was 0, is 1"),
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
    held = records(tmp_path)
    for one in order[:-1]:
        assert held[one] == ([] if one in again else [one])
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
    bound(tmp_path, changed("regions", "spr_seed", 5))
    assert not capsys.readouterr().err and read_json(tmp_path / "manifest.json")["seed"] == 5


def test_regions_that_come_out_the_same_make_nothing_behind_them_again(tmp_path):
    whole_run(tmp_path)
    bound(tmp_path, changed("regions", "spr_image_folder", "elsewhere"), stays={"regions"})
    held = records(tmp_path)
    assert held == {"regions": [], "candidates": ["candidates"], "scores": ["scores"], "pairs": ["pairs"]}
    assert Folder(tmp_path).is_finished()


def test_a_file_counts_by_its_content_wherever_it_lies(tmp_path):
    whole_run(tmp_path)
    bound(tmp_path, changed("regions", "data_path", {"path": "b.json", "hash": "x"}))
    assert records(tmp_path)["candidates"] == ["candidates"]
    known = changes(Folder(tmp_path), changed("regions", "data_path", {"path": "b.json", "hash": "y"}))
    assert known.words == {"regions": ["--data_path b.json has another content"]}


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
    while not done:
        path = tmp_path / str(cut)
        whole_run(path)
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
        assert records(path) == {"regions": ["regions"], "candidates": [], "scores": [], "pairs": []}
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
    """A death between the regions' renaming and their manifest, then other flags."""
    whole_run(tmp_path)
    Folder(tmp_path).stage_manifest("regions").unlink()
    known = changes(Folder(tmp_path), changed("regions", "spr_seed", 7))
    assert known.again == tuple(PARTS_OF) and known.words == {"regions": ["the manifest of regions is gone"]}


def test_an_overwrite_that_dies_leaves_what_a_run_leaves(tmp_path, monkeypatch):
    """What was made last goes first: nothing is left that was made from what is gone."""
    order = ["entry", "candidates", "scores", "pairs", "policy"]
    for cut in range(70):
        path = tmp_path / str(cut)
        whole_run(path)
        left, remove = [cut], clearing.remove

        def dying(target, left=left, remove=remove):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            remove(target)

        with monkeypatch.context() as patch:
            patch.setattr(clearing, "remove", dying)
            try:
                bound(path, OTHER_SEED, overwrite=True)
                break
            except KeyboardInterrupt:
                pass
        there = [any(file.name != "manifest.json" for file in (path / part).rglob("*")) for part in order]
        assert there == sorted(there, reverse=True), (cut, dict(zip(order, there)))
    assert 15 < cut < 69


def test_a_list_of_exclusions_counts_by_its_content(tmp_path):
    (tmp_path / "val.txt").write_text("1.jpg\n")
    config = SPRConfig(spr=True, spr_exclude=[str(tmp_path / "val.txt")])
    before = settings_of(config, {})
    (tmp_path / "val.txt").write_text("1.jpg\n2.jpg\n")
    assert (
        settings_of(config, {})["regions"]["spr_exclude"]["hash"] != before["regions"]["spr_exclude"]["hash"]
    )


def test_other_box_text_asks_again(tmp_path):
    """Regions of annotations come out the same, and the answers to them do not."""
    config = SPRConfig(spr=True, spr_annotations="x.json")
    bound(tmp_path, settings_of(config, {"family": "llava"}))
    Folder(tmp_path).log("candidates").append({"id": "a"})
    known = changes(Folder(tmp_path), settings_of(config, {"family": "shikra"}), stays={"regions"})
    assert known.again == ("candidates", "scores", "pairs", "dpo")


@pytest.mark.parametrize(
    "known, says",
    [
        ({"hash": "x", "config": {}, "inputs": {}, "versions": {}}, "of an older version in layout 1"),
        ({"layout": 1, "version": "0.0.9", "config": {}}, "spr-plugin 0.0.9 in layout 1"),
        ({"layout": 99, "version": "7.0", "config": {}}, "spr-plugin 7.0 in layout 99"),
    ],
)
def test_a_folder_of_another_version_is_refused_by_name_and_overwritten_when_asked(tmp_path, known, says):
    write_json(tmp_path / "manifest.json", known)
    with pytest.raises(
        UserError, match=f"^{tmp_path} was written by .*{says}.*--output_dir, or --spr_overwrite"
    ):
        bound(tmp_path)
    bound(tmp_path, overwrite=True)
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
    held = records(tmp_path)
    assert held == {"regions": ["regions"], "candidates": ["candidates"], "scores": ["scores"], "pairs": []}


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
    assert settings["regions"]["data_path"]["hash"] and settings["regions"]["box"] == {"family": "x"}
    assert (
        settings["scores"]["spr_plugin"]["path"] == files[0]
        and settings["regions"]["spr_plugin"]["path"] == files[1]
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
def spr_recipe(config):
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
    again = changes(folder, after, stays={"regions"}).again
    assert {"candidates", "scores", "pairs", "dpo"} <= set(again)


# --- starting over deletes what a run of ours made, and nothing else


def run_in(folder, *stages):
    """What a run leaves in ``folder``: its manifest and a log a stage."""
    bound(folder)
    for stage in stages:
        log = Log(folder / stage)
        log.append({"id": "a"})
        log.close()
    return folder


def tree(folder) -> list[str]:
    """What is in ``folder`` beside a lock and the manifests of a run that has made nothing yet."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != "lock"}
    return sorted(
        found - ({"regions", "regions/manifest.json"} if "regions/rank-00000.jsonl" not in found else set())
    )


def test_overwrite_deletes_what_a_run_made_and_names_what_stays(tmp_path, capsys):
    spr = run_in(tmp_path / "spr", "regions", "candidates", "pairs")
    run_in(spr / "round-2", "candidates")
    for name in (
        "exit.json",
        "report.html",
        "manifest.json.123.tmp",
        "notes.txt",
        "round-2/mine.txt",
        "pairs/notes.csv",
    ):
        (spr / name).write_text("x")
    for name in ("policy.tmp", "data", "round-table", "round-3"):
        (spr / name).mkdir()
        (spr / name / "inside").write_text("x")
    bound(spr, OTHER_SEED, overwrite=True)
    stays = ["data", "notes.txt", "policy.tmp", "round-2", "round-3", "round-table"]
    assert sorted(path.name for path in spr.iterdir()) == sorted(
        [*stays, "manifest.json", "pairs", "regions"]
    )
    assert [path.name for path in (spr / "round-2").iterdir()] == ["mine.txt"]
    assert (spr / "round-3" / "inside").exists()
    assert [path.name for path in (spr / "pairs").iterdir()] == ["notes.csv"]
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        "data, notes.txt, pairs/notes.csv, policy.tmp/inside, round-2/mine.txt, round-3, round-table in"
        f" {spr} " in line
    )
    assert read_json(spr / "manifest.json")["config"] == {"spr_seed": 1}


NO_MANIFESTS = {
    "none": None,
    "of a web page": '{"name": "page", "icons": []}',
    "of a container": '{"schemaVersion": 2, "config": {"digest": "sha256:0"}, "layers": []}',
    "a list": "[1, 2]",
    "broken": '{"config": {',
    "of bytes": "\udcff",
}


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("name", NO_MANIFESTS)
def test_a_folder_that_no_run_made_is_left_alone(tmp_path, name, overwrite):
    spr, text = tmp_path / "spr", NO_MANIFESTS[name]
    (spr / "candidates").mkdir(parents=True)
    (spr / "candidates" / "rank-00000.jsonl").write_text("years of work")
    if text is not None:
        (spr / "manifest.json").write_text(text, errors="surrogateescape")
    lock(spr)
    before = tree(spr)
    with pytest.raises(UserError, match="manifest.json.*move it away, or name another folder") as refused:
        bound(spr, SEED, overwrite)
    assert str(spr) in str(refused.value) and (text is not None or "candidates" in str(refused.value))
    assert "\n" not in str(refused.value) and tree(spr) == before
    assert (spr / "candidates" / "rank-00000.jsonl").read_text() == "years of work"


FOREIGN = """entry/model.safetensors entry/index.json policy/index.json policy.tmp/x base/config.json report.html
    exit.json training.json failed.json dpo/checkpoint-10/optimizer.pt dpo/best/index.json dpo/log.jsonl
    candidates/rank-00003.jsonl regions/counts.json scores/manifest.json round-2/manifest.json
    round-2/policy/index.json reference/0123456789abcdef.json policy""".split()  # noqa: E501


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("linked", [False, True])
def test_a_first_run_takes_nothing_for_its_own_that_was_there_before(tmp_path, name, linked):
    """It was written over, or believed: a ``policy`` meant that the stage is done."""
    spr, real = tmp_path / "spr", tmp_path / "elsewhere"
    (real / name).parent.mkdir(parents=True)
    (
        bound((real / name).parent)
        if name == "round-2/manifest.json"
        else (real / name).write_text("years of work")
    )
    spr.symlink_to(real) if linked else real.rename(spr)
    before = {path: path.read_bytes() for path in spr.rglob("*") if path.is_file()}
    part = name.split("/")[0]
    with pytest.raises(
        UserError, match=f"^no manifest.json proves .* made {part}.* in {spr}: move it away"
    ) as refused:
        bound(spr)
    assert "\n" not in str(refused.value)
    assert {path: path.read_bytes() for path in spr.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "name",
    "notes.txt scores/notes.txt dpo/table.csv round-2/notes.txt round-table/x entries/index.json".split(),
)
def test_a_first_run_goes_on_beside_what_has_other_names(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    for folder in ("entry", "policy", "candidates", "ranks-0123456789abcdef"):
        (tmp_path / folder).mkdir(exist_ok=True)
    bound(tmp_path)
    bound(tmp_path, OTHER_SEED)
    assert (tmp_path / name).read_text() == "mine"


def test_what_is_not_ours_is_never_taken_for_the_first_run_s(tmp_path):
    """Files by other names do not stop a run, but they are no reason to believe --spr_overwrite either."""
    spr = tmp_path / "spr"
    spr.mkdir()
    (spr / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=f"notes.txt in {spr}"):
        bound(spr, overwrite=True)
    bound(spr)
    bound(spr, overwrite=True)
    assert tree(spr) == ["manifest.json", "notes.txt"]


@pytest.mark.parametrize("held", ["", "lock", "lock manifest.json.77.tmp ranks-0123456789abcdef"])
def test_overwrite_of_a_folder_that_is_empty_or_as_good_as(tmp_path, held):
    (tmp_path / "spr").mkdir()
    for name in held.split():
        (tmp_path / "spr" / name).write_text("")
    bound(tmp_path / "spr", overwrite=True)
    assert read_json(tmp_path / "spr" / "manifest.json")["config"] == {"spr_seed": 0}


def test_links_go_and_what_they_point_to_stays(tmp_path, capsys):
    """Stage folders, and all of ``spr``, on another disk."""
    real = tmp_path / "scratch"
    spr = tmp_path / "out" / "spr"
    spr.parent.mkdir()
    spr.symlink_to(real / "spr", target_is_directory=True)
    lock(spr)
    run_in(spr, "regions", "candidates")
    (spr / "candidates").rename(real / "candidates")
    (spr / "candidates").symlink_to(real / "candidates")
    run_in(real / "round", "pairs")
    (spr / "round-2").symlink_to(real / "round")
    (spr / "scores").symlink_to(real / "nowhere")
    kept = tree(real / "candidates") + tree(real / "round")
    bound(spr, OTHER_SEED, overwrite=True)
    assert tree(spr) == ["manifest.json"] and spr.is_symlink() and (spr / "lock").exists()
    assert tree(real / "candidates") + tree(real / "round") == kept
    said = capsys.readouterr().err
    assert all(f"{spr / name} was a link" in said for name in ("candidates", "round-2", "scores"))


def test_an_overwrite_that_was_cut_short_goes_on(tmp_path, monkeypatch):
    """After any number of deletions: the manifest that proves the rest to be ours is still there."""
    cut = 0
    while cut is not None:
        spr = run_in(tmp_path / f"spr-{cut}", "regions", "candidates", "scores")
        run_in(spr / "round-2", "pairs")
        left = [cut]

        def dying(path, left=left):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            remove(path)

        monkeypatch.setattr(clearing, "remove", dying)
        try:
            bound(spr, OTHER_SEED, overwrite=True)
            cut = None
        except KeyboardInterrupt:
            cut += 1
        monkeypatch.setattr(clearing, "remove", remove)
        bound(spr, OTHER_SEED, overwrite=True)
        assert tree(spr) == ["manifest.json"]


def test_what_cannot_be_deleted_is_one_line_and_goes_on_later(tmp_path, ordinary_user):
    spr = run_in(tmp_path / "spr", "candidates", "scores")
    tmp_path.chmod(0o755), spr.chmod(0o777), (spr / "scores").chmod(0o555)
    with (
        ordinary_user,
        pytest.raises(UserError, match=f"^{spr}/scores/rank-00000.jsonl: Permission denied[^\n]*$"),
    ):
        bound(spr, OTHER_SEED, overwrite=True)
    (spr / "scores").chmod(0o755)
    bound(spr, OTHER_SEED, overwrite=True)
    assert tree(spr) == ["manifest.json"]
