import pytest

from . import live


@pytest.fixture
def live_llava(random_llava, tmp_path):
    """``live_llava(**settings)`` → host with an untrained model, and its config; see
    :func:`tests.dpo.live.build`.
    """
    return lambda **settings: live.build(random_llava, tmp_path / "llava-out", **settings)


@pytest.fixture
def pairs(random_llava):
    """Preference pairs on the pictures of the random LLaVA; answers of different lengths."""
    return lambda count=4: live.make_pairs(random_llava, count)
