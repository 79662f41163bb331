"""Counts the matrix products and collectives of a compiled program from its optimized HLO text.

XLA's cost analysis counts the body of a loop once and ignores Pallas kernels. So the text is parsed
into computations, lists of instructions. Each instruction has a cost of its own, from the shapes in
the text, and may call computations: a fusion, a branch, or the body of a loop. The cost of a
computation is the sum over its instructions, plus the cost of each called computation times its
executions; the result is the cost of the ENTRY computation. Collectives are counted by kind, mesh
axes, group size, payload, and by whether products are scheduled between their start and their end:
the text lists instructions in the order of their execution.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from marco_jax.planning.hlo_text import (
    BYTES,
    HloInstruction,
    Shape,
    called_by,
    integers_in,
    is_done,
    is_fused_gather,
    is_start,
    parse,
)

# Collectives between slices are compiled to `send`: transfers through the hosts, along the mesh
# axis `slice`. Each is counted with the bytes that it sends.
COLLECTIVES = (
    *("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute"),
    "send",
)


@dataclasses.dataclass(frozen=True)
class Collective:
    """All executions of one kind of collective over the same mesh axes with the same payload.

    payload_bytes is the full array of one execution: the result of an all-gather, the operand of a
    reduce-scatter, the local array of other kinds. wire_bytes is sent per device, over all
    executions. asynchronous: products run between the start and the end of each execution.
    """

    kind: str
    axes: tuple[str, ...]
    group: int
    count: int
    payload_bytes: float
    wire_bytes: float
    asynchronous: bool


@dataclasses.dataclass(frozen=True)
class ProgramCost:
    """FLOPs of one execution on one device, and its collectives.

    attention_flops are the FLOPs of splash attention kernels by their shapes, causal half only.
    """

    matmul_flops: float
    attention_flops: float
    collectives: tuple[Collective, ...]

    @property
    def flops(self) -> float:
        """FLOPs of matrix products and attention kernels."""
        return self.matmul_flops + self.attention_flops

    def wire_bytes(self, kind: str | None = None, axis: str | None = None) -> float:
        """Bytes that a device sends in one kind of collective along one mesh axis, or in all."""
        return sum(
            item.wire_bytes
            for item in self.collectives
            if kind in (None, item.kind) and (axis is None or axis in item.axes)
        )

    @property
    def asynchronous_share(self) -> float:
        """The share of bytes in collectives that the schedule overlaps with products."""
        total = self.wire_bytes()
        overlapping = sum(item.wire_bytes for item in self.collectives if item.asynchronous)
        return overlapping / total if total else 1.0


def analyze(text: str, axis_names: tuple[str, ...], axis_sizes: tuple[int, ...]) -> ProgramCost:
    """Counts FLOPs and collectives in the optimized HLO text of a program on a mesh.

    `text` is `compiled.as_text()`. Mesh axes come major first; replica groups number devices in
    this order.
    """
    computations, entry = parse(text)

    @functools.cache
    def count(name: str) -> collections.Counter:
        # Keys are "matmul" and "attention" (FLOPs), or a collective's kind, axes, group size,
        # payload and whether it is asynchronous (executions).
        total: collections.Counter = collections.Counter()
        items = computations[name]
        shapes = {item.name: item.results for item in items}
        costs = [own_cost(item, shapes, axis_names, axis_sizes) for item in items]
        calls = [called_by(item, computations) for item in items]
        work = [
            _flops(own) + times * sum(_flops(count(child)) for child in called)
            for own, (times, called) in zip(costs, calls, strict=True)
        ]
        overlapping = _overlapping(items, work)
        for item, own, (times, called) in zip(items, costs, calls, strict=True):
            overlaps = item.name in overlapping
            _add(total, own, 1, overlaps)
            for child in called:
                counted = _is_counted(item, child)
                _add(total, count(child), times, overlaps, only_flops=counted)
        return total

    total = count(entry)
    return ProgramCost(float(total["matmul"]), float(total["attention"]), tuple(listed(total)))


def listed(total: Mapping) -> Iterator[Collective]:
    """The collectives of a cost, as `own_cost` or the sum over a program has them."""
    for key, times in total.items():
        if not isinstance(key, str):
            wire = times * _wire(key[0], key[2], key[3])
            yield Collective(*key[:3], times, key[3], wire, key[4])


def _add(
    total: collections.Counter, cost: Mapping, times: int, overlaps: bool, only_flops: bool = False
) -> None:
    """Adds `times` executions of a cost; its collectives are asynchronous if they overlap."""
    for key, value in cost.items():
        if isinstance(key, str):
            total[key] += value * times
        elif not only_flops:
            total[(*key[:-1], key[-1] or overlaps)] += value * times


def _flops(cost: Mapping) -> float:
    return cost.get("matmul", 0.0) + cost.get("attention", 0.0)


def _overlapping(items: Sequence[HloInstruction], work: Sequence[float]) -> set[str]:
    """Names of instructions that start a collective, with products before its end.

    The end of a collective is the `done` that uses its start, directly or through instructions that
    pass on what is in flight, such as fusions with products. `work` has the FLOPs of each
    instruction.
    """
    found: set[str] = set()
    since: dict[str, float] = {}  # FLOPs since the start of each collective in flight
    carried: dict[str, set[str]] = {}  # by instruction, collectives in flight that it depends on
    for item, flops in zip(items, work, strict=True):
        flying = set().union(*(carried.get(name, ()) for name in item.operands)) & since.keys()
        if is_done(item):
            found |= {name for name in flying if since.pop(name) > 0}
            continue
        for name in since:
            since[name] += flops
        if is_start(item):
            since[item.name] = 0.0
            flying = {item.name}
        if flying:
            carried[item.name] = flying
    return found


def _is_counted(item: HloInstruction, child: str) -> bool:
    """Whether the collective in a called computation was counted at its start.

    The TPU compiler writes a gather that overlaps with products three times: in a start, in the
    fusion with the products, and in a done.
    """
    return is_done(item) or is_fused_gather(child)


def own_cost(
    item: HloInstruction,
    shapes: Mapping[str, tuple[Shape, ...]],
    axis_names: tuple[str, ...],
    axis_sizes: tuple[int, ...],
) -> dict:
    """FLOPs and collectives of an instruction itself, without the computations that it calls."""
    operands = [shape for name in item.operands for shape in shapes.get(name, ())]
    if item.operation == "dot":
        return {"matmul": _dot_flops(item, operands)}
    if item.operation == "convolution":
        return {"matmul": _convolution_flops(item, operands)}
    if item.operation == "custom-call" and "splash_m" in item.name + item.text:
        return {"attention": _splash_flops(item, operands)}
    kind = item.operation.removesuffix("-start")
    if kind not in COLLECTIVES:
        return {}
    payload = float(sum(BYTES[dtype] * math.prod(sizes) for dtype, sizes in operands))
    if kind == "send":
        sizes = dict(zip(axis_names, axis_sizes, strict=True))
        return {(kind, ("slice",), sizes.get("slice", 2), payload, False): 1}
    groups = _groups(item.text)
    if groups is None or groups.shape[1] < 2:
        return {}
    if kind == "all-gather":
        payload *= groups.shape[1]
    # The axes along which the ranks of a group differ; coordinates are [groups, ranks, axes].
    coordinates = np.stack(np.unravel_index(groups, axis_sizes), axis=-1)
    varies = (coordinates != coordinates[:, :1]).any(axis=(0, 1))
    axes = tuple(name for name, moves in zip(axis_names, varies, strict=True) if moves)
    return {(kind, axes, groups.shape[1], payload, False): 1}


def _dot_flops(item: HloInstruction, operands: list[Shape]) -> float:
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", item.text)
    sizes = [operands[0][1][index] for index in integers_in(contracted.group(1))]
    return 2.0 * math.prod(item.results[0][1]) * math.prod(sizes)


def _convolution_flops(item: HloInstruction, operands: list[Shape]) -> float:
    """FLOPs of a convolution, as which the TPU compiler writes products; padding does not count."""
    inputs, kernel, outputs = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", item.text).groups()
    window = re.search(r"window=\{([^}]*)\}", item.text)
    fields = dict(part.split("=") for part in window.group(1).split()) if window else {}
    spatial = sorted(label for label in inputs if label.isdigit())
    total = 2.0 * operands[1][1][kernel.index("i")]
    total *= item.results[0][1][outputs.index("b")] * item.results[0][1][outputs.index("f")]
    for index, label in enumerate(spatial):
        total *= _valid_positions(
            operands[0][1][inputs.index(label)],
            item.results[0][1][outputs.index(label)],
            operands[1][1][kernel.index(label)],
            {name: value.split("x")[index] for name, value in fields.items()},
        )
    groups = re.search(r"batch_group_count=(\d+)", item.text)
    return total / (int(groups.group(1)) if groups else 1)


def _valid_positions(size: int, outputs: int, kernel: int, window: dict[str, str]) -> int:
    """Number of (output, kernel) positions of a dimension that read an input, not padding."""
    stride = int(window.get("stride", 1))
    low = int(window.get("pad", "0_0").split("_")[0])
    base = int(window.get("lhs_dilate", 1))
    dilation = int(window.get("rhs_dilate", 1))
    read = np.arange(outputs)[:, None] * stride + np.arange(kernel) * dilation - low
    return int(((read >= 0) & (read <= (size - 1) * base) & (read % base == 0)).sum())


def _splash_flops(item: HloInstruction, operands: list[Shape]) -> float:
    """FLOPs of a splash kernel: 2 products forward, 3 for dq, 4 for dk and dv, 5 for all three."""

    def arrays(shapes: list[Shape] | tuple[Shape, ...]) -> list[tuple[int, ...]]:
        return [sizes for dtype, sizes in shapes if dtype in ("bf16", "f32") and len(sizes) >= 3]

    query, key = arrays(operands)[:2]
    name = item.name + item.text
    if "dkv" in name:
        gradients = [sizes for sizes in arrays(item.results) if sizes[-1] == query[-1]]
        products = 5 if len(gradients) >= 3 else 4
    else:
        products = 3 if "_dq" in name else 2
    # Causal: half of [query length, key length].
    return products * 2.0 * math.prod(query) * key[-2] / 2


def _groups(text: str) -> np.ndarray | None:
    """Replica groups or source-target pairs, as an array [groups, ranks]; None if absent."""
    listed = r"(?:source_target_pairs|replica_groups)=\{(\{.*?\})\}"
    if found := re.search(listed, text):
        return np.array(
            [integers_in(group) for group in re.findall(r"\{([\d,]+)\}", found.group(1))]
        )
    form = r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?"
    if found := re.search(form, text):
        shape, dims, order = (integers_in(part or "") for part in found.groups())
        ids = np.arange(math.prod(dims)).reshape(dims)
        return (ids.transpose(order) if order else ids).reshape(shape)
    return None


def _wire(kind: str, group: int, payload: float) -> float:
    if kind in ("collective-permute", "send"):
        return payload
    return payload * (group - 1) / group * (2 if kind == "all-reduce" else 1)
