"""Replies are bounded in time and in length, by the real client of a real server."""

import time

import pytest

from spr_plugin.sampling import deadlines
from spr_plugin.sampling.deadlines import bounded_client

SECONDS = 0.3


@pytest.fixture
def asked(chat_server):
    """``asked(fault)`` → what a server with that fault says to one request, and how long it takes."""

    def ask(fault, seconds=SECONDS):
        with chat_server.ChatServer({"always": fault}) as server:
            client, start = bounded_client(pytest.importorskip("openai"), seconds), time.monotonic()
            try:
                reply = client.post(f"{server.url}/chat/completions", json={}, timeout=20).text
            except Exception as error:  # the transport's, httpx or what took its place
                reply = error
            return reply, time.monotonic() - start

    return ask


@pytest.mark.parametrize("fault", ["hang", "trickle", "slow headers"])
def test_a_reply_has_so_many_seconds_in_all(asked, fault):
    """The client's own time-out, here 20 s, starts anew with every byte."""
    reply, took = asked(fault)
    assert type(reply).__name__ == "ReadTimeout" and SECONDS - 0.05 < took < 10


def test_a_reply_has_so_many_bytes(asked, monkeypatch):
    monkeypatch.setattr(deadlines, "LONGEST_REPLY", 1 << 20)
    reply, _ = asked("endless", seconds=20)
    assert type(reply).__name__ == "ReadError" and str(reply) == "a reply of more than 1 MiB"


def test_a_reply_of_the_longest_length_is_whole(asked, chat_server, monkeypatch):
    monkeypatch.setattr(deadlines, "LONGEST_REPLY", 1000)
    assert asked(chat_server.Reply("x" * 1000), seconds=20)[0] == "x" * 1000
    assert isinstance(asked(chat_server.Reply("x" * 1001), seconds=20)[0], Exception)


def test_each_request_has_a_deadline_of_its_own(chat_server):
    with chat_server.ChatServer() as server:
        client = bounded_client(pytest.importorskip("openai"), SECONDS)
        for _ in range(3):
            assert client.get(f"{server.url}/models", timeout=20).json()["data"]
            time.sleep(SECONDS / 2)
