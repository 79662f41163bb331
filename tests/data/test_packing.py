"""Packing: every target exactly once, in rows that are no longer than they may be."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from marco_jax.data.packing import plan_rows

documents = st.lists(st.integers(0, 100), min_size=1, max_size=60)


@given(lengths=documents, length=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_every_target_of_every_document_stands_in_one_row(lengths, length, seed):
    plan = plan_rows(np.array(lengths), length, np.random.default_rng(seed))
    found = {
        (int(document), int(offset) + place)
        for document, offset, size in zip(plan.document, plan.offset, plan.size, strict=True)
        for place in range(int(size))
    }
    # A document of n ids has n + 1 targets: its ids and the separator after them.
    assert found == {(d, place) for d, n in enumerate(lengths) for place in range(n + 1)}
    assert plan.targets == len(found) == sum(lengths) + len(lengths)


@given(lengths=documents, length=st.integers(1, 40))
def test_rows_are_neither_empty_nor_too_long(lengths, length):
    plan = plan_rows(np.array(lengths), length, np.random.default_rng(0))
    sizes = [plan.size[a:b].sum() for a, b in zip(plan.starts, plan.starts[1:], strict=False)]
    assert plan.rows == len(sizes)
    assert plan.starts[0] == 0 and plan.starts[-1] == len(plan.size)
    assert min(sizes) >= 1 and max(sizes) <= length
    # Best fit: two rows could not have been one.
    small = sorted(sizes)[:2]
    assert len(sizes) == 1 or sum(small) > length


def test_the_plan_depends_on_the_seed_alone():
    lengths = np.random.default_rng(0).integers(1, 200, 500)
    first, again, other = (plan_rows(lengths, 128, np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.document, again.document)
    assert not np.array_equal(first.document, other.document)


def test_ordinary_documents_leave_little_padding():
    lengths = np.random.default_rng(0).lognormal(4.5, 1, 20_000).astype(int)
    plan = plan_rows(lengths, 512, np.random.default_rng(0))
    assert plan.targets / (plan.rows * 512) > 0.98
