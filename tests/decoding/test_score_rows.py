"""Batches of rows to score: how they are divided, and how the head reads them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marco_jax.decoding import head
from marco_jax.decoding.padded_shapes import bucket, power_of_two
from marco_jax.decoding.placement import Runtime
from marco_jax.decoding.score_rows import divide_rows
from marco_jax.model.qwen2_config import PRESETS


def rows_of(length, wanted):
    return min(max(1, 8192 // length), power_of_two(wanted))


@given(st.lists(st.integers(1, 600), min_size=1, max_size=80))
def test_batches_hold_all_rows(lengths):
    lengths = sorted(lengths, reverse=True)
    start = 0
    for end, length in divide_rows(lengths, bucket, rows_of):
        assert end > start
        assert length == bucket(lengths[start])
        assert end - start <= rows_of(length, end - start)
        start = end
    assert start == len(lengths)


def test_long_rows_do_not_pad_short_ones():
    assert divide_rows([160] * 32 + [100] * 32, bucket, rows_of) == [(32, 160), (64, 128)]
    # A few rows are not worth a call of their own.
    assert divide_rows([160] * 30 + [100] * 2, bucket, rows_of) == [(32, 160)]
    assert divide_rows([160] * 36, bucket, rows_of) == [(32, 160), (36, 160)]


@pytest.mark.parametrize("vocab", [1000, 998, 120])
def test_the_head_reads_the_vocabulary_in_blocks(monkeypatch, vocab):
    """8 blocks of 125 entries; 8 of 128, which do not divide 998; one."""
    monkeypatch.setattr(head, "LOGITS", 128 * 6)
    config = dataclasses.replace(PRESETS["tiny"], vocab_size=vocab)
    random = np.random.default_rng(0)
    table = jnp.asarray(random.normal(size=(vocab, 64)), jnp.float32)
    hidden = jnp.asarray(random.normal(size=(6, 64)), jnp.float32)
    targets = jnp.asarray(random.integers(0, vocab, (6, 3)), jnp.int32)
    logits = hidden @ table.T
    targets = targets.at[:, 0].set(jnp.argmax(logits, axis=1))
    whole = head.Head(table, jnp.arange(vocab, dtype=jnp.int32), Runtime.create(config, vocab))
    values, first = whole.read(hidden, targets)
    expected = jnp.take_along_axis(jax.nn.log_softmax(logits), targets, axis=1)
    # Float32 log-probabilities near 30, a few ulps each.
    np.testing.assert_allclose(values, expected, atol=2e-5)
    assert first.tolist() == (targets == targets[:, :1]).tolist()
