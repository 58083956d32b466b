"""Secrets stay out of text, however they are written, and text without secrets stays as it is."""

import base64
import html
import json
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spr_plugin.redaction import HIDDEN, SHORTEST, redacted, secrets_of, shown

WRITINGS = {
    "plain": str,
    "in an address": lambda text: quote(text, safe=""),
    "in JSON": json.dumps,
    "as Python prints it": repr,
    "in HTML": html.escape,
}
printable = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=SHORTEST, max_size=30)


@given(printable, st.text(), st.text(), st.sampled_from(list(WRITINGS.values())))
def test_a_secret_is_gone_from_any_text(secret, before, after, write):
    written = write(secret)
    clean = redacted(before + written + after, frozenset([secret]))
    assert secret not in clean and written.strip("\"'") not in clean
    assert redacted(clean, frozenset([secret])) == clean


@given(st.text(), st.sets(printable, max_size=3))
def test_text_without_secrets_stays_as_it_is(text, secrets):
    assume("://" not in text and not any(secret.casefold() in text.casefold() for secret in secrets))
    assume(not any(write(secret).strip("\"'").casefold() in text.casefold() for secret in secrets for write in WRITINGS.values()))
    assert redacted(text, frozenset(secrets)) == text


@given(st.text(st.characters(codec="utf-8", exclude_characters="/?#@ ", exclude_categories=["C", "Z"]), min_size=1))
def test_credentials_of_an_address_are_never_shown(password):
    address = f"http://me:{password}@host:8000/v1"
    assert shown(address) == f"http://{HIDDEN}@host:8000/v1"
    assert redacted(f"cannot reach {address}: refused") == f"cannot reach http://{HIDDEN}@host:8000/v1: refused"


@pytest.mark.parametrize(
    "address, seen",
    [
        ("http://localhost:8000/v1", "http://localhost:8000/v1"),
        ("https://token@host/v1", f"https://{HIDDEN}@host/v1"),
        ("https://me:p@ss/w?rd#@host/v1", f"https://{HIDDEN}@host/v1"),
        ("me:secret@host/v1", f"{HIDDEN}@host/v1"),
        ("https://host/v1?api-key=abc&version=2", f"https://host/v1?{HIDDEN}"),
        ("https://host/v1#abc", f"https://host/v1?{HIDDEN}"),
        ("", ""),
    ],
)
def test_an_address_as_a_line_shows_it(address, seen):
    assert shown(address) == seen


def test_what_is_secret_of_an_address_and_an_environment():
    environment = {
        "OPENAI_API_KEY": "sk-planted-1\n",
        "OPENAI_ORG_ID": "org-planted-2",
        "OPENAI_CUSTOM_HEADERS": "X-Team: planted-3\nCookie: planted-4=planted-5",
        "https_proxy": "http://me:planted-6@proxy:3128",
        "DATABASE": "postgres://planted-7@db/x",
        "LAB_SECRET": "planted-8",
        "HOME": "/home/someone",
        "TOKENIZERS_PARALLELISM": "disabled",
    }
    secrets = secrets_of("https://me:planted-9%40@host/v1?api-key=planted-0&planted-a", environment)
    basic = base64.b64encode(b"me:planted-9@").decode()
    everything = " ".join([*environment.values(), "planted-9%40 planted-9@ planted-0 planted-a", basic])
    clean = redacted(everything, secrets)
    assert "planted" not in clean and basic not in clean
    assert "/home/someone" in clean and "disabled" in clean and "proxy:3128" in clean


@pytest.mark.parametrize("key", ["none", "EMPTY", "red", ""])
def test_a_short_key_changes_no_answer(key):
    assert redacted("a red circle, none is EMPTY", secrets_of("http://host/v1", {"OPENAI_API_KEY": key})) == "a red circle, none is EMPTY"
