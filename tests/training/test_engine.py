"""Whether a model that ZeRO-3 holds in parts is gathered to answer, and what a Trainer is left with where no
engine was made.
"""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from spr_plugin.training import engine, ranks, weights  # noqa: E402

GIB = 2**30


@given(st.integers(1, 10**12), st.integers(0, 10**12), st.floats(0, 2))
def test_a_model_fits_with_a_margin_of_its_own_size(needed, free, margin):
    assert not engine.fits(needed, needed - 1, margin) and engine.fits(needed, 3 * needed, margin)
    assert engine.fits(needed, free, margin) <= engine.fits(needed, free + 1, margin)
    assert engine.fits(needed + 1, free, margin) <= engine.fits(needed, free, margin)


def test_a_quarter_of_it_stays_free_for_the_answers():
    assert engine.fits(16 * GIB, 20 * GIB) and not engine.fits(16 * GIB, 20 * GIB - 1)


def test_memory_that_torch_keeps_unused_is_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 50 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 44 * GIB)
    assert engine.free_bytes(torch.device("cuda", 0)) == 16 * GIB
    assert engine.free_bytes(torch.device("cpu")) is None


@pytest.mark.parametrize(
    "free, stays", [([26 * GIB, 30 * GIB], False), ([30 * GIB, 20 * GIB], True), ([None, None], False)]
)
def test_the_fullest_device_decides_and_one_line_gives_the_figures(monkeypatch, capsys, free, stays):
    """Two ranks, 20.8 GiB of weights in half precision."""
    model = torch.nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)
    model.weight.ds_id, model.weight.ds_numel = 0, int(10.4 * GIB)
    monkeypatch.setattr(ranks, "from_all", lambda value: free)
    assert weights.whole_bytes(model) == 2 * int(10.4 * GIB)
    assert (
        engine._too_large(SimpleNamespace(model=model, args=SimpleNamespace(device=torch.device("cpu"))))
        == stays
    )
    printed = capsys.readouterr().err
    assert (
        printed.count("\n") == stays
        and ("takes 20.8 GiB, and a device has 20.0 GiB free" in printed) == stays
    )


def test_whole_weights_are_saved_without_an_engine():
    """transformers would ask an engine that was never made for its settings."""
    trainer = SimpleNamespace(model=torch.nn.Linear(1, 1), deepspeed=None, is_deepspeed_enabled=True)
    engine.attach_engine(trainer)
    assert not trainer.is_deepspeed_enabled and trainer.deepspeed is None
    trainer = SimpleNamespace(model=torch.nn.Linear(1, 1), deepspeed="live", is_deepspeed_enabled=True)
    engine.attach_engine(trainer)
    assert trainer.is_deepspeed_enabled and trainer.deepspeed == "live"
