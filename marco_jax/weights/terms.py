"""The licence and base model of whatever a model came from."""

from __future__ import annotations

import json
import os
import pathlib

from marco_jax.reports.run_data import load_run
from marco_jax.weights.checkpoints import CHECKPOINTS
from marco_jax.weights.model_card import Terms, read_terms

# What an import keeps of the card of the directory that it read.
CARD = "card.json"
# Runs that began from runs: so far back.
_DEPTH = 8


def stated_terms(path: str | os.PathLike, depth: int = _DEPTH) -> Terms:
    """What a run's config, an import or a directory's card says, or those that it began from."""
    path = pathlib.Path(path).absolute()
    if path.parent.name == CHECKPOINTS:
        path = path.parent.parent
    if not (path / CHECKPOINTS).is_dir():
        return read_terms(path)
    terms = Terms()
    if (path / CARD).is_file():
        terms = Terms.from_fields(json.loads((path / CARD).read_text(encoding="utf-8")))
    config = load_run(path).config
    terms = Terms.from_fields(config.get("card") or {}).or_else(terms)
    start = config.get("init_from")
    return terms.or_else(stated_terms(start, depth - 1)) if start and depth else terms
