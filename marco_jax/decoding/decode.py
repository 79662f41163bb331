"""The compiled programs of generation: fill puts prompts into free rows, decode emits tokens."""

from __future__ import annotations

import ctypes
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from marco_jax.decoding.caches import KeyValues, Prefix, Writing, empty
from marco_jax.decoding.head import Head
from marco_jax.decoding.kernels import prefix_spec, read_rows
from marco_jax.decoding.placement import Runtime
from marco_jax.decoding.sampling import Sampling, sample
from marco_jax.model.parameters import Params
from marco_jax.model.qwen2 import bind

# Stands in `decode`'s result where a row emitted nothing.
NOTHING = -1


class DecodeState(NamedTuple):
    """Rows in the middle of generation, [batch] but for the cache.

    tokens: int32, the token to emit and feed next. positions: int32, its position.
    limits: int32, the position of the last token that a row may emit.
    done: bool, rows that have ended, or never began.
    keys: a row's own random key: with the position it decides a draw, so that a sample does not
    depend on the rows beside it.
    """

    cache: KeyValues
    tokens: jax.Array
    positions: jax.Array
    limits: jax.Array
    done: jax.Array
    keys: jax.Array


class NewRows(NamedTuple):
    """Prompts for free rows, a few for each device.

    tokens: int32 [new, length], padded on the right with anything. lengths: int32 [new].
    rows: int32 [new], which of its device's rows each takes; one past the last: none, a filler.
    counts: int32 [new], tokens to emit at most. keys: [new].
    """

    tokens: jax.Array
    lengths: jax.Array
    rows: jax.Array
    counts: jax.Array
    keys: jax.Array


def state_spec(runtime: Runtime) -> DecodeState:
    """Where the arrays of a state lie."""
    return DecodeState(KeyValues(runtime.cache, runtime.cache), *[runtime.rows] * 5)


@functools.partial(jax.jit, static_argnames=("runtime", "batch", "slots"))
def start(*, runtime: Runtime, batch: int, slots: int) -> DecodeState:
    """`batch` free rows of `slots` slots."""
    config = runtime.config
    cache = empty(
        *(config.num_hidden_layers, batch, runtime.cached_heads, slots, config.head_dim),
        runtime.dtype,
    )
    zeros = jnp.zeros(batch, jnp.int32)
    keys = jax.random.split(jax.random.key(0), batch)
    state = DecodeState(cache, zeros, zeros, zeros, jnp.ones(batch, bool), keys)
    mesh = runtime.sharding.mesh
    return jax.tree.map(
        lambda x, spec: jax.lax.with_sharding_constraint(x, jax.NamedSharding(mesh, spec)),
        state,
        state_spec(runtime),
    )


@functools.partial(jax.jit, static_argnames=("runtime", "sampling"), donate_argnames="state")
def fill(
    params: Params,
    state: DecodeState,
    new: NewRows,
    prefix: Prefix | None = None,
    *,
    runtime: Runtime,
    sampling: Sampling,
) -> DecodeState:
    """Reads prompts into free rows and draws the first token of each.

    Args:
        params: the parameters.
        state: rows, some of them free; its cache has slots for prefix, `length` and new tokens.
        new: the prompts, without what `prefix` holds.
        prefix: how all of these prompts begin, or None.
        runtime: the model and the mesh.
        sampling: how a token is drawn.
    """

    def body(
        params: Params, state: DecodeState, new: NewRows, prefix: Prefix | None
    ) -> DecodeState:
        model = bind(runtime.config, params)
        hidden, own = read_rows(model, new.tokens, prefix, runtime)
        begin = jnp.int32(0) if prefix is None else prefix.length
        cache = _put_rows(state.cache, own, new.rows, begin, prefix)
        last = jnp.take_along_axis(hidden, (new.lengths - 1)[:, None, None], axis=1)[:, 0]
        positions = begin + new.lengths
        head = Head.of(model, runtime)
        tokens = draw(head, last, new.keys, positions, runtime, sampling)
        limits, done = positions + new.counts - 1, jnp.zeros(positions.shape, bool)
        values = (tokens, positions, limits, done, new.keys)
        return DecodeState(
            cache,
            *(
                old.at[new.rows].set(value, mode="drop")
                for old, value in zip(state[1:], values, strict=True)
            ),
        )

    specs = state_spec(runtime)
    given = (runtime.params_spec(), specs, runtime.rows, prefix_spec(prefix, runtime))
    return runtime.on_devices(body, given, specs)(params, state, new, prefix)


@functools.partial(
    jax.jit, static_argnames=("steps", "eos_ids", "runtime", "sampling"), donate_argnames="state"
)
def decode(
    params: Params,
    layers: list[Params] | None,
    state: DecodeState,
    enough: jax.Array,
    *,
    steps: int,
    eos_ids: tuple[int, ...],
    runtime: Runtime,
    sampling: Sampling,
) -> tuple[jax.Array, jax.Array, DecodeState]:
    """Emits up to `steps` tokens a row in one compiled loop.

    Args:
        params: the parameters.
        layers: `layer_views(params, runtime)`.
        state: rows that `fill` began.
        enough: int32 [], the loop ends early when as many rows have ended.
        steps: tokens a row at most.
        eos_ids: tokens that end a row; they are emitted.
        runtime: the model and the mesh.
        sampling: how a token is drawn.

    Returns:
        int32 [batch, steps] emitted tokens, NOTHING after a row's end; bool [batch], whether each
        row has ended; and the state to go on from.
    """

    def body(
        params: Params, layers: list[Params] | None, state: DecodeState, enough: jax.Array
    ) -> tuple[jax.Array, jax.Array, DecodeState]:
        model = bind(runtime.config, params)
        head = Head.of(model, runtime)
        layout = runtime.emitting()
        running = runtime.count(~state.done)
        stop_at = jnp.maximum(running - enough, 0)
        emitted = jnp.full((state.tokens.shape[0], steps), NOTHING, jnp.int32)

        def goes_on(carry: tuple) -> jax.Array:
            step, alive, _, _ = carry
            return (step < steps) & (alive > stop_at)

        def advance(carry: tuple) -> tuple:
            step, _, state, emitted = carry
            tokens = jnp.where(state.done, NOTHING, state.tokens)
            emitted = jax.lax.dynamic_update_index_in_dim(emitted, tokens, step, axis=1)
            done = state.done | jnp.isin(tokens, jnp.array(eos_ids))
            done |= state.positions >= state.limits
            hidden, cache = model(
                state.tokens[:, None],
                state.positions[:, None],
                cache=Writing(state.cache),
                layers=layers,
                dtype=runtime.dtype,
                layout=layout,
            )
            hidden = layout.own_rows(hidden[:, 0])
            # A finished row stays where it is: its slot is overwritten, its cache never runs over.
            positions = jnp.where(done, state.positions, state.positions + 1)
            following = draw(head, hidden, state.keys, positions, runtime, sampling)
            state = state._replace(
                cache=cache.held, tokens=following, positions=positions, done=done
            )
            return step + 1, runtime.count(~done), state, emitted

        carry = (jnp.int32(0), running, state, emitted)
        _, _, state, emitted = jax.lax.while_loop(goes_on, advance, carry)
        return emitted, state.done, state

    specs, rows = state_spec(runtime), runtime.rows
    given = (runtime.params_spec(), PartitionSpec(), specs, PartitionSpec())
    kernel = runtime.on_devices(body, given, (rows, rows, specs))
    emitted, done, state = kernel(params, layers, state, enough)
    return *runtime.replicate((emitted, done)), state


def draw(
    head: Head,
    hidden: jax.Array,
    keys: jax.Array,
    positions: jax.Array,
    runtime: Runtime,
    sampling: Sampling,
) -> jax.Array:
    """The next token of this device's rows: [rows, embed] -> int32 [rows]."""
    if sampling.temperature == 0:
        return head.argmax(hidden, runtime)
    draws = jax.vmap(jax.random.fold_in)(keys, positions)
    logits = head.logits(hidden, runtime)
    real = jnp.arange(logits.shape[-1]) < runtime.emitted_vocab_size
    return sample(jnp.where(real, logits, -jnp.inf), draws, sampling)


def layer_views(params: Params, runtime: Runtime) -> list[Params] | None:
    """Each layer's parameters as arrays of their own that share the stacked ones' memory.

    A CPU copies what it slices out of a stack, at each layer of each token: a step then moves three
    times the bytes. Elsewhere slices fuse with what reads them, and None is returned.

    The views must not outlive `params`.
    """
    # DLPack, by which arrays share memory, has no bfloat16 in NumPy.
    plain = all(x.dtype == jnp.float32 for x in jax.tree.leaves(params["layers"]))
    if not takes_views(runtime) or not plain:
        return None

    def view(stacked: jax.Array, layer: int) -> jax.Array:
        one = stacked.addressable_shards[0].data
        size = one.nbytes // one.shape[0]
        address = one.unsafe_buffer_pointer() + layer * size
        memory = (ctypes.c_char * size).from_address(address)
        array = np.frombuffer(memory, one.dtype).reshape(one.shape[1:])
        return jax.dlpack.from_dlpack(array)

    jax.block_until_ready(params["layers"])
    depth = runtime.config.num_hidden_layers
    return [jax.tree.map(lambda x, i=i: view(x, i), params["layers"]) for i in range(depth)]


def takes_views(runtime: Runtime) -> bool:
    """Whether `layer_views` gives anything: on one CPU device."""
    return runtime.sharding.platform == "cpu" and runtime.sharding.mesh.size == 1


def _put_rows(
    cache: KeyValues, own: KeyValues, rows: jax.Array, begin: jax.Array, prefix: Prefix | None
) -> KeyValues:
    """Writes rows, and the prefix before them, into the slots of the rows they take."""
    capacity = cache.key.shape[1]

    def put(slots: jax.Array, piece: jax.Array, row: jax.Array, at: jax.Array) -> jax.Array:
        place = (0, row, 0, at, 0)
        before = jax.lax.dynamic_slice(slots, place, piece.shape)
        piece = jnp.where(row < capacity, piece.astype(slots.dtype), before)
        return jax.lax.dynamic_update_slice(slots, piece, place)

    def put_row(number: jax.Array, cache: KeyValues) -> KeyValues:
        row = rows[number]
        if prefix is not None:
            cache = KeyValues(
                *(put(x, y, row, jnp.int32(0)) for x, y in zip(cache, prefix.held, strict=True))
            )
        pieces: Any = (jax.lax.dynamic_slice_in_dim(x, number, 1, axis=1) for x in own)
        return KeyValues(*(put(x, y, row, begin) for x, y in zip(cache, pieces, strict=True)))

    return jax.lax.fori_loop(0, rows.shape[0], put_row, cache)
