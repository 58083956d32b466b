"""Candidates from a server: against a real HTTP server, with every fault that servers have, and up to a training run that takes them up."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spr_plugin import server as spr_server
from spr_plugin.cli import commands
from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.formats import box_format
from spr_plugin.pipeline import write_regions
from spr_plugin.sample_alone import adopt
from spr_plugin.store import Log

spec = importlib.util.spec_from_file_location("chat_server", Path(__file__).with_name("chat_server.py"))
chat = importlib.util.module_from_spec(spec)
spec.loader.exec_module(chat)

REGIONS = 5
ASKED = REGIONS * 3 * 2
MANY = ("--spr_samples", "8")


@pytest.fixture(scope="module")
def world(tiny_world):
    return tiny_world(sft=4, spr=8)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Back-off in milliseconds."""
    import openai._base_client

    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr(openai._base_client, "MAX_RETRY_DELAY", 0.05)


def sample(world, out, url, *flags):
    """``spr sample`` in this process."""
    commands([*words_of(world, out, url), *flags], standalone_mode=False)
    return Log(out / "candidates").read()


def words_of(world, out, url) -> list[str]:
    return f"""sample --out {out} --spr_annotations {world}/spr.json --spr_image_folder {world}/images --spr_box_format llava
        --spr_regions {REGIONS} --spr_sampler_url {url}""".split()


def test_another_configuration_is_told_in_the_command_s_own_flags(world, tmp_path):
    with chat.ChatServer() as server:
        sample(world, tmp_path / "c", server.url)
        with pytest.raises(UserError, match=r"--spr_seed was 0, is 1\); take another --out$"):
            sample(world, tmp_path / "c", server.url, "--spr_seed", "1")


def test_what_the_server_is_asked(world, tmp_path):
    """Every prompt with its picture, cropped where it shows a crop; a seed of its own for each candidate; several at once."""
    with chat.ChatServer() as server:
        records = sample(world, tmp_path / "c", server.url, "--spr_temperature", "0.7", "--spr_top_p", "0.9", "--spr_top_k", "5")
    assert len(records) == len(server.seen) == ASKED and 1 < server.most_at_once <= 16
    regions = Log(tmp_path / "c" / "regions").read()
    whole = {(r["image"]["width"], r["image"]["height"]) for r in regions.values()}
    assert {size for text, size, _ in server.seen if "region" in text} == whole
    assert {size for text, size, _ in server.seen if "image" in text} - whole
    bodies = [body for *_, body in server.seen]
    assert len({body["seed"] for body in bodies}) == ASKED
    assert {(b["model"], b["temperature"], b["top_p"], b["top_k"], b["max_tokens"]) for b in bodies} == {("tiny", 0.7, 0.9, 5, 256)}
    plain = [record for record in records.values() if record["kind"] != "crop"]
    assert all(record["raw"] == record["text"] == record["raw"].strip() for record in plain)
    assert any(record["raw"] != record["text"] for record in records.values() if record["kind"] == "crop")


def test_a_server_is_not_needed_where_nothing_is_missing(world, tmp_path):
    with chat.ChatServer() as server:
        records = dict(sample(world, tmp_path / "c", server.url))
    assert dict(sample(world, tmp_path / "c", server.url)) == records


def test_faults_are_asked_again_and_leave_no_trace(world, tmp_path):
    with chat.ChatServer() as server:
        calm = dict(sample(world, tmp_path / "calm", server.url))
    faults = {0: 429, 1: "drop", 2: 500, 3: 503, 5: "hang", 7: "drop", 11: 429, 12: 429, 20: 500}
    with chat.ChatServer(faults) as server:
        records = sample(world, tmp_path / "faulty", server.url, "--spr_sampler_timeout", "1")
    assert dict(records) == calm
    assert server.count == ASKED + len(faults) and len(server.seen) == ASKED


@pytest.mark.parametrize("fault, flags, words", [(500, (), "told to answer 500"), ("hang", ("--spr_sampler_timeout", "0.2"), "timed out"), ("drop", (), "Connection"), (401, (), "401")])
def test_a_server_that_stays_away_is_one_line_and_the_rest_is_asked_later(world, tmp_path, monkeypatch, fault, flags, words):
    monkeypatch.setattr(spr_server, "RETRIES", 2)
    broken = {number: fault for number in range(10, 1000)}
    with chat.ChatServer(broken) as server:
        with pytest.raises(UserError, match=f"--spr_sampler_url http://127.0.0.1:{server.server_port}/v1: .*{words}.*run the same command again"):
            sample(world, tmp_path / "c", server.url, *flags)
    kept = dict(Log(tmp_path / "c" / "candidates").read())
    assert 0 < len(kept) <= 10
    with chat.ChatServer() as server:
        records = sample(world, tmp_path / "c", server.url)
    assert len(server.seen) == ASKED - len(kept) and len(records) == ASKED
    assert {id: records[id] for id in kept} == kept


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
from spr_plugin.cli import main
main()
"""


def test_a_disk_that_is_full_in_the_middle(world, tmp_path):
    """The kernel takes a part of a record and refuses the rest; the same command finishes when there is room."""
    with chat.ChatServer() as server:
        calm = dict(sample(world, tmp_path / "calm", server.url, *MANY))
    room = Log(tmp_path / "calm" / "candidates").path.stat().st_size // 2
    assert Log(tmp_path / "calm" / "regions").path.stat().st_size < room
    with chat.ChatServer() as server:
        words = [*words_of(world, tmp_path / "full", server.url), *MANY]
        done = subprocess.run([sys.executable, "-c", FULL, str(room), *words], capture_output=True, text=True)
    kept = dict(Log(tmp_path / "full" / "candidates").read())
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("spr: error:")]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{tmp_path}/full/candidates/rank-00000.jsonl: File too large; what was written before is safe" in line and 0 < len(kept) < len(calm)
    with chat.ChatServer() as server:
        assert dict(sample(world, tmp_path / "full", server.url, *MANY)) == calm
    assert len(server.seen) == len(calm) - len(kept)


def test_no_server_at_all(world, tmp_path, monkeypatch):
    monkeypatch.setattr(spr_server, "RETRIES", 1)
    with pytest.raises(UserError, match="--spr_sampler_url http://127.0.0.1:9/v1: Connection error"):
        sample(world, tmp_path / "c", "http://127.0.0.1:9/v1")
    assert not (tmp_path / "c").exists()  # nothing is bound: the mended command may be another one
    with pytest.raises(UserError, match="no usable region"):
        sample(world, tmp_path / "c", "http://127.0.0.1:9/v1", "--spr_min_objects", "99")
    assert not (tmp_path / "c").exists()


def test_taking_up_candidates_is_refused_where_they_do_not_fit(world, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(world / "images", elsewhere)

    def take_up(run="run", form=box_format("llava", "pad"), **changed):
        settings = dict(spr=True, spr_regions=REGIONS, spr_annotations=f"{world}/spr.json", spr_image_folder=str(elsewhere), spr_candidates=str(tmp_path / "c"))
        config = SPRConfig(**{**settings, **changed})
        write_regions(tmp_path / run, config, form, None, None)
        adopt(config, form, tmp_path / run)

    with pytest.raises(UserError, match="no manifest.json"):
        take_up()
    with chat.ChatServer() as server:
        sample(world, tmp_path / "c", server.url)
    log = Log(tmp_path / "c" / "candidates")
    whole = log.path.read_bytes()
    log.path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=f"holds {ASKED - 1} of {ASKED} candidates"):
        take_up()
    log.path.write_bytes(whole)
    with pytest.raises(UserError, match="spr_seed was 0, is 1"):
        take_up("other seed", spr_seed=1)
    with pytest.raises(UserError, match="box was"):
        take_up("other boxes", box_format("shikra", "pad"))
    coco = json.loads(Path(world / "spr.json").read_text())
    for annotation in coco["annotations"]:
        annotation["bbox"][2] -= 1
    (tmp_path / "narrower.json").write_text(json.dumps(coco))
    with pytest.raises(UserError, match=f"differ in {REGIONS} of {REGIONS} regions: give both the same annotations"):
        take_up("narrower", spr_annotations=str(tmp_path / "narrower.json"))
    take_up()
    assert dict(Log(tmp_path / "run" / "candidates").read()) == dict(log.read())
    paths = [record["image"]["path"] for record in Log(tmp_path / "run" / "regions").read().values()]
    assert len(paths) == REGIONS and all(path.startswith(f"{elsewhere}/spr/") for path in paths)
    shutil.rmtree(tmp_path / "c")
    take_up()  # they are the run's own by now


@pytest.mark.slow
def test_a_training_run_takes_them_up_and_asks_nothing(world, tmp_path):
    """The whole command, with `spr sample`'s folder in place of sampling."""
    from tests.hosts.launch import command, run, spr_flags

    with chat.ChatServer() as server:
        records = dict(sample(world, tmp_path / "c", server.url, "--spr_image_folder", f"{world}/images"))
    flags = spr_flags(world)
    flags[flags.index("--spr_regions") + 1] = str(REGIONS)
    run(command(world, tmp_path / "llava", *flags, "--spr_only", "--spr_candidates", tmp_path / "c"))
    spr = tmp_path / "llava" / "spr"
    assert dict(Log(spr / "candidates").read()) == records
    assert len(Log(spr / "scores").read()) == REGIONS and (spr / "report.html").exists()
    assert json.loads((spr / "exit.json").read_text())["weights"]
