"""The compiled programs of evaluation and generation: prefill, score, decode.

Pure functions of (parameters, arrays). They run on the training parameters where those lie, under
the training mesh's rules; `marco eval`, `marco generate` and the loop call the same programs.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from marco_jax.decoding.sampling import Sampling, sample
from marco_jax.model.config import Qwen2Config
from marco_jax.model.layout import Automatic
from marco_jax.model.mesh import Sharding
from marco_jax.model.parameters import Params
from marco_jax.model.qwen2 import KVCache, bind, init_cache

# Rows of logits that scoring holds at once: 0.6 GiB in float32 at 152,064 words.
LOGIT_ROWS = 1024


@dataclasses.dataclass(frozen=True)
class Runtime:
    """What is fixed when a kernel compiles, besides the shapes of its arrays.

    `emitted_vocab_size` is the tokenizer's: generation never emits the padding rows past it,
    while scores keep them in the normaliser, as `transformers` does.
    """

    config: Qwen2Config
    emitted_vocab_size: int
    sharding: Sharding | None = None
    dtype: jnp.dtype = jnp.float32


class ScoreBatch(NamedTuple):
    """Rows to score. A row is a context followed by continuations that share it.

    tokens, positions, segment_ids: int32 [batch, length], as Qwen2 takes them.
    index: int32 [batch, scored], the place in the row whose hidden state predicts the target.
    targets: int32 [batch, scored].
    """

    tokens: jax.Array
    positions: jax.Array
    segment_ids: jax.Array
    index: jax.Array
    targets: jax.Array


class DecodeState(NamedTuple):
    """Rows in the middle of generation.

    tokens: int32 [batch], the token to feed next. positions: int32 [batch], its position.
    done: bool [batch]. keys: [batch], a row's own random key: with the position it decides a draw,
    so that a sample does not depend on the rows beside it.
    """

    cache: KVCache
    tokens: jax.Array
    positions: jax.Array
    done: jax.Array
    keys: jax.Array


@functools.partial(jax.jit, static_argnames="runtime")
def score(params: Params, batch: ScoreBatch, *, runtime: Runtime) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities of targets; the head is applied at the scored places only.

    Returns:
        log-probabilities float32 [batch, scored], and whether each target is the argmax
        bool [batch, scored]. The normaliser covers every row of the embedding.
    """
    model = bind(runtime.config, params)
    hidden, _ = model(
        batch.tokens,
        batch.positions,
        batch.segment_ids,
        dtype=runtime.dtype,
        layout=Automatic(runtime.sharding),
    )
    scored = jnp.take_along_axis(hidden, batch.index[..., None], axis=1)  # [batch, scored, embed]

    def read(block: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        hidden, targets = block  # [batch, block, embed], [batch, block]
        logits = model.logits(hidden)
        chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        logprobs = chosen - jax.nn.logsumexp(logits, axis=-1)
        return logprobs, jnp.argmax(logits, axis=-1) == targets

    # In blocks along the scored axis: a 152k vocabulary's logits are never held for a whole batch.
    blocks = (_split(scored), _split(batch.targets))
    logprobs, greedy = jax.lax.map(read, blocks)  # [blocks, batch, block]
    return _replicate((_join(logprobs), _join(greedy)), runtime)


@functools.partial(jax.jit, static_argnames=("runtime", "cache_length", "sampling"))
def prefill(
    params: Params,
    tokens: jax.Array,
    lengths: jax.Array,
    keys: jax.Array,
    *,
    runtime: Runtime,
    cache_length: int,
    sampling: Sampling,
) -> DecodeState:
    """Reads prompts into a fresh cache and draws each row's first new token.

    Args:
        params: the parameters.
        tokens: int32 [batch, length], prompts padded on the right with anything.
        lengths: int32 [batch], at least 1; a row of length 1 may be a filler.
        keys: [batch] random keys.
        runtime: the model and the layout.
        cache_length: slots a row; prompts and new tokens must fit.
        sampling: how the next token is drawn.
    """
    model = bind(runtime.config, params)
    batch, length = tokens.shape
    cache = init_cache(runtime.config, batch, cache_length, runtime.dtype, runtime.sharding)
    positions = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), tokens.shape)
    hidden, cache = model(
        tokens, positions, cache=cache, dtype=runtime.dtype, layout=Automatic(runtime.sharding)
    )
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]
    first = _next_token(model.logits(last), keys, lengths, runtime, sampling)
    return DecodeState(cache, first, lengths, jnp.zeros(batch, bool), keys)


@functools.partial(
    jax.jit, static_argnames=("steps", "eos_ids", "runtime", "sampling"), donate_argnames="state"
)
def decode(
    params: Params,
    state: DecodeState,
    *,
    steps: int,
    eos_ids: tuple[int, ...],
    runtime: Runtime,
    sampling: Sampling,
) -> tuple[jax.Array, jax.Array, DecodeState]:
    """Emits up to `steps` tokens a row in one compiled loop, ending early when all are done.

    Returns:
        int32 [batch, steps] emitted tokens, eos_ids[0] after a row's end; bool [batch], whether
        each row has ended; and the state to go on from.
    """
    model = bind(runtime.config, params)
    emitted = jnp.full((state.tokens.shape[0], steps), eos_ids[0], jnp.int32)

    def unfinished(carry: tuple) -> jax.Array:
        step, state, _ = carry
        return (step < steps) & ~jnp.all(state.done)

    def advance(carry: tuple) -> tuple:
        step, state, emitted = carry
        tokens = jnp.where(state.done, eos_ids[0], state.tokens)
        emitted = jax.lax.dynamic_update_index_in_dim(emitted, tokens, step, axis=1)
        done = state.done | jnp.isin(tokens, jnp.array(eos_ids))
        hidden, cache = model(
            tokens[:, None],
            state.positions[:, None],
            cache=state.cache,
            dtype=runtime.dtype,
            layout=Automatic(runtime.sharding),
        )
        # A finished row stays where it is: its slot is overwritten, its cache never runs over.
        positions = jnp.where(done, state.positions, state.positions + 1)
        logits = model.logits(hidden[:, 0])
        following = _next_token(logits, state.keys, positions, runtime, sampling)
        return step + 1, DecodeState(cache, following, positions, done, state.keys), emitted

    _, state, emitted = jax.lax.while_loop(unfinished, advance, (jnp.int32(0), state, emitted))
    emitted, done = _replicate((emitted, state.done), runtime)
    return emitted, done, state


def _split(x: jax.Array) -> jax.Array:
    """[batch, scored, ...] -> [blocks, batch, block, ...] with about LOGIT_ROWS rows a block."""
    batch, scored = x.shape[:2]
    block = scored
    while block % 2 == 0 and batch * block > LOGIT_ROWS:
        block //= 2
    return jnp.moveaxis(x.reshape(batch, scored // block, block, *x.shape[2:]), 1, 0)


def _join(x: jax.Array) -> jax.Array:
    """[blocks, batch, block] -> [batch, scored]; the inverse of `_split`."""
    return jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1)


def _next_token(
    logits: jax.Array, keys: jax.Array, positions: jax.Array, runtime: Runtime, sampling: Sampling
) -> jax.Array:
    real = jnp.arange(logits.shape[-1]) < runtime.emitted_vocab_size
    draws = jax.vmap(jax.random.fold_in)(keys, positions)
    return sample(jnp.where(real, logits, -jnp.inf), draws, sampling)


def _replicate(arrays: tuple[jax.Array, ...], runtime: Runtime) -> tuple[jax.Array, ...]:
    # Results are small and every process reads them all.
    if runtime.sharding is None:
        return arrays
    return tuple(runtime.sharding.constrain(array) for array in arrays)
