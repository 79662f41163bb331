"""What `marco curate` does, with the models and tokenizers that its config names."""

from __future__ import annotations

import argparse
import functools
import pathlib
from collections.abc import Callable
from typing import Any

from marco_jax.languages import names_in
from marco_jax.weights.models import LoadedModel, create_engine, load_model


def curate_command(arguments: argparse.Namespace) -> int:
    """Curates raw text into a corpus."""
    import logging
    import shlex

    # Beam tells at its import of a library of Google's that nothing here needs, and logs a trace
    # of what it raises besides.
    logging.getLogger().addFilter(lambda record: "apitools" not in record.getMessage())
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    logging.getLogger("distributed").setLevel(logging.WARNING)
    from marco_jax.curation.beam_files import write_whole
    from marco_jax.curation.curate import curate
    from marco_jax.reports.curation_page import curation_page
    from marco_jax.training.config import load_config

    config = load_config(arguments.config, arguments.overrides)
    report = curate(
        names_in(arguments.input),
        arguments.out,
        config,
        runner=arguments.runner,
        options=shlex.split(arguments.runner_options),
        workers=arguments.workers,
        rejects=arguments.rejects or "",
        sample=arguments.sample,
        explain=arguments.explain or "",
        perplexity=_perplexity(config.perplexity_model) if config.perplexity_model else None,
        count_tokens=_counter(config.tokenizer) if config.tokenizer else None,
    )
    write_whole(f"{arguments.out}/report.html", curation_page(report).encode())
    for line in report.get("explained", []):
        print(line)
    total = report["total"]
    print(f"kept {total['kept']:,} of {total['read']:,} documents: {arguments.out}")
    return 0


def _perplexity(path: str) -> Callable[[list[str], list[str]], list[float]]:
    """Bits per byte of texts by the model in a directory, which must exist."""
    if not pathlib.Path(path).is_dir():
        raise FileNotFoundError(f"config.perplexity_model={path!r} is not the directory of a model")
    return functools.partial(_bits_per_byte, path)


def _bits_per_byte(path: str, texts: list[str], languages: list[str]) -> list[float]:
    from marco_jax.decoding.engine import bits_per_byte

    loaded, engine = _loaded_engine(path)
    return bits_per_byte(engine, loaded.params, loaded.tokenizer, texts)


def _counter(path: str) -> Callable[[str], int]:
    """Counts the tokens of a text by the tokenizer in a directory, which is checked at once."""
    _loaded_tokenizer(path)
    return functools.partial(_count_tokens, path)


def _count_tokens(path: str, text: str) -> int:
    return len(_loaded_tokenizer(path).encode(text))


# Processes of a runner get the path only, and each loads the model when it first needs it.
@functools.lru_cache(maxsize=1)
def _loaded_engine(path: str) -> tuple[LoadedModel, Any]:
    loaded = load_model(path)
    return loaded, create_engine(loaded)


@functools.lru_cache(maxsize=1)
def _loaded_tokenizer(path: str) -> Any:
    from marco_jax.tokenizers.tokenizer import load_tokenizer

    return load_tokenizer(path)
