"""Compiled programs of generation: `fill` puts prompts into free rows, `decode` emits tokens.

Both update a `DecodeState`: a fixed number of rows with their KV cache, each free or generating for
one prompt. `fill` reads prompts, copies their keys and values (and a shared prefix's) into the
cache, and draws each row's first token. A step of `decode` emits every row's drawn token, runs the
model on it, which adds its keys and values to the cache, and draws the next token. With drafts
(drafts.py) a step reads several tokens per row and emits those that are right. Rows that have ended
still take part in each step, since shapes are fixed: they emit NOTHING and keep overwriting one
slot, until `fill` gives the row to another prompt.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from marco_jax.decoding.caches import Cached, KeyValues, Prefix, Writing, empty, put_slots
from marco_jax.decoding.drafts import count_right, look_up
from marco_jax.decoding.head import Head
from marco_jax.decoding.kernels import prefix_spec, run_rows
from marco_jax.decoding.placement import Runtime
from marco_jax.decoding.requests import Sampling
from marco_jax.model.cpu import LayerViews
from marco_jax.model.parameters import Params
from marco_jax.model.qwen2 import Qwen2, bind

# The value of `decode`'s result at steps after a row has ended.
NOTHING = -1


class DecodeState(NamedTuple):
    """Rows during generation. All arrays except the cache are [batch].

    tokens: int32, the token that is emitted and read next. positions: int32, its position.
    limits: int32, the position of the last token that a row may emit.
    done: bool, True for rows that have ended or were never filled.
    keys: random keys; a row's key and the position determine a draw, so that samples do not depend
    on other rows.
    history: int32 [batch, slots], the tokens of each row by position; None without drafts.
    """

    cache: Cached
    tokens: jax.Array
    positions: jax.Array
    limits: jax.Array
    done: jax.Array
    keys: jax.Array
    history: jax.Array | None = None


class NewRows(NamedTuple):
    """Prompts for free rows, the same number for each device.

    tokens: int32 [new, length], padded on the right with any tokens. lengths: int32 [new].
    rows: int32 [new], the index of the row on its device that the prompt takes; the number of the
    device's rows for a filler, which takes none.
    counts: int32 [new], the most tokens to emit. keys: [new].
    history: int32 [new, slots], the whole prompts, where the state has a history.
    """

    tokens: jax.Array
    lengths: jax.Array
    rows: jax.Array
    counts: jax.Array
    keys: jax.Array
    history: jax.Array | None = None


def state_spec(runtime: Runtime, history: bool = False, by_layer: bool = False) -> DecodeState:
    """PartitionSpecs of a state, or of parts of it."""
    cache = runtime.rows if by_layer else runtime.cache
    return DecodeState(cache, *[runtime.rows] * 5, runtime.rows if history else None)


@functools.partial(jax.jit, static_argnames=("runtime", "batch", "slots", "history", "by_layer"))
def start(
    *, runtime: Runtime, batch: int, slots: int, history: bool = False, by_layer: bool = False
) -> DecodeState:
    """Creates a state of `batch` free rows with `slots` cache slots each.

    With `by_layer` each layer has a cache of its own, as `decode` takes it with layer views.
    """
    config = runtime.config
    sizes = (batch, runtime.cached_heads, slots, config.head_dim)
    if by_layer:
        cache = tuple(empty(sizes, runtime.dtype) for _ in range(config.num_hidden_layers))
    else:
        cache = empty((config.num_hidden_layers, *sizes), runtime.dtype)
    zeros = jnp.zeros(batch, jnp.int32)
    keys = jax.random.split(jax.random.key(0), batch)
    read = jnp.zeros((batch, slots), jnp.int32) if history else None
    state = DecodeState(cache, zeros, zeros, zeros, jnp.ones(batch, bool), keys, read)
    mesh, specs = runtime.sharding.mesh, state_spec(runtime, history, by_layer)
    shardings = jax.tree.map(lambda spec: jax.NamedSharding(mesh, spec), specs)
    return jax.lax.with_sharding_constraint(state, shardings)


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

    The state's cache has slots for the prefix, `length` and new tokens; `new` has the prompts
    without their prefix.
    """

    def body(params, state, new, prefix):
        model = bind(runtime.config, params)
        hidden, own = run_rows(model, new.tokens, prefix, runtime)
        start = jnp.int32(0) if prefix is None else prefix.length
        cache = _put_rows(state.cache, own, new.rows, start, prefix)
        last = jnp.take_along_axis(hidden, (new.lengths - 1)[:, None, None], axis=1)[:, 0]
        positions = start + new.lengths
        head = Head.of(model, runtime)
        tokens = draw(head, last, new.keys, positions, sampling)
        limits, done = positions + new.counts - 1, jnp.zeros(positions.shape, bool)
        history = None
        if new.history is not None:
            history = new.history.at[jnp.arange(tokens.size), positions].set(tokens)
        values = (tokens, positions, limits, done, new.keys, history)
        put = jax.tree.map(
            lambda old, value: old.at[new.rows].set(value, mode="drop"), tuple(state[1:]), values
        )
        return DecodeState(cache, *put)

    by_layer = not isinstance(state.cache, KeyValues)
    specs, rows = state_spec(runtime, new.history is not None, by_layer), runtime.rows
    of_rows = NewRows(*[rows] * 5, None if new.history is None else rows)
    given = (runtime.params_spec(), specs, of_rows, prefix_spec(prefix, runtime))
    return runtime.on_devices(body, given, specs)(params, state, new, prefix)


@functools.partial(
    jax.jit,
    static_argnames=("steps", "eos_ids", "runtime", "sampling", "drafts"),
    donate_argnames="state",
)
def decode(
    params: Params,
    layers: LayerViews | None,
    state: DecodeState,
    enough: jax.Array,
    *,
    steps: int,
    eos_ids: tuple[int, ...],
    runtime: Runtime,
    sampling: Sampling,
    drafts: int = 0,
) -> tuple[jax.Array, jax.Array, jax.Array, DecodeState]:
    """Emits tokens in one compiled loop, until a row has emitted `steps` of them.

    Args:
        layers: `cpu.layer_views` of the parameters.
        state: rows that `fill` has started; its cache is by layer if `layers` are given.
        enough: int32 [], the loop stops early when this number of rows has ended.
        eos_ids: tokens that end a row; they are emitted.
        drafts: tokens drafted per row and step; the state then has a history, and as many slots
            more.

    Returns:
        int32 [batch, steps + drafts] emitted tokens, then NOTHING; bool [batch], whether each
        row has ended; int32 [2], the number of steps and of rows that were generating in them; and
        the state for the next call.
    """

    def body(params, layers, state, enough):
        model = bind(runtime.config, params)
        head = Head.of(model, runtime)
        running = runtime.count(~state.done)
        stop_at = jnp.maximum(running - enough, 0)
        batch = state.tokens.shape[0]
        emitted = jnp.full((batch, steps + drafts), NOTHING, jnp.int32)

        def unfinished(carry: tuple) -> jax.Array:
            work, most, alive, *_ = carry
            return (most < steps) & (alive > stop_at)

        def advance(carry: tuple) -> tuple:
            work, _, alive, counts, emitted, state = carry
            state, tokens = _advance(model, head, layers, state, eos_ids, sampling, drafts)
            columns = counts[:, None] + jnp.arange(drafts + 1)
            emitted = emitted.at[jnp.arange(batch)[:, None], columns].set(tokens, mode="drop")
            counts += jnp.sum(tokens != NOTHING, axis=1)
            work += jnp.stack([jnp.int32(1), alive])
            return work, runtime.most(counts), runtime.count(~state.done), counts, emitted, state

        zeros = jnp.zeros(batch, jnp.int32)
        carry = (jnp.zeros(2, jnp.int32), jnp.int32(0), running, zeros, emitted, state)
        work, _, _, _, emitted, state = jax.lax.while_loop(unfinished, advance, carry)
        return emitted, state.done, work, state

    specs = state_spec(runtime, drafts > 0, by_layer=layers is not None)
    rows, whole = runtime.rows, PartitionSpec()
    given = (runtime.params_spec(), whole, specs, whole)
    kernel = runtime.on_devices(body, given, (rows, rows, whole, specs))
    *results, state = kernel(params, layers, state, enough)
    return *runtime.replicate(tuple(results)), state


def _advance(
    model: Qwen2,
    head: Head,
    layers: LayerViews | None,
    state: DecodeState,
    eos_ids: tuple[int, ...],
    sampling: Sampling,
    drafts: int,
) -> tuple[DecodeState, jax.Array]:
    """One step of this device's rows.

    Returns:
        the state, and int32 [rows, 1 + drafts], the tokens that each row emits, then NOTHING.
    """
    runtime, layout = head.runtime, head.runtime.emitting(layers)
    rows, width = state.tokens.shape[0], 1 + drafts
    read = state.tokens[:, None]
    if drafts:
        read = jnp.concatenate([read, look_up(state.history, state.positions, drafts)], axis=1)
    positions = state.positions[:, None] + jnp.arange(width)
    hidden, cache = model(
        read,
        positions,
        cache=Writing(state.cache),
        layers=layers and layers.layers,
        dtype=runtime.dtype,
        layout=layout,
    )
    hidden = layout.own_rows(hidden).reshape(rows * width, -1)
    keys = jnp.repeat(state.keys, width)
    drawn = draw(head, hidden, keys, (positions + 1).reshape(-1), sampling).reshape(rows, width)
    # The tokens that are known to follow, up to one that ends the row.
    right = count_right(read[:, 1:], drawn)
    ends = jnp.isin(read, jnp.array(eos_ids)) | (positions >= state.limits[:, None])
    ended_before = jnp.cumsum(ends, axis=1) - ends > 0
    known = (jnp.arange(width) <= right[:, None]) & ~ended_before & ~state.done[:, None]
    done = state.done | jnp.any(known & ends, axis=1)
    tokens = jnp.take_along_axis(drawn, right[:, None], axis=1)[:, 0]
    history = state.history
    if drafts:
        index = jnp.arange(rows)[:, None]
        history = history.at[index, positions + 1].set(drawn, mode="drop")
    # An ended row keeps its position, so that it never writes past its slots.
    moved = jnp.where(done, state.positions, state.positions + right + 1)
    state = state._replace(
        cache=cache.cache, tokens=tokens, positions=moved, done=done, history=history
    )
    return state, jnp.where(known, read, NOTHING)


def draw(
    head: Head, hidden: jax.Array, keys: jax.Array, positions: jax.Array, sampling: Sampling
) -> jax.Array:
    """Draws the next token of this device's rows: hidden [rows, embed] -> int32 [rows]."""
    if sampling.temperature == 0:
        return head.argmax(hidden)
    keys = jax.vmap(jax.random.fold_in)(keys, positions)
    logits = head.logits(hidden)
    emitted = jnp.arange(logits.shape[-1]) < head.runtime.emitted_vocab_size
    return _sample(jnp.where(emitted, logits, -jnp.inf), keys, sampling)


def _sample(logits: jax.Array, keys: jax.Array, sampling: Sampling) -> jax.Array:
    """Draws one token per row: float32 logits [batch, vocab], keys [batch] -> int32 [batch]."""
    logits = logits / sampling.temperature
    if sampling.top_k:
        kept = min(sampling.top_k, logits.shape[-1])
        threshold = jax.lax.top_k(logits, kept)[0][:, -1:]
        logits = jnp.where(logits < threshold, -jnp.inf, logits)
    if sampling.top_p < 1:
        ordered = jnp.sort(logits, axis=-1, descending=True)
        probabilities = jax.nn.softmax(ordered, axis=-1)
        # The smallest set that reaches top_p: a token stays if those above it do not reach it.
        above = jnp.cumsum(probabilities, axis=-1) - probabilities
        kept = jnp.sum(above < sampling.top_p, axis=-1, keepdims=True)
        threshold = jnp.take_along_axis(ordered, kept - 1, axis=-1)
        logits = jnp.where(logits < threshold, -jnp.inf, logits)
    return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)


def _put_rows(
    cache: Cached, own: KeyValues, rows: jax.Array, start: jax.Array, prefix: Prefix | None
) -> Cached:
    """Copies keys and values of new rows, and of the prefix before them, into the cache.

    A filler's row is past the last: it changes nothing.
    """

    def put_row(number: jax.Array, cache: Cached) -> Cached:
        if prefix is not None:
            cache = put_slots(cache, prefix.cache, rows[number], jnp.int32(0))
        new = KeyValues(*(jax.lax.dynamic_slice_in_dim(x, number, 1, axis=1) for x in own))
        return put_slots(cache, new, rows[number], start)

    return jax.lax.fori_loop(0, rows.shape[0], put_row, cache)
