"""Sampling on a server: the same prompts, sent to anything that speaks OpenAI's chat completions (``vllm
serve``, SGLang, LMDeploy).

One request a candidate, many at once; each answer is logged as it comes, so that what was answered is never
asked again. Retries with back-off (refused and dropped connections, time-outs, 408, 409, 429, 5xx) are the
openai client's; a reply that is no chat completion is asked for again here. Nothing that a server says is
believed.
"""

from __future__ import annotations

import base64
import contextlib
import io
import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from spr_plugin.config.candidates import CandidatesFlags
from spr_plugin.errors import UserError
from spr_plugin.files import read_json, write_json
from spr_plugin.redaction import redacted, secrets_of, shown
from spr_plugin.runs.log import Log, files_in
from spr_plugin.sampling.deadlines import bounded_client
from spr_plugin.sampling.replies import Malformed, answer_in, models_in

RETRIES = 6
PAUSE = 1.0  # seconds before a reply that was no chat completion is asked for again
LONGEST_REASON = 300  # characters of what a server said that a line shows
SERVED = "served.json"  # beside the candidates: which model answered

_ENDPOINT = re.compile(r"/(chat/completions|completions|models)/?$")
_VERSION = re.compile(r"/v\d\w*(/|$)")


def _is_no_answer(error: Exception) -> bool:
    """Whether there is a server, but nothing that knows the question, at the address that was asked."""
    return isinstance(error, Malformed) or getattr(error, "status_code", None) in (404, 405)


def name_of(config: CandidatesFlags) -> str:
    """The server, as a line may name it."""
    return f"--spr_sampler_url {shown(config.spr_sampler_url or '')}"


def served(candidates: Path) -> str | None:
    """The model that answered those in this folder; None where there are none, or nobody wrote it down."""
    known = read_json(candidates / SERVED) if files_in(candidates) else None
    return known["model"] if isinstance(known, dict) and isinstance(known.get("model"), str) else None


class Server:
    """The server at ``--spr_sampler_url``. Whatever it does becomes an answer, or a UserError of one line;
    neither holds a secret.

    Attributes:
        name: of the server, as a line may show it.
        model: the name that is asked.
    """

    def __init__(self, config: CandidatesFlags, candidates: Path | None = None):
        """
        Args:
            candidates: folder of what a server has answered before, if any: the same model is to go on.
        """
        try:
            import openai
        except ImportError:
            needs = "--spr_sampler openai needs the package openai: pip install 'spr-plugin[server]'"
            raise UserError(needs) from None
        assert config.spr_sampler_url, "without it --spr_sampler openai is refused"
        self.config, self.name, self.url = config, name_of(config), config.spr_sampler_url
        self.secrets = secrets_of(self.url, os.environ)
        for name in ("httpx", "httpx2"):  # what the client is built on logs every address that it asks
            logging.getLogger(name).addFilter(self._clean_record)
        key = (os.environ.get("OPENAI_API_KEY") or "none").strip()
        if not (key.isascii() and key.isprintable()):
            raise UserError("OPENAI_API_KEY holds a character that no header can carry: copy the key again")
        address = urlsplit(self.url)
        with self._speaking():
            self.client = openai.OpenAI(
                base_url=urlunsplit(address._replace(query="", fragment="")),
                default_query=dict(parse_qsl(address.query)),
                api_key=key,
                timeout=config.spr_sampler_timeout,
                max_retries=RETRIES,
                http_client=bounded_client(openai, config.spr_sampler_timeout),
            )
        self.model = self._model(served(candidates) if candidates else None)

    def _model(self, before: str | None) -> str:
        """The one of ``before``, else the first that the server lists, unless a flag names it; a server that
        keeps no list is then taken at its word. UserError where it does not answer, or serves another."""
        models, named = [], self.config.spr_sampler_model
        with self._speaking():
            try:
                models = models_in(self.client.models.with_raw_response.list().http_response.text)
            except Exception as error:
                if not (named and _is_no_answer(error)):
                    raise
        if not (named or models):
            raise UserError(f"{self.name}: the server lists no model; name one with --spr_sampler_model")
        if not named and before is not None and before not in models:
            raise UserError(
                f"{self.name}: serves {models[0]}, and the candidates that are there already were answered by"
                f" {before}: have it serve that one again, or sample anew with --spr_sampler_model"
                f" {models[0]}"
            )
        return named or before or models[0]

    def answer(
        self, pictures: list[str], text: str, seed: int | None, stop: threading.Event, thoughts: bool = False
    ) -> str:
        """The answer to a prompt with pictures (data URLs), without a seed the likeliest. A reply that is
        none is asked for again, until ``stop``.

        Args:
            thoughts: they belong to the answer.
        """
        left = RETRIES
        while True:
            with self._speaking():
                try:
                    reply = self._completion(pictures, text, seed)
                    return redacted(answer_in(reply, thoughts), self.secrets)
                except Malformed:
                    if not left or stop.wait(PAUSE):
                        raise
            left -= 1

    def _completion(self, pictures: list[str], text: str, seed: int | None) -> str:
        config = self.config
        content: list[Any] = [{"type": "image_url", "image_url": {"url": picture}} for picture in pictures]
        content.append({"type": "text", "text": text})
        reply = self.client.chat.completions.with_raw_response.create(
            model=self.model,
            messages=[{"role": "user", "content": content}],
            seed=(seed or 0) % 2**31,
            temperature=0.0 if seed is None else config.spr_temperature,
            top_p=config.spr_top_p,
            max_tokens=config.spr_max_new_tokens,
            extra_body={"top_k": config.spr_top_k} if config.spr_top_k else None,
        )
        return reply.http_response.text

    @contextlib.contextmanager
    def _speaking(self) -> Iterator[None]:
        """What goes wrong inside becomes one line."""
        try:
            yield
        except Exception as error:  # the client, what it is built on and the server's reply are all foreign
            why = " ".join(redacted(_told_by(error), self.secrets).split())
            why = why if len(why) <= LONGEST_REASON else why[:LONGEST_REASON] + "…"
            raise UserError(
                f"{self.name}: {why} ({type(error).__name__}){self._other_address(error)}; "
                "what was answered is kept, run the same command again"
            ) from None

    def _other_address(self, error: Exception) -> str:
        """A hint where the address may be a part too short or too long: all hangs on ``/v1``."""
        given = urlsplit(self.url)
        path = _ENDPOINT.sub("", given.path).rstrip("/")
        if not _VERSION.search(path):
            path += "/v1"
        if not _is_no_answer(error) or path == given.path.rstrip("/"):
            return ""
        return f": try --spr_sampler_url {shown(urlunsplit(given._replace(path=path)))}"

    def _clean_record(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redacted(record.getMessage(), self.secrets), ()
        return True


def _told_by(error: Exception) -> str:
    """What an error says, and why it came to that: the client's "Connection error." alone tells nobody."""
    what, why = str(error), str(error.__cause__ or "")
    return what if why in what else f"{what} {why}"


def ask_server(
    asked: Iterable[tuple],
    config: CandidatesFlags,
    log: Log,
    candidate: Callable,
    shown_by: Callable,
    most_empty: float,
    thinks: Callable,
) -> list[dict]:
    """Fill ``log`` with candidates; the records of those that are empty are returned, not logged: whoever
    mends the server asks again.

    Args:
        asked: (ask, {index of the sample: seed, None for the likeliest answer}) of what is missing.
        candidate: (ask, index, answer) → record.
        shown_by: ask → the PIL pictures that its prompt shows, None if one cannot be read.
        most_empty: with more empty answers than this there is no need to go on.
        thinks: ask → whether thoughts belong to its answers.

    Raises:
        UserError: the server refuses a request, or does not answer however often it is asked.
    """
    server = Server(config, log.directory)
    write_json(log.directory / SERVED, {"model": server.model})
    writing, failed, empty = threading.Lock(), threading.Event(), []

    def answer_all(ask, seeds: dict[int, int | None]) -> None:
        pictures = shown_by(ask)
        addresses = [_data_url(picture) for picture in pictures or ()]
        for index, seed in seeds.items():
            if failed.is_set():
                return
            try:
                answer = server.answer(addresses, ask[1].text, seed, failed, thinks(ask)) if pictures else ""
            except UserError:
                failed.set()
                raise
            record = candidate(ask, index, answer)
            with writing:
                empty.append(record) if pictures and not answer else log.append(record)
                if len(empty) > most_empty:
                    failed.set()

    with ThreadPoolExecutor(config.spr_sampler_concurrency) as pool:
        pending = set()
        try:
            for ask, seeds in asked:
                if failed.is_set():
                    break
                pending.add(pool.submit(answer_all, ask, seeds))
                while len(pending) >= 2 * config.spr_sampler_concurrency:
                    pending = _finished(pending)
            while pending:
                pending = _finished(pending)
        finally:
            failed.set()  # no worker asks on for a caller that has left
    return empty


def _finished(pending: set) -> set:
    """Wait for one; raise what any has raised."""
    done, rest = wait(pending, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
    return rest


def _data_url(picture) -> str:
    """The picture as PNG: without loss, and without an EXIF orientation that a server might apply."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
