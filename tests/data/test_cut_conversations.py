"""Conversations and pairs longer than a row: shares, what is left out, and how it is counted."""

import numpy as np
import pytest

from marco_jax.data.feed import Stage, build_feed
from marco_jax.data.mixture_table import mixture_table
from marco_jax.data.mixtures import Mixture
from marco_jax.data.packed import pack_sources
from marco_jax.data.store import (
    CONVERSATIONS,
    PREFERENCES,
    TEXTS,
    TokenStore,
    finish_store,
    new_part,
)

LENGTH = 128


def write(store, kind, documents):
    """A store of (ids, loss mask); texts have no mask."""
    with new_part(store, 0, kind) as writer:
        for ids, mask in documents:
            if kind == TEXTS:
                writer.add_texts(ids, np.array([len(ids)]))
            else:
                writer.add_conversation(ids, mask, "kk" if len(ids) % 2 else "en")
        writer.close({})
    finish_store(store, 1, {"source": store.name})
    return TokenStore(store)


def texts(rng, count=400):
    sizes = rng.integers(1, 3 * LENGTH, count)
    return [(rng.integers(0, 99, size), None) for size in sizes]


def conversation(rng, size, trained_from):
    mask = (np.arange(size) >= trained_from) & (rng.random(size) < 0.7)
    return rng.integers(0, 99, size), mask.astype(np.uint8)


def conversations(rng, count=400):
    """Most are longer than a row, and of some nothing is trained on before its end."""
    sizes = rng.integers(20, 8 * LENGTH, count)
    return [conversation(rng, size, rng.integers(0, size)) for size in sizes]


def open_feed(stores, shares, steps, batch_rows=8):
    packed = pack_sources(stores, length=LENGTH, seed=0, eos_id=0, pairs_per_row=4)
    stages = [Stage("s", Mixture("m", shares), steps)]
    return build_feed(packed, stages, length=LENGTH, batch_rows=batch_rows, seed=0)


def share_of(feed, name, steps):
    """The realised share of a source of the target tokens that are trained on."""
    wanted = [n for n, label in enumerate(feed.labels) if label.partition("/")[0] == name]
    of, total = 0.0, 0.0
    for step in range(steps):
        batch = feed.batch(step)
        weights = batch["loss_weights"]
        assert (weights.sum(axis=1) > 0).all(), "a row without a trained token"
        of += weights[np.isin(batch["source_ids"], wanted)].sum()
        total += weights.sum()
    return of / total


def test_a_share_of_cut_conversations_is_one_of_trained_tokens(tmp_path):
    rng = np.random.default_rng(0)
    chat = conversations(rng)
    assert np.mean([len(ids) > LENGTH + 1 for ids, _ in chat]) > 0.7
    stores = {
        "en": write(tmp_path / "en", TEXTS, texts(rng)),
        "chat": write(tmp_path / "chat", CONVERSATIONS, chat),
    }
    feed = open_feed(stores, {"en": 0.75, "chat": 0.25}, 300)
    assert share_of(feed, "chat", 300) == pytest.approx(0.25, abs=0.01)


def test_a_share_of_preferences_is_one_of_trained_tokens(tmp_path):
    rng = np.random.default_rng(1)
    sides = []
    for _ in range(400):
        first, second = rng.integers(10, LENGTH, 2)
        sides += [conversation(rng, size, rng.integers(0, size)) for size in (first, second)]
    stores = {
        "a": write(tmp_path / "a", PREFERENCES, sides),
        "b": write(tmp_path / "b", PREFERENCES, [conversation(rng, 30, 5) for _ in range(200)]),
    }
    feed = open_feed(stores, {"a": 0.25, "b": 0.75}, 300)
    assert share_of(feed, "a", 300) == pytest.approx(0.25, abs=0.01)


def test_what_has_nothing_to_train_on_within_a_row_is_left_out_and_counted(tmp_path):
    rng = np.random.default_rng(2)
    documents = conversations(rng, 200) + [
        # Its first token is not a target; the last target of a row is token LENGTH.
        (np.arange(9), np.eye(9, dtype=np.uint8)[0]),
        (np.arange(3 * LENGTH), (np.arange(3 * LENGTH) == LENGTH + 1).astype(np.uint8)),
        (np.arange(3 * LENGTH), (np.arange(3 * LENGTH) == LENGTH).astype(np.uint8)),
        (np.arange(1), np.ones(1, np.uint8)),
    ]
    feed = open_feed(
        {"chat": write(tmp_path / "chat", CONVERSATIONS, documents)}, {"chat": 1.0}, 40
    )
    kept = [mask[1 : LENGTH + 1].any() for _, mask in documents]
    long = [len(ids) > LENGTH + 1 for ids, _ in documents]
    (described,) = feed.describe()["sources"].values()
    assert described["untrained"] == kept.count(False) >= 3
    assert described["cut"] == sum(k and n for k, n in zip(kept, long, strict=True))
    assert described["tokens"] == sum(int(mask[1 : LENGTH + 1].sum()) for _, mask in documents)
    rows = sum((feed.describe_batch(step) for step in range(40)), [])
    read = {int(n) for row in rows for n in row.partition(": ")[2].split(", ")}
    assert read == set(np.flatnonzero(kept).tolist())
    _, warnings = mixture_table(feed.describe(), 1e9)
    assert [line for line in warnings if "have no token to train on" in line]
    assert all("raise batch.length" in line for line in warnings)


def test_a_pair_of_which_a_side_has_nothing_to_train_on_is_left_out_and_counted(tmp_path):
    rng = np.random.default_rng(3)
    plain = [conversation(rng, 20, 5) for _ in range(20)]
    empty = (np.arange(20), np.zeros(20, np.uint8))
    too_long = [conversation(rng, LENGTH, 5), conversation(rng, 20, 5)]
    documents = [*plain, empty, plain[0], plain[1], empty, *too_long]
    feed = open_feed({"dpo": write(tmp_path / "dpo", PREFERENCES, documents)}, {"dpo": 1.0}, 10)
    (described,) = feed.describe()["sources"].values()
    assert (described["untrained"], described["left_out"]) == (2, 1)
    for step in range(10):
        batch = feed.batch(step)
        for row in range(8):
            segments = batch["segment_ids"][row]
            for segment in range(1, segments.max() + 1):
                assert batch["loss_weights"][row][segments == segment].any()


def test_a_source_without_anything_to_train_on_is_named(tmp_path):
    store = write(tmp_path / "chat", CONVERSATIONS, [(np.arange(9), np.zeros(9, np.uint8))] * 3)
    with pytest.raises(ValueError, match="'chat' has nothing that fits into rows of 128 tokens"):
        pack_sources({"chat": store}, length=LENGTH, seed=0, eos_id=0)
