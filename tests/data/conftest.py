"""A tiny corpus and a tokenizer without padding, for tests of the feed."""

import pathlib
from collections.abc import Callable

import pytest

from marco_jax.data.corpus import Corpus
from marco_jax.data.feed import Feed, Stage, build_feed
from marco_jax.data.load import load_corpus
from marco_jax.data.packed import pack_sources
from marco_jax.data.prepare import prepare_stores
from marco_jax.data.sources import Input, Source


class ByteTokenizer:
    """UTF-8 bytes less 33, so that "!" is id 0 as in Qwen2; the separator follows them."""

    vocab_size = 257
    eos_id = 256
    fingerprint = "b17e5b17e5b17e5b"

    def encode(self, text: str) -> list[int]:
        return [(byte - 33) % 256 for byte in text.encode()]

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: list[int]) -> str:
        return bytes((i + 33) % 256 for i in ids if i != self.eos_id).decode()


@pytest.fixture(scope="session")
def tokenizer() -> ByteTokenizer:
    return ByteTokenizer()


@pytest.fixture(scope="session")
def default_corpus() -> Corpus:
    return load_corpus()


@pytest.fixture(scope="session")
def small_corpus() -> Corpus:
    """Four sources of different document lengths; "ne" is of nothing but id 0."""
    sources = []
    for language, size, unit in [("en", 50, "word "), ("kk", 9, "сөз "), ("ne", 30, "!")]:
        texts = [f"{unit * (1 + n % size)}{'' if unit == '!' else n}" for n in range(300)]
        records = tuple(
            {"text": text, "english": f"{language} {n}"} for n, text in enumerate(texts)
        )
        sources.append(Source(language, "text", (Input(records=records),), language, 0.08))
    pairs = tuple({"source": f"item {n}", "target": f"зат {n}"} for n in range(200))
    inputs = (Input(records=pairs, languages=("en", "kk")),)
    return Corpus([*sources, Source("parallel", "parallel", inputs, held_out=0.08)])


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def corpus_feed() -> Callable[..., Feed]:
    """Tokenises the sources that stages name, and builds their feed."""

    def build(
        corpus: Corpus,
        tokenizer: ByteTokenizer,
        stages: list[Stage],
        *,
        cache_dir: pathlib.Path,
        **options: int,
    ) -> Feed:
        names = [
            name
            for name in corpus.sources()
            if any(stage.mixture.shares.get(name) for stage in stages)
        ]
        stores = prepare_stores(corpus, tokenizer, names, cache_dir)
        packed = pack_sources(
            stores, length=options["length"], seed=options["seed"], eos_id=tokenizer.eos_id
        )
        return build_feed(packed, stages, **options)

    return build
