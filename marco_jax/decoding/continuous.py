"""Continuous batching: waiting prompts take over rows that have ended.

A batch has a fixed number of rows on the devices. `fill` computes prompts into free rows, and
`decode` runs until some rows have ended; then the host reads the emitted tokens, looks for stop
strings, and fills the free rows again.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from marco_jax.decoding import decode as kernels
from marco_jax.decoding.launcher import Launcher, SharedPrefix
from marco_jax.decoding.padded_shapes import bucket, power_of_two
from marco_jax.decoding.requests import GenerateRequest, Generation, Sampling
from marco_jax.model.cpu import layer_views
from marco_jax.model.parameters import Params

# Tokens that a row emits at most before the host checks stop strings.
DECODE_STEPS = 32
# Prompt tokens per device and call of `fill`, which bounds its memory.
FILL_TOKENS = 2048
# While prompts wait, decoding stops when one running row in this many has ended.
_REFILL_SHARE = 8


@dataclasses.dataclass(frozen=True)
class _Pending:
    """A request, its number in the order of requests, and its prompt after truncation."""

    number: int
    request: GenerateRequest
    prompt: list[int]

    @property
    def slots(self) -> int:
        """Cache slots that the prompt and its new tokens need."""
        return len(self.prompt) + self.request.max_new_tokens


def generate(
    engine: Launcher,
    params: Params,
    requests: Sequence[GenerateRequest],
    sampling: Sampling,
    seed: int,
    finished: Callable[[int], None],
    ended: Callable[[int, Generation], None],
    together: bool,
) -> list[Generation]:
    """See Engine.generate."""
    pending = [
        _Pending(number, request, engine.cut_prompt(request))
        for number, request in enumerate(requests)
    ]
    results: dict[int, Generation] = {}
    pending.sort(key=lambda one: -len(one.prompt))
    for same in [pending] if together and pending else _by_slots(pending):
        batch = _Batch(engine, params, same, sampling, seed, ended)
        for prefix, members in engine.prefix_groups(params, [a.prompt for a in same]):
            waiting = collections.deque(same[index] for index in sorted(members))
            while waiting:
                batch.fill(waiting, prefix)
                if waiting:
                    finished(batch.decode(results, more=True))
        while batch.busy:
            finished(batch.decode(results, more=False))
    return [results[number] for number in range(len(requests))]


def _by_slots(pending: Sequence[_Pending]) -> list[list[_Pending]]:
    """Groups sorted requests that need the same number of slots within a factor of two."""
    groups: dict[int, list[_Pending]] = {}
    for one in pending:
        groups.setdefault(power_of_two(one.slots), []).append(one)
    return [groups[slots] for slots in sorted(groups, reverse=True)]


class _Batch:
    """Rows on the devices, and the request that each of them is generating for."""

    def __init__(
        self,
        engine: Launcher,
        params: Params,
        pending: Sequence[_Pending],
        sampling: Sampling,
        seed: int,
        ended: Callable[[int, Generation], None],
    ) -> None:
        self._engine, self._params, self._ended = engine, params, ended
        self._sampling, self._key = sampling, jax.random.key(seed)
        self._slots = bucket(max(one.slots for one in pending) + engine.drafts, 64)
        self._size = engine.rows_of(self._slots, len(pending))
        sharding = engine.runtime.sharding
        self._layers = layer_views(params, engine.config, sharding, self._size)
        shape = {"batch": self._size, "slots": self._slots, "history": engine.drafts > 0}
        shape["by_layer"] = self._layers is not None
        self._state = engine.call(kernels.start, (), ("start", *shape.values()), **shape)
        self._rows: list[_Pending | None] = [None] * self._size
        self._emitted: list[list[int]] = [[] for _ in self._rows]

    @property
    def busy(self) -> bool:
        """Whether any row has not ended."""
        return any(row is not None for row in self._rows)

    def fill(self, waiting: collections.deque[_Pending], prefix: SharedPrefix) -> None:
        """Fills free rows with prompts that start with `prefix`, until rows or prompts run out."""
        ways = self._engine.runtime.row_ways
        per_device = self._size // ways
        free = [
            [local for local in range(per_device) if self._rows[d * per_device + local] is None]
            for d in range(ways)
        ]
        while waiting and any(free):
            # Padding of a prompt takes slots of its row, too.
            length = len(waiting[0].prompt) - prefix.length
            length = min(bucket(length), self._slots - prefix.length)
            most = max(1, FILL_TOKENS // length)
            given: list[list[tuple[int, _Pending]]] = [[] for _ in range(ways)]
            for _ in range(most):
                for device in range(ways):
                    if waiting and free[device] and len(given[device]) < most:
                        given[device].append((free[device].pop(0), waiting.popleft()))
            self._fill(given, length, prefix)

    def _fill(
        self, given: list[list[tuple[int, _Pending]]], length: int, prefix: SharedPrefix
    ) -> None:
        engine, per_device = self._engine, self._size // len(given)
        width = power_of_two(max(len(rows) for rows in given))
        new = len(given) * width
        tokens, lengths = np.zeros((new, length), np.int32), np.ones(new, np.int32)
        rows, counts = np.full(new, per_device, np.int32), np.ones(new, np.int32)
        numbers = np.zeros(new, np.uint32)
        history = np.zeros((new, self._slots if engine.drafts else 0), np.int32)
        for device, pairs in enumerate(given):
            for index, (local, one) in enumerate(pairs, device * width):
                own = one.prompt[prefix.length :]
                tokens[index, : len(own)], lengths[index] = own, len(own)
                if engine.drafts:
                    history[index, : len(one.prompt)] = one.prompt
                rows[index], counts[index] = local, one.request.max_new_tokens
                numbers[index] = one.number
                self._rows[device * per_device + local] = one
                self._emitted[device * per_device + local] = []
        keys = jax.vmap(jax.random.fold_in, (None, 0))(self._key, numbers)
        batch = kernels.NewRows(
            *(engine.put(array, by_rows=True) for array in (tokens, lengths, rows, counts)),
            engine.put_keys(keys),
            engine.put(history, by_rows=True) if engine.drafts else None,
        )
        self._state = engine.call(
            kernels.fill,
            (self._params, self._state, batch, prefix.prefix),
            ("fill", new, length, self._size, self._slots, prefix.slots, self._sampling),
            sampling=self._sampling,
        )

    def decode(self, results: dict[int, Generation], more: bool) -> int:
        """Emits tokens, and moves the results of ended rows to `results`.

        If `more` prompts wait, it returns as soon as a share of the rows has ended.

        Returns:
            The number of rows that have ended.
        """
        engine, before = self._engine, len(results)
        running = sum(row is not None for row in self._rows)
        enough = max(1, running // _REFILL_SHARE) if more else running
        emitted, ended, work, self._state = engine.call(
            kernels.decode,
            (self._params, self._layers, self._state, engine.put(np.int32(enough))),
            ("decode", self._size, self._slots, self._sampling, engine.drafts),
            steps=DECODE_STEPS,
            eos_ids=engine.end_ids,
            sampling=self._sampling,
            drafts=engine.drafts,
        )
        self._count(np.asarray(emitted), *np.asarray(work).tolist())
        done, stopped = np.array(ended), False
        for row, values in enumerate(np.asarray(emitted).tolist()):
            one = self._rows[row]
            if one is None:
                continue
            self._emitted[row] += [value for value in values if value != kernels.NOTHING]
            if done[row] or one.request.stop:
                result, cut = engine.finish(one.request, self._emitted[row])
                if not done[row] and not cut:
                    continue
                results[one.number], self._rows[row] = result, None
                self._ended(one.number, result)
                stopped |= not done[row]
                done[row] = True
        if stopped:
            self._state = self._state._replace(done=engine.put(done, by_rows=True))
        return len(results) - before

    def _count(self, emitted: np.ndarray, steps: int, filled: int) -> None:
        counts = self._engine.counts
        counts.steps += steps
        counts.row_steps += steps * self._size
        counts.filled += filled
        counts.drafted += filled * self._engine.drafts
        counts.emitted += int((emitted != kernels.NOTHING).sum())
