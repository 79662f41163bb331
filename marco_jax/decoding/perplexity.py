"""How well a model foretells texts, in bits a byte: models of any vocabulary compare."""

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
    """Bits that a byte of each text costs, after the document separator.

    Of a text longer than the engine's rows the beginning is scored. An empty text costs nothing.

    Args:
        engine: scores with the model.
        params: of the model.
        tokenizer: of the model.
        texts: to score.
    """
    requests, places, sizes = [], [], []
    for place, text in enumerate(texts):
        ids = tokenizer.encode(text)
        if not ids:
            continue
        size = len(text.encode("utf-8"))
        if len(ids) > engine.max_length:
            ids = ids[: engine.max_length]
            # The last character may be cut, and its bytes with it.
            size = len(tokenizer.decode(ids).rstrip("\ufffd").encode("utf-8"))
        requests.append(ScoreRequest([tokenizer.eos_id], ids))
        places.append(place)
        sizes.append(max(1, size))
    bits = [0.0] * len(texts)
    for place, size, score in zip(places, sizes, engine.score(params, requests), strict=True):
        bits[place] = -score.logprob / math.log(2) / size
    return bits
