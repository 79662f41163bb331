"""Where the time of a profiler trace goes: the longest operations, and exposed collectives.

A trace has planes (a device, or the host), lines of a plane (a core's operations, a thread, a
stream) and events on a line. Three forms are read:

- TPU: a plane a device; "XLA Ops" has operations one after another, loops around what they contain,
  "Async XLA Ops" has transfers from their start to their end, "XLA Modules" the programs.
- GPU: a plane a device; lines are streams, and events name their operation in a stat.
- CPU: one plane for the host; lines are threads, and events name operation and device in stats.

Times are means over the devices. The self time of an operation is without the operations inside it.
A collective is exposed where no other operation computes on its device at the same time: at the
start and done of a transfer a device waits, and does not compute.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import re
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jax.profiler import ProfileData

from marco_jax.runtime.hlo_names import ProgramInstruction, running_programs

LONGEST = 10
_COLLECTIVE = re.compile(
    r"all[-_]gather|all[-_]reduce|reduce[-_]scatter|all[-_]to[-_]all|collective|ppermute"
    r"|^p(sum|max|min)(_invariant)?\b|^(send|recv)\b"
)
_LOOPS = ("while", "conditional", "call")
_WAITS = ("-start", "-done", "-update")
_ASYNC_LINE, _MODULES_LINE, _OPS_LINE = "Async XLA Ops", "XLA Modules", "XLA Ops"
_TPU = re.compile(r"/device:TPU:\d+$")
_TEXT = re.compile(r"^%?([^\s=]+)(?: = (?:\(.*?\)|\S+) ([\w\-]+)\()?")
Span = tuple[float, float]


class Operation(NamedTuple):
    """One execution of an instruction on a device, in nanoseconds."""

    device: str
    line: str
    program: str
    name: str
    opcode: str
    start: float
    end: float
    in_background: bool = False  # A transfer, beside which the device does other work.

    @property
    def is_collective(self) -> bool:
        """Whether devices exchange data."""
        return bool(_COLLECTIVE.search(self.opcode) or _COLLECTIVE.search(self.name))

    @property
    def computes(self) -> bool:
        """Whether the device is at work on it: neither a collective nor a loop nor a wait."""
        waits = self.opcode.endswith(_WAITS) or self.opcode in _LOOPS
        return not (waits or self.is_collective or self.in_background)


@dataclasses.dataclass(frozen=True)
class OperationTime:
    """The executions of one instruction: means over devices. `share` is of all self time."""

    name: str
    opcode: str
    program: str
    milliseconds: float
    share: float
    count: float
    collective: bool
    part: str
    backward: bool
    recomputed: bool


@dataclasses.dataclass(frozen=True)
class TraceTimes:
    """Where the time went: means over devices, in milliseconds.

    span: from the first operation to the last; busy: while any ran; collectives: while a collective
    ran; exposed: the part of it in which the device computed nothing.
    """

    devices: int
    span: float
    busy: float
    collectives: float
    exposed: float
    longest: tuple[OperationTime, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields as plain data."""
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """A table for people."""
        share = 100 / self.span if self.span else 0.0
        noun = "device" if self.devices == 1 else "devices"
        rows = [
            f"{self.devices} {noun}, {self.span:.2f} ms from the first operation to the last, "
            f"busy {self.busy:.2f} ms ({self.busy * share:.0f} %)",
            f"collectives {self.collectives:.2f} ms ({self.collectives * share:.0f} %), of which "
            f"{self.exposed:.2f} ms ({self.exposed * share:.0f} %) are exposed",
            f"{'self ms':>10} {'share':>6} {'count':>6}  operation, part of the model",
        ]
        for row in self.longest:
            marks = [
                word for word in ("collective", "backward", "recomputed") if getattr(row, word)
            ]
            kind = "" if row.opcode in ("", row.name) else row.opcode
            rows.append(
                f"{row.milliseconds:10.3f} {row.share:6.1%} {row.count:6g}  "
                + ", ".join(filter(None, [row.name, kind, row.part, *marks]))
            )
        return rows


def read_times(directory: pathlib.Path) -> TraceTimes | None:
    """Sums up this host's part of the newest trace in a directory of jax.profiler.

    Programs are described as far as this process still has them.

    Raises:
        OSError: there is no trace.
    """
    found = sorted(directory.glob("**/*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    host = socket.gethostname()
    mine = [path for path in found if path.name == f"{host}.xplane.pb"] or found
    if not mine:
        raise OSError(f"{directory} has no trace")
    return summarize(ProfileData.from_file(str(mine[-1])), running_programs())


def summarize(
    trace: ProfileData, programs: Mapping[str, Mapping[str, ProgramInstruction]] | None = None
) -> TraceTimes | None:
    """Sums up a trace; None if it has no operations of a device.

    Args:
        trace: planes with lines with events, as jax.profiler reads them.
        programs: the instructions of programs (`hlo_names.running_programs`), for their opcodes and
            the parts of the model.
    """
    programs = programs or {}
    devices: dict[str, list[Operation]] = collections.defaultdict(list)
    for operation in operations(trace, programs):
        devices[operation.device].append(operation)
    if not devices:
        return None
    count = len(devices)
    totals = collections.Counter()
    for found in devices.values():
        totals.update(_device_times(found))
    return TraceTimes(
        devices=count,
        **{name: totals[name] / count / 1e6 for name in ("span", "busy", "collectives", "exposed")},
        longest=_longest(devices.values(), count, programs),
    )


def operations(
    trace: ProfileData, programs: Mapping[str, Mapping[str, ProgramInstruction]]
) -> Iterator[Operation]:
    """The operations of all devices in a trace."""
    for plane in trace.planes:
        if _TPU.match(plane.name):
            yield from _tpu_operations(plane, programs)
        elif plane.name.startswith(("/device:", "/host:CPU")):
            yield from _named_operations(plane, programs)


def _tpu_operations(
    plane: Any, programs: Mapping[str, Mapping[str, ProgramInstruction]]
) -> Iterator[Operation]:
    lines = {line.name: line for line in plane.lines}
    modules = [
        (event.start_ns, event.end_ns, event.name.partition("(")[0])
        for event in (lines[_MODULES_LINE].events if _MODULES_LINE in lines else ())
    ]
    modules.sort()
    for title in (_OPS_LINE, _ASYNC_LINE):
        position = 0
        events = lines[title].events if title in lines else ()
        for event in sorted(events, key=lambda event: event.start_ns):
            while position < len(modules) and modules[position][1] <= event.start_ns:
                position += 1
            inside = position < len(modules) and modules[position][0] <= event.start_ns
            program = modules[position][2] if inside else ""
            # The event's name is the instruction's, or its whole text.
            name, opcode = _TEXT.match(event.name).groups() if event.name else ("", "")
            yield _operation(
                (plane.name, title, program, name, opcode, event), programs, title == _ASYNC_LINE
            )


def _named_operations(
    plane: Any, programs: Mapping[str, Mapping[str, ProgramInstruction]]
) -> Iterator[Operation]:
    for line in plane.lines:
        if line.name == "python":  # Functions of the host, many of them.
            continue
        for event in line.events:
            stats = dict(event.stats)
            if "hlo_op" not in stats:
                continue
            device = f"{plane.name}:{stats.get('device_ordinal', '')}"
            program, name = stats.get("hlo_module", ""), stats["hlo_op"]
            yield _operation((device, line.name, program, name, "", event), programs, False)


def _operation(
    found: tuple[str, str, str, str, str | None, Any],
    programs: Mapping[str, Mapping[str, ProgramInstruction]],
    in_background: bool,
) -> Operation:
    device, line, program, name, opcode, event = found
    known = programs.get(program, {}).get(name)
    opcode = opcode or (known.opcode if known else re.split(r"[.\d]", name)[0])
    span = (event.start_ns, event.end_ns)
    return Operation(device, line, program, name, opcode, *span, in_background)


def _device_times(found: Sequence[Operation]) -> dict[str, float]:
    """Times of one device, in nanoseconds; names of TraceTimes."""
    busy = _union(
        (each.start, each.end)
        for each in found
        if each.opcode not in _LOOPS and not each.in_background
    )
    collectives = _union((each.start, each.end) for each in found if each.is_collective)
    compute = _union((each.start, each.end) for each in found if each.computes)
    return {
        "span": max(each.end for each in found) - min(each.start for each in found),
        "busy": _length(busy),
        "collectives": _length(collectives),
        "exposed": _length(collectives) - _overlap(collectives, compute),
    }


def _longest(
    devices: Iterable[Sequence[Operation]],
    count: int,
    programs: Mapping[str, Mapping[str, ProgramInstruction]],
) -> tuple[OperationTime, ...]:
    times, executions = collections.Counter(), collections.Counter()
    kinds: dict[tuple[str, str], Operation] = {}
    for found in devices:
        for operation, time in _self_times(found):
            # What a loop contains is listed; a transfer's wait is, and not the transfer.
            if operation.opcode in _LOOPS or operation.in_background:
                continue
            key = (operation.program, operation.name)
            times[key] += time
            executions[key] += 1
            kinds[key] = operation
    total = sum(times.values())
    rows = []
    for key, nanoseconds in times.most_common(LONGEST):
        operation = kinds[key]
        known = programs.get(key[0], {}).get(key[1], ProgramInstruction(operation.opcode))
        rows.append(
            OperationTime(
                name=operation.name,
                opcode=operation.opcode,
                program=operation.program,
                milliseconds=nanoseconds / count / 1e6,
                share=nanoseconds / total if total else 0.0,
                count=executions[key] / count,
                collective=operation.is_collective,
                part=known.part,
                backward=known.backward,
                recomputed=known.recomputed,
            )
        )
    return tuple(rows)


def _self_times(found: Sequence[Operation]) -> Iterator[tuple[Operation, float]]:
    """Each operation with its time less that of the operations inside it on the same line."""
    lines: dict[str, list[Operation]] = collections.defaultdict(list)
    for operation in found:
        lines[operation.line].append(operation)
    for line in lines.values():
        open_ones: list[tuple[Operation, list[float]]] = []
        for operation in sorted(line, key=lambda each: (each.start, -each.end)):
            while open_ones and open_ones[-1][0].end <= operation.start:
                outer, left = open_ones.pop()
                yield outer, left[0]
            duration = operation.end - operation.start
            if open_ones:
                open_ones[-1][1][0] -= duration
            open_ones.append((operation, [duration]))
        yield from ((outer, left[0]) for outer, left in open_ones)


def _union(spans: Iterable[Span]) -> list[Span]:
    """The time that any of the spans covers, as spans in order."""
    merged: list[list[float]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    return [(start, end) for start, end in merged]


def _length(spans: Sequence[Span]) -> float:
    return sum(end - start for start, end in spans)


def _overlap(some: Sequence[Span], others: Sequence[Span]) -> float:
    """The time that both cover; each is a result of `_union`."""
    total, position = 0.0, 0
    for start, end in some:
        while position < len(others) and others[position][1] <= start:
            position += 1
        current = position
        while current < len(others) and others[current][0] < end:
            total += min(end, others[current][1]) - max(start, others[current][0])
            current += 1
    return total
