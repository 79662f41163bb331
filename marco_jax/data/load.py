"""The corpus that `config.data` names."""

from __future__ import annotations

from marco_jax.data import declared_corpus, files_corpus
from marco_jax.data.corpus import Corpus
from marco_jax.extras import require


def load_corpus(data: str = "default", seed: int = 0) -> Corpus:
    """Loads a corpus.

    Args:
        data: "default", the text that ships with the installed packages; a .json file that
            declares sources of any size (see sources.py); a directory of corpora (see
            files_corpus.py for its layout); or JSONL files, comma-separated, globs allowed.
        seed: of the rendering of parallel text. The held-out split does not depend on it.

    Raises:
        FileNotFoundError: nothing there.
        MissingExtra: a package of the default corpus is not installed.
        ValueError: a line that cannot be read, with file and line number.
    """
    if data == "default":
        require("demo", "the default corpus (config.data='default')")
        from marco_jax.data import default_corpus

        return default_corpus.load_default(seed)
    if data.endswith(".json"):
        return declared_corpus.load_declared(data, seed)
    return files_corpus.load_files(data, seed)
