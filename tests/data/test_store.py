"""Token stores: what is written is read back, whole or not at all, from files in memory maps."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from marco_jax.data.feed import Stage, build_feed
from marco_jax.data.mixtures import Mixture
from marco_jax.data.packed import pack_sources
from marco_jax.data.prepare import prepare_stores
from marco_jax.data.store import (
    CONVERSATIONS,
    PREFERENCES,
    TEXTS,
    TokenStore,
    finish_store,
    new_part,
    part_directory,
)
from marco_jax.data.store_repair import remove_leftovers
from marco_jax.data.texts import TRAIN, Document, hash_units


def random_ids(rng, count):
    return [rng.integers(0, 1000, size).astype(np.int32) for size in rng.integers(1, 30, count)]


def write_texts(store, parts):
    """A store of texts; `parts` holds the ids of each part's documents."""
    for number, documents in enumerate(parts):
        with new_part(store, number, TEXTS) as writer:
            if documents:
                writer.add_texts(np.concatenate(documents), np.array([len(d) for d in documents]))
            writer.add_units(np.array([len(d) for d in documents], np.uint64))
            writer.close({})
    finish_store(store, len(parts), {"source": "kk"})
    return TokenStore(store)


@pytest.mark.parametrize("sizes", [(5,), (3, 4, 5), (0, 3, 0, 2), (4, 0)])
def test_texts_of_several_parts_are_read_back_in_any_order(tmp_path, sizes):
    rng = np.random.default_rng(0)
    parts = [random_ids(rng, size) for size in sizes]
    documents = [ids for part in parts for ids in part]
    store = write_texts(tmp_path / "kk", parts)
    assert store.lengths.tolist() == [len(ids) for ids in documents]
    assert store.tokens == sum(map(len, documents))
    assert store.targets == store.tokens + len(documents)
    for number in rng.permutation(np.arange(len(documents))).tolist():
        ids = documents[number]
        for start, stop in [(0, len(ids)), (0, 1 << 20), (1, 3), (len(ids), len(ids) + 5)]:
            np.testing.assert_array_equal(store.read(number, start, stop), ids[start:stop])
        np.testing.assert_array_equal(store.read_loss_mask(number), np.ones(len(ids)))
        assert store.language(number) == 0


@pytest.mark.parametrize("kind", [CONVERSATIONS, PREFERENCES])
def test_masks_and_languages_of_conversations_are_read_back(tmp_path, kind):
    rng = np.random.default_rng(1)
    documents = []
    # The parts meet the languages in different orders.
    for number, languages in enumerate([("kk", "en"), ("en", "", "kk"), ("de",)]):
        with new_part(tmp_path / "c", number, kind) as writer:
            for language in languages * 2:
                ids = rng.integers(0, 1000, rng.integers(2, 20)).astype(np.int32)
                mask = rng.integers(0, 2, len(ids)).astype(np.uint8)
                writer.add_conversation(ids, mask, language)
                documents.append((ids, mask, language))
            writer.close({})
    finish_store(tmp_path / "c", 3, {})
    store = TokenStore(tmp_path / "c")
    assert store.kind == kind and store.languages == ("kk", "en", "", "de")
    for number, (ids, mask, language) in enumerate(documents):
        np.testing.assert_array_equal(store.read(number, 0, 99), ids)
        np.testing.assert_array_equal(store.read_loss_mask(number), mask)
        assert store.languages[store.language(number)] == language
        count, first = store.trained[number].tolist()
        assert count == mask[1:].sum()
        if count:
            assert mask[1:][first] == 1 and not mask[1:][:first].any()
    assert store.targets == sum(int(mask[1:].sum()) for _, mask, _ in documents)


def test_fingerprints_follow_ids_masks_and_order(tmp_path):
    a, b = np.array([1, 2, 3]), np.array([4, 5])
    prints = [
        write_texts(tmp_path / name, parts).fingerprint
        for name, parts in [("1", [[a, b]]), ("2", [[b, a]]), ("3", [[np.append(a, b)]])]
    ]
    assert len(set(prints)) == 3
    assert write_texts(tmp_path / "4", [[a, b]]).fingerprint == prints[0]


def test_a_store_knows_the_texts_and_sentences_that_it_holds(tmp_path):
    inside = "A first sentence that is long enough. A second one that is long as well."
    for number, text in enumerate(["Something else entirely.", inside]):
        with new_part(tmp_path / "en", number, TEXTS) as writer:
            writer.add_texts(np.arange(3), np.array([3]))
            writer.add_units(hash_units([Document(text, "en", "en", "")]))
            writer.close({})
    finish_store(tmp_path / "en", 2, {})
    asked = ["a second ONE that is long as well", "Something else entirely", "neither of the two"]
    hashes = np.array([hash_units([Document(t, "en", "x", "")])[0] for t in asked], np.uint64)
    order = np.argsort(hashes)
    found = TokenStore(tmp_path / "en").holds(hashes[order])
    assert dict(zip(order.tolist(), found.tolist(), strict=True)) == {0: True, 1: True, 2: False}
    assert TokenStore(tmp_path / "en").holds(np.zeros(0, np.uint64)).shape == (0,)


def test_a_source_without_documents_is_a_store_and_packing_names_it(tmp_path):
    store = write_texts(tmp_path / "kk", [[]])
    assert len(store.lengths) == store.tokens == store.targets == 0
    assert not store.holds(np.array([1, 2], np.uint64)).any()
    with pytest.raises(ValueError, match="the source 'kk' has no documents: leave it out"):
        pack_sources({"kk": store}, length=8, seed=0, eos_id=0)


def test_several_writers_of_one_part_leave_one_whole_part(tmp_path):
    start, failures = threading.Barrier(4), []

    def work():
        try:
            with new_part(tmp_path / "kk", 0, TEXTS) as writer:
                start.wait()
                for size in range(50):
                    writer.add_texts(np.arange(size), np.array([size]))
                writer.close({})
        except Exception as error:  # reported by the assertion
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert os.listdir(tmp_path / "kk") == ["part-00000"]
    finish_store(tmp_path / "kk", 1, {})
    np.testing.assert_array_equal(TokenStore(tmp_path / "kk").read(49, 10, 20), np.arange(10, 20))


@pytest.mark.parametrize("closed", [False, True])
def test_a_failed_write_leaves_nothing(tmp_path, closed):
    with pytest.raises(OSError, match="no space"), new_part(tmp_path, 0, TEXTS) as writer:
        writer.add_texts(np.arange(3), np.array([3]))
        if closed:
            writer.close({})
        raise OSError("no space")
    assert os.listdir(tmp_path) == []


def test_leftovers_of_dead_writers_are_removed_and_those_of_living_ones_kept(tmp_path):
    code = (
        "import os, pathlib, sys; from marco_jax.data.store import TEXTS, new_part;"
        "kept = new_part(pathlib.Path(sys.argv[1]), 0, TEXTS); kept.__enter__(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert len(os.listdir(tmp_path)) == 1
    for name in (".part-00001.elsewhere.1.ab", ".part-00002", ".part-x.y"):
        (tmp_path / name).mkdir()
    stale = tmp_path / f".lengths.npy.{'0' * 32}"
    stale.touch()
    os.utime(stale, (0, 0))
    (tmp_path / f".trained.npy.{'0' * 32}").touch()
    with new_part(tmp_path, 3, TEXTS):
        before = {name for name in os.listdir(tmp_path) if name.startswith(".part-00003")}
        remove_leftovers(tmp_path)
        assert set(os.listdir(tmp_path)) == before | {
            ".part-00001.elsewhere.1.ab",
            ".part-00002",
            ".part-x.y",
            f".trained.npy.{'0' * 32}",
        }


def test_opening_reads_no_file_whole(tmp_path):
    count, size = 40_000, 50
    ids = np.arange(count * size, dtype=np.int32)
    store = tmp_path / "kk"
    with new_part(store, 0, TEXTS) as writer:
        writer.add_texts(ids, np.full(count, size))
        writer.close({})
    finish_store(store, 1, {})
    opened = TokenStore(store)
    np.testing.assert_array_equal(opened.read(count - 1, 2, 6), ids[-size:][2:6])
    assert isinstance(opened.lengths, np.memmap)
    part = part_directory(store, 0).resolve()
    with open("/proc/self/maps") as maps:
        mapped = [line.split()[-1] for line in maps if str(part) in line]
    assert {os.path.basename(path) for path in mapped} == {"tokens.bin", "starts.npy"}


def test_only_some_parts_are_mapped_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("marco_jax.data.store._OPEN_PARTS", 2)
    store = write_texts(tmp_path / "kk", [[np.full(4, n)] for n in range(12)])
    for number in [*range(12), *reversed(range(12))]:
        assert store.read(number, 0, 4).tolist() == [number] * 4
    with open("/proc/self/maps") as maps:
        assert sum("tokens.bin" in line and str(tmp_path) in line for line in maps) <= 2


def build(corpus, tokenizer, cache_dir):
    stores = prepare_stores(corpus, tokenizer, ["kk"], cache_dir)
    packed = pack_sources(stores, length=32, seed=0, eos_id=tokenizer.eos_id)
    stages = [Stage("s", Mixture("m", {"kk": 1.0}), 3)]
    return build_feed(packed, stages, length=32, batch_rows=2, seed=0)


def test_tokenised_sources_are_kept_and_used_again(small_corpus, tokenizer, tmp_path):
    first = build(small_corpus, tokenizer, tmp_path)
    (manifest,) = tmp_path.rglob("manifest.json")
    before = manifest.stat().st_mtime_ns
    second = build(small_corpus, tokenizer, tmp_path)
    assert manifest.stat().st_mtime_ns == before
    np.testing.assert_array_equal(first.batch(2)["tokens"], second.batch(2)["tokens"])

    class Other(type(tokenizer)):
        fingerprint = "07e407e407e407e4"

    build(small_corpus, Other(), tmp_path)
    assert len(list(tmp_path.rglob("manifest.json"))) == 2


def test_a_store_holds_what_the_tokenizer_gives(small_corpus, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("marco_jax.data.tokenise._BATCH", 7)
    stores = prepare_stores(small_corpus, tokenizer, small_corpus.sources(), tmp_path)
    for name, store in stores.items():
        texts = [document.text for document in small_corpus.documents(name, TRAIN)]
        found = [store.read(n, 0, length).tolist() for n, length in enumerate(store.lengths)]
        assert found == tokenizer.encode_batch(texts)


def test_corpus_and_mixtures_import_neither_tensorflow_nor_django():
    code = (
        "import sys; from marco_jax.data import load, feed, mixtures, prepare, store_repair;"
        "load.load_corpus();"
        "print({'tensorflow', 'seqio', 'django', 'allauth', 'rest_framework'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) == ("set()", "")
