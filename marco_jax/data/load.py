"""The corpus that `config.data` names."""

from __future__ import annotations

from marco_jax.data.corpus import Corpus
from marco_jax.data.generated_sources import generate_sources
from marco_jax.data.sources import read_sources
from marco_jax.extras import require


def load_corpus(data: str = "default", seed: int = 0, data_errors: str = "stop") -> Corpus:
    """Loads a corpus.

    Args:
        data: "default", the text that ships with the installed packages; a .json file that
            declares sources of any size (see sources.py); a directory of corpora (see
            generated_sources.py for its layout); JSONL files, comma-separated, globs allowed; or
            "", an empty corpus.
        seed: of the rendering of parallel text. The held-out split does not depend on it.
        data_errors: what happens at a record that cannot be read: "stop" or "skip".

    Raises:
        FileNotFoundError: nothing there.
        MissingExtra: a package of the default corpus is not installed.
        ValueError: a declaration that cannot be used.
    """
    if not data:
        return Corpus([], seed, data_errors)
    if data == "default":
        require("demo", "the default corpus (config.data='default')")
        from marco_jax.data.builtin_sources import builtin_sources

        return Corpus(builtin_sources(seed), seed, data_errors)
    if data.endswith(".json"):
        return Corpus(read_sources(data), seed, data_errors)
    return Corpus(generate_sources(data, data_errors), seed, data_errors)
