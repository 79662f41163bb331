"""Continuous batching: rows that end are given to waiting prompts, long rows hold up nobody."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from marco_jax.decoding import decode as kernels
from marco_jax.decoding.launcher import Launcher, SharedPrefix
from marco_jax.decoding.requests import GenerateRequest, Generation
from marco_jax.decoding.sampling import Sampling
from marco_jax.decoding.shapes import bucket, power_of_two
from marco_jax.model.parameters import Params

# Tokens emitted at most between two looks at the stop strings.
DECODE_STEPS = 32
# Prompt tokens that one call reads on a device: more would hold much memory for a short time.
FILL_TOKENS = 2048
# Rows are given away again when this share of them has ended.
_REFILL_SHARE = 8


@dataclasses.dataclass(frozen=True)
class _Asked:
    """A request with its prompt cut to the room there is, and its place among the requests."""

    number: int
    request: GenerateRequest
    prompt: list[int]

    @property
    def slots(self) -> int:
        return len(self.prompt) + self.request.max_new_tokens


def generate(
    engine: Launcher,
    params: Params,
    requests: Sequence[GenerateRequest],
    sampling: Sampling,
    seed: int,
    finished: Callable[[int], None],
) -> list[Generation]:
    """See Engine.generate."""
    asked = [
        _Asked(number, request, engine.cut_prompt(request))
        for number, request in enumerate(requests)
    ]
    results: dict[int, Generation] = {}
    layers = kernels.layer_views(params, engine.runtime)
    for same in _by_slots(asked):
        batch = _Batch(engine, params, layers, same, sampling, seed)
        for prefix, members in engine.prefix_groups(params, [a.prompt for a in same]):
            waiting = collections.deque(same[index] for index in sorted(members))
            while waiting:
                batch.fill(waiting, prefix)
                if waiting:
                    finished(batch.decode(results, more=True))
        while batch.busy:
            finished(batch.decode(results, more=False))
    return [results[number] for number in range(len(requests))]


def _by_slots(asked: Sequence[_Asked]) -> list[list[_Asked]]:
    """Groups whose rows need about as many slots, within a factor of two; longest first."""
    groups: dict[int, list[_Asked]] = {}
    for one in sorted(asked, key=lambda one: -len(one.prompt)):
        groups.setdefault(power_of_two(one.slots), []).append(one)
    return [groups[slots] for slots in sorted(groups, reverse=True)]


class _Batch:
    """Rows on the devices and what each of them is busy with."""

    def __init__(
        self,
        engine: Launcher,
        params: Params,
        layers: list[Params] | None,
        asked: Sequence[_Asked],
        sampling: Sampling,
        seed: int,
    ) -> None:
        self._engine, self._params, self._layers = engine, params, layers
        self._sampling, self._key = sampling, jax.random.key(seed)
        self._slots = bucket(max(one.slots for one in asked), 64)
        self._size = engine.rows_of(self._slots, len(asked))
        name = ("start", self._size, self._slots)
        self._state = engine.call(kernels.start, (), name, batch=self._size, slots=self._slots)
        self._rows: list[_Asked | None] = [None] * self._size
        self._emitted: list[list[int]] = [[] for _ in self._rows]

    @property
    def busy(self) -> bool:
        """Whether a row has yet to end."""
        return any(row is not None for row in self._rows)

    def fill(self, waiting: collections.deque[_Asked], prefix: SharedPrefix | None) -> None:
        """Gives free rows to prompts that begin with `prefix`, until one of both runs out."""
        ways = self._engine.runtime.row_ways
        per_device = self._size // ways
        free = [
            [local for local in range(per_device) if self._rows[d * per_device + local] is None]
            for d in range(ways)
        ]
        used = prefix.length if prefix else 0
        while waiting and any(free):
            # A prompt is padded in its row, behind the prefix: slots there must be.
            length = min(bucket(len(waiting[0].prompt) - used), self._slots - used)
            most = max(1, FILL_TOKENS // length)
            given: list[list[tuple[int, _Asked]]] = [[] for _ in range(ways)]
            for _ in range(most):
                for device in range(ways):
                    if waiting and free[device] and len(given[device]) < most:
                        given[device].append((free[device].pop(0), waiting.popleft()))
            self._fill(given, length, prefix)

    def _fill(
        self, given: list[list[tuple[int, _Asked]]], length: int, prefix: SharedPrefix | None
    ) -> None:
        engine, per_device = self._engine, self._size // len(given)
        used = prefix.length if prefix else 0
        width = power_of_two(max(len(rows) for rows in given))
        new = len(given) * width
        tokens, lengths = np.zeros((new, length), np.int32), np.ones(new, np.int32)
        rows, counts = np.full(new, per_device, np.int32), np.ones(new, np.int32)
        numbers = np.zeros(new, np.uint32)
        for device, pairs in enumerate(given):
            for place, (local, one) in enumerate(pairs, device * width):
                own = one.prompt[used:]
                tokens[place, : len(own)], lengths[place] = own, len(own)
                rows[place], counts[place] = local, one.request.max_new_tokens
                numbers[place] = one.number
                self._rows[device * per_device + local] = one
                self._emitted[device * per_device + local] = []
        keys = jax.vmap(jax.random.fold_in, (None, 0))(self._key, numbers)
        batch = kernels.NewRows(
            *(engine.put(array, by_rows=True) for array in (tokens, lengths, rows, counts)),
            engine.put_keys(keys),
        )
        slots = prefix.slots if prefix else 0
        self._state = engine.call(
            kernels.fill,
            (self._params, self._state, batch, prefix.held if prefix else None),
            ("fill", new, length, self._size, self._slots, slots, self._sampling),
            sampling=self._sampling,
        )

    def decode(self, results: dict[int, Generation], more: bool) -> int:
        """Emits tokens until rows have ended; `more`: prompts are waiting for them.

        Returns how many have ended.
        """
        engine, before = self._engine, len(results)
        running = sum(row is not None for row in self._rows)
        enough = max(1, running // _REFILL_SHARE) if more else running
        emitted, ended, self._state = engine.call(
            kernels.decode,
            (self._params, self._layers, self._state, engine.put(np.int32(enough))),
            ("decode", self._size, self._slots, self._sampling),
            steps=DECODE_STEPS,
            eos_ids=engine.end_ids,
            sampling=self._sampling,
        )
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
                stopped |= not done[row]
                done[row] = True
        if stopped:
            self._state = self._state._replace(done=engine.put(done, by_rows=True))
        return len(results) - before
