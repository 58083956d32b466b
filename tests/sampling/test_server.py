"""Candidates from a server: against a real HTTP server, with every fault that servers have, and up to a
training run that takes them up.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spr_plugin.cli import commands, main
from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.formats import box_format
from spr_plugin.queries import find_queries, log_queries
from spr_plugin.recipes.base import Source
from spr_plugin.recipes.find import find_recipe
from spr_plugin.runs.layout import Folder
from spr_plugin.runs.log import Log
from spr_plugin.sampling import server as spr_server
from spr_plugin.sampling.alone import import_candidates

from . import chat_server as chat
from .chat_server import MALFORMED, PAGE

REGIONS = 5
ASKED = REGIONS * 3 * 2
MANY = ("--spr_samples", "8")


@pytest.fixture(scope="module")
def world(tiny_world):
    return tiny_world(sft=4, spr=8)


@pytest.fixture(scope="module")
def one_authority(tmp_path_factory) -> str:
    """A file of one certificate: reading all that a machine trusts takes longer than most tests here."""
    import certifi

    end = "-----END CERTIFICATE-----\n"
    file = tmp_path_factory.mktemp("trusted") / "ca.pem"
    file.write_text(Path(certifi.where()).read_text().partition(end)[0] + end)
    return str(file)


@pytest.fixture(autouse=True)
def quick(monkeypatch, one_authority):
    """Back-off in milliseconds."""
    import openai._base_client

    monkeypatch.setenv("SSL_CERT_FILE", one_authority)
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr(openai._base_client, "MAX_RETRY_DELAY", 0.05)
    monkeypatch.setattr(spr_server, "PAUSE", 0.01)


def sample(world, out, url, *flags):
    """``spr sample`` in this process."""
    commands([*words_of(world, out, url), *flags], standalone_mode=False)
    return Log(out / "candidates").read()


def words_of(world, out, url) -> list[str]:
    return f"""sample --out {out} --spr_annotations {world}/spr.json --spr_image_folder {world}/images --spr_box_format llava
        --spr_regions {REGIONS} --spr_sampler_url {url}""".split()  # noqa: E501


def test_other_flags_ask_again_for_what_they_shape_and_say_so(world, tmp_path, capsys):
    with chat.ChatServer() as server:
        first = dict(sample(world, tmp_path / "c", server.url))
        hotter = dict(sample(world, tmp_path / "c", server.url, "--spr_temperature", "0.5"))
        assert len(server.seen) == 2 * ASKED and hotter.keys() == first.keys()
        assert (
            f"--spr_temperature was 1.0, is 0.5: in {tmp_path}/c is made again: candidates ({ASKED} records"
            in capsys.readouterr().err
        )
        assert dict(Log(tmp_path / "c" / "candidates.replaced").read()) == first
        narrower = sample(world, tmp_path / "c", server.url, "--spr_seed", "1")
        assert not narrower.keys() & first.keys() and len(narrower) == ASKED
        # The same pictures elsewhere: the same regions, so nothing is asked again.
        shutil.copytree(world / "images", tmp_path / "moved")
        again = sample(
            world,
            tmp_path / "c",
            server.url,
            "--spr_seed",
            "1",
            "--spr_image_folder",
            str(tmp_path / "moved"),
        )
        assert dict(again) == dict(narrower) and len(server.seen) == 3 * ASKED


@pytest.mark.parametrize("aspect", ["sqare", "PAD", "9-1"])
def test_an_aspect_that_nobody_knows_is_refused(world, tmp_path, aspect):
    with chat.ChatServer() as server:
        with pytest.raises(UserError, match=f"^--aspect {aspect}: llava knows no aspect '{aspect}'"):
            sample(world, tmp_path / "c", server.url, "--aspect", aspect)
        assert server.count == 0 and not (tmp_path / "c").exists()


def test_another_aspect_is_told_without_a_flag_that_is_not_there(world, tmp_path, capsys):
    with chat.ChatServer() as server:
        sample(world, tmp_path / "c", server.url)
        sample(world, tmp_path / "c", server.url, "--aspect", "square")
    err = capsys.readouterr().err
    assert "box text was {" in err and "--box " not in err


def test_an_out_that_is_no_folder_is_known_before_the_server_is_asked(world, tmp_path):
    (tmp_path / "c").write_text("mine")
    with chat.ChatServer() as server:
        with pytest.raises(UserError, match="--out .*c: is there already, and is no folder"):
            sample(world, tmp_path / "c", server.url)
        with pytest.raises(UserError, match="--out .*spr.json: is there already"):
            sample(world, world / "spr.json", server.url)
        assert server.count == 0
    assert (tmp_path / "c").read_text() == "mine"


def test_fewer_regions_than_asked_for_are_said(world, tmp_path, capsys):
    with chat.ChatServer() as server:
        sample(world, tmp_path / "c", server.url, "--spr_regions", "1000", "--spr_prompts", "plain")
    made = len(Log(tmp_path / "c" / "queries").read())
    assert f"{made} regions are made of the 1000 asked for" in capsys.readouterr().err


def test_a_plugin_s_format_is_taken(world, tmp_path):
    """The advice of an unknown format, --spr_plugin FILE, is a flag of this command."""
    from spr_plugin import plugins

    with chat.ChatServer() as server:
        with pytest.raises(UserError, match="others come with --spr_plugin FILE"):
            sample(world, tmp_path / "c", server.url, "--spr_box_format", "odd")
        (tmp_path / "odd.py").write_text(
            "from spr_plugin.formats import llava\nfrom spr_plugin.hookspecs import"
            " hookimpl\n\n@hookimpl\ndef spr_box_format(family, aspect):\n    return llava(aspect) if family"
            " == 'odd' else None\n"
        )
        try:
            flags = ["--spr_box_format", "odd", "--spr_plugin", str(tmp_path / "odd.py")]
            assert sample(world, tmp_path / "c", server.url, *flags)
        finally:
            plugins.manager().unregister(name=str((tmp_path / "odd.py").resolve()))


def test_what_the_server_is_asked(world, tmp_path):
    """Every prompt with its picture, cropped where it shows a crop; a seed of its own for each candidate;
    several at once.
    """
    with chat.ChatServer() as server:
        records = sample(
            world,
            tmp_path / "c",
            server.url,
            "--spr_temperature",
            "0.7",
            "--spr_top_p",
            "0.9",
            "--spr_top_k",
            "5",
            "--spr_greedy",
            "False",
        )
    assert len(records) == len(server.seen) == ASKED and 1 < server.most_at_once <= 16
    regions = Log(tmp_path / "c" / "queries").read()
    whole = {(r["pictures"][0]["width"], r["pictures"][0]["height"]) for r in regions.values()}
    assert {size for text, size, _ in server.seen if "region" in text} == whole
    assert {size for text, size, _ in server.seen if "image" in text} - whole
    bodies = [body for *_, body in server.seen]
    assert len({body["seed"] for body in bodies}) == ASKED
    assert {(b["model"], b["temperature"], b["top_p"], b["top_k"], b["max_tokens"]) for b in bodies} == {
        ("tiny", 0.7, 0.9, 5, 256)
    }
    plain = [record for record in records.values() if record["kind"] != "crop"]
    assert all(record["raw"] == record["text"] == record["raw"].strip() for record in plain)
    assert any(record["raw"] != record["text"] for record in records.values() if record["kind"] == "crop")


def test_the_likeliest_answer_is_asked_for_at_temperature_0(world, tmp_path):
    with chat.ChatServer() as server:
        records = sample(world, tmp_path / "c", server.url, "--spr_greedy")
    regions = {record["query"] for record in records.values()}
    temperatures = [body["temperature"] for *_, body in server.seen]
    assert len(temperatures) == ASKED and temperatures.count(0) == len(regions)
    assert {text for text, _, body in server.seen if body["temperature"] == 0} <= {
        text for text, *_ in server.seen if "image" not in text and "contains" not in text
    }


def test_a_server_is_not_needed_where_nothing_is_missing(world, tmp_path):
    with chat.ChatServer() as server:
        records = dict(sample(world, tmp_path / "c", server.url))
    assert dict(sample(world, tmp_path / "c", server.url)) == records


def test_faults_are_asked_again_and_leave_no_trace(world, tmp_path):
    with chat.ChatServer() as server:
        calm = dict(sample(world, tmp_path / "calm", server.url))
    faults = {0: 429, 1: "drop", 2: 500, 3: 503, 5: "hang", 7: "drop", 11: 429, 12: 429, 20: 500}
    faults |= {4: "trickle", 21: "endless", 9: "slow headers"}
    with chat.ChatServer(faults) as server:
        records = sample(world, tmp_path / "faulty", server.url, "--spr_sampler_timeout", "1")
    assert dict(records) == calm
    assert server.count == ASKED + len(faults) and len(server.seen) == ASKED


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault, flags, words",
    [
        (500, (), "told to answer 500"),
        ("hang", ("--spr_sampler_timeout", "0.2"), "timed out"),
        ("trickle", ("--spr_sampler_timeout", "0.2"), "timed out"),
        ("slow headers", ("--spr_sampler_timeout", "0.2"), "timed out"),
        ("endless", (), "more than 16 MiB"),
        ("drop", (), "Connection.*without sending"),
        (401, (), "401"),
    ],
)
def test_a_server_that_stays_away_is_one_line_and_the_rest_is_asked_later(
    world, tmp_path, monkeypatch, fault, flags, words
):
    monkeypatch.setattr(spr_server, "RETRIES", 2)
    broken = dict.fromkeys(range(10, 1000), fault)
    with chat.ChatServer(broken) as server:
        where = f"--spr_sampler_url http://127.0.0.1:{server.server_port}/v1"
        with pytest.raises(UserError, match=f"{where}: .*{words}.*run the same command again"):
            sample(world, tmp_path / "c", server.url, *flags)
    kept = dict(Log(tmp_path / "c" / "candidates").read())
    assert 0 < len(kept) <= 10
    with chat.ChatServer() as server:
        records = sample(world, tmp_path / "c", server.url)
    assert len(server.seen) == ASKED - len(kept) and len(records) == ASKED
    assert {id: records[id] for id in kept} == kept


def serving(*names):
    """What a server says that serves these models."""
    return chat.Reply(
        json.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})
    )


def test_a_server_of_another_model_does_not_finish_what_one_has_begun(world, tmp_path, monkeypatch):
    """Its answers would stand among the first one's. Nothing is asked, and the first one may go on."""
    monkeypatch.setattr(spr_server, "RETRIES", 0)
    with chat.ChatServer(dict.fromkeys(range(10, 999), 500), models=serving("first")) as server:
        with pytest.raises(UserError, match="told to answer 500"):
            sample(world, tmp_path / "c", server.url)
    begun = dict(Log(tmp_path / "c" / "candidates").read())
    assert begun
    with chat.ChatServer(models=serving("second", "third")) as server:
        words = "serves second, and the candidates .* answered by first: .* --spr_sampler_model second"
        with pytest.raises(UserError, match=words):
            sample(world, tmp_path / "c", server.url)
        assert server.count == 0 and dict(Log(tmp_path / "c" / "candidates").read()) == begun
        anew = sample(world, tmp_path / "d", server.url)
        assert {body["model"] for *_, body in server.seen} == {"second"} and len(anew) == ASKED
    with chat.ChatServer(models=serving("second", "first")) as server:  # it serves both by now
        assert len(sample(world, tmp_path / "c", server.url)) == ASKED
        assert {body["model"] for *_, body in server.seen} == {"first"}


def test_a_named_model_samples_anew_and_is_what_goes_on(world, tmp_path):
    with chat.ChatServer(models=serving("first")) as server:
        sample(world, tmp_path / "c", server.url)
    with chat.ChatServer({20: 400}, models=serving("second")) as server:
        with pytest.raises(UserError, match="told to answer 400"):
            sample(world, tmp_path / "c", server.url, "--spr_sampler_model", "second")
        records = sample(world, tmp_path / "c", server.url, "--spr_sampler_model", "second")
        assert len(records) == ASKED and {body["model"] for *_, body in server.seen} == {"second"}


def test_where_nothing_was_answered_any_model_may_begin(world, tmp_path, monkeypatch):
    monkeypatch.setattr(spr_server, "RETRIES", 0)
    with chat.ChatServer({"always": 500}, models=serving("first")) as server:
        with pytest.raises(UserError, match="told to answer 500"):
            sample(world, tmp_path / "c", server.url)
    with chat.ChatServer(models=serving("second")) as server:
        assert len(sample(world, tmp_path / "c", server.url)) == ASKED


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
from spr_plugin.cli import main
main()
"""


@pytest.mark.slow
def test_a_disk_that_is_full_in_the_middle(world, tmp_path):
    """The kernel takes a part of a record and refuses the rest; the same command finishes when there is
    room.
    """
    with chat.ChatServer() as server:
        calm = dict(sample(world, tmp_path / "calm", server.url, *MANY))
    room = Log(tmp_path / "calm" / "candidates").path.stat().st_size // 2
    assert Log(tmp_path / "calm" / "queries").path.stat().st_size < room
    with chat.ChatServer() as server:
        words = [*words_of(world, tmp_path / "full", server.url), *MANY]
        done = subprocess.run([sys.executable, "-c", FULL, str(room), *words], capture_output=True, text=True)
    kept = dict(Log(tmp_path / "full" / "candidates").read())
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("spr: error:")]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert (
        f"{tmp_path}/full/candidates/rank-00000.jsonl: File too large; what was written before is safe"
        in line
        and 0 < len(kept) < len(calm)
    )
    with chat.ChatServer() as server:
        assert dict(sample(world, tmp_path / "full", server.url, *MANY)) == calm
    assert len(server.seen) == len(calm) - len(kept)


# --- replies that are none


def test_malformed_replies_are_asked_again_and_leave_no_trace(world, tmp_path):
    with chat.ChatServer() as server:
        calm = dict(sample(world, tmp_path / "calm", server.url))
    faults = {2 * number: chat.Reply(body) for number, body in enumerate(MALFORMED.values())}
    faults |= {1: chat.Reply(PAGE, type="text/html"), 3: "cut", 7: chat.Reply(PAGE, 502, "text/html")}
    with chat.ChatServer(faults) as server:
        assert dict(sample(world, tmp_path / "faulty", server.url)) == calm
    assert len(server.seen) == ASKED
    assert sum(server.statuses[fault] for fault in faults.values()) == len(faults)


@pytest.mark.slow
@pytest.mark.parametrize(
    "reply, says",
    [
        (chat.Reply(MALFORMED["no choices"]), "a reply without choices: {.choices.: ..}"),
        (chat.Reply(PAGE, type="text/html"), "a reply that is no JSON: .<html>"),
        (chat.Reply(MALFORMED["an error with 200"]), "the engine is dead"),
        (chat.Reply(PAGE * 1000, 500, "text/html"), "Error code: 500"),
        (chat.Reply("x", 307, headers=(("Location", "/v1/chat/completions"),)), "Connection"),  # for ever
        (chat.Reply('{"error": "unknown model"}', 404), "404"),
    ],
)
def test_a_server_that_never_answers_is_one_short_line(world, tmp_path, monkeypatch, reply, says):
    monkeypatch.setattr(spr_server, "RETRIES", 1)
    with chat.ChatServer(dict.fromkeys(range(10, 1000), reply)) as server:
        with pytest.raises(UserError, match=f"_url {server.url}: .*{says}.*; what was answered") as failure:
            sample(world, tmp_path / "c", server.url)
    line = str(failure.value)
    assert "\n" not in line and len(line) < 600 and " try " not in line
    kept = dict(Log(tmp_path / "c" / "candidates").read())
    assert 0 < len(kept) <= 10
    with chat.ChatServer() as server:
        records = sample(world, tmp_path / "c", server.url)
    assert len(server.seen) == ASKED - len(kept) and {id: records[id] for id in kept} == kept


@pytest.mark.parametrize(
    "models, says",
    [
        (chat.Reply("{}"), "a reply without a list of models"),
        (chat.Reply('{"data": null}'), "a reply without a list of models"),
        (chat.Reply(PAGE, type="text/html"), "a reply that is no JSON"),
        (chat.Reply('{"data": []}'), "lists no model; name one with --spr_sampler_model"),
        (chat.Reply('{"data": [{"name": "tiny"}, 3, null]}'), "lists no model; name one with"),
    ],
)
def test_a_list_of_models_that_is_none(world, tmp_path, models, says):
    with chat.ChatServer(models=models) as server:
        with pytest.raises(UserError, match=f"^--spr_sampler_url {server.url}: .*{says}"):
            sample(world, tmp_path / "c", server.url)
        assert len(sample(world, tmp_path / "c", server.url, "--spr_sampler_model", "tiny")) == ASKED


@pytest.mark.parametrize("path", ["", "/", "/v1/chat/completions", "/v1/models/"])
@pytest.mark.parametrize("flags", [(), ("--spr_sampler_model", "tiny")])
def test_an_address_without_v1_or_with_too_much_is_told_the_right_one(world, tmp_path, path, flags):
    with chat.ChatServer() as server:
        with pytest.raises(UserError, match=f"404.*try --spr_sampler_url {server.url};"):
            sample(world, tmp_path / "c", server.url.removesuffix("/v1") + path, *flags)


NO_ADDRESSES = "localhost:8000/v1 me:planted@host/v1 ftp://host/v1 http:// http://[::1/v1 http://host:port x"


@pytest.mark.parametrize("address", NO_ADDRESSES.split())
def test_what_is_no_address_is_said_at_once(world, tmp_path, address):
    with pytest.raises(UserError, match="^--spr_sampler_url .*: no address such as http://") as failure:
        sample(world, tmp_path / "c", address)
    assert "planted" not in str(failure.value) and not (tmp_path / "c").exists()


# --- empty answers


EMPTY = chat.Reply(chat.completion(None))


def test_empty_answers_past_a_share_stop_the_run_and_are_asked_again(world, tmp_path):
    with chat.ChatServer() as server:
        calm = dict(sample(world, tmp_path / "calm", server.url))
    with chat.ChatServer({"always": EMPTY}) as server:
        too_many = f"4 of {ASKED} answers are empty, more than --spr_max_empty 0.1"
        with pytest.raises(UserError, match=f"^--spr_sampler_url {server.url}: {too_many}"):
            sample(world, tmp_path / "c", server.url, "--spr_sampler_concurrency", "1")
        assert server.count == 4  # more would change nothing
    assert not Log(tmp_path / "c" / "candidates").read()
    with chat.ChatServer(dict.fromkeys(range(20, 25), EMPTY)) as server:
        with pytest.raises(UserError, match="4 of 30 answers are empty"):
            sample(world, tmp_path / "c", server.url, "--spr_sampler_concurrency", "1")
    kept = dict(Log(tmp_path / "c" / "candidates").read())
    assert len(kept) == 20 and all(record["raw"] for record in kept.values())
    with chat.ChatServer() as server:  # mended
        assert dict(sample(world, tmp_path / "c", server.url)) == calm
    assert len(server.seen) == ASKED - len(kept)


def test_a_few_empty_answers_are_counted_and_candidates_as_others(world, tmp_path, capsys):
    faults = {2: EMPTY, 5: EMPTY, 9: chat.Reply(chat.completion(" "))}
    with chat.ChatServer(faults) as server:
        records = sample(world, tmp_path / "c", server.url)
        assert len(records) == ASKED and sum(not record["raw"] for record in records.values()) == 3
        line = f"spr: sampling: 3 of {ASKED} answers are empty, 0 pictures cannot be read\n"
        assert line in capsys.readouterr().err
        assert len(sample(world, tmp_path / "c", server.url)) == len(server.seen) + 3 == ASKED  # asks nothing
        assert "empty" not in capsys.readouterr().err


def test_the_share_of_empty_answers_is_the_users_to_set(world, tmp_path):
    with chat.ChatServer({"always": EMPTY}) as server:
        assert len(sample(world, tmp_path / "c", server.url, "--spr_max_empty", "1")) == ASKED
    none = pytest.raises(UserError, match="more than --spr_max_empty 0.0 allows")
    with chat.ChatServer({3: EMPTY}) as server, none:
        sample(world, tmp_path / "none", server.url, "--spr_max_empty", "0")


# --- secrets


@pytest.fixture
def planted(monkeypatch):
    """The monkeypatch that put secrets where users have them; every one holds "planted"."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-key")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-planted")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-planted")
    monkeypatch.setenv("LAB_TOKEN", "planted-token")
    monkeypatch.setenv("FTP_PROXY", "http://me:planted-proxy@proxy:3128")
    return monkeypatch


# where a secret stands → (address, what the client sends for it, what a server may say back)
PLACES = {
    "a key alone": ("http://{host}", "Bearer sk-planted-key", ""),
    "credentials": (
        "http://me:planted%20word@{host}",
        "Basic bWU6cGxhbnRlZCB3b3Jk",
        "planted%20word planted word planted+word",
    ),
    "a query": (
        "http://{host}?api-key=planted-query",
        "Bearer sk-planted-key",
        "planted-query /v1/models?api-key=planted-query",
    ),
}
ECHO = '{key} sk-planted-key SK-PLANTED-KEY org-planted project-planted planted-token "planted-proxy" '


def written(folder) -> str:
    files = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    return " ".join(path.read_text(errors="replace") for path in files)


@pytest.mark.parametrize("place", PLACES)
def test_no_secret_reaches_a_log_a_manifest_or_a_line(world, tmp_path, place, planted, caplog, capsys):
    """A server that says back all that it was sent: in answers, refusals and pages. The transport's own log
    is on, as a host may have it."""
    monkeypatch = planted
    monkeypatch.setattr(spr_server, "RETRIES", 0)
    caplog.set_level("INFO")
    address, authorization, more = PLACES[place]
    said = ECHO + more
    refusal = chat.Reply(json.dumps({"error": {"message": said}}), 401)
    echoes = [refusal, chat.Reply(f"<html>{said}</html>"), chat.Reply(said, 404)]
    for number, reply in enumerate([*echoes, chat.Reply(chat.completion([{"type": "text", "text": said}]))]):
        with chat.ChatServer({"always": reply}) as server:
            url = address.format(host=server.url.removeprefix("http://"))
            words = [*words_of(world, tmp_path / str(number), url), "--spr_sampler_model", "tiny"]
            monkeypatch.setattr(sys, "argv", ["spr", *words])
            with pytest.raises(SystemExit) as ended:
                main()
            assert bool(ended.value.code) == (number < len(echoes))
            path, headers = server.asked[-1]
            assert headers["Authorization"] == authorization
            assert path == "/v1/chat/completions" + ("?api-key=planted-query" if place == "a query" else "")
    said = capsys.readouterr()
    everything = f"{said.out} {said.err} {caplog.text} {written(tmp_path)}".lower()
    assert "planted" not in everything and "bwu6cgxhbnrlzcb3b3jk" not in everything
    assert said.err.count("spr: error: --spr_sampler_url http://") == len(echoes)
    assert "HTTP Request: POST http" in caplog.text
    assert len(Log(tmp_path / "3" / "candidates").read()) == ASKED


MISTYPED = ["--spr_sampler_urll http://me:planted@host/v1", "--spr_regions http://host/v1?key=planted-query"]


@pytest.mark.parametrize("words", MISTYPED)
def test_a_mistyped_flag_of_spr_sample_is_one_line_without_secrets(world, tmp_path, words):
    with pytest.raises(UserError) as failure:
        sample(world, tmp_path / "c", "http://host/v1", *words.split())
    assert "planted" not in str(failure.value) and words.split()[0] in str(failure.value)


@pytest.mark.parametrize(
    "name, value",
    [
        ("HTTP_PROXY", "nonsense://me:planted-proxy@proxy:3128"),
        ("HTTP_PROXY", "http://me:planted-proxy@proxy:port"),
        ("OPENAI_API_KEY", "“planted-key”"),
    ],
)
def test_a_client_that_cannot_even_be_made_is_one_line(world, tmp_path, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as failure:
        sample(world, tmp_path / "c", "http://host.invalid/v1")
    assert "planted" not in str(failure.value) and "\n" not in str(failure.value)


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

    padded = box_format("llava", "pad")

    def take_up(run="run", form=padded, **changed):
        settings = dict(
            spr=True,
            spr_regions=REGIONS,
            spr_annotations=f"{world}/spr.json",
            spr_image_folder=str(elsewhere),
            spr_candidates=str(tmp_path / "c"),
        )
        config = SPRConfig(**{**settings, **changed})
        folder, recipe = Folder(tmp_path / run), find_recipe(config, form)
        queries, skipped = find_queries(folder, config, recipe, Source())
        if skipped is not None:
            log_queries(folder, recipe, queries, skipped)
        import_candidates(config, recipe, form, folder)

    with pytest.raises(UserError, match="c: no SPR run here, or none that has begun; give OUTPUT_DIR"):
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
    with pytest.raises(
        UserError, match=f"differ in {REGIONS} of {REGIONS} queries: give both the same annotations"
    ):
        take_up("narrower", spr_annotations=str(tmp_path / "narrower.json"))
    take_up()
    assert dict(Log(tmp_path / "run" / "candidates").read()) == dict(log.read())
    paths = [record["pictures"][0]["path"] for record in Log(tmp_path / "run" / "queries").read().values()]
    assert len(paths) == REGIONS and all(path.startswith(f"{elsewhere}/spr/") for path in paths)
    shutil.rmtree(tmp_path / "c")
    take_up()  # they are the run's own by now


@pytest.mark.slow
def test_a_training_run_takes_them_up_and_asks_nothing(world, tmp_path, planted):
    """The whole command, with `spr sample`'s folder in place of sampling; the server ends every answer with
    the key that it was sent."""
    from tests.hosts.launch import command, run, spr_flags

    with chat.ChatServer() as server:
        server.adds = ", {key}"
        records = dict(sample(world, tmp_path / "c", server.url, "--spr_image_folder", f"{world}/images"))
    flags = spr_flags(world)
    flags[flags.index("--spr_regions") + 1] = str(REGIONS)
    taken = ["--spr_only", "--spr_candidates", tmp_path / "c"]
    printed = run(command(world, tmp_path / "llava", *flags, *taken))
    spr = tmp_path / "llava" / "spr"
    assert dict(Log(spr / "candidates").read()) == records
    assert len(Log(spr / "scores").read()) == REGIONS and (spr / "report.html").exists()
    assert json.loads((spr / "exit.json").read_text())["weights"]
    assert all(record["raw"].endswith("Bearer ***") for record in records.values())
    assert "planted" not in (printed + written(tmp_path)).lower()
