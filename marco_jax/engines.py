"""Engines for models that commands name, and what curation asks of them and of tokenizers."""

from __future__ import annotations

import functools
import json
import pathlib
from typing import Any

from marco_jax.training.models import LoadedModel, load_model


def engine_of(loaded: LoadedModel, run: dict[str, Any]) -> Any:
    """An engine with the lengths and the dtype of the run that a model came from."""
    import jax.numpy as jnp

    from marco_jax.decoding.compilation import enable_compilation_cache
    from marco_jax.decoding.engine import Engine

    enable_compilation_cache()
    fields = run.get("evaluation", {})
    return Engine(
        loaded.config,
        loaded.tokenizer,
        dtype=jnp.dtype(run.get("dtype", "float32")),
        max_length=min(fields.get("max_length", 4096), loaded.config.max_position_embeddings),
        tokens_per_batch=fields.get("tokens_per_batch", 8192),
    )


def run_config(loaded: LoadedModel) -> dict[str, Any]:
    """The config of the run that a model came from; empty for a Hugging Face directory."""
    if loaded.workdir is None or not (loaded.workdir / "config.json").exists():
        return {}
    return json.loads((loaded.workdir / "config.json").read_text(encoding="utf-8"))


class Perplexity:
    """Bits a byte by a model, which each process loads when it first needs it."""

    def __init__(self, path: str) -> None:
        """Keeps the path of a workdir or of a Hugging Face directory.

        Raises:
            FileNotFoundError: there is none.
        """
        if not pathlib.Path(path).is_dir():
            raise FileNotFoundError(f"config.perplexity_model={path!r} is no directory of a model")
        self._path = path

    def __call__(self, texts: list[str], languages: list[str]) -> list[float]:
        """Bits that a byte of each text costs."""
        from marco_jax.decoding.perplexity import bits_per_byte

        loaded, engine = _loaded_engine(self._path)
        return bits_per_byte(engine, loaded.params, loaded.tokenizer, texts)


class CountTokens:
    """Tokens of a text by a tokenizer, which each process loads when it first needs it."""

    def __init__(self, path: str) -> None:
        """Keeps the path of a tokenizer's directory.

        Raises:
            FileNotFoundError: it holds no tokenizer.
        """
        self._path = path
        # Before any data is read.
        _loaded_tokenizer(path)

    def __call__(self, text: str) -> int:
        """How many tokens a text has."""
        return len(_loaded_tokenizer(self._path).encode(text))


@functools.lru_cache(maxsize=1)
def _loaded_engine(path: str) -> tuple[LoadedModel, Any]:
    loaded = load_model(path)
    return loaded, engine_of(loaded, run_config(loaded))


@functools.lru_cache(maxsize=1)
def _loaded_tokenizer(path: str) -> Any:
    from marco_jax.tokenizer import load_tokenizer

    return load_tokenizer(path)
