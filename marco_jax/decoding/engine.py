"""Batches requests onto the compiled kernels and returns results in order.

Work that requests share is done once: a beginning that many have in common (the few-shot examples
of a task) is computed once and attended to, and requests with the same context share one row.
Rows are padded to few shapes, so that a whole suite compiles a bounded number of programs
(`Engine.programs`). Results do not depend on how requests were batched.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from marco_jax.decoding import kernels
from marco_jax.decoding.beam import search
from marco_jax.decoding.caches import Prefix
from marco_jax.decoding.generation import generate
from marco_jax.decoding.placement import Runtime
from marco_jax.decoding.prefixes import group_by_prefix
from marco_jax.decoding.requests import GenerateRequest, Generation, Score, ScoreRequest
from marco_jax.decoding.rows import Row, fill_rows, pack_rows
from marco_jax.decoding.sampling import Sampling
from marco_jax.decoding.shapes import bucket, power_of_two
from marco_jax.model.config import Qwen2Config
from marco_jax.model.mesh import Sharding
from marco_jax.model.parameters import Params

# Rows of one call are no shorter than this share of its longest.
_LEAST_FILL = 0.6


class Decoder(Protocol):
    """What the engine needs of a tokenizer."""

    vocab_size: int
    eos_id: int

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        ...


class Engine:
    """Scores and generates with parameters that are handed over at each call, in place.

    Attributes:
        truncated: how many inputs were cut on the left so far.
        programs: the kernels that were compiled so far, each with its shapes.
    """

    def __init__(
        self,
        config: Qwen2Config,
        tokenizer: Decoder,
        *,
        sharding: Sharding | None = None,
        dtype: jnp.dtype = jnp.float32,
        max_length: int | None = None,
        tokens_per_batch: int = 8192,
        share_prefixes: bool = True,
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
            share_prefixes: whether common beginnings of requests are computed once.
        """
        self.config, self.tokenizer = config, tokenizer
        self.max_length = max_length or config.max_position_embeddings
        self.tokens_per_batch = tokens_per_batch
        self.share_prefixes = share_prefixes
        self.truncated = 0
        self.programs: set[tuple] = set()
        self.runtime = Runtime.create(config, tokenizer.vocab_size, sharding, dtype)

    def score(self, params: Params, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Log-probability of every continuation after its context, in the order asked.

        An input longer than max_length + 1 loses tokens on the left, as lm-evaluation-harness cuts
        it; it then has a row of its own.
        """
        rows, truncated = pack_rows(requests, self.max_length)
        self.truncated += truncated
        scores: list[Score | None] = [None] * len(requests)
        for prefix, members in self.prefix_groups(params, [row.context for row in rows]):
            own = [rows[index] for index in members]
            for batch in self._batches(own, prefix):
                for request, score in self._score_batch(params, batch, prefix):
                    scores[request] = score
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

        Raises:
            ValueError: max_new_tokens leaves no room for a prompt.
        """
        return generate(self, params, requests, sampling or Sampling(), seed)

    def beam_search(
        self,
        params: Params,
        requests: Sequence[GenerateRequest],
        *,
        beams: int,
        length_penalty: float = 1.0,
    ) -> list[Generation]:
        """The likeliest continuation that a search of `beams` beginnings finds, as `transformers`.

        Scores are divided by length ** length_penalty: above 0 favours length.

        Raises:
            ValueError: fewer than 2 beams, or max_new_tokens leaves no room for a prompt.
        """
        return search(self, params, requests, beams, length_penalty)

    def cut_prompt(self, request: GenerateRequest) -> list[int]:
        """The prompt, cut on the left to leave room for its new tokens.

        Raises:
            ValueError: there is no room for a prompt at all.
        """
        room = self.max_length - request.max_new_tokens
        if room < 1:
            raise ValueError(
                f"max_new_tokens is {request.max_new_tokens}: "
                f"it must leave room for a prompt in {self.max_length} tokens"
            )
        self.truncated += len(request.prompt) > room
        return list(request.prompt)[-room:]

    def finish(self, request: GenerateRequest, emitted: list[int]) -> tuple[Generation, bool]:
        """What a row has emitted as an answer, and whether a stop string has cut it."""
        ended = bool(emitted) and emitted[-1] == self.tokenizer.eos_id
        ids = emitted[:-1] if ended else emitted
        text = self.tokenizer.decode(ids)
        cuts = [text.find(stop) for stop in request.stop if stop in text]
        if not cuts:
            return Generation(tuple(ids), text), False
        text = text[: min(cuts)]
        # The fewest tokens that hold the text; the last of them may begin the stop string.
        count = bisect.bisect_left(
            range(len(ids)), True, key=lambda n: self.tokenizer.decode(ids[:n]).startswith(text)
        )
        return Generation(tuple(ids[:count]), text), True

    def prefix_groups(
        self, params: Params, contexts: Sequence[Sequence[int]]
    ) -> Iterator[tuple[SharedPrefix | None, Sequence[int]]]:
        """Groups of contexts (their indices) with what they begin with, computed once.

        The caller is done with a group when it asks for the next: one prefix is held at a time.
        """
        if not self.share_prefixes:
            yield None, range(len(contexts))
            return
        for group in group_by_prefix(contexts):
            if not group.length:
                yield None, group.members
                continue
            ids = contexts[group.members[0]][: group.length]
            padded = np.zeros((1, bucket(len(ids), 64)), np.int32)
            padded[0, : len(ids)] = ids
            held = self.call(
                kernels.extend,
                (params, self.put(padded), self.put(np.int32(len(ids)))),
                ("extend", padded.shape[1]),
            )
            yield SharedPrefix(len(ids), padded.shape[1], held), group.members

    def call(self, kernel: Callable, arguments: tuple, name: tuple, **static: Any) -> Any:
        """Runs a kernel, and counts its program."""
        self.programs.add(name)
        return kernel(*arguments, runtime=self.runtime, **static)

    def put(self, array: np.ndarray, by_rows: bool = False) -> jax.Array:
        """A global array from a host array that every process holds whole."""
        array = np.asarray(array)
        spec = self.runtime.rows if by_rows else jax.sharding.PartitionSpec()
        sharding = jax.NamedSharding(self.runtime.sharding.mesh, spec)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    def put_keys(self, keys: jax.Array) -> jax.Array:
        """Random keys [rows] as a global array."""
        data = self.put(np.asarray(jax.random.key_data(keys)), by_rows=True)
        return jax.random.wrap_key_data(data)

    def rows_of(self, length: int, wanted: int) -> int:
        """Rows of a program call: as many as it may hold, or the next power of two that does."""
        ways = self.runtime.row_ways
        most = max(1, self.tokens_per_batch // length // ways)
        return min(most, power_of_two(-(-wanted // ways))) * ways

    def _batches(
        self, rows: Sequence[Row], prefix: SharedPrefix | None
    ) -> Iterator[tuple[list[Row], tuple[int, int, int, int]]]:
        """Rows of similar length, longest first, and the shape that they are padded to."""
        used = prefix.length if prefix else 0
        ordered = sorted(rows, key=lambda row: (-len(row), row.context, row.requests))
        start = 0
        while start < len(ordered):
            longest = len(ordered[start]) - used
            length = bucket(longest)
            end = start + self.rows_of(length, len(ordered))
            batch = [
                row for row in ordered[start:end] if len(row) - used >= _LEAST_FILL * longest - 32
            ]
            start += len(batch)
            places = power_of_two(max(len(row.places) for row in batch))
            targets = power_of_two(max(len(wanted) for row in batch for wanted in row.targets))
            size = self.rows_of(length, len(batch))
            yield batch, (size, length, places, max(targets, 4))

    def _score_batch(
        self,
        params: Params,
        batch: tuple[list[Row], tuple[int, int, int, int]],
        prefix: SharedPrefix | None,
    ) -> Iterator[tuple[int, Score]]:
        rows, shape = batch
        used, slots = (prefix.length, prefix.slots) if prefix else (0, 0)
        arrays = (self.put(array, by_rows=True) for array in fill_rows(rows, used, shape))
        arguments = (params, kernels.ScoreBatch(*arrays), prefix.held if prefix else None)
        result = self.call(kernels.score, arguments, ("score", *shape, slots))
        logprobs, greedy = np.asarray(result[0], np.float64), np.asarray(result[1])
        for number, row in enumerate(rows):
            for request, answer in zip(row.requests, row.answers, strict=True):
                tokens = tuple(np.transpose(answer))
                total = float(logprobs[number][tokens].sum())
                yield request, Score(total, bool(greedy[number][tokens].all()))


class SharedPrefix:
    """A computed beginning, with its length and slots as the host knows them."""

    def __init__(self, length: int, slots: int, held: Prefix) -> None:
        self.length, self.slots, self.held = length, slots, held
