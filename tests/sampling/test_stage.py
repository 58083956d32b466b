"""A server answers every query several times: greedy ones at temperature 0, and not too many empty ones."""

import pytest

from spr_plugin.errors import UserError
from spr_plugin.runs.log import Log

from . import chat_server as chat
from .asking import ASKED, sample

pytestmark = pytest.mark.usefixtures("quick")
EMPTY = chat.Reply(chat.completion(None))


def test_the_likeliest_answer_is_asked_for_at_temperature_0(world, tmp_path):
    with chat.ChatServer() as server:
        records = sample(world, tmp_path / "c", server.url, "--spr_greedy")
    regions = {record["query"] for record in records.values()}
    temperatures = [body["temperature"] for *_, body in server.seen]
    assert len(temperatures) == ASKED and temperatures.count(0) == len(regions)
    assert {text for text, _, body in server.seen if body["temperature"] == 0} <= {
        text for text, *_ in server.seen if "image" not in text and "contains" not in text
    }


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
