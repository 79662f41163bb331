"""Parses optimized HLO text into computations and instructions."""

from __future__ import annotations

import dataclasses
import re

BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4}
BYTES |= {"f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8}

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|called_computations=\{)=?%?([\w.\-]+)")
_LOOP = re.compile(r"condition=%?([\w.\-]+), body=%?([\w.\-]+)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')

Shape = tuple[str, tuple[int, ...]]  # dtype and dimensions


@dataclasses.dataclass(frozen=True)
class HloInstruction:
    """A line: `text` begins with the operation; `operands` are names of other instructions."""

    name: str
    results: tuple[Shape, ...]
    operation: str
    operands: tuple[str, ...]
    text: str


def parse(text: str) -> tuple[dict[str, list[HloInstruction]], str]:
    """The instructions of each computation in their order, and the name of the entry.

    Raises:
        ValueError: there is no entry.
    """
    computations: dict[str, list[HloInstruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current = computations.setdefault(header.group(2), [])
            entry = header.group(2) if header.group(1) else entry
        elif current is not None and (found := _INSTRUCTION.match(line)):
            current.append(_instruction(*found.groups()))
    if not entry:
        raise ValueError("the text has no ENTRY computation: pass optimized HLO")
    return computations, entry


def _instruction(name: str, rest: str) -> HloInstruction:
    end = _closing(rest) + 1 if rest.startswith("(") else rest.index(" ")
    results, call = rest[:end], rest[end:].lstrip()
    operation, arguments = call.split("(", 1)
    inside = arguments[: _closing("(" + arguments) - 1]
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    return HloInstruction(name, _shapes(results), operation, operands, call)


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
        (dtype, tuple(integers_in(sizes)))
        for dtype, sizes in _ARRAY.findall(text)
        if dtype in BYTES
    )


def called_by(
    item: HloInstruction, computations: dict[str, list[HloInstruction]]
) -> tuple[int, list[str]]:
    """The computations that an instruction calls, and how often; reducers are ignored."""
    if item.operation == "while":
        condition, body = _LOOP.search(item.text).groups()
        return _trips(item, computations[condition]), [body]
    if item.operation == "conditional":
        branches = re.search(r"branch_computations=\{([^}]*)\}", item.text)
        names = re.findall(r"%?([\w.\-]+)", branches.group(1)) if branches else []
        return 1, names[:1]
    if item.operation in ("fusion", "call", "call-start", "async-start"):
        called = _CALLED.search(item.text)
        return 1, [called.group(1)] if called and called.group(1) in computations else []
    return 1, []


def _trips(item: HloInstruction, condition: list[HloInstruction]) -> int:
    """Iterations of a loop: the annotated number, or the bound that its counter is compared with.

    JAX's scans count from 0 in steps of 1. A loop whose end depends on data (decoding) has no such
    bound and counts once.
    """
    if noted := _TRIPS.search(item.text):
        return int(noted.group(1))
    constants = (
        re.match(r"constant\((\d+)\)", entry.text)
        for entry in condition
        if entry.operation == "constant" and entry.results[0][0] in ("s32", "u32", "s64")
    )
    bounds = [int(found.group(1)) for found in constants if found]
    return bounds[0] if len(bounds) == 1 else 1


def is_start(item: HloInstruction) -> bool:
    """Whether an instruction puts in flight what another ends."""
    return (
        item.operation.endswith("-start")
        or item.operation in ("send", "recv")
        or item.name.startswith("async-collective-start")
    )


def is_done(item: HloInstruction) -> bool:
    """Whether an instruction ends what is in flight among its operands."""
    return item.operation.endswith("-done") or item.name.startswith("async-collective-done")


def is_fused_gather(computation: str) -> bool:
    """Whether a computation has products beside a gather that another instruction has started."""
    return computation.startswith("async_collective_")


def estimated_cycles(item: HloInstruction) -> int:
    """The TPU compiler's own estimate of an instruction's cycles; 0 without one."""
    found = _CYCLES.search(item.text)
    return int(found.group(1)) if found else 0


def integers_in(text: str) -> list[int]:
    """Integers that commas separate."""
    return [int(number) for number in text.split(",") if number]
