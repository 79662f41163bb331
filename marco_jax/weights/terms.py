"""Finds the licence and base model that a model inherits from what it was trained from."""

from __future__ import annotations

import json
import os
import pathlib

from marco_jax.reports.run_data import load_run
from marco_jax.weights.checkpoints import CHECKPOINTS
from marco_jax.weights.model_card import Terms, read_terms

# An import stores the terms of the imported directory's card here.
CARD = "card.json"
# The longest chain of runs that started from other runs.
_DEPTH = 8


def stated_terms(path: str | os.PathLike, depth: int = _DEPTH) -> Terms:
    """The terms of a workdir, import or Hugging Face directory.

    Fields that it does not state are taken from the model that its run started from.
    """
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
