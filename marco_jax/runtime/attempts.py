"""The attempts of a run: where its wall-clock went since its first start, restarts included.

An attempt is one start of the run in its workdir. `attempts.json` has the seconds of each by cause,
and is replaced as the run goes, so that a kill loses what came after the last replacement; that is
counted as time without a running attempt. All seconds add up to the wall-clock from the first start
to the last replacement, because each second is booked once.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from marco_jax.files import read_json_object, write_json

_log = logging.getLogger(__name__)

ATTEMPTS = "attempts.json"
# The seconds of steps; those of them that a restart or rollback has made worthless; and those
# between the last record of an attempt and the start of the next.
PRODUCTIVE, REPEATED, STOPPED_TIME = "productive", "repeated", "stopped"
# Every cause, in the order of tables, and its name for readers.
CAUSES = {
    PRODUCTIVE: "training steps that count",
    "start": "start: imports, data and restore",
    "compile": "compilation, with the first step",
    "input": "waiting for data",
    "evaluation": "evaluation",
    "checkpoint": "saving that blocks, and rollbacks",
    REPEATED: "steps that were lost and trained again",
    STOPPED_TIME: "between attempts",
    "other": "other",
}
# Marks of an attempt; between those that are kept, seconds are interpolated.
_MOST_MARKS = 64
# Seconds between two records while no metrics are written.
_RECORD_SECONDS = 10.0


@dataclasses.dataclass
class Attempt:
    """One start of a run.

    start: seconds since 1970. first_step, last_step: finished steps at its start and its last
    record. seconds: by cause, those of all its steps as productive. repeated: of the productive
    ones, those of steps that are lost. marks: [step, productive seconds that count so far].
    """

    start: float
    first_step: int
    last_step: int
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    repeated: float = 0.0
    marks: list[list[float]] = dataclasses.field(default_factory=list)

    @property
    def end(self) -> float:
        """When it was recorded last."""
        return self.start + sum(self.seconds.values())

    @property
    def counting(self) -> float:
        """Productive seconds without those of lost steps."""
        return self.seconds.get(PRODUCTIVE, 0.0) - self.repeated

    def mark(self) -> None:
        """Notes the seconds until now of a step that a restart may go on from."""
        self.marks = [*self.marks, [self.last_step, self.counting]][-_MOST_MARKS:]

    def lose_after(self, step: int) -> None:
        """Books its steps after `step` as lost."""
        if step >= self.last_step:
            return
        points = [[self.first_step, 0.0], *self.marks, [self.last_step, self.counting]]
        low = max((point for point in points if point[0] <= step), default=points[0])
        high = min(point for point in points if point[0] > step)
        share = (step - low[0]) / (high[0] - low[0]) if step > low[0] else 0.0
        kept = low[1] + share * (high[1] - low[1])
        self.repeated += self.counting - kept
        self.marks = [point for point in self.marks if point[0] <= step]
        self.last_step = max(step, self.first_step)


def lost_and_productive(attempts: Sequence[Attempt]) -> dict[str, float]:
    """Seconds by cause over all attempts; they add up to the wall-clock since the first start."""
    total = dict.fromkeys(CAUSES, 0.0)
    for number, attempt in enumerate(attempts):
        for cause, seconds in attempt.seconds.items():
            total[cause if cause in total else "other"] += seconds
        total[PRODUCTIVE] -= attempt.repeated
        total[REPEATED] += attempt.repeated
        if number:
            total[STOPPED_TIME] += attempt.start - attempts[number - 1].end
    return total


def read_attempts(workdir: pathlib.Path) -> list[Attempt]:
    """The attempts of a workdir in order; none where the file is missing.

    Raises:
        ValueError: the file cannot be read.
    """
    path = workdir / ATTEMPTS
    if not path.exists():
        return []
    value: Any = read_json_object(path).get("attempts")
    try:
        return [Attempt(**fields) for fields in value]
    except TypeError:
        raise ValueError(f"{path} is not a list of attempts") from None


class AttemptLog:
    """Records the present attempt among those before it."""

    def __init__(self, workdir: pathlib.Path, start: float, step: int, *, write: bool) -> None:
        """Begins an attempt that goes on after `step`; later steps of others count as lost.

        Args:
            workdir: of the run.
            start: of the attempt, in seconds since 1970.
            step: finished steps that it goes on from.
            write: whether this process writes the file.
        """
        self._path, self._write = workdir / ATTEMPTS, write
        try:
            self._attempts = read_attempts(workdir)
        except (OSError, ValueError) as error:
            _log.warning(f"{error}: goodput counts from this start on")
            self._attempts = []
        # A wall-clock that was set back does not make negative seconds.
        start = max([start, *(attempt.end for attempt in self._attempts[-1:])])
        self._attempts.append(Attempt(start, step, step))
        self._written = time.perf_counter()
        self.lose_after(step)

    def lose_after(self, step: int) -> None:
        """Books the steps after `step` as lost, of all attempts."""
        for attempt in self._attempts:
            attempt.lose_after(step)

    def update(self, seconds: Mapping[str, float], step: int) -> float:
        """Sets the seconds of this attempt by cause and its finished steps; returns the goodput."""
        own = self._attempts[-1]
        own.seconds, own.last_step = dict(seconds), max(step, own.last_step)
        found = self.seconds()
        return found[PRODUCTIVE] / max(sum(found.values()), 1e-9)

    def mark(self) -> None:
        """Notes that a restart may go on from the present step."""
        self._attempts[-1].mark()

    def write(self) -> None:
        """Replaces the file."""
        self._written = time.perf_counter()
        if self._write:
            write_json(self._path, {"attempts": [dataclasses.asdict(a) for a in self._attempts]})

    @property
    def is_due(self) -> bool:
        """Whether the last record is some seconds old."""
        return time.perf_counter() - self._written > _RECORD_SECONDS

    def seconds(self) -> dict[str, float]:
        """Seconds by cause over all attempts."""
        return lost_and_productive(self._attempts)

    def describe(self) -> list[str]:
        """The goodput and where the rest of the time went, a line each."""
        found = self.seconds()
        whole = max(sum(found.values()), 1e-9)
        attempts = f"{len(self._attempts)} attempt" + "s" * (len(self._attempts) > 1)
        lines = [f"goodput {found[PRODUCTIVE] / whole:.1%} of {whole:,.0f} s in {attempts}"]
        for cause, name in CAUSES.items():
            if found[cause]:
                lines.append(f"  {name:<40}{found[cause]:12,.1f} s {found[cause] / whole:7.1%}")
        return lines


def process_start() -> float:
    """When this process was started, in seconds since 1970; now, where the system does not tell."""
    try:
        text = pathlib.Path("/proc/self/stat").read_text(encoding="utf-8")
        # Field 22, counted from the state, which stands behind the command in brackets.
        ticks = int(text.rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        age = 0.0
    return time.time() - max(age, 0.0)
