"""What a server replies: plain text in, plain data out."""

from __future__ import annotations

import json
import re

from spr_plugin.loading import sound

# A server without a parser for it leaves it in.
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
APART = ("reasoning_content", "reasoning")  # where a server that parses thoughts puts them
TEXTS = ("text", "output_text")  # types of the parts that some servers answer in; others are thoughts, say


class Malformed(Exception):
    """A server's reply is not what it was asked for. The text may hold the whole reply, secrets included."""


def answer_in(reply: str, thoughts: bool = False) -> str:
    """The text of a chat completion without thoughts; "" where the model said nothing that can be seen.
    Malformed says what is wrong.

    Args:
        thoughts: they belong to the answer, between <think> and </think>, where a server has taken them out
            of it too.
    """
    choices = _object(reply).get("choices")
    if not isinstance(choices, list) or not choices:
        raise Malformed(f"a reply without choices: {reply}")
    message = choices[0].get("message") if isinstance(choices[0], dict) else None
    if not isinstance(message, dict):
        raise Malformed(f"a choice without message: {reply}")
    content = message.get("content")
    alone = [{"type": "text", "text": "" if content is None else content}]
    parts = content if isinstance(content, list) else alone
    spoken = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") in TEXTS]
    texts = [one for one in spoken if isinstance(one, str)]
    if len(texts) < len(spoken) or not all(isinstance(part, dict) for part in parts):
        raise Malformed(f"a message whose content is no text: {reply}")
    text = "".join(texts)
    if thoughts:
        apart = next((message[key] for key in APART if isinstance(message.get(key), str)), "")
        answer = sound(f"<think>{apart}</think>{text}" if apart else text).strip()
    else:
        answer = _THOUGHT.sub("", sound(text)).strip()
    return answer if any(character.isprintable() and not character.isspace() for character in answer) else ""


def models_in(reply: str) -> list[str]:
    """The names in a list of models. Malformed says what is wrong with the reply."""
    listed = _object(reply).get("data")
    if not isinstance(listed, list):
        raise Malformed(f"a reply without a list of models: {reply}")
    return [model["id"] for model in listed if isinstance(model, dict) and isinstance(model.get("id"), str)]


def _object(reply: str) -> dict:
    try:
        value = json.loads(reply)
    except (ValueError, RecursionError):
        raise Malformed(f"a reply that is no JSON: {reply!r}") from None
    if not isinstance(value, dict):
        raise Malformed(f"a reply that is no JSON object: {reply}")
    return value
