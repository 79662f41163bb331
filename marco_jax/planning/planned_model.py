"""The model that a run would train, as far as the files of its config are here."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from ml_collections import ConfigDict

from marco_jax.files import as_path
from marco_jax.model.qwen2_config import Qwen2Config
from marco_jax.tokenizers.tokenizer import Tokenizer, load_tokenizer
from marco_jax.training.config import model_config
from marco_jax.weights.models import find_model


def planned_model(
    config: ConfigDict, tokenizers: Sequence[pathlib.Path] = (), *, needs_base: bool = False
) -> tuple[Qwen2Config, int]:
    """The sizes of the model, and the vocabulary of its tokenizer, as `marco train` finds them.

    A model of `config.init_from` has its own sizes, extended vocabulary included. Where it is not
    here, as on the laptop that plans a pod's run, the sizes are those of `config.model`; and where
    there is no tokenizer yet, its size is `config.tokenizer.vocab_size`.

    Args:
        config: of the run.
        tokenizers: directories to look for one in, before `config.tokenizer.path`.
        needs_base: whether an absent model of `config.init_from` is an error.

    Raises:
        ValueError, FileNotFoundError: what is there cannot be read, or is needed and absent.
    """
    named = [as_path(config.tokenizer.path)] if config.tokenizer.path else []
    found = next((path for path in (*tokenizers, *named) if path.is_dir()), None)
    tokenizer: Tokenizer | None = load_tokenizer(found) if found else None
    base = None
    if config.init_from and (needs_base or as_path(config.init_from).exists()):
        base = find_model(config.init_from, weights_only=True)
        tokenizer = tokenizer or base.tokenizer
    size = tokenizer.vocab_size if tokenizer else config.tokenizer.vocab_size
    return (base.config if base else model_config(config, size)), size
