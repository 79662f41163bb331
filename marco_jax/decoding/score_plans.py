"""Plans the program calls of a scoring: batches of rows, and how finely their shapes are rounded.

Fine shapes have little padding, but each shape is a program that must be compiled, and an exam with
57 subjects has 57 prefixes and hundreds of shapes. A large model on accelerators scores a million
tokens in the time that one compilation takes; a small one on a CPU a thousand. So a plan is made
with each of `GRIDS`, and the one that is estimated to take the least time is chosen. It depends on
the requests, the model and the devices only: the same scoring has the same calls every time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from marco_jax.decoding.padded_shapes import bucket, power_of, power_of_two
from marco_jax.decoding.prefixes import PrefixGroup
from marco_jax.decoding.score_rows import CALL_COST, ScoreRow, ScoreShape, divide_rows, most_reads
from marco_jax.model.qwen2_config import Qwen2Config

# Seconds of a compilation and products per second of a device, by whether it is a CPU: rough, as
# they only decide between grids.
_CPU, _ACCELERATOR = (1.0, 5e10), (10.0, 8e13)


@dataclasses.dataclass(frozen=True)
class Grid:
    """How padded shapes are rounded up.

    Attributes:
        lengths: sizes of a row between a power of two and the next.
        rows: the numbers of rows of a device are powers of this.
        slots: sizes of a prefix between a power of two and the next; 0: powers of four.
        least_slots: the smallest size of a prefix.
    """

    lengths: int
    rows: int
    slots: int
    least_slots: int


GRIDS = (Grid(4, 2, 4, 64), Grid(2, 2, 1, 256), Grid(1, 4, 0, 512))


@dataclasses.dataclass(frozen=True)
class PlannedGroup:
    """The calls for rows that share a prefix of `length` tokens, in a cache of `slots`."""

    length: int
    slots: int
    batches: list[tuple[list[ScoreRow], ScoreShape]]


def plan_scoring(
    rows: Sequence[ScoreRow],
    groups: Sequence[PrefixGroup],
    config: Qwen2Config,
    *,
    ways: int,
    tokens_per_batch: int,
    on_cpu: bool,
    devices: int,
) -> list[PlannedGroup]:
    """Divides the rows of each group into batches, longest rows first.

    Args:
        rows: what is scored.
        groups: rows with a common prefix, by index.
        config: of the model.
        ways: devices that have different rows.
        tokens_per_batch: the largest number of tokens in a call, with padding.
        on_cpu: whether the devices are CPUs.
        devices: their number.
    """
    if not rows:
        return []
    # One size of what the head reads for all calls: what is not used costs next to nothing.
    targets = max(4, power_of_two(max(len(wanted) for row in rows for wanted in row.targets)))
    program = program_tokens(config, on_cpu, devices)

    def order(index: int) -> tuple:
        return -len(rows[index]), rows[index].context, rows[index].requests

    ordered = [
        (group.length, [rows[index] for index in sorted(group.members, key=order)])
        for group in groups
    ]
    plans = [_plan(ordered, grid, ways, tokens_per_batch, targets) for grid in GRIDS]
    return min(plans, key=lambda plan: _tokens(plan, config) + program * _programs(plan))


def program_tokens(config: Qwen2Config, on_cpu: bool, devices: int) -> float:
    """The number of tokens that are scored in the time of a compilation."""
    layer = 3 * config.hidden_size * config.intermediate_size + 2 * config.hidden_size**2
    seconds, rate = _CPU if on_cpu else _ACCELERATOR
    # Cores are shared by the devices of a CPU.
    return seconds * rate * (1 if on_cpu else devices) / (2 * config.num_hidden_layers * layer)


def _plan(
    groups: Sequence[tuple[int, Sequence[ScoreRow]]],
    grid: Grid,
    ways: int,
    tokens_per_batch: int,
    targets: int,
) -> list[PlannedGroup]:
    """A plan on a grid; `groups` are lengths of prefixes with their rows, longest rows first."""

    def length_of(length: int) -> int:
        return bucket(length, steps=grid.lengths)

    def rows_of(length: int, wanted: int) -> int:
        most = max(1, tokens_per_batch // length // ways)
        return min(most, power_of(grid.rows, -(-wanted // ways))) * ways

    divided = []
    for prefix, own in groups:
        start, batches = 0, []
        lengths = [len(row) - prefix for row in own]
        for end, length in divide_rows(lengths, length_of, rows_of):
            batches.append((own[start:end], length))
            start = end
        divided.append((prefix, batches))
    reads = power_of_two(max(most_reads(own, ways) for _, batches in divided for own, _ in batches))
    return [
        PlannedGroup(
            prefix,
            _slots(prefix, grid),
            [
                (own, ScoreShape(rows_of(length, len(own)), length, reads, targets, ways))
                for own, length in batches
            ],
        )
        for prefix, batches in divided
    ]


def _slots(length: int, grid: Grid) -> int:
    if not length:
        return 0
    if grid.slots:
        return bucket(length, grid.least_slots, grid.slots)
    return power_of(4, -(-length // grid.least_slots)) * grid.least_slots


def _tokens(plan: Sequence[PlannedGroup], config: Qwen2Config) -> float:
    """The cost of a plan without compilation, in tokens that attend to few others."""
    cost = 0.0
    for group in plan:
        cost += CALL_COST + group.slots * (1 + group.slots / (6 * config.hidden_size))
        for _, shape in group.batches:
            # Attention to n slots, beside the products of a layer (about 12 embed^2).
            attended = (group.slots + shape.length) / (6 * config.hidden_size)
            cost += CALL_COST + shape.batch * shape.length * (1 + attended)
    return cost


def _programs(plan: Sequence[PlannedGroup]) -> int:
    """The number of programs that a plan compiles."""
    extended = {group.slots for group in plan if group.slots}
    return len(extended) + len({(s, group.slots) for group in plan for _, s in group.batches})
