"""Bits per byte of texts, a metric that is comparable between vocabularies."""

from __future__ import annotations

import math
from collections.abc import Sequence

from marco_jax.decoding.engine import Engine
from marco_jax.decoding.requests import ScoreRequest
from marco_jax.model.parameters import Params
from marco_jax.tokenizers.tokenizer import Tokenizer


def bits_per_byte(
    engine: Engine, params: Params, tokenizer: Tokenizer, texts: Sequence[str]
) -> list[float]:
    """Computes the bits per byte of each text, with EOS as its context.

    A text longer than the engine's rows is cut at the end. An empty text has 0 bits.

    Args:
        engine: scores with the model.
        params: of the model.
        tokenizer: of the model.
        texts: the texts to score.
    """
    requests, numbers, sizes = [], [], []
    for number, text in enumerate(texts):
        ids = tokenizer.encode(text)
        if not ids:
            continue
        size = len(text.encode("utf-8"))
        if len(ids) > engine.max_length:
            ids = ids[: engine.max_length]
            # The cut may divide a character, whose bytes are then not counted.
            size = len(tokenizer.decode(ids).rstrip("\ufffd").encode("utf-8"))
        requests.append(ScoreRequest([tokenizer.eos_id], ids))
        numbers.append(number)
        sizes.append(max(1, size))
    bits = [0.0] * len(texts)
    for number, size, score in zip(numbers, sizes, engine.score(params, requests), strict=True):
        bits[number] = -score.logprob / math.log(2) / size
    return bits
