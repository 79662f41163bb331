"""Packing: every target exactly once, in rows that are no longer than they may be."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from marco_jax.data.packing import SLACK, pack

documents = st.lists(st.integers(0, 100), min_size=1, max_size=60)


@given(lengths=documents, length=st.integers(1, 40))
def test_every_target_of_every_document_stands_in_one_row(lengths, length):
    plan = pack(np.arange(len(lengths)), np.array(lengths) + 1, length)
    found = {
        (int(document), int(offset) + place)
        for document, offset, size in zip(plan.document, plan.offset, plan.size, strict=True)
        for place in range(int(size))
    }
    # A document of n ids has n + 1 targets: its ids and the separator after them.
    assert found == {(d, place) for d, n in enumerate(lengths) for place in range(n + 1)}
    assert plan.targets == len(found) == sum(lengths) + len(lengths)


@given(lengths=documents, length=st.integers(1, 300))
def test_rows_are_neither_empty_nor_too_long(lengths, length):
    plan = pack(np.arange(len(lengths)), np.array(lengths) + 1, length)
    sizes = [plan.size[a:b].sum() for a, b in zip(plan.starts, plan.starts[1:], strict=False)]
    assert plan.rows == len(sizes)
    assert plan.starts[0] == 0 and plan.starts[-1] == len(plan.size)
    assert min(sizes) >= 1 and max(sizes) <= length
    emptier = [size for size in sizes if length - size > int(length * SLACK)]
    assert len(emptier) <= 1


def test_documents_that_do_not_pair_up_leave_little_padding():
    lengths = np.random.default_rng(0).integers(1200, 1400, 500)
    plan = pack(np.arange(len(lengths)), lengths, 2048)
    assert plan.targets / (plan.rows * 2048) > 0.98
    # At most one cut a row, and no end of a few tokens.
    assert len(plan.size) <= 500 + plan.rows
    assert np.sort(plan.size)[1:].min() >= 2048 * SLACK


def test_documents_that_fit_are_not_cut():
    lengths = np.random.default_rng(0).integers(10, 200, 2000)
    plan = pack(np.arange(len(lengths)), lengths, 2048)
    assert len(plan.size) <= 2001


def test_ordinary_documents_leave_little_padding():
    lengths = np.random.default_rng(0).lognormal(4.5, 1, 20_000).astype(int)
    plan = pack(np.arange(len(lengths)), lengths + 1, 512)
    assert plan.targets / (plan.rows * 512) > 0.98


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=60), most=st.integers(1, 5))
def test_what_may_not_be_cut_stands_whole_and_in_company_of_few(sizes, most):
    plan = pack(np.arange(len(sizes)), np.array(sizes), 40, most=most, cut=False)
    assert sorted(plan.document) == list(range(len(sizes)))
    np.testing.assert_array_equal(plan.size, np.array(sizes)[plan.document])
    assert np.diff(plan.starts).max() <= most
