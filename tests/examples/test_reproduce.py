"""The reproduction study: its plan parses, nothing asked is trained on, what does not fit is named, and its
tables agree with numbers by hand.
"""

import dataclasses
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr_plugin import runs
from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.flags import flags_class
from spr_plugin.tools.demo import WORLD, train_command

from .world import load

pytest.importorskip("datasets")  # the oldest environment has no lmms-eval and what it needs

ROOT = Path(__file__).parents[2]
run = load("reproduce/run")
plan, figures, paired = run.plan, run.figures, run.paired
tables, result_files, world_data = run.tables, run.result_files, run.world_data
painting = world_data.scenes.painting


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    """Commands name the embedded models from there."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def small(monkeypatch):
    """A study of a few scenes."""
    monkeypatch.setitem(plan.SCENES, "spr", 12)
    monkeypatch.setattr(plan, "ASKED", {"count": 10, "described": 3})


def study(tmp_path, which="full") -> run.Study:
    return run.Study(plan.PLANS[which], tmp_path / "out", tmp_path / "results")


# --- the plan


@pytest.mark.parametrize("which", plan.OF_FOLDERS)
def test_every_units_flags_parse(tmp_path, which):
    """By transformers' parser, as the host's command reads them; what is left is LLaVA's own and stands in
    its command anyway.
    """
    transformers = pytest.importorskip("transformers")
    parser = transformers.HfArgumentParser((flags_class(),))
    hosts = {word for word in train_command(Path("d"), Path("m"), "") if word.startswith("--")}
    names = [field.name for field in dataclasses.fields(SPRConfig)]
    seen = set()
    for name, seed in plan.PLANS[which].units:
        if plan.PLANS[which].variants[name].grpo:
            continue
        command = train_command(Path("d"), Path("m"), study(tmp_path, which).flags(name, seed))
        flags, rest = parser.parse_args_into_dataclasses(command[3:], return_remaining_strings=True)
        config = SPRConfig(**vars(flags))
        assert {word for word in rest if word.startswith("--")} <= hosts, name
        assert (
            config.spr
            and config.spr_seed == seed
            and config.spr_only != plan.PLANS[which].variants[name].own_base
        )
        seen.add(
            (*(str(getattr(config, field)) for field in names), str(plan.PLANS[which].variants[name].world))
        )
    # No variant is another one under a second name.
    assert len(seen) == sum(not plan.PLANS[which].variants[name].grpo for name, _ in plan.PLANS[which].units)


@pytest.mark.parametrize("which", ["full", "tune"])
def test_every_grpo_units_flags_parse(tmp_path, which):
    """By TRL's own configuration; only the learning rate and β differ."""
    pytest.importorskip("trl")
    grpos = [unit for unit in plan.PLANS[which].units if plan.PLANS[which].variants[unit[0]].grpo]
    seen = set()
    for name, seed in grpos:
        task, args = run.grpo.parse(
            run.grpo.command(Path("d"), Path("r"), tmp_path, study(tmp_path, which).flags(name, seed))[2:]
        )
        assert (task.budget, task.annotations, args.seed, args.num_generations) == (
            "r",
            "d/spr.json",
            seed,
            8,
        )
        seen.add((args.learning_rate, args.beta))
    assert grpos and len(seen) == len(grpos)


def test_the_quick_plan_is_one_seed_of_the_main_result():
    assert plan.PLANS["quick"].units == (("main", 0),) and set(plan.PLANS["main"].units) == {
        ("main", seed) for seed in plan.SEEDS
    }


@pytest.mark.parametrize("which", plan.OF_FOLDERS)
def test_answers_are_lent_only_where_nothing_that_shapes_them_differs(which):
    shaping = ("regions", "samples", "prompts", "temperature", "rounds", "greedy")

    def shape(variant):
        words = variant.flags.split()
        values = {word: value for word, value in itertools.pairwise(words) if word.startswith("--")}
        return [values.get(f"--spr_{name}") for name in shaping], variant.world

    chosen = plan.PLANS[which]
    for name, variant in chosen.variants.items():
        lender = chosen.variants[variant.answers_of or chosen.lender]
        assert variant.own_answers == (variant is lender or shape(variant) != shape(lender)), name


# --- what is trained on, and what is asked


@pytest.mark.slow
def test_nothing_asked_is_trained_on(tmp_path, small):
    worlds = [{"seed": seed} for seed in plan.SEEDS] + [
        {"seed": 0, **variant.world, "spr": 12} for variant in plan.VARIANTS.values() if variant.world
    ]
    trained = [world_data.training_data(tmp_path, {**plan.SCENES, **world, "sft": 6}) for world in worlds]
    # At 12 scenes the one of 4,000 regions is the first seed again.
    assert len(set(trained)) == len(plan.SEEDS) + 4
    asked = [world_data.evaluation_data(tmp_path, split) for split in (plan.TEST, plan.VAL)]
    for theirs in asked:
        assert len(world_data.pictures(theirs)) == 10
        for ours in trained:
            assert len(world_data.pictures(ours)) > 12
            world_data.refuse_shared(ours, theirs)
    (trained[0] / "images" / "planted.png").write_bytes((asked[0] / "images/test/000003.png").read_bytes())
    with pytest.raises(
        UserError, match=r"1 pictures would be trained and measured on, .*000003.png is .*planted.png"
    ):
        world_data.refuse_shared(trained[0], asked[0])


@pytest.mark.slow
def test_scenes_of_all_splits_differ_by_hash():
    """At the study's own seeds: the embedded weights were taught on pretrain, SPR and SFT have their own
    splits.
    """
    asked = {
        scene.key
        for split, seed in (plan.VAL, plan.TEST, plan.TEST_OF_MORE)
        for scene in painting.scenes(split, 60, seed)
    }
    trained = {
        scene.key
        for split, seeds in (("pretrain", (0,)), ("sft", (0,)), ("spr", plan.SEEDS))
        for seed in seeds
        for scene in painting.scenes(split, 60, seed)
    }
    assert len(asked) == 180 and len(trained) == 300 and not asked & trained


def test_the_embedded_weights_are_taught_on_no_other_split():
    """What make.py and the teaching modules take from painting.py: pretrain to teach, val to choose by.
    On test the finished weights are measured, by make.py alone.
    """
    names = "make teach_tower teach_clip teach_llava tiny_llava sequences ask_llava".split()
    source = {name: (WORLD / f"{name}.py").read_text() for name in names}
    told = {
        name: {split for split in painting.SPLITS if f'"{split}"' in text} for name, text in source.items()
    }
    assert told.pop("make") <= {"pretrain", "val", "test"} and '"pretrain"' in source["make"]
    assert set.union(*told.values()) <= {"pretrain", "val"}


def test_the_questions_have_their_answers(tmp_path, small):
    asked = world_data.evaluation_data(tmp_path, plan.TEST)
    shown = {str(place): scene for place, scene in enumerate(painting.scenes("test", 10, plan.TEST.seed))}
    rows = {
        kind: [json.loads(line) for line in (asked / kind / "val.jsonl").open()]
        for kind in ("presence", "color", "phrases")
    }
    assert all(rows.values()) and {row["id"].split("-")[0] for row in rows["presence"]} == set(shown)
    for row in (row for kind in ("presence", "color") for row in rows[kind]):
        row["id"] = row["id"].split("-")[0]
    for row in rows["presence"]:
        name = row["question"].removeprefix("Is there ").removesuffix(" in the image?").split(" ", 1)[1]
        assert row["answer"] == (
            "Yes." if name in {thing.name for thing in shown[row["id"]].things} else "No."
        )
    for row in rows["color"]:
        shape = row["question"].removeprefix("What is the color of the ").removesuffix("?")
        assert [f"{thing.color}." for thing in shown[row["id"]].things if thing.shape == shape] == [
            row["answer"]
        ]
    for row in rows["phrases"]:
        for phrase in row["phrases"]:
            same = [
                thing for thing in shown[row["id"]].things if thing.name == phrase["phrase"].split(" ", 1)[1]
            ]
            assert [list(thing.box) for thing in same] == phrase["boxes"]


# --- what does not fit is named


def kept(found: run.Study, name="main", seed=0, **changed) -> Path:
    file = found.file(name, seed)
    result_files.write_result(file, {**found.manifest(name, seed), **changed}, {})
    return file


def test_a_changed_configuration_under_an_old_result_is_named(tmp_path):
    found = study(tmp_path)
    file = kept(found)
    found.check()
    found.plan = dataclasses.replace(
        found.plan, common=found.plan.common.replace("--spr_beta 0.5", "--spr_beta 0.7")
    )
    with pytest.raises(
        UserError,
        match=r"main-0.json is of another configuration \(flags was .*--spr_beta 0.5.*, is .*--spr_beta 0.7",
    ) as caught:
        found.check()
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_a_budget_of_other_settings_is_named(tmp_path):
    """GRPO met the tokens of a main result that is no more."""
    found = study(tmp_path)
    kept(found, plan.GRPO)
    found.plan = dataclasses.replace(
        found.plan, common=found.plan.common.replace("--spr_epochs 2", "--spr_epochs 3")
    )
    with pytest.raises(
        UserError,
        match=r"GRPO-with-IoU-reward-0.json is of another configuration \(budget of was .*--spr_epochs 2",
    ):
        found.check()


@pytest.mark.parametrize("what", ["weights", "asked", "world"])
def test_results_of_other_models_or_scenes_are_named(tmp_path, what):
    found = study(tmp_path)
    kept(found, **{what: "other"})
    with pytest.raises(UserError, match=f"another configuration .{what} was other"):
        found.check()


def test_a_result_of_no_variant_is_named(tmp_path):
    found = study(tmp_path)
    found.results.mkdir()
    (found.results / "tuned-0.json").write_text("{}")
    with pytest.raises(UserError, match="tuned-0.json is of no variant"):
        found.check()


def test_a_changed_configuration_under_an_old_run_folder_is_named(tmp_path):
    found = study(tmp_path)
    run.write_json(
        found.work / "main-0" / "manifest.json", {**found.manifest("main", 0), "flags": "--spr_beta 9"}
    )
    with pytest.raises(
        UserError, match=r"test/main-0 is of another configuration \(flags was --spr_beta 9, is "
    ):
        found.trained("main", 0)


def test_an_analysis_of_another_configuration_is_named(tmp_path):
    found = study(tmp_path)
    run.write_json(found.why_file(0), {**found.manifest("main", 0), "flags": "--spr_beta 9"})
    with pytest.raises(
        UserError, match=r"why/main-0.json is of another configuration \(flags was --spr_beta 9, is "
    ):
        found.check()
    found.why_file(0).rename(found.why_file(7))
    with pytest.raises(UserError, match="why/main-7.json is of no variant"):
        found.check()


def test_an_analysis_needs_the_folder_of_its_unit(tmp_path, capfd):
    found = study(tmp_path)
    kept(found)
    found.why(0)
    assert "no analysis of main-0, since" in capfd.readouterr().err and not found.why_file(0).exists()


def test_scenes_of_another_plan_in_the_data_folder_are_named(tmp_path, small, monkeypatch):
    world_data.training_data(tmp_path, {**plan.SCENES, "seed": 0})
    monkeypatch.setitem(plan.SCENES, "spr", 14)
    with pytest.raises(UserError, match=r"data-seed-0 is of another configuration \(spr was 12, is 14\)"):
        world_data.training_data(tmp_path, {**plan.SCENES, "seed": 0})


@pytest.mark.slow
def test_the_command_line_refuses_in_one_line(tmp_path):
    kept(study(tmp_path), flags="--spr_beta 9")
    command = [
        sys.executable,
        ROOT / "examples/tiny_world/reproduce/run.py",
        "--tables",
        "--results",
        tmp_path / "results",
        "--out",
        tmp_path / "out",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("spr: error: reproduce: ") and "main-0.json" in line


# --- what is kept


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_a_kept_iou_passes_the_thresholds_that_it_passed(overlaps):
    items = [{"iou": overlap} for overlap in [*overlaps, *run.figures.metrics.THRESHOLDS]]
    document = {"id": "7-0", "image": "images/test/000007.png", "items": items}
    (rows,) = result_files.condensed([document])["pictures"].values()
    for threshold in run.figures.metrics.THRESHOLDS:
        assert [row >= threshold for row in rows] == [item["iou"] >= threshold for item in items]


def test_samples_are_kept_in_the_order_of_what_was_asked():
    """Whichever answer came first: other facts about the same expressions are found by their place."""
    details = [
        {"id": f"7-{place}", "image": "images/test/000007.png", "items": [{"iou": place / 10}]}
        for place in range(7)
    ]
    for order in (details, details[::-1], details[3:] + details[:3]):
        assert result_files.condensed(order)["pictures"] == {"000007": [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}


def test_true_areas_are_kept_as_the_samples_are_where_they_are_asked_for():
    details = [
        {
            "id": f"7-{place}",
            "image": "images/test/000007.png",
            "items": [{"iou": 0.5, "area": 100.04001 + place}],
        }
        for place in range(3)
    ]
    assert result_files.condensed(details[::-1], areas=True)["areas"] == {"000007": [100.04, 101.04, 102.04]}
    assert set(result_files.condensed(details)) == {"figures", "pictures"}


# --- tables


def unit(name, seed=0, rec=None, weights=None) -> dict:
    """A result by hand: picture → IoUs, or figures' sums and weights of a description."""
    found = {"variant": name, "seed": seed, "samples": {}}
    if rec:
        found["samples"]["spr_tiny_world_rec"] = {"figures": ["IoU"], "pictures": rec}
    if weights:
        found["samples"]["spr_tiny_world_description"] = {"figures": ["mIoU"], "pictures": weights}
    return found


def test_gains_agree_with_numbers_by_hand():
    base = unit("base", rec={"a": [0.95, 0.4], "b": [0.55]})
    seeds = [
        unit("main", 0, {"a": [0.95, 0.6], "b": [0.92]}),
        unit("main", 1, {"a": [0.5, 0.4], "b": [0.91]}),
    ]
    rows = paired.gains([base], seeds, "rec")
    assert rows["Acc@0.5"]["a"] == pytest.approx(2 / 3) and rows["Acc@0.5"]["b"] == pytest.approx(5 / 6)
    assert rows["Acc@0.9"]["gain"] == pytest.approx(3 / 6 - 1 / 3)
    assert rows["mIoU"]["gain"] == pytest.approx(
        (0.95 + 0.6 + 0.92 + 0.5 + 0.4 + 0.91) / 6 - (0.95 + 0.4 + 0.55) / 3
    )
    assert rows["growth"]["gain"] == pytest.approx(rows["Acc@0.9"]["gain"] - rows["Acc@0.5"]["gain"])
    assert (rows["Acc@0.9"]["n"], rows["Acc@0.9"]["seeds"]) == (3, 2)


def test_figures_of_unlike_weights_are_ratios_of_sums():
    base, other = (
        unit("base", weights={"1": [[2, 4]], "2": [[1, 1]]}),
        unit("main", weights={"1": [[3, 4]], "2": [[0, 2]]}),
    )
    (row,) = paired.gains([base], [other], "description").values()
    assert (row["a"], row["b"]) == (pytest.approx(3 / 5), pytest.approx(3 / 6))


def test_intervals_draw_seeds():
    """All pictures alike: with two seeds that gain 0 and 1, the mean of two drawn seeds is 0, 1/2 or 1, its
    95 % interval all of that.
    """
    pictures = [str(place) for place in range(50)]
    base = unit("base", rec={p: [0.3] for p in pictures})
    seeds = [unit("main", seed, {p: [value] for p in pictures}) for seed, value in enumerate((0.3, 0.95))]
    both = paired.gains([base], seeds, "rec")["Acc@0.9"]
    assert (both["gain"], both["low"], both["high"]) == (0.5, 0.0, 1.0)
    one = paired.gains([base], seeds[1:], "rec")["Acc@0.9"]
    assert (one["low"], one["high"]) == (1.0, 1.0)


def test_intervals_draw_whole_pictures():
    """Half of the pictures gain: the interval is the binomial's, for pictures, whatever the number of
    expressions in each.
    """
    rng = np.random.default_rng(0)
    gained = rng.permutation(400) < 200
    base = unit("base", rec={str(p): [0.3] * 5 for p in range(400)})
    other = unit("main", rec={str(p): [0.95 if gained[p] else 0.3] * 5 for p in range(400)})
    row = paired.gains([base], [other], "rec")["Acc@0.9"]
    assert (row["high"] - row["low"]) / 2 == pytest.approx(1.96 * 0.5 / 400**0.5, rel=0.1)


def test_the_same_seed_is_drawn_on_both_sides():
    """Two variants that differ by 0.1 on every seed, the seeds by far more: the interval of their difference
    is narrow.
    """
    first = [unit("a", seed, {"p": [level]}) for seed, level in enumerate((0.1, 0.5, 0.8))]
    second = [unit("b", seed, {"p": [level + 0.1]}) for seed, level in enumerate((0.1, 0.5, 0.8))]
    row = paired.gains(first, second, "rec")["mIoU"]
    assert row["low"] == pytest.approx(0.1) == row["high"]


def test_units_about_other_pictures_are_refused():
    with pytest.raises(UserError, match="base and main were not asked about the same pictures"):
        paired.gains([unit("base", rec={"a": [0.5]})], [unit("main", rec={"b": [0.5]})], "rec")


def test_written_tables_name_missing_seeds_and_hold_the_gains(tmp_path):
    pictures = [str(place) for place in range(40)]
    samples = {
        f"spr_tiny_world_{task}": {"figures": ["IoU"], "pictures": {p: [0.6] for p in pictures}}
        for task in ("rec", "phrases")
    }
    samples["spr_tiny_world_description"] = {"figures": ["mIoU"], "pictures": {p: [[2, 4]] for p in pictures}}
    samples |= {
        f"spr_tiny_world_{task}": {"figures": ["accuracy"], "pictures": {p: [[1, 1]] for p in pictures}}
        for task in ("presence", "color")
    }
    better = {
        **samples,
        "spr_tiny_world_rec": {"figures": ["IoU"], "pictures": {p: [0.95] for p in pictures}},
    }
    results = tmp_path / "results"
    written = [("base", {"variant": "base"}, samples)]
    written += [(f"main-{seed}", {"variant": "main", "seed": seed}, better) for seed in (0, 2)]
    for name, manifest, held in written:
        result_files.write_result(results / f"{name}.json", manifest, held)
    text = tables.write(results, tmp_path)
    written = json.loads((tmp_path / "reproduction.json").read_text())
    assert [written[f"gain_at_{t}"] for t in (0.5, 0.6, 0.7, 0.8, 0.9)] == [0, 0, 1, 1, 1]
    assert (
        written["seeds"] == [0, 2]
        and written["missing"]["main"] == [1]
        and written["missing"]["lambda 0"] == [0, 1, 2]
    )
    assert "**Missing, not averaged over**: main (seed 1); SFT on chosen (seed 0, 1, 2)" in text
    assert "| Acc@0.9 | 0.0 | 100.0 | +100.0 | +100.0 … +100.0 |" in text
    assert "| 0.6 | 0.0 | 0.0 | 0.0 | 0.0 | 0.0 | 100.0 |" in text  # every expression went from 0.6 to 0.95
    verdicts = [claim["verdict"] for claim in written["claims"].values()]
    # the mean IoU of descriptions stays as it is to the last bit: that it rises is not shown
    assert verdicts == ["yes", "yes", "yes", "open", "not measured", "not measured", "yes"]
    assert "| yes | Acc@0.9 +100.0 (+100.0 … +100.0) | 2 |" in text and "| not measured |  |  |" in text
    assert (tmp_path / "reproduction-threshold.svg").read_text().startswith("<svg")
    assert (tmp_path / "reproduction.md").read_text() == text


def test_the_table_of_gains_and_losses_says_what_was_not_measured(tmp_path):
    (tmp_path / "results").mkdir()
    tables.write(tmp_path / "results", tmp_path)
    shown = tables.state(json.loads((tmp_path / "reproduction.json").read_text()))
    assert shown.count("| not measured |") == shown.count("\n| ") > 10


def test_grpo_stands_beside_spr_with_what_both_spent(tmp_path):
    kinds = {task: {"figures": ["accuracy"], "pictures": {"p": [[1, 2]]}} for task in tables.TITLES}
    kinds["rec"] = {"figures": ["IoU"], "pictures": {"p": [0.6, 0.95]}}
    all_tasks = {f"spr_tiny_world_{task}": one for task, one in kinds.items()}
    worse = {**all_tasks, "spr_tiny_world_rec": {"figures": ["IoU"], "pictures": {"p": [0.6, 0.85]}}}
    spent = {
        "tokens": {"generated": 400, "trained": 130},
        "tokens of SPR": {"generated": 410, "trained": 128},
    }
    results = tmp_path / "results"
    result_files.write_result(results / "base.json", {"variant": "base"}, worse)
    result_files.write_result(
        results / "main-0.json", {"variant": "main", "seed": 0, "training seconds": 50}, all_tasks
    )
    assert f"## SPR against {plan.GRPO}" not in tables.write(results, tmp_path)
    result_files.write_result(
        results / "grpo-0.json", {"variant": plan.GRPO, "seed": 0, "GRPO": spent}, worse
    )
    text = tables.write(results, tmp_path)
    assert "| SPR | 410 | 128 | 50 |" in text and "| GRPO | 400 | 130 | not known |" in text
    assert "| Acc@0.9 | 0.0 | 50.0 | 0.0 | -50.0 | -50.0 … -50.0 | loses |" in text


# --- the real thing


@pytest.mark.slow
def test_a_small_study_from_end_to_end(tmp_path, small, capfd):
    """A run that was cut off, gone on with and measured; a variant that is lent its answers; GRPO with as
    many tokens; the base, measured once.
    """
    pytest.importorskip("llava")
    found = study(tmp_path)
    few = (
        f"{found.plan.common} --spr_regions 8 --spr_samples 1 --spr_min_kept 0 --spr_probe_regions 0"
        " --spr_max_new_tokens 60"
    )
    whole = plan.VARIANTS[plan.GRPO]
    small_steps = whole.flags.replace("--per_device_train_batch_size 128", "--per_device_train_batch_size 16")
    variants = {**plan.VARIANTS, plan.GRPO: dataclasses.replace(whole, flags=small_steps)}
    found.plan = dataclasses.replace(
        found.plan, variants=variants, common=few, units=(("main", 0), ("SFT on chosen", 0), (plan.GRPO, 0))
    )
    (tmp_path / "out/test/main-0").mkdir(parents=True)
    run.write_json(tmp_path / "out/test/main-0/manifest.json", found.manifest("main", 0))
    found.run()
    assert "main-0 was cut off and goes on" in capfd.readouterr().err
    assert sorted(file.name for file in found.results.iterdir()) == [
        "GRPO-with-IoU-reward-0.json",
        "SFT-on-chosen-0.json",
        "base.json",
        "main-0.json",
        "why",
    ]
    candidates = [
        (tmp_path / "out/test" / name / "llava/spr/candidates/rank-00000.jsonl").read_text()
        for name in ("main-0", "SFT-on-chosen-0")
    ]
    assert sorted(candidates[0].splitlines()) == sorted(candidates[1].splitlines())
    found.check()
    kept = {
        file.stem: {task for task, one in run.read_json(file)["samples"].items() if "areas" in one}
        for file in found.results.glob("*.json")
    }
    assert kept.pop("base") == {plan.REC} and not any(kept.values())
    assert "NaN" not in found.why_file(0).read_text()
    why, reference = (
        run.read_json(found.why_file(0)),
        runs.open(tmp_path / "out/test/main-0/llava").records("reference"),
    )
    rows = {row["figure"]: row for row in why["log_probs"]}
    for side in (
        "chosen",
        "rejected",
    ):  # the base's log-probs are those that the stage itself computed at its entry
        total = sum(
            rows[f"{kind} of {side}, base"]["value"] * rows[f"{kind} of {side}, base"]["n"]
            for kind in run.analysis.KINDS
        )
        assert total == pytest.approx(sum(record[side] for record in reference.values()), rel=1e-5)
        assert all(rows[f"{kind} of {side}, change"]["value"] != 0 for kind in run.analysis.KINDS)
    said = {row["figure"]: row["value"] for row in why["pairs"]}
    assert 0 < said["IoU of chosen before refinement"] < said["IoU of chosen"] <= 1
    files = (tmp_path / f"out/data-test-{plan.TEST.seed}/refcoco").iterdir()
    asked = sum(len(file.read_text().splitlines()) for file in files)
    assert {row["n"] for row in why["flips"] if row["part"] == "all"} == {asked} and asked > 50
    assert len(why["scores"]) == 12
    text = tables.write(found.results, tmp_path)
    met = {name: one["met"] for name, one in run.read_json(tmp_path / "reproduction.json")["targets"].items()}
    assert [name for name, one in met.items() if one is None] == ["round2_0.9", "round2_0.5"]
    assert "## Why" in text and "| coordinates of chosen, change |" in text
    assert "| SFT on chosen | 0 |" in text and "| false_yes |" in text
    ours = run.read_json(found.results / "GRPO-with-IoU-reward-0.json")
    spent, budget = ours["GRPO"]["tokens"], ours["GRPO"]["tokens of SPR"]
    assert (
        all(spent[kind] == pytest.approx(budget[kind], rel=0.1) for kind in budget)
        and ours["training seconds"] > 0
    )
    assert (
        f"| GRPO | {spent['generated']} | {spent['trained']} | {ours['training seconds']} |" in text
        and "| SPR |" in text
    )
    assert (
        paired.gains(
            [run.read_json(found.results / "base.json")],
            [run.read_json(found.results / "main-0.json")],
            "rec",
        )["Acc@0.5"]["n"]
        == asked
    )
