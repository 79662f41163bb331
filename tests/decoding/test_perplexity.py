"""Bits a byte against a plain forward pass."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from marco_jax.decoding.engine import Engine, bits_per_byte
from marco_jax.model.qwen2 import bind, init_params
from marco_jax.model.qwen2_config import PRESETS
from marco_jax.tokenizers.tokenizer_files import Companions

TINY = dataclasses.replace(PRESETS["tiny"], max_position_embeddings=64)


class Bytes:
    """A token for a byte below 250."""

    vocab_size = 250
    eos_id = 3
    companions = Companions()

    def encode(self, text):
        return list(text.encode())

    def decode(self, ids):
        return bytes(ids).decode("utf-8", "replace")


def by_hand(params, ids):
    tokens = np.array([[Bytes.eos_id, *ids]], np.int32)
    model = bind(TINY, params)
    hidden, _ = model(tokens, np.arange(tokens.shape[1])[None])
    logprobs = np.asarray(jax.nn.log_softmax(model.logits(hidden)))[0]
    return -sum(logprobs[at, token] for at, token in enumerate(ids)) / math.log(2)


def test_bits_per_byte_are_those_of_a_forward_pass():
    params = jax.tree.map(lambda x: x * 4 if x.ndim > 1 else x, init_params(TINY, seed=1))
    engine = Engine(TINY, Bytes(), max_length=33)
    # The last is longer than a row, which ends within its character.
    long = "a" * 32 + "é" + "b" * 90
    texts = ["one", "", "zwölf kurze Wörter", long]
    found = bits_per_byte(engine, params, Bytes(), texts)
    wanted = [by_hand(params, text.encode()) / max(1, len(text.encode())) for text in texts[:3]]
    assert found[:3] == pytest.approx(wanted, abs=1e-4)
    assert found[3] == pytest.approx(by_hand(params, long.encode()[:33]) / 32, abs=1e-4)
    assert engine.truncated == 0
