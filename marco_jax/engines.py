"""Engines for models that commands name, and what curation asks of them and of tokenizers."""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from marco_jax.model.mesh import Sharding, create_mesh
from marco_jax.training.models import FoundModel, LoadedModel, load_model


def read_mesh(text: str | None) -> Sharding | None:
    """The mesh of all devices that "fsdp=2,tensor=4" asks for; None, for one device, without.

    Raises:
        ValueError: an unknown axis, no number, or another number of devices.
    """
    if not text:
        return None
    axes = {}
    for part in text.split(","):
        name, _, size = part.partition("=")
        if not size.removeprefix("-").isdigit():
            raise ValueError(f"--mesh={text}: {part!r} is no axis with a size, such as tensor=4")
        axes[name.strip()] = int(size)
    return Sharding(create_mesh(axes))


def engine_of(
    model: FoundModel | LoadedModel,
    run: dict[str, Any],
    end_ids: Sequence[int] = (),
    sharding: Sharding | None = None,
    max_length: int | None = None,
) -> Any:
    """An engine with the lengths and the dtype of the run that a model came from.

    Args:
        model: what scores and generates.
        run: its config, of `run_config`.
        end_ids: tokens that end an answer besides the separator.
        sharding: the mesh that the parameters live on; None for one device.
        max_length: of a row in tokens, at most what the model can place; by default the run's.
    """
    import jax.numpy as jnp

    from marco_jax.decoding.compilation import enable_compilation_cache
    from marco_jax.decoding.engine import Engine

    enable_compilation_cache()
    fields = run.get("evaluation", {})
    return Engine(
        model.config,
        model.tokenizer,
        dtype=jnp.dtype(run.get("dtype", "float32")),
        max_length=min(
            max_length or fields.get("max_length", 4096), model.config.max_position_embeddings
        ),
        tokens_per_batch=fields.get("tokens_per_batch", 8192),
        end_ids=end_ids,
        sharding=sharding,
    )


def run_config(model: FoundModel | LoadedModel) -> dict[str, Any]:
    """The config of the run that a model came from; empty for a Hugging Face directory."""
    if model.workdir is None or not (model.workdir / "config.json").exists():
        return {}
    return json.loads((model.workdir / "config.json").read_text(encoding="utf-8"))


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
