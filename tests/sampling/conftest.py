"""A world to ask about, and a client of OpenAI's that does not wait."""

from pathlib import Path

import pytest

from spr_plugin.sampling import server as spr_server


@pytest.fixture(scope="module")
def world(tiny_world):
    return tiny_world(sft=4, spr=8)


@pytest.fixture(scope="session")
def one_authority(tmp_path_factory) -> str:
    """A file of one certificate: reading all that a machine trusts takes longer than most tests here."""
    import certifi

    end = "-----END CERTIFICATE-----\n"
    file = tmp_path_factory.mktemp("trusted") / "ca.pem"
    file.write_text(Path(certifi.where()).read_text().partition(end)[0] + end)
    return str(file)


@pytest.fixture
def quick(monkeypatch, one_authority):
    """Back-off in milliseconds."""
    import openai._base_client

    monkeypatch.setenv("SSL_CERT_FILE", one_authority)
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr(openai._base_client, "MAX_RETRY_DELAY", 0.05)
    monkeypatch.setattr(spr_server, "PAUSE", 0.01)


@pytest.fixture
def planted(monkeypatch):
    """The monkeypatch that put secrets where users have them; every one holds "planted"."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-key")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-planted")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-planted")
    monkeypatch.setenv("LAB_TOKEN", "planted-token")
    monkeypatch.setenv("FTP_PROXY", "http://me:planted-proxy@proxy:3128")
    return monkeypatch
