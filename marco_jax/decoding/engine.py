"""Batches requests onto the compiled kernels and returns results in order.

Requests with the same context share one row: the context is computed once and each continuation
sees it and itself only. Rows are padded to few lengths, so that a whole suite compiles a bounded
number of programs (`Engine.programs`). Results do not depend on how requests were batched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from marco_jax.decoding import kernels
from marco_jax.decoding.requests import GenerateRequest, Generation, Score, ScoreRequest
from marco_jax.decoding.rows import fill_rows, pack_rows
from marco_jax.decoding.sampling import Sampling
from marco_jax.model.config import Qwen2Config
from marco_jax.model.mesh import Sharding
from marco_jax.model.parameters import Params

# Tokens emitted between two looks at the stop strings.
DECODE_STEPS = 32


class Decoder(Protocol):
    """What the engine needs of a tokenizer."""

    vocab_size: int
    eos_id: int

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        ...


class Engine:
    """Scores and generates with parameters that are handed over at each call, in place."""

    def __init__(
        self,
        config: Qwen2Config,
        tokenizer: Decoder,
        *,
        sharding: Sharding | None = None,
        dtype: jnp.dtype = jnp.float32,
        max_length: int | None = None,
        tokens_per_batch: int = 8192,
    ) -> None:
        """Prepares an engine; nothing compiles before the first request.

        Args:
            config: the model.
            tokenizer: decodes generated ids and names the separator.
            sharding: the mesh that the parameters live on; None for one device.
            dtype: of the computation.
            max_length: longest row in tokens, config.max_position_embeddings by default. Longer
                inputs are cut on the left and counted in `truncated`.
            tokens_per_batch: padded tokens that one program call may hold.
        """
        self.tokenizer = tokenizer
        self.max_length = max_length or config.max_position_embeddings
        self.tokens_per_batch = tokens_per_batch
        self.truncated = 0
        self.programs: set[tuple] = set()
        self._score_runtime = kernels.Runtime(config, tokenizer.vocab_size, sharding, dtype)
        # One new token a step cannot be split over the context axis.
        self._decode_runtime = dataclasses.replace(
            self._score_runtime, sharding=sharding and _without_length(sharding)
        )

    def score(self, params: Params, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Log-probability of every continuation after its context, in the order asked.

        An input longer than max_length + 1 loses tokens on the left, as lm-evaluation-harness cuts
        it; it then has a row of its own.
        """
        rows, truncated = pack_rows(requests, self.max_length)
        self.truncated += truncated
        scores: list[Score | None] = [None] * len(requests)
        for batch_rows, length in self._batches(rows, lambda row: len(row.tokens)):
            scored = _bucket(max(len(row.targets) for row in batch_rows), smallest=16)
            batch = self._put_score(fill_rows(batch_rows, self._rows(length), length, scored))
            self.programs.add(("score", *batch.tokens.shape, scored))
            logprobs, greedy = kernels.score(params, batch, runtime=self._score_runtime)
            logprobs, greedy = np.asarray(logprobs, np.float64), np.asarray(greedy)
            for row_index, row in enumerate(batch_rows):
                for request, span in zip(row.requests, row.spans, strict=True):
                    total = float(logprobs[row_index, span].sum())
                    scores[request] = Score(total, bool(greedy[row_index, span].all()))
        return [score for score in scores if score is not None]

    def generate(
        self,
        params: Params,
        requests: Sequence[GenerateRequest],
        *,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> list[Generation]:
        """Continues every prompt, in the order asked; greedy unless `sampling` says otherwise.

        A prompt that leaves no room for its new tokens is cut on the left.
        """
        sampling = sampling or Sampling()
        results: list[Generation | None] = [None] * len(requests)
        order = range(len(requests))
        room = [_bucket(request.max_new_tokens, smallest=DECODE_STEPS) for request in requests]
        prompts = []
        for request, new in zip(requests, room, strict=True):
            if new >= self.max_length:
                raise ValueError(
                    f"max_new_tokens is {request.max_new_tokens}: "
                    f"it must leave room for a prompt in {self.max_length} tokens"
                )
            kept = list(request.prompt)[-(self.max_length - new) :]
            self.truncated += len(kept) < len(request.prompt)
            prompts.append(kept)
        for new in sorted(set(room)):
            same_room = [index for index in order if room[index] == new]
            for batch, length in self._batches(same_room, lambda i: len(prompts[i]), extra=new):
                asked = [(requests[i], prompts[i], i) for i in batch]
                for index, result in zip(
                    batch,
                    self._generate_batch(params, asked, length, new, sampling, seed),
                    strict=True,
                ):
                    results[index] = result
        return [result for result in results if result is not None]

    def _generate_batch(
        self,
        params: Params,
        asked: list[tuple[GenerateRequest, list[int], int]],
        length: int,
        new: int,
        sampling: Sampling,
        seed: int,
    ) -> list[Generation]:
        rows, runtime = self._rows(length + new), self._decode_runtime
        tokens = np.zeros((rows, length), np.int32)
        lengths = np.ones(rows, np.int32)
        for row, (_, prompt, _) in enumerate(asked):
            tokens[row, : len(prompt)], lengths[row] = prompt, len(prompt)
        ids = np.zeros(rows, np.uint32)
        ids[: len(asked)] = [index for _, _, index in asked]
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), ids)
        state = kernels.prefill(
            params,
            self._put(tokens, "batch", None),
            self._put(lengths, "batch"),
            keys,
            runtime=runtime,
            cache_length=length + new,
            sampling=sampling,
        )
        state = state._replace(done=self._put(np.arange(rows) >= len(asked), "batch"))
        self.programs.add(("prefill", rows, length, new, sampling))
        self.programs.add(("decode", rows, length + new, sampling))
        eos_ids = (self.tokenizer.eos_id,)
        emitted: list[list[int]] = [[] for _ in asked]
        finished: list[Generation | None] = [None] * len(asked)
        for _ in range(0, new, DECODE_STEPS):
            block, _, state = kernels.decode(
                params,
                state,
                steps=DECODE_STEPS,
                eos_ids=eos_ids,
                runtime=runtime,
                sampling=sampling,
            )
            for row, values in enumerate(np.asarray(block)[: len(asked)].tolist()):
                emitted[row] += values
                if finished[row] is None:
                    finished[row] = self._finish(asked[row][0], emitted[row])
            if all(result is not None for result in finished):
                break
            done = np.array([r is not None for r in finished] + [True] * (rows - len(asked)))
            state = state._replace(done=self._put(done, "batch"))
        return [result for result in finished if result is not None]

    def _finish(self, request: GenerateRequest, emitted: list[int]) -> Generation | None:
        """The result, or None while a row has neither ended nor filled its room."""
        ids = emitted[: request.max_new_tokens]
        ended = len(ids) == request.max_new_tokens
        if self.tokenizer.eos_id in ids:
            ids, ended = ids[: ids.index(self.tokenizer.eos_id)], True
        text = self.tokenizer.decode(ids)
        cuts = [text.find(stop) for stop in request.stop if stop in text]
        if cuts:
            text, ended = text[: min(cuts)], True
        return Generation(tuple(ids), text) if ended else None

    def _batches(
        self, items: Iterable, length_of: Callable, extra: int = 0
    ) -> Iterable[tuple[list, int]]:
        """Groups items of one padded length, longest first, as many as a program call takes."""
        by_length: dict[int, list] = {}
        for item in items:
            bucket = min(_bucket(length_of(item)), _round_up(self.max_length, self._ways("length")))
            by_length.setdefault(bucket, []).append(item)
        for length in sorted(by_length, reverse=True):
            rows, same = self._rows(length + extra), by_length[length]
            for start in range(0, len(same), rows):
                yield same[start : start + rows], length

    def _rows(self, length: int) -> int:
        """Rows of a program call: a function of the length alone, so that shapes are few."""
        ways = self._ways("batch")
        return max(1, self.tokens_per_batch // length // ways) * ways

    def _ways(self, axis: str) -> int:
        sharding = self._score_runtime.sharding
        return 1 if sharding is None else sharding.ways(axis)

    def _put_score(self, arrays: tuple[np.ndarray, ...]) -> kernels.ScoreBatch:
        axes = [("batch", "length")] * 3 + [("batch", None)] * 2
        return kernels.ScoreBatch(
            *(self._put(array, *axis) for array, axis in zip(arrays, axes, strict=True))
        )

    def _put(self, array: np.ndarray, *axes: str | None) -> jax.Array:
        """A global array from a host array that every process holds whole."""
        sharding = self._score_runtime.sharding
        if sharding is None:
            return jnp.asarray(array)
        return jax.make_array_from_callback(
            array.shape, sharding.named(*axes), lambda index: array[index]
        )


def _without_length(sharding: Sharding) -> Sharding:
    rules = tuple((name, () if name == "length" else axes) for name, axes in sharding.rules)
    return dataclasses.replace(sharding, rules=rules)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _bucket(length: int, smallest: int = 64) -> int:
    """The next of 64, 96, 128, 192, 256, ...: at most a third of a row is padding."""
    size = smallest
    while size < length:
        size = size * 3 // 2 if size & (size - 1) == 0 else size // 3 * 4
    return size
