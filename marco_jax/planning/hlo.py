"""What a compiled program does, read from its optimized HLO: products, collectives, loops included.

XLA's own cost analysis counts the body of a loop once and knows nothing of Pallas kernels, so the
text is read instead: every instruction counts as often as the loops around it run.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import re

import numpy as np

_BYTES = {
    **{"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2},
    **{"s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8},
}
# `send` is how collectives between slices end up: transfers through the hosts, on the mesh axis
# `slice`, of which each is counted by what it sends.
COLLECTIVES = (
    *("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute"),
    "send",
)

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|called_computations=\{)=?%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')

Shape = tuple[str, tuple[int, ...]]  # dtype and dimensions


@dataclasses.dataclass(frozen=True)
class Collective:
    """Executions of one kind of collective over the same mesh axes with the same payload.

    payload_bytes is the whole array of one execution: an all-gather's result, a reduce-scatter's
    operand, the local array of the others. wire_bytes are a device's, all executions together.
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

    attention_flops are those of splash attention kernels, from their shapes, the causal half.
    """

    matmul_flops: float
    attention_flops: float
    collectives: tuple[Collective, ...]

    @property
    def flops(self) -> float:
        """Of products and attention kernels."""
        return self.matmul_flops + self.attention_flops

    def wire_bytes(self, kind: str | None = None, axis: str | None = None) -> float:
        """Bytes that a device sends, of one kind of collective and mesh axis, or of all."""
        return sum(
            item.wire_bytes
            for item in self.collectives
            if kind in (None, item.kind) and (axis is None or axis in item.axes)
        )

    @property
    def asynchronous_share(self) -> float:
        """The share of bytes whose collective has a start and a done, with work between them."""
        total = self.wire_bytes()
        own = sum(item.wire_bytes for item in self.collectives if item.asynchronous)
        return own / total if total else 1.0


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    results: tuple[Shape, ...]
    operation: str
    operands: tuple[str, ...]
    text: str


def analyze(text: str, axis_names: tuple[str, ...], axis_sizes: tuple[int, ...]) -> ProgramCost:
    """Reads the optimized HLO text of a program that is laid on a mesh.

    Args:
        text: `compiled.as_text()`.
        axis_names: of the mesh, major first.
        axis_sizes: as many; ids in replica groups count the mesh's devices in this order.
    """
    computations, entry = _parse(text)

    @functools.cache
    def count(name: str) -> collections.Counter:
        total: collections.Counter = collections.Counter()
        shapes = {item.name: item.results for item in computations[name]}
        for item in computations[name]:
            total.update(_own(item, shapes, axis_names, axis_sizes))
            times, called = _called(item, computations)
            for child in called:
                for key, value in count(child).items():
                    if isinstance(key, str):
                        total[key] += value * times
                    elif not _continues(item, child):
                        started = key[-1] or _starts(item)
                        total[(*key[:-1], started)] += value * times
        return total

    total = count(entry)
    items = (
        Collective(*key[:3], times, key[3], times * _wire(key[0], key[2], key[3]), key[4])
        for key, times in total.items()
        if not isinstance(key, str)
    )
    return ProgramCost(float(total["matmul"]), float(total["attention"]), tuple(items))


def _starts(item: _Instruction) -> bool:
    """Whether an instruction starts the collective that it holds, and does not wait for it."""
    return item.operation == "async-start" or item.name.startswith("async-collective-start")


def _continues(item: _Instruction, child: str) -> bool:
    """Whether a collective in a fusion is one that an earlier start has counted.

    A TPU that runs a gather beside products writes it three times: in a start, in the fusion with
    the products, and in a done.
    """
    return item.name.startswith("async-collective-done") or child.startswith("async_collective_")


def _parse(text: str) -> tuple[dict[str, list[_Instruction]], str]:
    computations: dict[str, list[_Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current = computations.setdefault(header.group(2), [])
            entry = header.group(2) if header.group(1) else entry
        elif current is not None and (found := _INSTRUCTION.match(line)):
            current.append(_instruction(*found.groups()))
    if not entry:
        raise ValueError("the text has no ENTRY computation: is it optimized HLO?")
    return computations, entry


def _instruction(name: str, rest: str) -> _Instruction:
    end = _closing(rest) + 1 if rest.startswith("(") else rest.index(" ")
    results, call = rest[:end], rest[end:].lstrip()
    operation, arguments = call.split("(", 1)
    inside = arguments[: _closing("(" + arguments) - 1]
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    return _Instruction(name, _shapes(results), operation, operands, call)


def _closing(text: str) -> int:
    """The index of the parenthesis that closes the first one."""
    depth = 0
    for index, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return index
    return len(text)


def _shapes(text: str) -> tuple[Shape, ...]:
    return tuple(
        (dtype, tuple(int(size) for size in sizes.split(",") if size))
        for dtype, sizes in _ARRAY.findall(text)
        if dtype in _BYTES
    )


def _called(
    item: _Instruction, computations: dict[str, list[_Instruction]]
) -> tuple[int, list[str]]:
    """How often an instruction runs which computations (reducers have no products: harmless)."""
    if item.operation == "while":
        condition, body = re.search(
            r"condition=%?([\w.\-]+), body=%?([\w.\-]+)", item.text
        ).groups()
        return _trips(item, computations[condition]), [body]
    if item.operation == "conditional":
        branches = re.search(r"branch_computations=\{([^}]*)\}", item.text)
        names = re.findall(r"%?([\w.\-]+)", branches.group(1)) if branches else []
        return 1, names[:1]
    if item.operation in ("fusion", "call", "async-start"):
        called = _CALLED.search(item.text)
        return 1, [called.group(1)] if called and called.group(1) in computations else []
    return 1, []


def _trips(item: _Instruction, condition: list[_Instruction]) -> int:
    """How often a loop runs: as noted, or the bound that its counter is compared with.

    JAX's scans count from 0 by 1. A loop that ends on data (decoding) has no such bound: once.
    """
    if noted := _TRIPS.search(item.text):
        return int(noted.group(1))
    bounds = [
        int(found.group(1))
        for entry in condition
        if entry.operation == "constant" and entry.results[0][0] in ("s32", "u32", "s64")
        for found in [re.match(r"constant\((\d+)\)", entry.text)]
        if found
    ]
    return bounds[0] if len(bounds) == 1 else 1


def _own(
    item: _Instruction,
    shapes: dict[str, tuple[Shape, ...]],
    axis_names: tuple[str, ...],
    axis_sizes: tuple[int, ...],
) -> dict:
    """What an instruction itself does, besides what it calls."""
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
    if kind == "send":
        payload = float(_bytes(operands))
        sizes = dict(zip(axis_names, axis_sizes, strict=True))
        return {(kind, ("slice",), sizes.get("slice", 2), payload, True): 1}
    groups = _groups(item.text)
    if groups is None or groups.shape[1] < 2:
        return {}
    payload = _payload(kind, operands, groups.shape[1])
    axes = _axes(groups, axis_names, axis_sizes)
    return {(kind, axes, groups.shape[1], payload, item.operation.endswith("-start")): 1}


def _dot_flops(item: _Instruction, operands: list[Shape]) -> float:
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", item.text)
    sizes = [operands[0][1][int(i)] for i in contracted.group(1).split(",") if i]
    return 2.0 * math.prod(item.results[0][1]) * math.prod(sizes)


def _convolution_flops(item: _Instruction, operands: list[Shape]) -> float:
    """A TPU writes products as convolutions; places that fall in the padding do not count."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", item.text)
    inputs, kernel, outputs = labels.groups()
    window = re.search(r"window=\{([^}]*)\}", item.text)
    fields = dict(part.split("=") for part in window.group(1).split()) if window else {}
    spatial = sorted(label for label in inputs if label.isdigit())
    total = 2.0 * operands[1][1][kernel.index("i")]
    total *= item.results[0][1][outputs.index("b")] * item.results[0][1][outputs.index("f")]
    for index, label in enumerate(spatial):
        total *= _valid_places(
            operands[0][1][inputs.index(label)],
            item.results[0][1][outputs.index(label)],
            operands[1][1][kernel.index(label)],
            {name: value.split("x")[index] for name, value in fields.items()},
        )
    groups = re.search(r"batch_group_count=(\d+)", item.text)
    return total / (int(groups.group(1)) if groups else 1)


def _valid_places(size: int, outputs: int, kernel: int, window: dict[str, str]) -> int:
    stride = int(window.get("stride", 1))
    low = int(window.get("pad", "0_0").split("_")[0])
    base = int(window.get("lhs_dilate", 1))
    dilation = int(window.get("rhs_dilate", 1))
    places = np.arange(outputs)[:, None] * stride + np.arange(kernel) * dilation - low
    return int(((places >= 0) & (places <= (size - 1) * base) & (places % base == 0)).sum())


def _splash_flops(item: _Instruction, operands: list[Shape]) -> float:
    """Products of a splash kernel: 2 forward, 3 for dq, 4 for dk and dv, 5 for all in one."""

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
    """Replica groups as [groups, ranks]."""
    if pairs := re.search(r"source_target_pairs=\{(\{.*?\})\}", text):
        return np.array([[int(i) for i in p.split(",")] for p in _braces(pairs.group(1))])
    if found := re.search(r"replica_groups=\{(\{.*?\})\}", text):
        return np.array([[int(i) for i in part.split(",")] for part in _braces(found.group(1))])
    form = r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?"
    if found := re.search(form, text):
        shape, dims, order = (
            [int(i) for i in part.split(",")] if part else None for part in found.groups()
        )
        ids = np.arange(math.prod(dims)).reshape(dims)
        return (ids.transpose(order) if order else ids).reshape(shape)
    return None


def _braces(text: str) -> list[str]:
    return re.findall(r"\{([\d,]+)\}", text)


def _axes(
    groups: np.ndarray, axis_names: tuple[str, ...], axis_sizes: tuple[int, ...]
) -> tuple[str, ...]:
    """The mesh axes along which the ranks of a group differ."""
    places = np.stack(np.unravel_index(groups, axis_sizes), axis=-1)  # [groups, ranks, axes]
    varies = (places != places[:, :1]).any(axis=(0, 1))
    return tuple(name for name, moves in zip(axis_names, varies, strict=True) if moves)


def _payload(kind: str, operands: list[Shape], group: int) -> float:
    local = float(_bytes(operands))
    return local * group if kind == "all-gather" else local


def _bytes(shapes: list[Shape]) -> int:
    return sum(_BYTES[dtype] * math.prod(sizes) for dtype, sizes in shapes)


def _wire(kind: str, group: int, payload: float) -> float:
    if kind in ("collective-permute", "send"):
        return payload
    return payload * (group - 1) / group * (2 if kind == "all-reduce" else 1)
