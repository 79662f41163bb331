"""A corpus of five languages and its tokenizer, for sweeps of seconds."""

import json

import numpy as np
import pytest

from marco_jax.tokenizers.tokenizer import train_sentencepiece

LANGUAGES = ("en", "zh", "de", "kk", "ne")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A corpus file, and a tokenizer."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    rows = []
    for code in LANGUAGES:
        words = [f"{code}{n}" for n in range(40)]
        for number in range(120):
            text = " ".join(rng.choice(words, 12))
            rows.append({"id": f"{code} {number}", "language": code, "text": text})
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    train_sentencepiece((row["text"] for row in rows), 280, folder / "tokenizer")
    return folder
