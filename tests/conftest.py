"""What every test shares: a printed seed, and the proof that our two generic folder names stay out of the top level."""

import os
import random
import sys

import pytest
from hypothesis import settings

# A loaded machine is no failure.
settings.register_profile("spr", deadline=None, print_blob=True)
settings.load_profile("spr")
SEED = int(os.environ.get("SPR_TEST_SEED", "0"))


def pytest_report_header():
    return f"seed: {SEED} (SPR_TEST_SEED)"


@pytest.fixture(autouse=True)
def seeded():
    random.seed(SEED)


def pytest_sessionfinish(session):
    """``hooks`` or ``eval_tasks`` at the top level would be a second copy of ours, with hooks of its own."""
    doubled = sorted({"hooks", "eval_tasks"} & sys.modules.keys())
    if doubled:
        session.exitstatus = 1
        print(f"\ntop-level modules {', '.join(doubled)}: run pytest with --import-mode=importlib", file=sys.stderr)
