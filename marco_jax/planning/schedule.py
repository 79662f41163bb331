"""Predicts how long a compiled TPU program takes, by going through its schedule.

The text of optimized HLO lists instructions in the order of their execution. Clocks go through it:
that of the cores, and those of the links within slices and between them, which carry one collective
at a time.
An instruction takes the cycles that the compiler estimates for it, written beside it; one without
an estimate takes the time of its FLOPs, or of its bytes in memory if that is longer. A collective
between instructions stops the cores until it ends; one whose end is a later instruction stops them
only there, for what is left of it. Copies with a start and an end likewise take the memory's time.
A loop takes its body's time in each iteration.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from marco_jax.planning.hlo import COLLECTIVES, Collective, listed, own_cost
from marco_jax.planning.hlo_text import (
    BYTES,
    HloInstruction,
    Shape,
    called_by,
    estimated_cycles,
    is_done,
    is_fused_gather,
    is_start,
    parse,
)
from marco_jax.planning.network import seconds_on_wire
from marco_jax.runtime.chips import Chip

# Of the peak that attention kernels reach: their softmax runs beside the products. An assumption.
_ATTENTION_SHARE = 0.5
_FREE = frozenset(
    ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all")
    + ("partition-id", "replica-id", "iota", "optimization-barrier")
)
_SLICES = ("dynamic-slice", "slice", "gather")


@dataclasses.dataclass(frozen=True)
class ScheduledTime:
    """Seconds of a program: in all, and those that the cores wait for the network or memory."""

    seconds: float
    waits_for_links: float
    waits_for_memory: float

    def times(self, count: int) -> ScheduledTime:
        """The time of `count` executions."""
        return ScheduledTime(*(count * value for value in dataclasses.astuple(self)))


@dataclasses.dataclass(frozen=True)
class _Machine:
    computations: Mapping[str, Sequence[HloInstruction]]
    chip: Chip
    bandwidths: Mapping[str, float]
    axis_names: tuple[str, ...]
    axis_sizes: tuple[int, ...]
    # Of one execution of computations that have been gone through.
    times: dict[str, ScheduledTime] = dataclasses.field(default_factory=dict)
    flops: dict[str, float] = dataclasses.field(default_factory=dict)

    def time_of(self, name: str) -> ScheduledTime:
        """The time of one execution of a computation, with idle links at its start."""
        if name not in self.times:
            run = _Run(self, self.computations[name])
            for item in run.items:
                run.step(item)
            self.times[name] = ScheduledTime(run.now, run.waits_for_links, run.waits_for_memory)
        return self.times[name]

    def costs_of(self, name: str) -> Sequence[Mapping]:
        """What the instructions of a computation cost themselves, as hlo.own_cost has it."""
        items = self.computations[name]
        shapes = {item.name: item.results for item in items}
        return [own_cost(item, shapes, self.axis_names, self.axis_sizes) for item in items]

    def flops_of(self, name: str) -> float:
        """FLOPs of the matrix products in a fused computation."""
        if name not in self.flops:
            self.flops[name] = sum(cost.get("matmul", 0.0) for cost in self.costs_of(name))
        return self.flops[name]


def scheduled_time(
    text: str,
    axis_names: tuple[str, ...],
    axis_sizes: tuple[int, ...],
    chip: Chip,
    bandwidths: Mapping[str, float],
) -> ScheduledTime:
    """The time of a program of optimized HLO text on a mesh.

    Args:
        text: of the compiled program.
        axis_names: of the mesh, major first.
        axis_sizes: of these axes.
        chip: of each device.
        bandwidths: bytes per second by mesh axis, as network.axis_bandwidths has them.
    """
    computations, entry = parse(text)
    return _Machine(computations, chip, bandwidths, axis_names, axis_sizes).time_of(entry)


class _Run:
    """One pass through a computation's schedule; times are seconds since its start."""

    def __init__(self, machine: _Machine, items: Sequence[HloInstruction]) -> None:
        self.machine, self.items = machine, items
        self.shapes = {item.name: item.results for item in items}
        self.now = self.waits_for_links = self.waits_for_memory = 0.0
        self.memory_free = 0.0
        self.links_free = {"within": 0.0, "between": 0.0}  # slices
        self.ends: dict[str, tuple[float, bool]] = {}  # of what is in flight; whether on the links
        self.carried: dict[str, set[str]] = {}

    def step(self, item: HloInstruction) -> None:
        """Moves the clocks past an instruction."""
        operation = item.operation
        if operation in _FREE and not item.name.startswith("async-collective"):
            self._carry(item)
            return
        if is_done(item):
            for name in self._flying(item):
                self._wait(*self.ends.pop(name))
            return
        times, called = called_by(item, self.machine.computations)
        if operation in ("while", "conditional", "call"):
            for child in called:
                self._add(self.machine.time_of(child).times(times))
            return
        found = self._collectives(item, called)
        if is_start(item):
            self._start(item, found)
            return
        if found:
            self._wait(self._send(found), True)
        self.now += self._compute(item, called)
        self._carry(item)

    def _flying(self, item: HloInstruction) -> set[str]:
        found = set().union(*(self.carried.get(name, ()) for name in item.operands))
        return found & self.ends.keys()

    def _carry(self, item: HloInstruction) -> None:
        if flying := self._flying(item):
            self.carried[item.name] = flying

    def _wait(self, end: float, on_links: bool) -> None:
        waited = max(0.0, end - self.now)
        self.now += waited
        if on_links:
            self.waits_for_links += waited
        else:
            self.waits_for_memory += waited

    def _add(self, time: ScheduledTime) -> None:
        self.now += time.seconds
        self.waits_for_links += time.waits_for_links
        self.waits_for_memory += time.waits_for_memory

    def _send(self, collectives: Sequence[Collective]) -> float:
        """Puts collectives on the links, behind what they carry; returns when they end."""
        seconds = seconds_on_wire(collectives, self.machine.bandwidths)
        end = self.now
        for links, taken in zip(self.links_free, seconds, strict=True):
            if taken:
                self.links_free[links] = max(self.links_free[links], self.now) + taken
                end = max(end, self.links_free[links])
        return end

    def _start(self, item: HloInstruction, found: Sequence[Collective]) -> None:
        if found:
            self.ends[item.name] = (self._send(found), True)
        else:
            moved = 0.0 if item.operation == "recv" else sum(map(_size, item.results[:1]))
            self.memory_free = max(self.memory_free, self.now)
            self.memory_free += moved / self.machine.chip.hbm_bandwidth
            self.ends[item.name] = (self.memory_free, False)
        self.carried[item.name] = {item.name}

    def _collectives(self, item: HloInstruction, called: Sequence[str]) -> list[Collective]:
        """The collectives that an instruction starts.

        Those that run within a fusion with products count where they started.
        """
        if item.operation.removesuffix("-start") in COLLECTIVES:
            return list(listed(self._own_cost(item)))
        costs = (
            cost
            for child in called
            if not is_fused_gather(child)
            for cost in self.machine.costs_of(child)
        )
        return [collective for cost in costs for collective in listed(cost)]

    def _own_cost(self, item: HloInstruction) -> Mapping:
        machine = self.machine
        return own_cost(item, self.shapes, machine.axis_names, machine.axis_sizes)

    def _compute(self, item: HloInstruction, called: Sequence[str]) -> float:
        """Seconds of an instruction on the cores."""
        chip = self.machine.chip
        if item.operation.removesuffix("-start") in COLLECTIVES:
            return 0.0
        if cycles := estimated_cycles(item):
            return cycles / chip.clock
        own = self._own_cost(item)
        flops, attention = own.get("matmul", 0.0), own.get("attention", 0.0)
        flops += sum(map(self.machine.flops_of, called))
        seconds = flops / chip.peak_flops + attention / (_ATTENTION_SHARE * chip.peak_flops)
        return max(seconds, self._moved_bytes(item, called) / chip.hbm_bandwidth)

    def _moved_bytes(self, item: HloInstruction, called: Sequence[str]) -> float:
        """Bytes that an instruction reads and writes; of a slice, those of the slice."""
        if item.operation in ("dynamic-update-slice", "scatter"):
            update = self.shapes.get(item.operands[1], ()) if len(item.operands) > 1 else ()
            return 2 * sum(map(_size, update))
        written = sum(map(_size, item.results))
        if item.operation in _SLICES:
            return 2 * written
        if called:
            return self._fusion_bytes(called[0], written)
        read = sum(_size(shape) for name in item.operands for shape in self.shapes.get(name, ()))
        return read + written

    def _fusion_bytes(self, name: str, written: float) -> float:
        """Bytes of a fusion with a computation: of parameters that are only sliced, the slices."""
        inner = self.machine.computations[name]
        uses: dict[str, list[HloInstruction]] = {}
        for line in inner:
            for operand in line.operands:
                uses.setdefault(operand, []).append(line)
        read = 0.0
        for line in inner:
            if line.operation != "parameter":
                continue
            users = uses.get(line.name, [])
            size = sum(map(_size, line.results))
            if users and all(user.operation in _SLICES for user in users):
                size = min(size, sum(_size(user.results[0]) for user in users if user.results))
            elif users and all(user.operation == "dynamic-update-slice" for user in users):
                written, size = max(0.0, written - size), 0.0
            read += size
        return read + written


def _size(shape: Shape) -> float:
    dtype, sizes = shape
    return float(BYTES[dtype] * math.prod(sizes))
