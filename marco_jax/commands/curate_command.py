"""What `marco curate` does, with the models and tokenizers that its config names."""

from __future__ import annotations

import argparse
import functools
import pathlib
from typing import Any

from marco_jax.languages import names_in
from marco_jax.weights.models import LoadedModel, create_engine, load_model, run_config


def curate_command(arguments: argparse.Namespace) -> int:
    """Curates raw text into a corpus."""
    import logging
    import shlex

    # Beam tells at its import of a library of Google's that nothing here needs, and logs a trace
    # of what it raises besides.
    logging.getLogger().addFilter(lambda record: "apitools" not in record.getMessage())
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    from marco_jax.curation.curate import curate
    from marco_jax.files import write_text
    from marco_jax.reports.curation_page import curation_page
    from marco_jax.training.config import load_config

    config = load_config(arguments.config, arguments.overrides)
    report = curate(
        names_in(arguments.input),
        pathlib.Path(arguments.out),
        config,
        runner=arguments.runner,
        options=shlex.split(arguments.runner_options),
        workers=arguments.workers,
        rejects=pathlib.Path(arguments.rejects) if arguments.rejects else None,
        sample=arguments.sample,
        explain=arguments.explain or "",
        perplexity=Perplexity(config.perplexity_model) if config.perplexity_model else None,
        count_tokens=CountTokens(config.tokenizer) if config.tokenizer else None,
    )
    write_text(pathlib.Path(arguments.out) / "report.html", curation_page(report))
    for line in report.get("explained", []):
        print(line)
    total = report["total"]
    print(f"kept {total['kept']:,} of {total['read']:,} documents: {arguments.out}")
    return 0


class Perplexity:
    """Bits a byte by a model, which each process loads when it first needs it."""

    def __init__(self, path: str) -> None:
        """Keeps the path of a workdir or of a Hugging Face directory.

        Raises:
            FileNotFoundError: there is none.
        """
        if not pathlib.Path(path).is_dir():
            raise FileNotFoundError(
                f"config.perplexity_model={path!r} is not the directory of a model"
            )
        self._path = path

    def __call__(self, texts: list[str], languages: list[str]) -> list[float]:
        """Bits that a byte of each text costs."""
        from marco_jax.decoding.engine import bits_per_byte

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
    return loaded, create_engine(loaded, run_config(loaded))


@functools.lru_cache(maxsize=1)
def _loaded_tokenizer(path: str) -> Any:
    from marco_jax.tokenizers.tokenizer import load_tokenizer

    return load_tokenizer(path)
