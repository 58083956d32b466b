"""DeepSpeed on two ranks: the losses of one process, at equal global batches. ``make test-zero`` runs the
long form.
"""

import pytest

from .launching import assert_like_in_half_precision, assert_same_losses, stage

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone(random_llava, tmp_path_factory):
    """One process that takes two ranks' pairs in one batch; 11 pairs, so that two ranks do not share them
    evenly.
    """
    return stage(random_llava, tmp_path_factory.mktemp("alone"), "--batch", 4)


@pytest.mark.parametrize("zero", [2, 3])
def test_two_ranks(random_llava, tmp_path, alone, zero):
    assert_same_losses(
        stage(random_llava, tmp_path / "out", "--zero", zero, ranks=2), alone, "DeepSpeedEngine"
    )


def test_looks_at_held_out_regions_change_nothing(random_llava, tmp_path, alone):
    """ZeRO-3 decodes with the engine's hooks in between the steps."""
    run = stage(random_llava, tmp_path / "out", "--zero", 3, "--modes", "lora", "--probe-steps", 2, ranks=2)
    assert_same_losses(run, {"lora": alone["lora"]}, "DeepSpeedEngine")


def test_bf16_with_an_adapter_and_a_projector_of_two_types(random_llava, tmp_path, alone):
    """PEFT's adapters are fp32, the projector is bf16."""
    assert_like_in_half_precision(
        stage(random_llava, tmp_path / "out", "--zero", 3, "--bf16", "--modes", "projector", ranks=2), alone
    )
