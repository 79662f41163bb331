"""Where the time of a run goes: steps, waiting for input, compiling, evaluation, checkpoints."""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from marco_jax.runtime.attempts import PRODUCTIVE

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
# The causes of goodput that parts belong to; other parts are causes of the same name.
_CAUSES = {STEP: PRODUCTIVE, SAMPLING: PRODUCTIVE, REWARDS: PRODUCTIVE, OTHERS: "other"}
# Endings of the names of metrics that the clock decides: two runs with the same numbers differ in
# them.
CLOCKED = ("tokens_per_second", "mfu", "_seconds", "goodput")
CLOCKED += tuple(f"{name}_share" for name in (EVALUATION, SAMPLING, REWARDS))


class Clock:
    """A stopwatch with named parts, read in laps of some steps.

    Attributes:
        doing: the part that runs now, and its start in seconds; other threads may read it.
        step: finished steps.
    """

    def __init__(
        self, now: Callable[[], float] = time.perf_counter, started_for: float = 0.0
    ) -> None:
        """Starts at once; `now` returns seconds, and the run has started for some already."""
        self._now = now
        self._start = self._lap_start = now()
        self._totals = dict.fromkeys((*_OF_STEP, *_APART), 0.0)
        self._lap = dict(self._totals)
        # Seconds by cause, each second once: nested parts are left out of the outer one.
        self._spent = collections.Counter(start=started_for)
        self._booked, self._begun = self._start, False
        self.doing = (STEP, self._start)
        self.step = 0

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Books the time inside on a part; one of a step only outside of those that count apart."""
        start, outside = self._now(), self.doing[0]
        self._switch(name, start)
        try:
            yield
        finally:
            end = self._now()
            self._switch(outside, end)
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

    def begin_steps(self) -> None:
        """Ends the start of the run, where it has not ended yet."""
        self._book(self._now())
        self._begun = True

    def by_cause(self) -> dict[str, float]:
        """Seconds so far by cause; they add up to those since the start of the run."""
        self._book(self._now())
        return dict(self._spent)

    def _switch(self, name: str, now: float) -> None:
        """Books what was done until now, and begins another part."""
        self._book(now)
        self.doing = (name, now)

    def _book(self, now: float) -> None:
        cause = _CAUSES.get(self.doing[0], self.doing[0])
        if not self._begun and cause == PRODUCTIVE:
            cause = "start"
        self._spent[cause] += now - self._booked
        self._booked = now

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
