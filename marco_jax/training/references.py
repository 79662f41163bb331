"""Log-probabilities of preferences under the model that a run starts from, computed once.

They lie beside the tokenised pairs, in a file named after the model: another run from the same
model on the same pairs reads them.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import jax
import numpy as np

from marco_jax.data.store import TokenStore
from marco_jax.decoding.engine import Engine
from marco_jax.decoding.requests import ScoreRequest
from marco_jax.files import new_file
from marco_jax.model.parameters import Params

# Answers that are scored together: the engine sorts them by length, and shares their prompts.
_BLOCK = 4096


def reference_path(store: TokenStore, model: str, length: int) -> pathlib.Path:
    """Where the log-probabilities of a store's answers under a model lie.

    `model` says which weights, and in which dtype they compute; `length` is a row's.
    """
    return store.directory / f"reference-{model}-{length}.npy"


def reference_scores(
    store: TokenStore, path: pathlib.Path, length: int, load: Callable[[], tuple[Engine, Params]]
) -> np.ndarray:
    """float32 [documents]: the log-probability of what is learnt of each; kept at `path`.

    What rows of `length` targets leave out is 0. `load` gives an engine that takes inputs of
    `length` tokens, and the parameters; it is called where there is something to compute.
    """
    if path.exists():
        try:
            found = np.load(path)
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
    """The answer of a conversation, all that is learnt of it, behind what leads to it."""
    ids = store.read(document, 0, int(store.lengths[document])).tolist()
    first = int(np.flatnonzero(store.read_weights(document))[0])
    return ScoreRequest(ids[:first], ids[first:])
