"""Prepared data may be damaged in any way: it is repaired, and batches stay the same."""

import json
import logging
import os
import random
import shutil

import numpy as np
import pytest

from marco_jax.data import checksums
from marco_jax.data.feed import Stage, build_feed
from marco_jax.data.load import load_corpus
from marco_jax.data.mixtures import Mixture
from marco_jax.data.packed import pack_sources
from marco_jax.data.prepare import prepare_stores
from marco_jax.tokenizers.tokenizer import train_sentencepiece
from tests.data.damage import damages

LENGTH = 512
DAMAGES = dict(damages())
SHARES = {"en": 0.4, "kk": 0.3, "chat": 0.2, "dpo": 0.1}
# Damage that changes nothing that is read, and is repaired without a word.
SILENT = {"leftovers of dead writers", "a part too many", "delete rows", "delete files.json"}
SILENT |= {"the rows of another source"}
# What never was there is tokenised, and that is not a warning.
NEW = {"delete a store", "empty store"}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = ["қадам жаңа мәтін оқиды", "the run saves its state"] * 20
    return train_sentencepiece(texts, 286, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def corpus_path(tmp_path_factory):
    """Four sources of several files each, in tiny parts."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = random.Random(0)
    words = ["қадам", "жаңа", "мәтін", "оқиды", "the", "run", "saves", "its", "state"]

    def text():
        return " ".join(rng.choices(words, k=rng.randrange(3, 30)))

    def turns(*roles):
        return [{"role": role, "content": text()} for role in roles]

    makers = {
        "en": lambda: {"text": text()},
        "kk": lambda: {"text": text()},
        "chat": lambda: {
            "messages": turns("user", "assistant"),
            "language": rng.choice(["kk", "en"]),
        },
        "dpo": lambda: {"prompt": turns("user"), "chosen": text(), "rejected": text()},
    }
    kinds = {"en": "text", "kk": "text", "chat": "chat", "dpo": "preference"}
    sources = []
    for name, make in makers.items():
        rows = "".join(json.dumps(make(), ensure_ascii=False) + "\n" for _ in range(60))
        (folder / f"{name}.jsonl").write_text(rows)
        sources.append({"name": name, "kind": kinds[name], "files": f"{name}.jsonl"})
        if kinds[name] == "text":
            sources[-1]["language"] = name
    path = folder / "data.json"
    path.write_text(json.dumps({"sources": sources}))
    return path


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr("marco_jax.data.input_parts.PART_BYTES", 3000)


def read_batches(corpus_path, tokenizer, cache, **options):
    corpus = load_corpus(str(corpus_path), seed=0)
    stores = prepare_stores(corpus, tokenizer, list(SHARES), cache, **options)
    packed = pack_sources(stores, length=LENGTH, seed=0, eos_id=tokenizer.eos_id)
    feed = build_feed(
        packed, [Stage("s", Mixture("m", SHARES), 12)], length=LENGTH, batch_rows=4, seed=0
    )
    return [feed.batch(step) for step in range(12)]


def assert_same(found, expected):
    for batch, other in zip(found, expected, strict=True):
        assert batch.keys() == other.keys()
        for name, array in batch.items():
            np.testing.assert_array_equal(array, other[name], name)


@pytest.fixture(scope="module")
def prepared(corpus_path, tokenizer, tmp_path_factory):
    """A prepared folder, and its batches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("marco_jax.data.input_parts.PART_BYTES", 3000)
        cache = tmp_path_factory.mktemp("cache")
        batches = read_batches(corpus_path, tokenizer, cache)
        assert all(len(list(m.parent.glob("part-*"))) > 1 for m in cache.rglob("manifest.json"))
        assert_same(read_batches(corpus_path, tokenizer, cache), batches)
    return cache, batches


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named_and_repaired(
    name, prepared, corpus_path, tokenizer, tmp_path, small_parts, caplog
):
    whole, expected = prepared
    for seed in range(3):
        cache = tmp_path / str(seed)
        shutil.copytree(whole, cache)
        DAMAGES[name](cache, random.Random(f"{name} {seed}"))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = read_batches(corpus_path, tokenizer, cache)
        assert_same(found, expected)
        warnings = [record.getMessage() for record in caplog.records]
        if name not in SILENT | NEW:
            assert warnings, "nothing was reported"
        assert all(str(cache) in line and "\n" not in line for line in warnings)
        assert not list(cache.rglob(".part-*.*"))
        # What was repaired is whole.
        caplog.clear()
        assert_same(read_batches(corpus_path, tokenizer, cache, verify=True), expected)
        kept = [record.getMessage() for record in caplog.records]
        assert not [line for line in kept if "rows-" not in line and "files.json" not in line]


def test_several_damages_at_once(prepared, corpus_path, tokenizer, tmp_path, small_parts):
    whole, expected = prepared
    for seed in range(20):
        cache, rng = tmp_path / str(seed), random.Random(seed)
        shutil.copytree(whole, cache)
        for name in rng.sample(sorted(DAMAGES), 3):
            try:
                DAMAGES[name](cache, rng)
            except (IndexError, OSError, ValueError):
                continue  # what it would damage is gone
        assert_same(read_batches(corpus_path, tokenizer, cache), expected)


@pytest.mark.parametrize("where", ["", "b17e"])
def test_a_file_where_the_folder_should_be_is_one_line(where, corpus_path, tokenizer, tmp_path):
    cache = tmp_path / "cache"
    path = cache / tokenizer.fingerprint[:12] if where else cache
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises(OSError, match=f"{path}.* is a file.*delete it") as caught:
        read_batches(corpus_path, tokenizer, cache)
    assert "\n" not in str(caught.value)


def test_of_a_large_store_a_sample_is_read_and_with_verify_everything(
    corpus_path, tokenizer, tmp_path, small_parts, caplog, monkeypatch
):
    monkeypatch.setattr("marco_jax.data.checksums.BLOCK_BYTES", 256)
    monkeypatch.setattr("marco_jax.data.store_repair.SAMPLED_BLOCKS", 2)
    cache = tmp_path / "cache"
    expected = read_batches(corpus_path, tokenizer, cache)
    file = sorted(cache.rglob("tokens.bin"))[0]
    whole = file.read_bytes()
    read = []
    verify_block = checksums._block_damage
    monkeypatch.setattr(
        checksums,
        "_block_damage",
        lambda path, *rest: read.append(path) or verify_block(path, *rest),
    )
    read_batches(corpus_path, tokenizer, cache)
    assert sum("part-" in str(path) for path in read) == 2 * len(SHARES)
    assert len(read) < 60
    for position in (0, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        file.write_bytes(damaged)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert_same(read_batches(corpus_path, tokenizer, cache, verify=True), expected)
        assert f"{file.parent}: tokens.bin differs at byte" in caplog.text
        assert file.read_bytes() == whole


def test_the_size_of_every_file_of_a_large_store_is_compared(
    corpus_path, tokenizer, tmp_path, small_parts, caplog, monkeypatch
):
    monkeypatch.setattr("marco_jax.data.checksums.BLOCK_BYTES", 256)
    monkeypatch.setattr("marco_jax.data.store_repair.SAMPLED_BLOCKS", 0)
    cache = tmp_path / "cache"
    expected = read_batches(corpus_path, tokenizer, cache)
    for file in sorted(cache.rglob("part-00001/*.[bn]*")):
        os.truncate(file, file.stat().st_size - 1)
        assert_same(read_batches(corpus_path, tokenizer, cache), expected)
        assert str(file.parent) in caplog.text
        caplog.clear()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("file", ["tokens.bin", "part.json", "manifest.json"])
def test_a_file_that_may_not_be_read_is_one_line(
    file, prepared, corpus_path, tokenizer, tmp_path, small_parts
):
    shutil.copytree(prepared[0], tmp_path / "cache")
    path = sorted((tmp_path / "cache").rglob(file))[0]
    path.chmod(0)
    with pytest.raises(PermissionError, match="may not be read: make it readable, or delete"):
        read_batches(corpus_path, tokenizer, tmp_path / "cache")
