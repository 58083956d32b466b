"""The batch plan: every pair once an epoch, equal steps however they are divided, weights that add up to the
mean.
"""

from hypothesis import given
from hypothesis import strategies as st

from spr_plugin.dpo.plan import slot_plan

SIZES = st.fixed_dictionaries(
    {"batch": st.integers(1, 4), "accumulation": st.integers(1, 3), "world": st.integers(1, 3)}
)

DIVISIONS_OF_4 = [(4, 1, 1), (2, 2, 1), (2, 1, 2), (1, 1, 4), (1, 2, 2)]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), SIZES, st.integers(1, 3), st.integers(0, 5))
def test_every_pair_once_an_epoch_and_weights_make_the_mean(lengths, sizes, epochs, seed):
    chosen = [1 + length % 7 for length in lengths]
    slots = slot_plan(lengths, chosen, epochs=epochs, seed=seed, **sizes)
    step = sizes["batch"] * sizes["accumulation"] * sizes["world"]
    assert len(slots) % step == 0
    real = [slot.pair for slot in slots if slot.weight]
    assert sorted(real) == sorted(list(range(len(lengths))) * epochs)
    for start in range(0, len(slots), step):
        # What the Trainer makes of it: the mean over accumulation steps and ranks of the sums of weight ×
        # loss.
        here = slots[start : start + step]
        pairs = [slot.pair for slot in here if slot.weight]
        total = sum(slot.weight * lengths[slot.pair] for slot in here) / (
            sizes["accumulation"] * sizes["world"]
        )
        assert abs(total - sum(lengths[p] for p in pairs) / len(pairs)) < 1e-9
        mean = sum(chosen[pair] for pair in pairs) / len(pairs)
        assert {slot.mean_chosen_tokens for slot in here} == {mean}  # whoever has the slot
    assert slots == slot_plan(lengths, chosen, epochs=epochs, seed=seed, **sizes)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(0, 5))
def test_equal_global_batches_hold_the_same_pairs_however_divided(lengths, seed):
    plans = [
        [slot.pair for slot in slot_plan(lengths, lengths, epochs=1, seed=seed, **divided)]
        for divided in (dict(zip(("batch", "accumulation", "world"), sizes)) for sizes in DIVISIONS_OF_4)
    ]
    assert all(plan == plans[0] for plan in plans)


def test_rows_of_a_step_are_about_equally_long():
    lengths = [(i * 7919) % 1000 for i in range(640)]
    slots = slot_plan(lengths, lengths, epochs=1, batch=4, accumulation=1, world=2, seed=0)
    spreads = [
        max(here) - min(here)
        for here in ([lengths[s.pair] for s in slots[i : i + 8]] for i in range(0, len(slots), 8))
    ]
    assert sum(spreads) / len(spreads) < 100  # of 1000; in order of chance it would be near 780


def test_part_of_an_epoch():
    fives, sizes = [5] * 10, dict(batch=1, accumulation=1, world=1, seed=0)
    assert len(slot_plan(fives, fives, epochs=0.5, **sizes)) == 5
    assert len(slot_plan(fives, fives, epochs=1.5, **sizes)) == 15
