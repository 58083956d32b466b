"""The long form of test_zero.py (``make test-zero``): no, one and four ranks, accumulation, gradient
checkpointing, deaths.
"""

import json

import pytest

from .launching import assert_like_in_half_precision, assert_same_losses, stage


@pytest.fixture(scope="module")
def alone(random_llava, tmp_path_factory):
    """One process; four pairs a step."""
    return stage(random_llava, tmp_path_factory.mktemp("alone"), "--batch", 4)


@pytest.mark.parametrize("zero", [2, 3])
@pytest.mark.parametrize("ranks, sizes", [(1, (2, 2)), (1, (4, 1)), (2, (1, 2)), (4, (1, 1))])
def test_any_number_of_ranks(random_llava, tmp_path, alone, zero, ranks, sizes):
    """A DeepSpeed launcher's single process, and ranks that run out of pairs at different times."""
    flags = ["--batch", sizes[0], "--accumulation", sizes[1], "--zero", zero]
    assert_same_losses(stage(random_llava, tmp_path / "out", *flags, ranks=ranks), alone, "DeepSpeedEngine")


@pytest.mark.parametrize("zero", [2, 3])
def test_gradient_checkpointing(random_llava, tmp_path, alone, zero):
    assert_same_losses(
        stage(random_llava, tmp_path / "out", "--zero", zero, "--checkpointing", ranks=2),
        alone,
        "DeepSpeedEngine",
    )


def has_cpu_adam() -> str:
    """What keeps DeepSpeed's optimizer for host memory from being compiled here; nothing where it can be."""
    from deepspeed.ops.op_builder import CPUAdamBuilder

    try:
        CPUAdamBuilder().load(verbose=False)
    except Exception as error:  # whatever a compiler says
        return str(error).splitlines()[0]
    return ""


@pytest.mark.parametrize("zero", [2, 3])
def test_optimizer_offload_and_numbers_of_the_host_s_own_training_in_the_file(
    random_llava, tmp_path, alone, zero
):
    """Its file says how the host trains: batch size, learning rate, schedule. The stage has its own, and the
    optimizer in host memory.
    """
    if why := has_cpu_adam():
        pytest.skip(f"DeepSpeedCPUAdam does not build: {why}")
    settings = {
        "train_micro_batch_size_per_gpu": 3, "gradient_accumulation_steps": 5, "gradient_clipping": 7.0,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-6, "weight_decay": 0.3}},
        "scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": 0, "warmup_max_lr": 1e-6, "warmup_num_steps": 9}},  # noqa: E501
        "zero_optimization": {"offload_optimizer": {"device": "cpu"}}, "zero_force_ds_cpu_optimizer": True,
    }  # fmt: skip
    runs = stage(random_llava, tmp_path / "out", "--zero", zero, "--settings", json.dumps(settings), ranks=2)
    assert {run["optimizer"] for run in runs.values()} == {"DeepSpeedCPUAdam"}
    assert_same_losses(runs, alone, "DeepSpeedEngine")


@pytest.mark.parametrize("zero", [2, 3])
def test_bf16(random_llava, tmp_path, alone, zero):
    assert_like_in_half_precision(
        stage(random_llava, tmp_path / "out", "--zero", zero, "--bf16", ranks=2), alone
    )


def test_ddp(random_llava, tmp_path, alone):
    assert_same_losses(stage(random_llava, tmp_path / "out", ranks=2), alone, "DistributedDataParallel")


@pytest.mark.parametrize("zero", [None, 2, 3])
def test_a_death_leaves_no_trace(random_llava, tmp_path, zero):
    """SIGKILL to every rank before step 4: the same command ends with the weights of a run that nobody
    killed.
    """
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
