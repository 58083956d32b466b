"""Candidates from a server: against a real HTTP server, with every fault that servers have."""

import json
import subprocess
import sys

import pytest

from spr_plugin.cli import main
from spr_plugin.errors import UserError
from spr_plugin.runs.log import Log
from spr_plugin.sampling import server as spr_server

from . import chat_server as chat
from .asking import ASKED, MANY, sample, words_of, written
from .chat_server import MALFORMED, PAGE

pytestmark = pytest.mark.usefixtures("quick")


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


# --- secrets


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
