"""The long form of test_zero.py (``make test-zero``): no, one and four ranks, accumulation, gradient checkpointing, deaths."""

import pytest

from .launching import assert_same_losses, stage


@pytest.fixture(scope="module")
def alone(random_llava, tmp_path_factory):
    """One process; four pairs a step."""
    return stage(random_llava, tmp_path_factory.mktemp("alone"), "--accumulation", 2)


@pytest.mark.parametrize("zero", [2, 3])
@pytest.mark.parametrize("ranks, sizes", [(1, (2, 2)), (1, (4, 1)), (2, (1, 2)), (4, (1, 1))])
def test_any_number_of_ranks(random_llava, tmp_path, alone, zero, ranks, sizes):
    """A DeepSpeed launcher's single process, and ranks that run out of pairs at different times."""
    flags = ["--batch", sizes[0], "--accumulation", sizes[1], "--zero", zero]
    assert_same_losses(stage(random_llava, tmp_path / "out", *flags, ranks=ranks), alone, "DeepSpeedEngine")


@pytest.mark.parametrize("zero", [2, 3])
def test_gradient_checkpointing(random_llava, tmp_path, alone, zero):
    assert_same_losses(stage(random_llava, tmp_path / "out", "--zero", zero, "--checkpointing", ranks=2), alone, "DeepSpeedEngine")


def test_ddp(random_llava, tmp_path, alone):
    assert_same_losses(stage(random_llava, tmp_path / "out", ranks=2), alone, "DistributedDataParallel")


@pytest.mark.parametrize("zero", [None, 2, 3])
def test_a_death_leaves_no_trace(random_llava, tmp_path, zero):
    """SIGKILL to every rank before step 4: the same command ends with the weights of a run that nobody killed."""
    engine = ["--zero", zero] if zero else []
    for mode in ("adapter", "full"):
        flags = [*engine, "--modes", mode, "--save-steps", 1]
        calm = stage(random_llava, tmp_path / f"calm-{mode}", *flags, ranks=2)[mode]
        stage(random_llava, tmp_path / f"killed-{mode}", *flags, "--die-at", 3, ranks=2, dies=True)
        again = stage(random_llava, tmp_path / f"killed-{mode}", *flags, ranks=2)[mode]
        assert again["losses"] == pytest.approx(calm["losses"][3:], rel=1e-6)
        for name, value in calm["weights"].items():
            assert again["weights"][name] == pytest.approx(value, abs=1e-5), name


def test_another_number_of_ranks_is_refused_where_the_optimizer_is_in_parts(random_llava, tmp_path):
    flags = ["--modes", "lora", "--save-steps", 1, "--zero", 2]
    stage(random_llava, tmp_path / "out", *flags, "--die-at", 3, ranks=2, dies=True)
    with pytest.raises(AssertionError, match="left by 2 ranks.*--spr_restart_dpo"):
        stage(random_llava, tmp_path / "out", *flags, ranks=1)


def test_another_number_of_ranks_goes_on_without_deepspeed(random_llava, tmp_path):
    flags = ["--modes", "lora", "--save-steps", 1]
    calm = stage(random_llava, tmp_path / "calm", *flags, ranks=2)["lora"]
    stage(random_llava, tmp_path / "out", *flags, "--die-at", 3, ranks=2, dies=True)
    again = stage(random_llava, tmp_path / "out", *flags, ranks=1)["lora"]
    assert again["losses"] == pytest.approx(calm["losses"][3:], rel=1e-5)
