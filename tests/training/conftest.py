"""A small run: a JSONL corpus of three languages and a config of a few steps."""

import json
import pathlib
import random

import pytest

from marco_jax.training.config import load_config

TEXTS = {
    "en": "the run saves its state and the next step reads a new batch of text",
    "de": "der Lauf sichert seinen Stand und der Schritt liest neuen Text ein",
    "kk": "қадам жаңа мәтін оқиды және күйін сақтайды содан кейін тоқтайды",
}


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory) -> pathlib.Path:
    """Texts and pairs of words in seeded order; aligned by position across languages."""
    rng = random.Random(0)
    vocabulary = {code: text.split() for code, text in TEXTS.items()}
    rows = []
    for number in range(150):
        order = [rng.randrange(10) for _ in range(rng.randint(5, 25))]
        texts = {code: " ".join(words[i] for i in order) for code, words in vocabulary.items()}
        for code, text in texts.items():
            rows.append({"id": f"text {number}", "language": code, "text": text})
        for code in ("de", "kk"):
            rows.append(
                {
                    "id": f"text {number}",
                    "source_language": "en",
                    "target_language": code,
                    "source": texts["en"],
                    "target": texts[code],
                }
            )
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="session")
def overrides(corpus_file) -> list[str]:
    """What makes the demo a run of seconds on the eight virtual devices."""
    return [
        f"data={corpus_file}",
        "steps=12",
        "tokenizer.vocab_size=320",
        "model.hidden_size=32",
        "model.intermediate_size=64",
        "model.num_hidden_layers=2",
        "model.num_attention_heads=2",
        "model.num_key_value_heads=2",
        "model.head_dim=16",
        "mesh.tensor=2",
        "batch.length=32",
        "batch.sequences_per_chip=1",
        "log_every=2",
        "checkpoint.every=3",
        "evaluation.tasks=",
    ]


@pytest.fixture(scope="session")
def small_config(root, overrides):
    """Makes the config of the small run, changed by further overrides."""

    def make(*changes: str):
        return load_config(str(root / "configs/demo.py"), [*overrides, *changes])

    return make
