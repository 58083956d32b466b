"""The batch plan: every pair once an epoch, equal steps however they are divided, weights that add up to the
mean.
"""

from hypothesis import given
from hypothesis import strategies as st

from spr_plugin.dpo.plan import slot_plan
from spr_plugin.ids import digest

SIZES = st.fixed_dictionaries(
    {"batch": st.integers(1, 4), "accumulation": st.integers(1, 3), "world": st.integers(1, 3)}
)


def plan_of(lengths, **sizes):
    """Of pairs whose chosen answers are as long as their rows, where that does not matter."""
    return slot_plan(lengths, lengths, **sizes)


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
        [slot.pair for slot in plan_of(lengths, epochs=1, seed=seed, **divided)]
        for divided in (dict(zip(("batch", "accumulation", "world"), sizes)) for sizes in DIVISIONS_OF_4)
    ]
    assert all(plan == plans[0] for plan in plans)


def test_rows_of_a_step_are_about_equally_long():
    lengths = [(i * 7919) % 1000 for i in range(640)]
    slots = plan_of(lengths, epochs=1, batch=4, accumulation=1, world=2, seed=0)
    spreads = [
        max(here) - min(here)
        for here in ([lengths[s.pair] for s in slots[i : i + 8]] for i in range(0, len(slots), 8))
    ]
    assert sum(spreads) / len(spreads) < 100  # of 1000; in order of chance it would be near 780


def test_a_step_goes_from_long_to_short_and_its_last_pair_fills_it_up():
    slots = plan_of(list(range(10)), epochs=1, batch=2, accumulation=2, world=1, seed=3)
    first, second, last = ([(slot.pair, slot.weight) for slot in slots[i : i + 4]] for i in (0, 4, 8))
    assert sorted([first, second]) == [
        [(pair, 0.5) for pair in (5, 4, 3, 2)],
        [(pair, 0.5) for pair in (9, 8, 7, 6)],
    ]
    assert last == [(1, 1.0), (0, 1.0), (0, 0.0), (0, 0.0)]


def test_of_equal_lengths_the_pair_s_number_decides():
    (slots,) = {
        tuple(slot.pair for slot in plan_of([5] * 4, epochs=1, batch=4, accumulation=1, world=1, seed=seed))
        for seed in range(9)
    }
    assert slots == (0, 1, 2, 3)


def test_pairs_are_sorted_within_a_window_of_steps_alone():
    lengths = list(range(6))
    whole = plan_of(lengths, epochs=1, batch=2, accumulation=1, world=1, seed=0, window=3)
    assert {frozenset(slot.pair for slot in whole[i : i + 2]) for i in (0, 2, 4)} == {
        frozenset(pair) for pair in ((5, 4), (3, 2), (1, 0))
    }
    each = {
        tuple(
            slot.pair
            for slot in plan_of(lengths, epochs=1, batch=2, accumulation=1, world=1, seed=seed, window=1)
        )
        for seed in range(20)
    }
    assert len(each) > 10 and all(plan[i] > plan[i + 1] for plan in each for i in (0, 2, 4))


def test_the_plan_of_a_checkpoint_is_fixed_for_ever():
    """A stage that goes on makes its plan anew, and so many steps of it are behind it."""
    lengths = [number * 37 % 101 for number in range(70)]
    slots = plan_of(lengths, epochs=1, batch=2, accumulation=1, world=1, seed=0)
    assert digest([slot.pair for slot in slots]) == "c02cec678dafbee0"


def test_epochs_are_shuffled_anew():
    plans = [
        tuple(
            slot.pair
            for slot in plan_of([5] * 8, epochs=2, batch=1, accumulation=1, world=1, seed=s, window=1)
        )
        for s in range(3)
    ]
    assert len({half for plan in plans for half in (plan[:8], plan[8:])}) == 6


def test_however_small_the_part_there_is_a_pair():
    assert len(plan_of([5, 6], epochs=1e-3, batch=1, accumulation=1, world=1, seed=0)) == 1


def test_part_of_an_epoch():
    fives, sizes = [5] * 10, dict(batch=1, accumulation=1, world=1, seed=0)
    assert len(plan_of(fives, epochs=0.5, **sizes)) == 5
    assert len(plan_of(fives, epochs=1.5, **sizes)) == 15
