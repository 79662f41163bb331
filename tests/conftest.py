"""Eight virtual CPU devices for every test, and the real data when it is there."""

import dataclasses
import json
import logging
import os
import pathlib
import random

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from marco_jax.languages import LANGUAGES
from marco_jax.runtime.logs import configure_logging

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEXTS = {
    "en": "the run saves its state and the next step reads a new batch of text",
    "de": "der Lauf sichert seinen Stand und der Schritt liest neuen Text ein",
    "kk": "қадам жаңа мәтін оқиды және күйін сақтайды содан кейін тоқтайды",
}


@pytest.fixture(scope="session", autouse=True)
def log_lines():
    """Log lines go to standard error, as the command line sends them."""
    configure_logging()


@pytest.fixture(scope="session")
def root() -> pathlib.Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_dir() -> pathlib.Path:
    """Real data beside the repository; tests that need it skip where it is absent."""
    directory = pathlib.Path(os.environ.get("MARCO_SHARED", ROOT.parent / "shared"))
    if not directory.is_dir():
        pytest.skip("../shared with the real data is absent (MARCO_SHARED names another place)")
    return directory


@pytest.fixture(scope="session")
def one_device() -> list[jax.Device]:
    """The first device alone."""
    return jax.devices()[:1]


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory):
    """Programs are compiled once for all runs of a file, as in `marco sweep`."""
    options = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in options}
    for values in (options, before):
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        if values is options:
            yield


@pytest.fixture
def only_here():
    """Languages that a test adds are taken away after it."""
    before = dict(LANGUAGES)
    yield
    LANGUAGES.clear()
    LANGUAGES.update(before)


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
def chat_model(tmp_path_factory) -> pathlib.Path:
    """A directory with a random model whose tokens are bytes, and that talks in ChatML."""
    from tokenizers import pre_tokenizers

    from marco_jax.model.qwen2 import init_params
    from marco_jax.model.qwen2_config import Qwen2Config
    from marco_jax.tokenizers.chat_templates import CHATML
    from marco_jax.tokenizers.tokenizer import qwen2_tokenizer
    from marco_jax.weights.huggingface import save_huggingface

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = qwen2_tokenizer({letter: n for n, letter in enumerate(letters)}, [])
    tokenizer.companions = dataclasses.replace(tokenizer.companions, chat_template=CHATML)
    config = Qwen2Config(
        vocab_size=264,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        tie_word_embeddings=True,
    )
    directory = tmp_path_factory.mktemp("model") / "hf"
    save_huggingface(directory, config, init_params(config, seed=0), tokenizer=tokenizer)
    return directory


@pytest.fixture(scope="module")
def offline_harness(tmp_path_factory):
    """lm-evaluation-harness reads files alone, in caches of its own, and logs errors only."""
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
    patch.setenv("HF_HUB_OFFLINE", "1")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    yield
    patch.undo()
