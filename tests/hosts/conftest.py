import pytest


@pytest.fixture(scope="session")
def world(tiny_world):
    """A small tiny world on disk: scenes for SFT, for SPR and held out."""
    return tiny_world(sft=24, spr=16, val=4, test=6)
