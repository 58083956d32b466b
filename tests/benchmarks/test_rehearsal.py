"""`make rehearsal` in small: each shape, two narrow layers deep, through the same scripts and loaders."""

import dataclasses
import importlib
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from spr_plugin.errors import UserError
from spr_plugin.files import read_json
from spr_plugin.forecast import LLAVA_7B, STAGES

ROOT = Path(__file__).parents[2]
REHEARSAL, TINY = ROOT / "benchmarks" / "rehearsal", ROOT / "examples" / "tiny_world"
NAMES = ("llava-1.5-7b", "onevision-14-layers", "qwen2.5-vl-3b")
MEASURED = ("start", "entry", "sampling", "scoring", "dpo", "probe", "save", "load")


@pytest.fixture
def module(monkeypatch):
    """``module("shapes")`` → that module of the rehearsal; none of their plain names is left behind, and
    those of other scripts, `run` above all, are there again.
    """
    monkeypatch.syspath_prepend(str(REHEARSAL))
    names = [path.stem for path in REHEARSAL.glob("*.py")]
    others = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    before = {*sys.modules}
    yield importlib.import_module
    for name in {*sys.modules} - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith((str(REHEARSAL), str(TINY))):
            del sys.modules[name]
    sys.modules.update(others)


# --- whole


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory) -> Path:
    """The folder of a rehearsal of all shapes, reduced, whose figures are in ``rehearsal.json``."""
    folder = tmp_path_factory.mktemp("rehearsal")
    words = [sys.executable, REHEARSAL / "run.py", "--reduced", "--folder", folder]
    done = subprocess.run(
        [*words, "--json", folder / "rehearsal.json"], capture_output=True, text=True, timeout=1800
    )
    logs = {path: path.read_text()[-2000:] for path in folder.glob("*/*.log")}
    assert done.returncode == 0, f"{done.stderr[-3000:]}\n{logs}"
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_shape_goes_from_weights_to_its_loader(rehearsed, name):
    figures = read_json(rehearsed / "rehearsal.json")[name]
    for stage in MEASURED:
        told = figures[stage]
        assert told["peak_rss"] > 0 and told["seconds"] > 0 and told["bytes"] >= 0, stage
    assert {stage for stage in MEASURED if "forecast" in figures[stage]} == {*STAGES}
    assert all(figures[stage]["forecast"] > 0 for stage in STAGES)
    # in small the entry is written between two looks, and may count to a neighbour
    assert sum(figures[stage]["bytes"] for stage in MEASURED[:3]) > 5_000 < figures["save"]["bytes"]
    assert figures["start"]["peak_rss"] > figures["imported"] / 2 > 1e8
    assert figures["steps"] == 2 and figures["pairs"] == 9 and figures["parameters"] > 1e5
    (log,) = (rehearsed / name).glob("*/spr/dpo/log.jsonl")
    assert [("probe/s_loc" in line) for line in log.read_text().splitlines()] == [True, False, True]
    assert "--spr_plugin answers.py" in figures["changed"]
    assert not any(str(rehearsed) in change for change in figures["changed"])
    assert (figures["plan"]["prompt"] > 0) and figures["shape"]["vocabulary"] == 1500


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_all_weights_were_found_and_bf16_ones_held(rehearsed, name):
    """What a loader misses it draws anew, and only says so."""
    for log in ("run.log", "load.log"):
        printed = (rehearsed / name / log).read_text()
        assert "MISSING" not in printed and "newly initialized" not in printed, log
    assert "DPO rows: chosen and rejected share their prompt" in (rehearsed / name / "run.log").read_text()


@pytest.mark.slow
def test_the_page_shows_each_shape_with_its_changes(rehearsed, monkeypatch):
    tables = runpy.run_path(str(ROOT / "docs" / "generate.py"))["benchmark_tables"]
    monkeypatch.setattr(tables, "RESULTS", rehearsed)
    head, _, *rows = tables.rehearsal().splitlines()
    assert [stage.strip() for stage in head.split("|")[2:-1]] == [*MEASURED]
    for name in NAMES:
        (row,) = [row for row in rows if row.startswith(f"| {name} ")]
        assert re.fullmatch(r"0\.\d GiB \(0\.0\), \d\.\d min, 0\.00 GB", row.split("|")[4].strip())
        (changes,) = [row for row in rows if row.startswith(f"* {name}: ")]
        assert "`--spr_max_new_tokens 8`" in changes
    monkeypatch.setattr(tables, "RESULTS", rehearsed / "none")
    assert tables.rehearsal() == "No true shape has been measured yet."


# --- its parts


@pytest.mark.slow
def test_true_shapes_are_as_large_as_they_are_published(module):
    shapes, weights = module("shapes"), module("weights")
    counts = {name: weights.numbers(weights.model_sizes(one)) for name, one in shapes.TRUE.items()}
    assert counts["llava-1.5-7b"] == 6_738_415_616 + 20_979_712
    assert counts["qwen2.5-vl-3b"] == 3_754_622_976
    layer = 233_057_792  # a layer of Qwen2-7B
    assert counts["onevision-14-layers"] == 7_615_616_512 - 14 * layer
    one = shapes.TRUE["llava-1.5-7b"]
    tower = weights.numbers(weights.tower_sizes(one))
    scorer = weights.numbers(weights.clip_sizes(one))
    shape = shapes.shape_of(one, 2 * (counts["llava-1.5-7b"] + tower), scorer)
    assert (tower, shape.scorer) == (303_507_456, LLAVA_7B.scorer)
    saved = shape.trained * 4  # the adapter alone
    assert dataclasses.replace(LLAVA_7B, saved=saved) == shape


def test_weights_are_written_in_shards_and_once(module, tmp_path, monkeypatch):
    shapes, weights = module("shapes"), module("weights")
    monkeypatch.setattr(weights, "SHARD", 200_000)
    one = shapes.REDUCED["llava-1.5-7b"]
    weights.write(one, tmp_path)
    folder = tmp_path / weights.checkpoint_name(one)
    files = sorted(folder.glob("*.safetensors"))
    index = read_json(folder / "model.safetensors.index.json")
    assert len(files) > 2 and {*index["weight_map"].values()} == {file.name for file in files}
    assert {*index["weight_map"]} == {*weights.model_sizes(one)}
    times = [file.stat().st_mtime_ns for file in files]
    weights.write(one, tmp_path)
    assert [file.stat().st_mtime_ns for file in files] == times
    weights.write(dataclasses.replace(one, language={**one.language, "num_hidden_layers": 1}), tmp_path)
    assert files[0].stat().st_mtime_ns != times[0]


def test_tokenizers_have_their_true_size(module, tmp_path):
    from transformers import AutoTokenizer

    weights = module("weights")
    weights.vocabulary.write_llava(tmp_path)
    weights.fill(tmp_path, 32000)
    tokens = AutoTokenizer.from_pretrained(tmp_path, use_fast=False)
    text = "a red circle [0.25, 0.5, 0.75, 1.0] and a large cardboard box"
    assert len(tokens) == 32000 and tokens.decode(tokens(text).input_ids, skip_special_tokens=True) == text
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor(str(tmp_path / "tokenizer.model"))
    assert pieces.vocab_size() == 32000 and pieces.encode(text) == tokens(text).input_ids[1:]


def test_a_shape_that_has_no_room_is_refused_in_a_line(module, tmp_path):
    """More layers than any machine's 20 GiB hold; nothing is written."""
    shapes, run = module("shapes"), module("run")
    one = shapes.TRUE["llava-1.5-7b"]
    deep = dataclasses.replace(one, language={**one.language, "num_hidden_layers": 60})
    with pytest.raises(UserError, match=r"deep: needs \d\d\.\d GiB of memory, \d+\.\d are free for it"):
        run.needed("deep", deep, tmp_path / "deep")
    assert not (tmp_path / "deep").exists()


def test_what_is_changed_of_a_command_is_told(module):
    commands = module("commands")
    page = commands.flags_of(commands.shown("deepspeed llava/train/train_mem.py"))
    assert page["--lora_r"] == "128" and page["--spr"] == ""
    flags, told = commands.changed(
        page,
        {
            "--lora_r": "16",
            "--bf16": "True",
            "--deepspeed": None,
            "--spr_only": "",
            "--data_path": "/a/b.json",
        },
    )
    assert flags["--lora_r"] == "16" and "--deepspeed" not in flags and flags["--spr_only"] == ""
    assert told[:2] == ["--lora_r 16 (the page: 128)", "no --deepspeed"] and "--spr_only" in told
    assert not any("bf16" in one or "/a" in one for one in told)
    assert commands.flags_of(commands.words_of(flags)) == flags


def test_a_stage_has_its_own_peak_and_bytes(module):
    watching = module("watching")
    Look = watching.Look
    # a peak of 9 lies astride the boundary at 2.5, one of 7 in the stage that comes again
    looks = [Look(0, 1, 4, 10), Look(1, 2, 6, 20), Look(2, 3, 9, 30), Look(3, 4, 5, 40), Look(4, 5, 7, 90)]
    watched = watching.Watched(0.0, 5.0, looks)
    told = watching.by_stage(watched, [("a", 0.0), ("b", 2.5), ("a", 4.0)])
    assert told["a"] == {"peak_rss": 7, "seconds": 3.5, "bytes": 30 + 50}
    assert told["b"] == {"peak_rss": 5, "seconds": 1.5, "bytes": 10}
    short = watching.by_stage(watched, [("a", 0.0), ("b", 2.2), ("c", 2.4)])
    assert short["b"]["peak_rss"] == 9


def test_memory_written_files_and_lines_of_a_real_command(module, tmp_path):
    watching = module("watching")
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_bytes(bytes(7000))  # not this command's
    code = f"""
import pathlib, time
held = bytearray(200 << 20)
time.sleep(0.5)
del held
print("freed", flush=True)
a = pathlib.Path({str(out)!r}) / "a"
a.write_bytes(bytes(5000))
time.sleep(0.5)
a.rename(a.with_name("b"))
a.with_name("c").write_bytes(bytes(300))
time.sleep(0.5)"""
    words = [sys.executable, "-c", code]
    limits = watching.Limits(60, 1 << 30)
    seen = watching.watch(words, tmp_path, {}, out, tmp_path / "log", limits)
    told = watching.by_stage(seen, [("before", seen.start), ("after", seen.said("freed"))])
    assert told["before"]["peak_rss"] > 200 << 20 > told["after"]["peak_rss"] > 0
    assert told["before"]["bytes"] + told["after"]["bytes"] == 5300
    with pytest.raises(UserError, match="more than 0 GiB of memory"):
        watching.watch(words, tmp_path, {}, out, tmp_path / "log", watching.Limits(60, 100 << 20))
    with pytest.raises(UserError, match="status 3"):
        watching.watch([sys.executable, "-c", "exit(3)"], tmp_path, {}, out, tmp_path / "log", limits)
