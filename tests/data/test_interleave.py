"""Mixing rows by index: exact shares at any distance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marco_jax.data.order import Interleave

weights = st.lists(st.floats(0, 1).map(lambda w: w if w > 1e-4 else 0.0), min_size=1, max_size=12)


@given(weights=weights.filter(any), seed=st.integers(0, 2**32 - 1), far=st.integers(0, 10**12))
def test_whole_blocks_hold_the_largest_source_to_within_a_row(weights, seed, far):
    mixed = Interleave(weights, (seed,))
    rows = far * mixed.block
    counts = mixed.counts(rows)
    assert counts.sum() == rows
    shares = np.array(weights) / np.sum(weights)
    # Weights are kept to 2^-40: that is what may add to the one row at a great distance.
    slack = 1 + rows * 2.0**-39
    # Small sources take turns in blocks of their own, of which one may be open at each level.
    assert np.all(np.abs(counts - rows * shares) <= slack + 64)
    largest = np.flatnonzero(shares == shares.max())[-1]
    assert abs(counts[largest] - rows * shares[largest]) <= slack
    assert not counts[shares == 0].any()


@given(weights=weights.filter(any), start=st.integers(0, 3000))
def test_counts_and_locate_agree(weights, start):
    mixed = Interleave(weights, (1, 2))
    counts = mixed.counts(start)
    for row in range(start, start + 50):
        source, rank = mixed.locate(row)
        assert rank == counts[source]
        counts[source] += 1
    np.testing.assert_array_equal(counts, mixed.counts(start + 50))


def test_a_small_source_does_not_disturb_large_ones():
    weights = [0.6, 0.3, 0.1 - 2e-5, 1e-5, 1e-5]
    mixed = Interleave(weights, (0,))
    for rows in (64, 640, 6400):
        assert np.abs(mixed.counts(rows)[:2] - rows * np.array(weights[:2])).max() <= 1
    assert mixed.counts(10**7).tolist()[3:] == pytest.approx([100, 100], abs=64)


def test_the_order_depends_on_the_seed_alone():
    first, again, other = (Interleave([0.7, 0.3], seed) for seed in ((1,), (1,), (2,)))
    rows = range(500)
    assert [first.locate(r) for r in reversed(rows)] == [again.locate(r) for r in rows][::-1]
    assert [first.locate(r) for r in rows] != [other.locate(r) for r in rows]


@pytest.mark.parametrize("weights", [[0, 0], [-0.1, 1.1], [], [float("nan"), 1]])
def test_weights_that_mean_nothing_are_refused(weights):
    with pytest.raises(ValueError, match="must be zero or more, and not all zero"):
        Interleave(weights, (0,))


def test_a_weight_too_small_for_a_block_in_memory_is_refused():
    with pytest.raises(ValueError, match="weight 1e-09 is too small to mix by row: write 0"):
        Interleave([1 - 1e-9, 1e-9], (0,))
