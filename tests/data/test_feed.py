"""The feed: any batch at once, every token once an epoch, shares of tokens as asked."""

import collections
import threading

import numpy as np
import pytest

from marco_jax.data.feed import Feed, Stage
from marco_jax.data.mixtures import Mixture
from marco_jax.data.texts import TRAIN

LENGTH, ROWS = 64, 8


@pytest.fixture(scope="session")
def make_feed(corpus_feed, small_corpus, tokenizer, cache_dir):
    def make(*stages: tuple[dict[str, float], int], seed: int = 0, length: int = LENGTH) -> Feed:
        return corpus_feed(
            small_corpus,
            tokenizer,
            [Stage(f"s{n}", Mixture(f"m{n}", s), k) for n, (s, k) in enumerate(stages)],
            length=length,
            batch_rows=ROWS,
            seed=seed,
            cache_dir=cache_dir,
        )

    return make


@pytest.fixture(scope="session")
def feed(make_feed) -> Feed:
    mixed = {"en": 0.5, "kk": 0.2, "ne": 0.2, "parallel": 0.1}
    return make_feed((mixed, 60), ({"en": 0.1, "kk": 0.9}, 40))


def documents_of(batch: dict[str, np.ndarray]) -> list[tuple[int, list[int], list[int], list[int]]]:
    """(source id, inputs, targets, positions) of every segment of a batch."""
    found = []
    for row in range(len(batch["tokens"])):
        segments = batch["segment_ids"][row]
        for segment in range(1, segments.max() + 1):
            chosen = segments == segment
            fields = (batch[name][row][chosen].tolist() for name in ("tokens", "targets"))
            positions = batch["positions"][row][chosen].tolist()
            found.append((int(batch["source_ids"][row, 0]), *fields, positions))
    return found


def assert_equal(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def test_fields_and_types(feed):
    batch = feed.batch(0)
    integers = {"tokens", "targets", "positions", "segment_ids", "source_ids"}
    assert set(batch) == integers | {"loss_weights"}
    assert all(batch[name].dtype == np.int32 for name in integers)
    assert batch["loss_weights"].dtype == np.float32
    assert all(array.shape == (ROWS, LENGTH) for array in batch.values())
    np.testing.assert_array_equal(batch["loss_weights"], batch["segment_ids"] > 0)
    assert set(np.unique(batch["source_ids"])) <= set(range(len(feed.sources)))


@pytest.mark.parametrize("length", [16, LENGTH, 300])
def test_one_epoch_reads_every_document_once_id_0_included(
    make_feed, small_corpus, tokenizer, length
):
    # "ne" is nothing but "!", id 0: padding that is told by id would lose all of it.
    for source in ("ne", "kk"):
        feed = make_feed(({source: 1.0}, 100_000), length=length)
        rows = feed.describe()["sources"][source]["rows"]
        read = collections.Counter()
        batches = [feed.batch(step) for step in range(-(-rows // ROWS))]
        whole = {name: np.concatenate([b[name] for b in batches])[:rows] for name in batches[0]}
        for _, inputs, targets, positions in documents_of(whole):
            assert positions == list(range(len(inputs)))
            assert inputs[1:] == targets[:-1]
            read.update(zip(inputs, targets, strict=True))
        wanted = collections.Counter()
        for document in small_corpus.documents(source, TRAIN):
            stream = [tokenizer.eos_id, *tokenizer.encode(document.text), tokenizer.eos_id]
            wanted.update(zip(stream, stream[1:], strict=False))
        assert read == wanted


def test_a_document_that_fits_is_one_segment_between_separators(make_feed, small_corpus, tokenizer):
    feed = make_feed(({"en": 1.0}, 100_000), length=512)
    steps = -(-feed.describe()["sources"]["en"]["rows"] // ROWS)
    texts = {document.text for document in small_corpus.documents("en", TRAIN)}
    read = set()
    for step in range(steps):
        for _, inputs, targets, _ in documents_of(feed.batch(step)):
            assert inputs[0] == targets[-1] == tokenizer.eos_id
            read.add(tokenizer.decode(targets))
    assert read == texts


def test_a_batch_is_a_pure_function_of_its_step(feed, make_feed):
    mixed = {"en": 0.5, "kk": 0.2, "ne": 0.2, "parallel": 0.1}
    again = make_feed((mixed, 60), ({"en": 0.1, "kk": 0.9}, 40))
    for step in (77, 3, 59, 60, 0, 99):
        assert_equal(again.batch(step), feed.batch(step))
    other = make_feed((mixed, 60), ({"en": 0.1, "kk": 0.9}, 40), seed=1)
    assert not np.array_equal(other.batch(0)["tokens"], feed.batch(0)["tokens"])


@pytest.mark.parametrize("hosts", [2, 4, 8])
def test_hosts_rows_make_up_the_global_batch(feed, hosts):
    share = ROWS // hosts
    parts = [feed.batch(61, slice(n * share, (n + 1) * share)) for n in range(hosts)]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    assert_equal(joined, feed.batch(61))


def test_shares_of_target_tokens_are_those_asked_for(make_feed):
    """Rows of "kk" are fuller than others: shares of rows would not do."""
    asked = {"en": 0.5, "kk": 0.2, "ne": 0.2, "parallel": 0.1}
    feed = make_feed((asked, 400))
    tokens = np.zeros(len(feed.sources))
    for step in range(400):
        batch = feed.batch(step)
        np.add.at(tokens, batch["source_ids"].ravel(), batch["loss_weights"].ravel())
    realised = dict(zip(feed.sources, tokens / tokens.sum(), strict=True))
    # Sources end within an epoch, whose rows differ in how full they are.
    assert realised == pytest.approx(asked, abs=0.01)


def test_a_stage_goes_on_in_each_source_where_the_former_one_stopped(make_feed):
    stages = [({"en": 0.3, "kk": 0.7}, 7), ({"en": 1.0}, 30)]
    alone = make_feed(({"en": 1.0}, 100))
    both = make_feed(*stages)
    rows = [
        {name: array[row] for name, array in both.batch(step).items()}
        for step in range(37)
        for row in range(ROWS)
    ]
    english = [row["tokens"] for row in rows if both.sources[row["source_ids"][0]] == "en"]
    wanted = np.concatenate([alone.batch(step)["tokens"] for step in range(37)])
    np.testing.assert_array_equal(english, wanted[: len(english)])
    assert all(both.sources[row["source_ids"][0]] == "en" for row in rows[7 * ROWS :])


def test_epochs_hold_the_same_rows_in_another_order(make_feed):
    feed = make_feed(({"kk": 1.0}, 1000))
    rows = feed.describe()["sources"]["kk"]["rows"]
    steps = -(-2 * rows // ROWS)
    tokens = np.concatenate([feed.batch(step)["tokens"] for step in range(steps)])
    first, second = tokens[:rows].tolist(), tokens[rows : 2 * rows].tolist()
    assert first != second
    assert sorted(first) == sorted(second)


def test_sources_without_a_share_are_never_opened(make_feed):
    feed = make_feed(({"en": 1.0, "kk": 0.0}, 5))
    assert feed.sources == ("en",)
    assert set(feed.describe()["sources"]) == {"en"}


def test_iterate_gives_the_batches_in_order(feed):
    for step, batch in enumerate(feed.iterate(55, 65, slice(2, 6)), start=55):
        assert_equal(batch, feed.batch(step, slice(2, 6)))
    assert step == 64
    assert list(feed.iterate(5, 5)) == []


def test_closing_the_iterator_ends_its_thread(feed):
    batches = feed.iterate(0, 100)
    next(batches)
    assert any(thread.name == "feed" for thread in threading.enumerate())
    batches.close()
    assert not any(thread.name == "feed" for thread in threading.enumerate())


def test_an_error_in_the_thread_reaches_the_consumer(feed):
    batches = feed.iterate(98, 103)
    with pytest.raises(IndexError, match="step 100 is not one of the 100 steps"):
        list(batches)


@pytest.mark.parametrize("step", [-1, 100])
def test_steps_outside_the_run_are_refused(feed, step):
    with pytest.raises(IndexError, match=f"step {step} is not one of the 100 steps"):
        feed.batch(step)


def test_describe_says_what_is_read(feed):
    described = feed.describe()
    assert [stage["first_step"] for stage in described["stages"]] == [0, 60]
    for source in described["sources"].values():
        assert 0 <= source["padding"] < 0.2
    rows = sum(s["rows"] * s["epochs"] for s in described["sources"].values())
    assert rows == pytest.approx(100 * ROWS, rel=0.01)


def test_a_source_that_the_data_has_not_is_named(make_feed):
    with pytest.raises(ValueError, match="the mixture has a source 'tr' and the data has none"):
        make_feed(({"tr": 1.0}, 5))
