"""The compiled programs that read whole rows: extend (and prefill), and score.

Pure functions of (parameters, arrays). They run on the training parameters where those lie, under
the training mesh's rules; `marco eval`, `marco generate` and the loop call the same programs.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from marco_jax.decoding.caches import KeyValues, Prefix, Reading, empty
from marco_jax.decoding.head import Head
from marco_jax.decoding.placement import Runtime
from marco_jax.model.parameters import Params
from marco_jax.model.qwen2 import Qwen2, bind
from marco_jax.model.splash import splash_supports

# Rows of logits that a device group holds at once: 74 MiB in float32 at 152,064 words.
LOGIT_ROWS = 128


class ScoreBatch(NamedTuple):
    """Rows to score. A row is a context followed by continuations that share it.

    tokens, positions, segment_ids: int32 [batch, length], as Qwen2 takes them.
    places: int32 [batch, places], where in the row a hidden state predicts something.
    targets: int32 [batch, places, targets], what is asked of it.
    """

    tokens: jax.Array
    positions: jax.Array
    segment_ids: jax.Array
    places: jax.Array
    targets: jax.Array


@functools.partial(jax.jit, static_argnames="runtime")
def score(
    params: Params, batch: ScoreBatch, prefix: Prefix | None = None, *, runtime: Runtime
) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities of targets; the head is applied at the asked places only.

    Args:
        params: the parameters.
        batch: rows; with a prefix, positions go on from its length.
        prefix: what all rows begin with, from `extend`.
        runtime: the model and the mesh.

    Returns:
        log-probabilities float32 [batch, places, targets], and whether each target is the argmax,
        bool. The normaliser covers every row of the embedding.
    """

    def body(
        params: Params, batch: ScoreBatch, prefix: Prefix | None
    ) -> tuple[jax.Array, jax.Array]:
        model = bind(runtime.config, params)
        hidden, _ = model(
            batch.tokens,
            batch.positions,
            batch.segment_ids,
            cache=Reading(prefix, None),
            dtype=runtime.dtype,
            layout=runtime.layout(_attention(runtime)),
        )
        asked = jnp.take_along_axis(hidden, batch.places[..., None], axis=1)
        return _read_blocks(Head.of(model, runtime), asked, batch.targets, runtime)

    rows = runtime.rows
    kernel = runtime.on_devices(
        body, (runtime.params_spec(), rows, prefix_spec(prefix, runtime)), rows
    )
    return runtime.replicate(kernel(params, batch, prefix))


@functools.partial(jax.jit, static_argnames="runtime")
def extend(
    params: Params,
    tokens: jax.Array,
    length: jax.Array,
    prefix: Prefix | None = None,
    *,
    runtime: Runtime,
) -> Prefix:
    """Computes a beginning once, for rows that share it: prefill without `prefix`, else more.

    Args:
        params: the parameters.
        tokens: int32 [1, length], padded on the right with anything.
        length: int32 [], how many of them count.
        prefix: what comes before, or None.
        runtime: the model and the mesh. Every device computes the same.

    Returns:
        the prefix that ends with these tokens, with as many slots as both have together.
    """

    def body(params: Params, tokens: jax.Array, length: jax.Array, prefix: Prefix | None) -> Prefix:
        _, own = read_rows(bind(runtime.config, params), tokens, prefix, runtime)
        if prefix is None:
            return Prefix(own, length)
        # Slots that the prefix left unused are filled: those in use lie together.
        used = prefix.length
        held = (
            jax.lax.dynamic_update_slice_in_dim(
                jnp.pad(before, [(0, 0)] * 3 + [(0, new.shape[3]), (0, 0)]), new, used, axis=3
            )
            for before, new in zip(prefix.held, own, strict=True)
        )
        return Prefix(KeyValues(*held), used + length)

    whole = PartitionSpec()
    spec = prefix_spec(prefix, runtime)
    out = Prefix(KeyValues(runtime.shared_cache, runtime.shared_cache), whole)
    kernel = runtime.on_devices(body, (runtime.params_spec(), whole, whole, spec), out)
    return kernel(params, tokens, length, prefix)


def read_rows(
    model: Qwen2, tokens: jax.Array, prefix: Prefix | None, runtime: Runtime
) -> tuple[jax.Array, KeyValues]:
    """Reads this device's rows, inside shard_map.

    Returns:
        hidden states [batch, length, embed] and the rows' own keys and values.
    """
    config, (batch, length) = runtime.config, tokens.shape
    start = 0 if prefix is None else prefix.length
    positions = jnp.broadcast_to(start + jnp.arange(length, dtype=jnp.int32), tokens.shape)
    heads = runtime.cached_heads // runtime.sharding.mesh.shape["tensor"]
    sizes = (config.num_hidden_layers, batch, heads, length, config.head_dim)
    attention = _attention(runtime)
    if prefix is None and runtime.sharding.platform == "tpu" and splash_supports(length):
        attention = "splash"
    hidden, cache = model(
        tokens,
        positions,
        cache=Reading(prefix, empty(*sizes, runtime.dtype)),
        dtype=runtime.dtype,
        layout=runtime.layout(attention),
    )
    return hidden, cache.own


def _attention(runtime: Runtime) -> str:
    return "mapped" if runtime.sharding.platform == "cpu" else "xla"


def prefix_spec(prefix: Prefix | None, runtime: Runtime) -> Prefix | None:
    """Specs of a prefix, or None where there is none."""
    if prefix is None:
        return None
    return Prefix(KeyValues(runtime.shared_cache, runtime.shared_cache), PartitionSpec())


def _read_blocks(
    head: Head, hidden: jax.Array, targets: jax.Array, runtime: Runtime
) -> tuple[jax.Array, jax.Array]:
    """`Head.read` of [batch, places, embed] and [batch, places, targets], some rows at a time."""
    shape = targets.shape
    hidden = hidden.reshape(-1, hidden.shape[-1])
    targets = targets.reshape(-1, shape[-1])
    rows = targets.shape[0]
    block = max(1, LOGIT_ROWS // runtime.sharding.ways("embed"))
    if rows <= block:
        values = head.read(hidden, targets, runtime)
    else:
        blocks = -(-rows // block)
        hidden = jnp.pad(hidden, ((0, blocks * block - rows), (0, 0)))
        targets = jnp.pad(targets, ((0, blocks * block - rows), (0, 0)))
        values = jax.lax.map(
            lambda part: head.read(*part, runtime),
            (hidden.reshape(blocks, block, -1), targets.reshape(blocks, block, -1)),
        )
        values = tuple(x.reshape(blocks * block, -1)[:rows] for x in values)
    return tuple(x.reshape(shape) for x in values)
