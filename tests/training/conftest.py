"""A small run: a JSONL corpus of three languages and a config of a few steps."""

import pytest

from marco_jax.training.config import load_config
from marco_jax.training.loop import train


@pytest.fixture(scope="session")
def overrides(corpus_file) -> list[str]:
    """What makes the demo a run of seconds on the eight virtual devices."""
    return [
        f"data={corpus_file}",
        # Tokenising a few texts is faster here than in a process that imports TensorFlow first.
        "feed.workers=0",
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
        # The programs that write them take seconds to compile.
        "evaluation.samples.prompts=0",
    ]


@pytest.fixture(scope="session")
def small_config(root, overrides):
    """Makes the config of the small run, changed by further overrides."""

    def make(*changes: str):
        return load_config(str(root / "configs/demo.py"), [*overrides, *changes])

    return make


@pytest.fixture(scope="session")
def base(small_config, tmp_path_factory):
    """A model that has been pretrained for a few steps."""
    workdir = tmp_path_factory.mktemp("base")
    assert train(small_config("steps=3", "tokenizer.vocab_size=340"), workdir) == 0
    return workdir
