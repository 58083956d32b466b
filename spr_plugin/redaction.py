"""Keeps secrets of addresses and of the environment out of what others read: lines, logs, manifests, reports.

Standard library only; pure functions on text.
"""

import base64
import functools
import html
import json
import re
from collections.abc import Mapping
from urllib.parse import quote, quote_plus, unquote

HIDDEN = "***"
SHORTEST = 6  # what is shorter may well be a word of an answer ("none", "red"), which must stay as it is
# An environment variable with one of these words in its name holds a secret; so do those that name who asks.
WORDS = set(
    "KEY APIKEY TOKEN SECRET PASSWORD PASSWD PASS CREDENTIAL CREDENTIALS AUTH AUTHORIZATION COOKIE".split()
)
IDENTITIES = {"OPENAI_ORG_ID", "OPENAI_ORGANIZATION", "OPENAI_PROJECT_ID"}
_USER = re.compile(r"^([\w+.-]+://)?(.*)@", re.DOTALL)
_QUERY = re.compile(r"[?#].*", re.DOTALL)
_QUERY_MARK, _HEADER_MARK = re.compile(r"[?&#]"), re.compile(r"[\s,;:=]+")


def redacted(text: str, secrets: frozenset[str] = frozenset()) -> str:
    """``text`` without ``secrets``, however escaped, and without user and password of any address."""
    known = _pattern(secrets)
    # Until nothing is found: what stood left and right of a secret may make another.
    while (clean := known.sub(lambda match: (match["scheme"] or "") + HIDDEN, text)) != text:
        text = clean
    return text


def shown(address: str) -> str:
    """An address, sound or not, as a line may show it: no user, password, query or fragment."""
    without_user = _USER.sub(rf"\g<1>{HIDDEN}@", address)
    return _QUERY.sub(f"?{HIDDEN}", without_user)


def secrets_of(address: str, environment: Mapping[str, str]) -> frozenset[str]:
    """What nobody may read of a client that asks ``address``: its credentials and query, those of
    proxies, keys, identities and headers of the environment."""
    query = {piece.partition("=")[2] or piece for piece in _QUERY_MARK.split(address)[1:]}
    secrets = _credentials(address) | query
    for name, value in environment.items():
        words = set(name.upper().split("_"))
        if "HEADERS" in words:
            secrets |= set(_HEADER_MARK.split(value))
        elif words & WORDS or name in IDENTITIES:
            secrets.add(value.strip())
        if "://" in value:
            secrets |= _credentials(value)
    return frozenset(secrets)


def _credentials(address: str) -> set[str]:
    """The password, or a user without one, and both together, also as a header writes them."""
    match = _USER.match(address)
    if not match:
        return set()
    user, colon, password = match[2].partition(":")
    return {password if colon else user, match[2], base64.b64encode(unquote(match[2]).encode()).decode()}


@functools.lru_cache(maxsize=8)
def _pattern(secrets: frozenset[str]) -> re.Pattern:
    """Finds each secret in all its ways of writing, the longest first, and credentials behind a scheme."""
    ways = {way for secret in secrets for way in _ways(secret) if len(way) >= SHORTEST}
    longest_first = sorted(ways, key=lambda way: (-len(way), way))
    parts = [r"(?P<scheme>://)[^\s/]+(?=@)", *map(re.escape, longest_first)]
    return re.compile("|".join(parts), re.IGNORECASE)


def _ways(secret: str) -> set[str]:
    """How a secret may be written: in an address, in HTML, in JSON, in what Python prints."""
    ways = {secret, unquote(secret)}
    for plain in tuple(ways):
        ways |= {quote(plain, safe=""), quote_plus(plain), html.escape(plain)}
        ways |= {json.dumps(plain)[1:-1], json.dumps(plain, ensure_ascii=False)[1:-1], repr(plain)[1:-1]}
    return ways
