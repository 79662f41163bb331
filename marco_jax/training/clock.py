"""Where the time of a run goes: steps, waiting for input, compiling, evaluation, checkpoints."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

# Parts that count for the duration of the run, not for the speed of its steps.
COMPILE, EVALUATION, CHECKPOINT = "compile", "evaluation", "checkpoint"
_APART = (COMPILE, EVALUATION, CHECKPOINT)
# Part of a step: the host waits for the next batch.
INPUT = "input"
# Part of a step: other runs of the process have their turn.
OTHERS = "others"
# Parts of a step in reinforcement learning: answers are sampled, and rewarded.
SAMPLING, REWARDS = "sampling", "rewards"
_OF_STEP = (INPUT, OTHERS, SAMPLING, REWARDS)
# Everything else.
STEP = "step"


class Clock:
    """A stopwatch with named parts, read in laps of some steps.

    Attributes:
        doing: the part that runs now, and its start in seconds; other threads may read it.
        step: finished steps.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        """Starts at once; `now` returns seconds."""
        self._now = now
        self._start = self._lap_start = now()
        self._totals = dict.fromkeys((*_OF_STEP, *_APART), 0.0)
        self._lap = dict(self._totals)
        self.doing = (STEP, self._start)
        self.step = 0

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Books the time inside on a part; one of a step only outside of those that count apart."""
        start, outside = self._now(), self.doing[0]
        self.doing = (name, start)
        try:
            yield
        finally:
            end = self._now()
            self.doing = (outside, end)
            if name in _APART or outside not in _APART:
                self._totals[name] += end - start
                self._lap[name] += end - start

    def waiting(self, batches: Iterator[T]) -> Iterator[T]:
        """Yields the batches, and books the wait for each as input."""
        while True:
            with self.part(INPUT):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    @property
    def apart_seconds(self) -> float:
        """Seconds so far of the parts that do not count for the speed of steps."""
        return sum(self._totals[name] for name in _APART)

    def leave_out(self, seconds: float) -> None:
        """Takes seconds out of the lap, in which other runs compiled, evaluated or saved."""
        self._lap_start += seconds

    def lap(self, steps: int) -> dict[str, float]:
        """Ends a lap of `steps` steps.

        Returns:
            seconds: `step_seconds` and `input_seconds` (of them) are a step's mean over the lap;
            `compile_seconds`, `evaluation_seconds` and `checkpoint_seconds` are sums since the
            start, and `evaluation_share` is that of all time since the start. `sampling_share` and
            `rewards_share` are of the lap, if there were such parts.
        """
        now = self._now()
        apart = sum(self._lap[name] for name in _APART)
        training = max(now - self._lap_start - apart, 1e-9)
        row = {"step_seconds": training / steps, "input_seconds": self._lap[INPUT] / steps}
        row |= {f"{name}_seconds": self._totals[name] for name in _APART}
        shares = {name: self._lap[name] / training for name in (SAMPLING, REWARDS)}
        row |= {f"{name}_share": share for name, share in shares.items() if self._totals[name]}
        row["evaluation_share"] = self._totals[EVALUATION] / max(now - self._start, 1e-9)
        self._lap_start = now
        self._lap = dict.fromkeys(self._lap, 0.0)
        return row
