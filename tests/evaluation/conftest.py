"""A byte tokenizer, an engine with known log-probabilities, and a small corpus."""

from __future__ import annotations

import dataclasses
import hashlib
import math

import pytest

from marco_jax.data.texts import Pair
from marco_jax.decoding.requests import Generation, Score
from marco_jax.tokenizers.tokenizer_files import Companions


class ByteTokenizer:
    """One token a byte; the separator is 256."""

    vocab_size = 257
    eos_id = 256
    companions = Companions()

    def encode(self, text):
        return list(text.encode())

    def decode(self, ids):
        return bytes(i for i in ids if i < 256).decode(errors="replace")


class FakeEngine:
    """Answers by `logprob(context, continuation)` and `answer(prompt)`; counts its calls."""

    def __init__(self, tokenizer=None, *, logprob=None, answer=None, max_length=4096):
        self.tokenizer = tokenizer or ByteTokenizer()
        self.max_length = max_length
        self.calls = []
        self._logprob = logprob or self.hashed
        self._answer = answer or (lambda prompt: " ok\nmore")

    @staticmethod
    def hashed(context, continuation):
        """A log-probability that looks random and depends on nothing but the ids."""
        digest = hashlib.sha256(repr((list(context), list(continuation))).encode()).digest()
        return -len(continuation) * (0.5 + digest[0] / 256)

    def score(self, params, requests, finished=None):
        self.calls.append(("score", len(requests)))
        return [
            Score(params * self._logprob(request.context, request.continuation), False)
            for request in requests
        ]

    def generate(self, params, requests, finished=None):
        self.calls.append(("generate", len(requests)))
        results = []
        for request in requests:
            text = self._answer(self.tokenizer.decode(request.prompt))
            for stop in request.stop:
                text = text.split(stop)[0]
            results.append(Generation((), text))
        return results


@dataclasses.dataclass
class FakeCorpus:
    """Texts by (language, split) and pairs by (source, target, split)."""

    texts_by: dict
    pairs_by: dict

    def texts(self, language, split):
        return list(self.texts_by.get((language, split), ()))

    def pairs(self, source, target, split):
        return list(self.pairs_by.get((source, target, split), ()))


def make_pairs(language, numbers, word="сөз"):
    """Pairs of distinct sides; the translation grows with the number."""
    return [
        Pair(
            key=f"message-{n}",
            source_language="en",
            target_language=language,
            source=f"Remove item number {n} now",
            target=f"{word} {n} " + word * (1 + n % 5),
        )
        for n in numbers
    ]


@pytest.fixture
def byte_tokenizer():
    return ByteTokenizer()


@pytest.fixture
def fake_engine():
    return FakeEngine


@pytest.fixture
def pairs_of():
    return make_pairs


@pytest.fixture
def corpus():
    texts, pairs = {}, {}
    for code, word in (("en", "word"), ("de", "Wort"), ("kk", "сөз"), ("ne", "शब्द")):
        texts[code, "held_out"] = [f"{word} {n} " * (n + 1) for n in range(6)]
        if code != "en":
            pairs["en", code, "train"] = make_pairs(code, range(100, 130), word)
            # Number 100 is in both splits, so it may not be shown.
            pairs["en", code, "held_out"] = make_pairs(code, [*range(21), 100], word)
    return FakeCorpus(texts, pairs)


@pytest.fixture
def uniform_bits():
    """Log-probability (nats) of a uniform model over 256 bytes, per token."""
    return -math.log(256)
