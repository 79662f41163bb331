"""The order of the data: any step at once, on any number of hosts, unchanged unless wanted."""

import collections
import json
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marco_jax.data.feed import FIELDS, Feed, Stage, build_feed
from marco_jax.data.mixtures import Mixture
from marco_jax.data.order import Permutation
from marco_jax.data.packed import PackedSource, pack_sources
from marco_jax.data.resume_order import OrderChanged, describe_change, refuse_change
from marco_jax.data.store import TEXTS
from marco_jax.data.streamed import StreamedSource

EOS_ID = 255


class Documents:
    """A store in memory; document n of length k is n, n + 1, ... modulo 255."""

    def __init__(self, directory, lengths, fingerprint="documents"):
        self.directory = directory
        self.lengths = np.asarray(lengths, np.int32)
        self.tokens = int(self.lengths.sum(dtype=np.int64))
        self.fingerprint = fingerprint
        self.kind, self.languages = TEXTS, ()
        self.manifest = {"errors": {}}
        self.targets = self.tokens + len(self.lengths)

    def read(self, document: int, start: int, stop: int) -> np.ndarray:
        return (document + np.arange(start, stop, dtype=np.int32)) % EOS_ID


@pytest.fixture
def stores(tmp_path):
    """35 sources of different sizes, some of short and some of long documents."""
    rng = np.random.default_rng(0)
    found = {}
    for number in range(35):
        directory = tmp_path / f"source{number:02d}"
        directory.mkdir()
        lengths = rng.lognormal(3 + number % 4, 0.8, 300 + 40 * number).astype(int)
        found[directory.name] = Documents(directory, lengths, f"f{number}")
    return found


def feed_of(stores, *stages, rows=16, seed=0, length=128) -> Feed:
    named = [Stage(f"s{n}", Mixture(f"m{n}", s), steps) for n, (s, steps) in enumerate(stages)]
    packed = pack_sources(stores, length=length, seed=seed, eos_id=EOS_ID)
    return build_feed(packed, named, length=length, batch_rows=rows, seed=seed)


def shares_of(stores, seed=0):
    values = np.random.default_rng(seed).dirichlet(np.ones(len(stores)))
    return dict(zip(stores, values, strict=True))


@given(size=st.integers(1, 3000), seed=st.integers(0, 2**64 - 1))
def test_a_permutation_takes_every_entry_once(size, seed):
    shuffle = Permutation(size, (seed, 7))
    found = shuffle(np.arange(size))
    assert sorted(found.tolist()) == list(range(size))
    np.testing.assert_array_equal(shuffle(np.array([size - 1])), found[-1:])


def test_a_permutation_leaves_no_trace_of_the_order():
    found = Permutation(100_000, (3,))(np.arange(100_000))
    # Of a random order both are near 0; the standard error is 0.003.
    assert abs(np.corrcoef(found, np.arange(100_000))[0, 1]) < 0.015
    assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 0.015


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 300), min_size=1, max_size=200),
    length=st.integers(8, 64),
    seed=st.integers(0, 2**31),
)
def test_an_epoch_unpacks_to_every_token_of_every_document_once(
    tmp_path_factory, lengths, length, seed
):
    """Id 0 is a token like any other: documents here are full of it."""
    directory = tmp_path_factory.mktemp("store")
    store = Documents(directory, lengths)
    store.read = lambda document, start, stop: np.zeros(stop - start, np.int32) + document % 2
    source = PackedSource("ones", store, length, seed, EOS_ID)
    targets = 0
    zeros = 0
    for row in range(source.rows):
        out = {
            name: np.zeros(length, np.float32 if name == "loss_weights" else np.int32)
            for name in (*FIELDS, "loss_weights")
        }
        source.fill(row, out)
        valid = out["segment_ids"] > 0
        np.testing.assert_array_equal(out["loss_weights"], valid.astype(np.float32))
        targets += int(valid.sum())
        zeros += int((valid & (out["targets"] == 0)).sum())
    assert targets == sum(lengths) + len(lengths) == source.targets
    assert zeros == sum(n for document, n in enumerate(lengths) if document % 2 == 0)


def test_realised_shares_of_35_sources_are_those_asked_within_sampling_error(stores):
    asked = shares_of(stores)
    feed = feed_of(stores, (asked, 2000), rows=8)
    tokens, rows = np.zeros(35), np.zeros(35)
    for step in range(2000):
        batch = feed.batch(step)
        ids = batch["source_ids"][:, 0]
        np.add.at(tokens, ids, batch["loss_weights"].sum(axis=1))
        np.add.at(rows, ids, 1)
    realised = tokens / tokens.sum()
    expected = np.array([asked[name] for name in feed.sources])
    # Chi-square in units of rows, as if every row had been drawn on its own: 34 degrees of
    # freedom; 48.6 is its 95% quantile. Blocks have exact counts, so it is far below.
    chi_square = (rows.sum() * (realised - expected) ** 2 / expected).sum()
    assert chi_square < 48.6
    assert np.abs(realised / expected - 1)[expected > 0.01].max() < 0.03


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_global_batches_do_not_depend_on_the_number_of_hosts(stores, hosts):
    feed = feed_of(stores, (shares_of(stores), 10))
    share = 16 // hosts
    for step in (0, 9):
        parts = [feed.batch(step, slice(h * share, (h + 1) * share)) for h in range(hosts)]
        whole = feed.batch(step)
        for name, array in whole.items():
            np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), array)


def continued(feed: Feed, state: dict, step: int) -> tuple[Feed, list[str]]:
    return feed.resumed(json.loads(json.dumps(state)), step)


def test_a_restart_goes_on_and_so_does_the_next(stores):
    stages = ((shares_of(stores), 12), (shares_of(stores, 1), 12))
    whole = feed_of(stores, *stages)
    state = whole.state(7)
    assert len(json.dumps(state)) < 1_000_000
    for step in (7, 15):
        again, changes = continued(feed_of(stores, *stages), state, step)
        assert changes == []
        for later in (step, 23):
            np.testing.assert_array_equal(
                again.batch(later)["tokens"], whole.batch(later)["tokens"]
            )
        state = again.state(step)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"rows": 8}, "batch_rows: 16 -> 8"),
        ({"length": 64}, "length: 128 -> 64"),
        ({"steps": 13}, "stages[0].steps: 12 -> 13"),
        ({"share": 0.5}, "stages[0].shares.source00: "),
        ({"source": "other"}, "sources.source00: f0 -> other"),
    ],
)
def test_a_silent_change_of_the_order_is_refused(stores, change, line):
    shares = shares_of(stores)
    state = feed_of(stores, (shares, 12)).state(5)
    if "share" in change:
        shares = shares | {"source00": change["share"]}
    if "source" in change:
        stores["source00"].fingerprint = change["source"]
    options = {name: value for name, value in change.items() if name in ("seed", "rows", "length")}
    other = feed_of(stores, (shares, change.get("steps", 12)), **options)
    _, changes = continued(other, state, 5)
    assert any(line in text for text in changes)
    with pytest.raises(OrderChanged, match="set mixture.accept_change=true to go on"):
        refuse_change(changes)


def rows_of(feed: Feed, source: str, steps: range) -> list[bytes]:
    number = feed.sources.index(source)
    batches = (feed.batch(step) for step in steps)
    return [
        row.tobytes()
        for batch in batches
        for row in batch["tokens"][batch["source_ids"][:, 0] == number]
    ]


def test_wanted_new_weights_leave_what_was_not_seen_for_later(stores):
    """Rows of a source are read in their order, once an epoch, across the change."""
    names = [f"source{number:02d}" for number in range(20, 24)]
    stores = {name: stores[name] for name in names}
    first = dict(zip(names, (0.25, 0.25, 0.25, 0.25), strict=True))
    second = dict(zip(names, (0.7, 0.1, 0.1, 0.1), strict=True))
    before = feed_of(stores, (first, 10))
    after, changes = continued(feed_of(stores, (second, 10)), before.state(5), 5)
    assert changes
    alone = feed_of(stores, ({names[0]: 1.0}, 100))
    read = rows_of(before, names[0], range(5)) + rows_of(after, names[0], range(5, 10))
    assert read == rows_of(alone, names[0], range(100))[: len(read)]
    counts = [len(rows_of(after, name, range(5, 10))) for name in names]
    assert counts[0] > sum(counts[1:])
    # The second restart, with the new weights, changes nothing any more.
    again, changes = continued(feed_of(stores, (second, 10)), after.state(8), 8)
    assert changes == []
    np.testing.assert_array_equal(again.batch(9)["tokens"], after.batch(9)["tokens"])
    with pytest.raises(IndexError, match="of which this order begins at 5"):
        after.batch(4)


KEPT = "goes on where it was left: documents not read yet in its epoch come first"
RENEWED = (
    ": a new order of documents begins: of 'source33' 40%, 'source34' 20% of an epoch was read and "
    "may come again before the rest; some of the rest may come only in the next epoch"
)


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        ({"share": 0.7}, [f"every source {KEPT}"]),
        ({"rows": 8, "steps": 30}, [f"every source {KEPT}"]),
        ({"seed": 1, "share": 0.7}, [f"seed 0 -> 1{RENEWED}"]),
        ({"length": 64}, [f"batch.length 128 -> 64{RENEWED}"]),
        (
            {"source": "other"},
            [
                "the content of 'source34' has changed: a new order of documents begins: of "
                "'source34' 20% of an epoch was read and may come again before the rest; some of "
                "the rest may come only in the next epoch",
                f"each of the other sources {KEPT}",
            ],
        ),
        (
            {"added": "source32", "removed": "source34"},
            [
                f"every source {KEPT}",
                "'source32' begins with the first row of its order",
                "'source34' is not read any more",
            ],
        ),
    ],
)
def test_what_a_change_means_for_documents_is_told(stores, change, lines):
    names = ("source33", "source34")
    shares = dict.fromkeys(names, 0.5)
    state = feed_of({name: stores[name] for name in names}, (shares, 12)).state(5)
    state["rows"] = {
        "source33": {"used": 40, "epoch": 100},
        "source34": {"used": 100, "epoch": 500},
    }
    if "share" in change:
        shares = {"source33": change["share"], "source34": 1 - change["share"]}
    if "added" in change:
        shares = {"source32": 0.5, "source33": 0.5}
    if "source" in change:
        stores["source34"].fingerprint = change["source"]
    options = {name: value for name, value in change.items() if name in ("seed", "rows", "length")}
    known = {name: stores[name] for name in shares}
    other = feed_of(known, (shares, change.get("steps", 12)), **options)
    assert describe_change(state, other.order()) == lines


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"seed": 1}, "seed 0 -> 1: streamed 'web' goes on at its window of 1,024 documents"),
        ({"length": 64}, "batch.length 128 -> 64: streamed 'web' begins again with the first"),
        ({"sources": {"web": "other"}}, "the content of 'web' has changed: streamed 'web' begins"),
        ({"stages": []}, f"every source {KEPT}"),
    ],
)
def test_what_a_change_means_for_a_streamed_source_is_told(change, line):
    order = {"seed": 0, "length": 128, "packing": 1, "stages": [1], "sources": {"web": "f"}}
    state = {"order": order, "rows": {"web": {"used": 50, "epoch": None}}}
    assert describe_change(state, order | change)[0].startswith(line)
    unread = {"order": order, "rows": {"web": {"used": 0, "epoch": None}}}
    if "stages" not in change:
        assert "nothing was read yet" in describe_change(unread, order | change)[0]


def test_many_sources_are_counted():
    names = [f"source{number}" for number in range(8)]
    order = {"seed": 0, "length": 1, "packing": 1, "sources": dict.fromkeys(names, "f")}
    rows = {name: {"used": n + 1, "epoch": 1000} for n, name in enumerate(names)}
    line = describe_change({"order": order, "rows": rows}, order | {"seed": 2})[0]
    assert "of 'source7' 0.8%, 'source6' 0.7%," in line and "'source3' 0.4% and 3 others" in line


def test_documents_that_were_read_come_again_after_another_seed(stores):
    """What `describe_change` says of another seed, and not of another size of the batch."""
    shares = {"source00": 0.5, "source04": 0.5}
    known = {name: stores[name] for name in shares}
    before = feed_of(known, (shares, 60))

    def documents(feed, steps):
        lines = [line for step in steps for line in feed.describe_batch(step)]
        rows = [line.partition(": ")[2].split(", ") for line in lines if "source04" in line]
        return {number for row in rows for number in row}

    # Eleven steps of eight rows of this source are within its first epoch.
    rows = before.state(11)["rows"]["source04"]
    assert rows["used"] < rows["epoch"]
    read = documents(before, range(6))
    for options, again in (({"rows": 8}, False), ({"seed": 1}, True)):
        after, _ = continued(feed_of(known, (shares, 60), **options), before.state(6), 6)
        # Documents that are cut at a row's end lie in two rows.
        both = len(read & documents(after, range(6, 11))) / len(read)
        assert (both > 0.2) == again and (both < 0.1) != again


def test_a_stuck_source_is_named(stores):
    names = ["source00"]
    feed = feed_of({name: stores[name] for name in names}, ({"source00": 1.0}, 5))
    released = threading.Event()
    read, stores["source00"].read = stores["source00"].read, lambda *_: released.wait()
    with pytest.raises(TimeoutError, match="no batch for step 2 after 0.2 seconds: .* 'source00'"):
        list(feed.iterate(2, 5, timeout=0.2))
    stores["source00"].read = read
    released.set()


def test_what_a_batch_holds_can_be_told(stores):
    feed = feed_of(stores, (shares_of(stores), 10))
    lines = feed.describe_batch(3)
    batch = feed.batch(3)
    assert len(lines) == 16
    for line, row, source in zip(lines, batch["tokens"], batch["source_ids"], strict=True):
        name, _, numbers = line.partition(": ")
        assert name == feed.sources[source[0]]
        # The first document of a row begins with its number, after the separator.
        first = int(numbers.split(", ")[0])
        if row[0] == EOS_ID and row[1] != EOS_ID:
            assert row[1] == first % EOS_ID


def words(count: int) -> list[str]:
    rng = np.random.default_rng(1)
    return ["!" * int(n) + f" {i}" for i, n in enumerate(rng.integers(1, 60, count))]


def streaming_feed(stores, tokenizer, texts) -> Feed:
    length = 128
    stream = StreamedSource("stream", lambda: iter(texts), tokenizer, "f", length, seed=0)
    sources = {"source00": stores["source00"], "stream": stream}
    stages = [Stage("s", Mixture("m", {"source00": 0.4, "stream": 0.6}), 200)]
    packed = pack_sources(sources, length=length, seed=0, eos_id=EOS_ID)
    return build_feed(packed, stages, length=length, batch_rows=8, seed=0)


def test_a_streamed_source_goes_on_from_what_was_saved(stores, tokenizer):
    """Also in the second epoch, after a second restart, and while batches are made ahead."""
    texts = words(2500)
    whole = streaming_feed(stores, tokenizer, texts)
    batches = [whole.batch(step)["tokens"] for step in range(200)]
    feed, start = streaming_feed(stores, tokenizer, texts), 0
    for step in (3, 90, 170):
        ahead = feed.iterate(start, 200)
        for _ in range(step - start + 2):
            next(ahead)
        state = feed.state(step)
        ahead.close()
        feed, changes = continued(streaming_feed(stores, tokenizer, texts), state, step)
        assert changes == []
        for later in (step, step + 5):
            np.testing.assert_array_equal(feed.batch(later)["tokens"], batches[later])
        feed, _ = continued(streaming_feed(stores, tokenizer, texts), state, step)
        start = step
    assert state["rows"]["stream"]["window"]["epoch"] >= 1


def test_a_streamed_epoch_holds_every_token_once(stores, tokenizer):
    texts = words(2500)
    stream = StreamedSource("stream", lambda: iter(texts), tokenizer, "f", 128, seed=0)
    found: collections.Counter = collections.Counter()
    index = 0
    while stream.window_at(index)["epoch"] == 0:
        out = {
            name: np.zeros(128, np.int32)
            for name in ("tokens", "targets", "positions", "segment_ids", "loss_weights")
        }
        stream.fill(index, out)
        if stream.window_at(index)["epoch"] == 0:
            found.update(out["targets"][out["segment_ids"] > 0].tolist())
        index += 1
    wanted: collections.Counter = collections.Counter()
    for text in texts:
        wanted.update([*tokenizer.encode(text), tokenizer.eos_id])
    assert found == wanted


def test_hosts_stream_the_same_global_batch(stores, tokenizer):
    texts = words(1500)
    whole = streaming_feed(stores, tokenizer, texts)
    hosts = [streaming_feed(stores, tokenizer, texts) for _ in range(2)]
    for step in range(60):
        parts = [feed.batch(step, slice(4 * h, 4 * h + 4)) for h, feed in enumerate(hosts)]
        for name, array in whole.batch(step).items():
            np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), array)


def test_a_streamed_row_that_has_gone_by_is_refused(stores, tokenizer):
    feed = streaming_feed(stores, tokenizer, words(3000))
    feed.batch(150)
    with pytest.raises(IndexError, match="of the streamed source 'stream' has gone by"):
        feed.batch(0)
