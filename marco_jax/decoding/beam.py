"""Beam search: a compiled loop that keeps the likeliest beginnings of every prompt."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from marco_jax.decoding.caches import KeyValues, Writing
from marco_jax.decoding.decode import DecodeState, NewRows, fill, layer_views, start, state_spec
from marco_jax.decoding.head import Head
from marco_jax.decoding.launcher import Launcher
from marco_jax.decoding.placement import Runtime
from marco_jax.decoding.requests import GenerateRequest, Generation
from marco_jax.decoding.sampling import Sampling
from marco_jax.decoding.shapes import bucket
from marco_jax.model.parameters import Params
from marco_jax.model.qwen2 import bind

_IMPOSSIBLE = -1e30


def search(
    engine: Launcher,
    params: Params,
    requests: Sequence[GenerateRequest],
    beams: int,
    length_penalty: float,
) -> list[Generation]:
    """See Engine.beam_search."""
    if beams < 2:
        raise ValueError(f"beams is {beams}: use 2 or more, or generate for greedy decoding")
    asked = [(number, engine.cut_prompt(request)) for number, request in enumerate(requests)]
    asked.sort(key=lambda one: (requests[one[0]].max_new_tokens, -len(one[1])))
    results: dict[int, Generation] = {}
    layers = layer_views(params, engine.runtime)
    while asked:
        steps = requests[asked[0][0]].max_new_tokens
        slots = bucket(len(asked[0][1])) + steps
        same = [one for one in asked if requests[one[0]].max_new_tokens == steps]
        batch = same[: engine.rows_of(slots * beams, len(same))]
        asked = [one for one in asked if one not in batch]
        tokens, lengths = _search_batch(
            engine, params, layers, [prompt for _, prompt in batch], steps, beams, length_penalty
        )
        for (number, _), ids, length in zip(batch, tokens, lengths, strict=False):
            results[number] = engine.finish(requests[number], ids[:length].tolist())[0]
    return [results[number] for number in range(len(requests))]


def _search_batch(
    engine: Launcher,
    params: Params,
    layers: list[Params] | None,
    prompts: list[list[int]],
    steps: int,
    beams: int,
    length_penalty: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest tokens of each prompt, [prompts, steps], and how many there are."""
    ways, longest = engine.runtime.row_ways, bucket(max(map(len, prompts)))
    size, slots = engine.rows_of((longest + steps) * beams, len(prompts)), longest + steps
    tokens, lengths = np.zeros((size, longest), np.int32), np.ones(size, np.int32)
    for number, prompt in enumerate(prompts):
        tokens[number, : len(prompt)], lengths[number] = prompt, len(prompt)
    rows = np.tile(np.arange(size // ways, dtype=np.int32) * beams, ways)
    keys = engine.put_keys(jax.random.split(jax.random.key(0), size))
    arrays = (tokens, lengths, rows, np.ones(size, np.int32))
    new = NewRows(*(engine.put(array, by_rows=True) for array in arrays), keys)
    shape = (size * beams, slots)
    state = engine.call(start, (), ("start", *shape), batch=size * beams, slots=slots)
    state = engine.call(
        fill, (params, state, new), ("fill", size, longest, *shape), sampling=Sampling()
    )
    # The search draws the first token itself: it reads the prompt's last one again.
    last = tokens[np.arange(size), lengths - 1]
    state = state._replace(
        tokens=engine.put(np.repeat(last, beams), by_rows=True),
        positions=engine.put(np.repeat(lengths - 1, beams), by_rows=True),
    )
    found, counts, _ = engine.call(
        beam_search,
        (params, layers, state, engine.put(np.float32(length_penalty))),
        ("beam_search", *shape, beams, steps),
        beams=beams,
        steps=steps,
        eos_id=engine.tokenizer.eos_id,
    )
    return np.asarray(found)[:, 0], np.asarray(counts)[:, 0]


class Beams(NamedTuple):
    """What a search holds of each prompt, likeliest first.

    tokens: int32 [prompts, beams, steps], live beginnings; scores: float32 [prompts, beams], sums
    of log-probabilities. ended: the same of ended ones, whose scores are divided by the length's
    power; lengths: int32 [prompts, beams], their tokens with the one that ended them.
    done: bool [prompts], whether no live beginning can get among the ended ones.
    """

    tokens: jax.Array
    scores: jax.Array
    ended: jax.Array
    ended_scores: jax.Array
    lengths: jax.Array
    done: jax.Array


@functools.partial(jax.jit, static_argnames=("beams", "steps", "eos_id", "runtime"))
def beam_search(
    params: Params,
    layers: list[Params] | None,
    state: DecodeState,
    length_penalty: jax.Array,
    *,
    beams: int,
    steps: int,
    eos_id: int,
    runtime: Runtime,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Searches the likeliest continuation of each prompt, as `transformers` does it.

    Of twice as many candidates as beams, those that end are kept aside with their score divided by
    length ** length_penalty, and the best of the others live on. A prompt is done when its best
    live score, so divided, is below the worst of as many ended ones as there are beams.

    Args:
        params: the parameters.
        layers: `decode.layer_views(params, runtime)`.
        state: `beams` rows a prompt, one after another. The first of them is filled with the
            prompt; `tokens` is the prompt's last token and `positions` its place.
        length_penalty: float32 []; 1 is the mean, 0 the sum, and more favours length.
        beams: beginnings kept; eos_id ends one. steps: new tokens at most.
        eos_id: the token that ends a beginning.
        runtime: the model and the mesh.

    Returns:
        int32 [prompts, beams, steps] tokens, likeliest first, their lengths int32 [prompts, beams]
        with the token that ended them, and their scores.
    """

    def body(
        params: Params, layers: list[Params] | None, state: DecodeState, penalty: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        model = bind(runtime.config, params)
        head = Head.of(model, runtime)
        prompts = state.tokens.shape[0] // beams
        held = _first_beams(prompts, beams, steps)
        first = jnp.repeat(jnp.arange(prompts) * beams, beams)
        places = state.positions[first]
        cache = KeyValues(*(x[:, first] for x in state.cache))

        def unfinished(carry: tuple) -> jax.Array:
            step, alive, *_ = carry
            return (step < steps) & (alive > 0)

        def advance(carry: tuple) -> tuple:
            step, _, cache, tokens, held = carry
            hidden, written = model(
                tokens[:, None],
                (places + step)[:, None],
                cache=Writing(cache),
                layers=layers,
                dtype=runtime.dtype,
                layout=runtime.layout(),
            )
            logprobs = jax.nn.log_softmax(head.logits(hidden[:, 0], runtime))
            real = jnp.arange(logprobs.shape[-1]) < runtime.emitted_vocab_size
            logprobs = jnp.where(real, logprobs, _IMPOSSIBLE)
            held, parents = _choose(
                held, logprobs.reshape(prompts, beams, -1), step, eos_id, penalty
            )
            rows = (parents + jnp.arange(prompts)[:, None] * beams).reshape(-1)
            cache = KeyValues(*(x[:, rows] for x in written.held))
            tokens = held.tokens[:, :, step].reshape(-1)
            best = held.scores[:, 0] / (step + 1.0) ** penalty
            held = held._replace(done=held.done | (best <= held.ended_scores[:, -1]))
            return step + 1, runtime.count(~held.done), cache, tokens, held

        carry = (jnp.int32(0), jnp.int32(1), cache, state.tokens[first], held)
        step, *_, held = jax.lax.while_loop(unfinished, advance, carry)
        return _finish(held, step, penalty)

    rows = runtime.rows
    given = (runtime.params_spec(), PartitionSpec(), state_spec(runtime), PartitionSpec())
    kernel = runtime.on_devices(body, given, rows)
    return runtime.replicate(kernel(params, layers, state, length_penalty))


def _first_beams(prompts: int, beams: int, steps: int) -> Beams:
    tokens = jnp.zeros((prompts, beams, steps), jnp.int32)
    # All beams begin alike: only the first counts, or they would stay the same.
    scores = jnp.full((prompts, beams), _IMPOSSIBLE).at[:, 0].set(0.0)
    ended_scores = jnp.full((prompts, beams), _IMPOSSIBLE)
    lengths, done = jnp.zeros((prompts, beams), jnp.int32), jnp.zeros(prompts, bool)
    return Beams(tokens, scores, tokens, ended_scores, lengths, done)


def _choose(
    held: Beams, logprobs: jax.Array, step: jax.Array, eos_id: int, penalty: jax.Array
) -> tuple[Beams, jax.Array]:
    """One step's survivors, and the beam that each live one goes on from."""
    prompts, beams, words = logprobs.shape
    totals = (held.scores[..., None] + logprobs).reshape(prompts, -1)
    scores, places = jax.lax.top_k(totals, 2 * beams)
    parents, tokens = places // words, (places % words).astype(jnp.int32)
    begun = jnp.take_along_axis(held.tokens, parents[..., None], axis=1)
    begun = begun.at[:, :, step].set(tokens)  # [prompts, 2 * beams, steps]
    ends = tokens == eos_id
    # Of those that end, the ones among the best `beams` candidates count.
    counts = ends & (jnp.arange(2 * beams) < beams) & ~held.done[:, None]
    mean = jnp.where(counts, scores / (step + 1.0) ** penalty, _IMPOSSIBLE)
    ended = _best(
        jnp.concatenate([held.ended_scores, mean], axis=1),
        beams,
        jnp.concatenate([held.ended, begun], axis=1),
        jnp.concatenate([held.lengths, jnp.broadcast_to(step + 1, mean.shape)], axis=1),
    )
    live_scores, live, parents = _best(jnp.where(ends, _IMPOSSIBLE, scores), beams, begun, parents)
    return Beams(live, live_scores, ended[1], ended[0], ended[2], held.done), parents


def _best(scores: jax.Array, count: int, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """The best `count` along axis 1, likeliest first, and the same places of other arrays."""
    best, places = jax.lax.top_k(scores, count)

    def pick(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x, places.reshape(*places.shape, *[1] * (x.ndim - 2)), axis=1)

    return best, *(pick(array) for array in arrays)


def _finish(
    held: Beams, step: jax.Array, penalty: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Ended beginnings and live ones, ranked together."""
    live = held.scores / step.astype(jnp.float32) ** penalty
    live = jnp.where(held.done[:, None], _IMPOSSIBLE, live)
    scores, tokens, lengths = _best(
        jnp.concatenate([held.ended_scores, live], axis=1),
        held.scores.shape[1],
        jnp.concatenate([held.ended, held.tokens], axis=1),
        jnp.concatenate([held.lengths, jnp.broadcast_to(step, live.shape)], axis=1),
    )
    return tokens, lengths, scores
