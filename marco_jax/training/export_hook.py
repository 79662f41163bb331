"""Exports of a run in progress: `config.export_every`."""

from __future__ import annotations

import logging
import pathlib

import numpy as np
from ml_collections import ConfigDict

from marco_jax.training.clock import CHECKPOINT
from marco_jax.training.config import ConfigError
from marco_jax.training.hooks import Event
from marco_jax.training.metrics_log import MetricsWriter
from marco_jax.training.run import Run
from marco_jax.weights.huggingface import save_huggingface
from marco_jax.weights.model_card import Terms, model_card
from marco_jax.weights.terms import stated_terms

_log = logging.getLogger(__name__)

HUGGING_FACE = "huggingface"
_DTYPES = ("", "float32", "bfloat16", "float16")


class ExportHook:
    """Writes the parameters where they lie as huggingface/<step>, one tensor at a time."""

    def __init__(
        self, config: ConfigDict, run: Run, workdir: pathlib.Path, writer: MetricsWriter
    ) -> None:
        """Reads `config.export_every`, `export_dtype` and `card`.

        Raises:
            ConfigError: a dtype that weights are not published in.
        """
        if config.export_dtype not in _DTYPES:
            raise ConfigError(
                f"export_dtype is {config.export_dtype!r}: choose one of {', '.join(_DTYPES[1:])}"
            )
        self.every, self.dtype = config.export_every, config.export_dtype
        self.run, self.workdir, self.writer = run, workdir, writer
        self.terms = Terms.from_fields(config.card)
        if config.init_from:
            self.terms = self.terms.or_else(stated_terms(config.init_from))

    def __call__(self, event: Event) -> None:
        """Exports when due."""
        if not self.every or event.metrics is None or event.stopping or not event.due(self.every):
            return
        out = self.workdir / HUGGING_FACE / str(event.step)
        self.writer.flush()
        name = f"{self.workdir.resolve().name}, step {event.step:,}"
        model = self.run.model
        with self.writer.clock.part(CHECKPOINT):
            save_huggingface(
                out,
                model,
                self.run.trainer.model_params(event.state),
                self.run.tokenizer,
                # By name: numpy knows bfloat16 once JAX has been imported.
                np.dtype(self.dtype) if self.dtype else None,
                files={"README.md": model_card(name, model, self.terms, self.workdir, event.step)},
                overwrite=True,
            )
        _log.info(f"exported step {event.step}: {out}")
