"""Log-probabilities of preferences under the model that a run starts from, computed once.

They are kept beside the tokenised pairs, in a file named after the model: another run from the same
model on the same pairs reads them.
"""

from __future__ import annotations

import functools
import io
import logging
import pathlib
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from marco_jax.data.store import TokenStore
from marco_jax.data.training_data import References
from marco_jax.decoding.engine import Engine
from marco_jax.decoding.requests import ScoreRequest
from marco_jax.files import new_file
from marco_jax.model.mesh import Sharding
from marco_jax.model.parameters import Params
from marco_jax.tokenizers.tokenizer import Tokenizer
from marco_jax.training.assemble import preference_options
from marco_jax.weights.models import FoundModel, fingerprint, load_weights

_log = logging.getLogger(__name__)

# Answers that are scored together: the engine sorts them by length, and shares their prompts.
_BLOCK = 4096


def pairs_per_row(config: ConfigDict) -> int:
    """How many preferences a sequence may hold; 1 for other objectives than "dpo"."""
    options = preference_options(config)
    return options.pairs_per_row if options else 1


def cached_references(
    config: ConfigDict, base: FoundModel | None, tokenizer: Tokenizer, sharding: Sharding
) -> References | None:
    """Scores token stores with the model of `config.init_from`; None where no loss needs it.

    A live reference (`config.dpo.reference`) is computed by the step instead.
    """
    options = preference_options(config)
    if options is None or not options.has_reference or options.is_live:
        return None
    length = config.batch.length
    # The base of adapters is rounded as the step rounds it.
    dtype = config.lora.base_dtype if config.lora.rank else config.dtype
    model = f"{fingerprint(base)[:16]}-{dtype}-{config.dtype}"

    @functools.cache
    def load() -> tuple[Engine, Params]:
        _log.info("scoring the pairs with the model that the run starts from")
        engine = Engine(
            base.config,
            tokenizer,
            sharding=sharding,
            dtype=jnp.dtype(config.dtype),
            max_length=length,
            tokens_per_batch=config.evaluation.tokens_per_batch,
        )
        return engine, load_weights(base, sharding, jnp.dtype(dtype))

    def score(stores: Mapping[str, TokenStore]) -> dict[str, np.ndarray]:
        return {
            name: reference_scores(store, reference_path(store, model, length), length, load)
            for name, store in stores.items()
        }

    return score


def reference_path(store: TokenStore, model: str, length: int) -> pathlib.Path:
    """The file of the log-probabilities of a store's answers under a model.

    `model` names its weights and their dtype; `length` is that of a sequence.
    """
    return store.directory / f"reference-{model}-{length}.npy"


def reference_scores(
    store: TokenStore, path: pathlib.Path, length: int, load: Callable[[], tuple[Engine, Params]]
) -> np.ndarray:
    """The log-probability of the target tokens of each document, float32 [documents].

    They are kept at `path`. A document that does not fit into `length` targets has 0. `load` gives
    an engine for inputs of `length` tokens, and the parameters; it is called only if there is
    something to compute.
    """
    if path.exists():
        try:
            found = np.load(io.BytesIO(path.read_bytes()))
        except (OSError, ValueError, EOFError):
            found = np.zeros(0)
        if found.shape == store.lengths.shape:
            return found
    engine, params = load()
    scores = np.zeros(len(store.lengths), np.float32)
    fitting = np.flatnonzero(store.lengths <= length + 1)
    for start in range(0, len(fitting), _BLOCK):
        block = fitting[start : start + _BLOCK]
        found = engine.score(params, [_request(store, int(document)) for document in block])
        scores[block] = [score.logprob for score in found]
    if jax.process_index() == 0:
        with new_file(path) as file:
            np.save(file, scores)
    return scores


def _request(store: TokenStore, document: int) -> ScoreRequest:
    """The answer of a conversation (its target tokens) behind its prompt."""
    ids = store.read(document, 0, int(store.lengths[document])).tolist()
    first = int(np.flatnonzero(store.read_loss_mask(document))[0])
    return ScoreRequest(ids[:first], ids[first:])
