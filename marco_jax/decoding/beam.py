"""Beam search: a compiled loop that keeps the likeliest hypotheses of every prompt.

The algorithm is that of `transformers`. Each step takes the best extensions of a prompt's live
hypotheses: 2 * beams with one EOS token, and `beams` more for each further one. Those that end are
compared with the ended ones, by their score divided by length ** length_penalty; the best others
stay live. A prompt is done when its best live score, divided likewise, is at most the worst of its
ended scores.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from marco_jax.decoding.caches import KeyValues, Writing
from marco_jax.decoding.decode import DecodeState, NewRows, fill, start, state_spec
from marco_jax.decoding.head import Head
from marco_jax.decoding.launcher import Launcher
from marco_jax.decoding.padded_shapes import bucket
from marco_jax.decoding.placement import Runtime
from marco_jax.decoding.requests import GenerateRequest, Generation, Sampling
from marco_jax.model.cpu import LayerViews, layer_views
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
    pending = [(number, engine.cut_prompt(request)) for number, request in enumerate(requests)]
    pending.sort(key=lambda one: (requests[one[0]].max_new_tokens, -len(one[1])))
    results: dict[int, Generation] = {}
    layers = layer_views(params, engine.config, engine.runtime.sharding, rows=beams)
    while pending:
        steps = requests[pending[0][0]].max_new_tokens
        slots = bucket(len(pending[0][1])) + steps
        same = [one for one in pending if requests[one[0]].max_new_tokens == steps]
        batch = same[: engine.rows_of(slots * beams, len(same))]
        taken = {number for number, _ in batch}
        pending = [one for one in pending if one[0] not in taken]
        tokens, lengths = _search_batch(
            engine, params, layers, [prompt for _, prompt in batch], steps, beams, length_penalty
        )
        for (number, _), ids, length in zip(batch, tokens, lengths, strict=False):
            results[number] = engine.finish(requests[number], ids[:length].tolist())[0]
    return [results[number] for number in range(len(requests))]


def _search_batch(
    engine: Launcher,
    params: Params,
    layers: LayerViews | None,
    prompts: list[list[int]],
    steps: int,
    beams: int,
    length_penalty: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Searches one batch: the best continuations [prompts, steps] and their lengths [prompts]."""
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
    # The search chooses the first token itself, so it reads the prompt's last token again.
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
        eos_ids=engine.end_ids,
    )
    return np.asarray(found)[:, 0], np.asarray(counts)[:, 0]


class Beams(NamedTuple):
    """The state of a search: live and ended hypotheses of each prompt, likeliest first.

    tokens: int32 [prompts, beams, steps], live hypotheses; scores: float32 [prompts, beams], their
    sums of log-probabilities. ended: int32 [prompts, beams, steps], ended hypotheses; ended_scores:
    float32 [prompts, beams], divided by length ** length_penalty; lengths: int32 [prompts, beams],
    their numbers of tokens with EOS. done: bool [prompts], whether the search of a prompt is over.
    """

    tokens: jax.Array
    scores: jax.Array
    ended: jax.Array
    ended_scores: jax.Array
    lengths: jax.Array
    done: jax.Array


@functools.partial(jax.jit, static_argnames=("beams", "steps", "eos_ids", "runtime"))
def beam_search(
    params: Params,
    layers: LayerViews | None,
    state: DecodeState,
    length_penalty: jax.Array,
    *,
    beams: int,
    steps: int,
    eos_ids: tuple[int, ...],
    runtime: Runtime,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Searches the likeliest continuations of each prompt.

    Args:
        layers: `cpu.layer_views` of the parameters.
        state: `beams` adjacent rows per prompt. The first of them is filled with the prompt;
            `tokens` is the prompt's last token and `positions` its position.
        length_penalty: float32 []; 0 ranks by sum, 1 by mean, and more favours length.
        eos_ids: tokens that end a hypothesis.

    Returns:
        int32 [prompts, beams, steps] tokens, likeliest first; int32 [prompts, beams] their lengths,
        with EOS; and their scores.
    """

    def body(params, layers, state, penalty):
        model = bind(runtime.config, params)
        head = Head.of(model, runtime)
        prompts = state.tokens.shape[0] // beams
        hypotheses = _first_beams(prompts, beams, steps)
        first = jnp.repeat(jnp.arange(prompts) * beams, beams)
        positions = state.positions[first]
        cache = KeyValues(*(x[:, first] for x in state.cache))

        def unfinished(carry: tuple) -> jax.Array:
            step, alive, *_ = carry
            return (step < steps) & (alive > 0)

        def advance(carry: tuple) -> tuple:
            step, _, cache, tokens, hypotheses = carry
            hidden, written = model(
                tokens[:, None],
                (positions + step)[:, None],
                cache=Writing(cache),
                layers=layers and layers.layers,
                dtype=runtime.dtype,
                layout=runtime.layout() if layers is None else runtime.emitting(layers),
            )
            logprobs = jax.nn.log_softmax(head.logits(hidden[:, 0]))
            emitted = jnp.arange(logprobs.shape[-1]) < runtime.emitted_vocab_size
            logprobs = jnp.where(emitted, logprobs, _IMPOSSIBLE)
            hypotheses, parents = _choose(
                hypotheses, logprobs.reshape(prompts, beams, -1), step, eos_ids, penalty
            )
            # A hypothesis takes over the cache of the one that it extends.
            rows = (parents + jnp.arange(prompts)[:, None] * beams).reshape(-1)
            cache = KeyValues(*(x[:, rows] for x in written.cache))
            tokens = hypotheses.tokens[:, :, step].reshape(-1)
            best = hypotheses.scores[:, 0] / (step + 1.0) ** penalty
            done = hypotheses.done | (best <= hypotheses.ended_scores[:, -1])
            return step + 1, runtime.count(~done), cache, tokens, hypotheses._replace(done=done)

        carry = (jnp.int32(0), jnp.int32(1), cache, state.tokens[first], hypotheses)
        step, *_, hypotheses = jax.lax.while_loop(unfinished, advance, carry)
        return _finish(hypotheses, step, penalty)

    rows = runtime.rows
    given = (runtime.params_spec(), PartitionSpec(), state_spec(runtime), PartitionSpec())
    kernel = runtime.on_devices(body, given, rows)
    return runtime.replicate(kernel(params, layers, state, length_penalty))


def _first_beams(prompts: int, beams: int, steps: int) -> Beams:
    tokens = jnp.zeros((prompts, beams, steps), jnp.int32)
    # All beams start equal; unless only the first counts they would stay equal.
    scores = jnp.full((prompts, beams), _IMPOSSIBLE).at[:, 0].set(0.0)
    ended_scores = jnp.full((prompts, beams), _IMPOSSIBLE)
    lengths, done = jnp.zeros((prompts, beams), jnp.int32), jnp.zeros(prompts, bool)
    return Beams(tokens, scores, tokens, ended_scores, lengths, done)


def _choose(
    beams: Beams, logprobs: jax.Array, step: jax.Array, eos_ids: tuple[int, ...], penalty: jax.Array
) -> tuple[Beams, jax.Array]:
    """Chooses the hypotheses after one step, and the parent (a beam) of each live one."""
    prompts, width, vocab = logprobs.shape
    totals = (beams.scores[..., None] + logprobs).reshape(prompts, -1)
    # So many that `width` hypotheses stay live, whichever EOS tokens are among the best.
    taken = (1 + len(eos_ids)) * width
    scores, indices = jax.lax.top_k(totals, taken)
    parents, tokens = indices // vocab, (indices % vocab).astype(jnp.int32)
    candidates = jnp.take_along_axis(beams.tokens, parents[..., None], axis=1)
    candidates = candidates.at[:, :, step].set(tokens)  # [prompts, taken, steps]
    ends = jnp.isin(tokens, jnp.array(eos_ids))
    # A candidate that ends counts only if it is among the best `width`, as in transformers.
    counts = ends & (jnp.arange(taken) < width) & ~beams.done[:, None]
    final_scores = jnp.where(counts, scores / (step + 1.0) ** penalty, _IMPOSSIBLE)
    lengths = jnp.broadcast_to(step + 1, final_scores.shape)
    ended_scores, ended, lengths = _best(
        jnp.concatenate([beams.ended_scores, final_scores], axis=1),
        width,
        jnp.concatenate([beams.ended, candidates], axis=1),
        jnp.concatenate([beams.lengths, lengths], axis=1),
    )
    live_scores, live, parents = _best(
        jnp.where(ends, _IMPOSSIBLE, scores), width, candidates, parents
    )
    return Beams(live, live_scores, ended, ended_scores, lengths, beams.done), parents


def _best(scores: jax.Array, count: int, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """The best `count` scores along axis 1, descending, and other arrays at the same indices."""
    best, indices = jax.lax.top_k(scores, count)

    def pick(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x, indices.reshape(*indices.shape, *[1] * (x.ndim - 2)), axis=1)

    return best, *(pick(array) for array in arrays)


def _finish(
    beams: Beams, step: jax.Array, penalty: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Ranks ended and live hypotheses together."""
    live = beams.scores / step.astype(jnp.float32) ** penalty
    live = jnp.where(beams.done[:, None], _IMPOSSIBLE, live)
    scores, tokens, lengths = _best(
        jnp.concatenate([beams.ended_scores, live], axis=1),
        beams.scores.shape[1],
        jnp.concatenate([beams.ended, beams.tokens], axis=1),
        jnp.concatenate([beams.lengths, jnp.broadcast_to(step, live.shape)], axis=1),
    )
    return tokens, lengths, scores
