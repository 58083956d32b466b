"""Stage 1 on a server: the same prompts, sent to anything that speaks OpenAI's chat completions (``vllm serve``, SGLang, LMDeploy).

One request a candidate, many at once; each answer is logged as it comes, so that what was answered is never asked again. Retries with
back-off (refused and dropped connections, time-outs, 408, 409, 429, 5xx) are the openai client's.
"""

from __future__ import annotations

import base64
import io
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

from spr_plugin.config import SPRConfig
from spr_plugin.errors import UserError
from spr_plugin.store import Log

RETRIES = 6


def connected(config: SPRConfig):
    """``(client, model name)`` of ``--spr_sampler_url``; the model is the first that the server lists, unless a flag names it. UserError
    where the server does not answer; one that keeps no list is taken at its word where a flag names the
    model.
    """
    try:
        import openai
    except ImportError:
        raise UserError("--spr_sampler openai needs the package openai: pip install 'spr-plugin[server]'") from None
    key = os.environ.get("OPENAI_API_KEY", "none")
    client = openai.OpenAI(base_url=config.spr_sampler_url, api_key=key, timeout=config.spr_sampler_timeout, max_retries=RETRIES)
    try:
        models = [model.id for model in client.models.list()]
    except openai.NotFoundError as error:
        if not config.spr_sampler_model:
            raise _unanswered(config, error) from None
        models = []
    except openai.OpenAIError as error:
        raise _unanswered(config, error) from None
    if not models and not config.spr_sampler_model:
        raise UserError(f"--spr_sampler_url {config.spr_sampler_url}: the server lists no model; name one with --spr_sampler_model")
    return client, config.spr_sampler_model or models[0]


def ask_server(asked: Iterable[tuple], config: SPRConfig, log: Log, candidate: Callable, picture_of: Callable) -> None:
    """Fill ``log`` with candidates.

    Args:
        asked: (ask, {index of the sample: seed}) of what is missing.
        candidate: (ask, index, answer) → record.
        picture_of: ask → the PIL picture that its prompt shows, None if it cannot be read.

    Raises:
        UserError: the server refuses a request, or does not answer however often it is asked.
    """
    import openai

    client, model = connected(config)
    writing, failed = threading.Lock(), threading.Event()

    def answer(ask, seeds: dict[int, int]) -> None:
        picture = picture_of(ask)
        address = picture and _data_url(picture)
        for index, seed in seeds.items():
            if failed.is_set():
                return
            try:
                said = _completion(client, model, address, ask[1].text, seed, config) if picture else ""
            except openai.OpenAIError as error:
                failed.set()
                raise _unanswered(config, error) from None
            with writing:
                log.append(candidate(ask, index, said))

    with ThreadPoolExecutor(config.spr_sampler_concurrency) as pool:
        pending = set()
        try:
            for ask, seeds in asked:
                pending.add(pool.submit(answer, ask, seeds))
                while len(pending) >= 2 * config.spr_sampler_concurrency:
                    pending = _finished(pending)
            while pending:
                pending = _finished(pending)
        finally:
            failed.set()  # no worker asks on for a caller that has left


def _finished(pending: set) -> set:
    """Wait for one; raise what any has raised."""
    done, rest = wait(pending, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
    return rest


def _completion(client, model: str, address: str, text: str, seed: int, config: SPRConfig) -> str:
    shown = {"type": "image_url", "image_url": {"url": address}}
    made = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": [shown, {"type": "text", "text": text}]}],
        seed=seed % 2**31,
        temperature=config.spr_temperature,
        top_p=config.spr_top_p,
        max_tokens=config.spr_max_new_tokens,
        extra_body={"top_k": config.spr_top_k} if config.spr_top_k else None,
    )
    return (made.choices[0].message.content or "").strip()


def _data_url(picture) -> str:
    """The picture as PNG: without loss, and without an EXIF orientation that a server might apply."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _unanswered(config: SPRConfig, error: Exception) -> UserError:
    why = " ".join(str(error).split())
    return UserError(f"--spr_sampler_url {config.spr_sampler_url}: {why} ({type(error).__name__}); what was answered is kept, run the same command again")
