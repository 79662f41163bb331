"""Trains several runs of one shape at once: each in a thread of its own, their steps together.

A run in a lane is an ordinary call of `train`, with its own workdir, data, checkpoints and
evaluation. The threads take turns: exactly one of them, or the main thread, runs at any time, and
the lanes' order is fixed. All processes therefore start the same programs in the same order. A lane
runs until it reaches its next step, hands in its batch and waits. When every lane waits, the main
thread takes one step of all of them (`LaneStep`) and the round begins anew. A lane whose run has
ended, or failed, goes on with the next run, which resumes at whatever step it has reached.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable
from typing import Generic, TypeVar

import jax

from marco_jax.data.training_data import TrainingData
from marco_jax.lanes.lane_step import LaneBatch, LaneMetrics, LaneState, LaneStep
from marco_jax.runtime.errors import RunFailed
from marco_jax.runtime.progress import Progress, duration
from marco_jax.training.clock import OTHERS, Clock
from marco_jax.training.faults import Preempted, Preemption, Watchdog
from marco_jax.training.loop import DONE, STOPPED
from marco_jax.training.metrics_log import MetricsWriter
from marco_jax.training.seat import Seat
from marco_jax.training.state import Batch, TrainState
from marco_jax.training.step import Trainer

_log = logging.getLogger(__name__)

# Seconds between two lines of progress.
_SECONDS = 15.0

Task = TypeVar("Task")


class Abandoned(BaseException):
    """Ends a run in a lane after the process was interrupted; nothing more is saved."""


class Lanes(Generic[Task]):
    """Works through tasks in several lanes, each of which is a run of one shape."""

    def __init__(
        self, parallel: str, count: int, *, steps: int, grace_seconds: float, stall_seconds: float
    ) -> None:
        """Starts nothing yet.

        Args:
            parallel: "vmap" or "slices", see `LaneStep`.
            count: number of lanes.
            steps: of every run, for the time that is left.
            grace_seconds: after a SIGTERM, as in `Preemption`.
            stall_seconds: that the common step may take, as in `Watchdog`.
        """
        self.parallel, self.count, self._steps = parallel, count, steps
        self._stall_seconds = stall_seconds
        self.clock = Clock()
        self.preemption = Preemption(self.clock, grace_seconds)
        self.abandoned = False
        self._lanes: list[Lane] = []
        self._tasks: collections.deque[Task] = collections.deque()
        self._ended = self._taken = 0
        self._program: LaneStep | None = None
        self._stack: TrainState | None = None
        # Start of the current line of progress, and steps since then of all lanes together.
        self._since, self._done = time.perf_counter(), 0

    def run(self, tasks: Iterable[Task], work: Callable[[Task, Seat], int]) -> int:
        """Works through all tasks; returns 0, or 143 after a SIGTERM.

        `work` trains a task in the seat that it is given, in one of the lanes' threads, and returns
        0 or 143. An exception that leaves it ends all runs, as an interruption of the process does.

        Raises:
            RunFailed: the common step has failed.
        """
        self._tasks.extend(tasks)
        self._lanes = [Lane(number, self, work) for number in range(self.count)]
        watchdog = Watchdog(self.clock, self._stall_seconds)
        with contextlib.closing(watchdog), self.preemption.handled():
            try:
                self._rounds()
            except BaseException:
                # With several processes the others wait for this one: it must end at once.
                if jax.process_count() == 1:
                    self._abandon()
                raise
        return STOPPED if self.preemption.received else DONE

    def next_task(self) -> Task | None:
        """The next task of a lane; None where there is none left, or after a SIGTERM."""
        if self.preemption.received or not self._tasks:
            return None
        return self._tasks.popleft()

    def finished(self) -> None:
        """Counts a task that has ended."""
        self._ended += 1

    def rows(self, trainer: Trainer, lane: int, shape: tuple[int, int]) -> slice:
        """The rows of a lane's global batches that this process reads."""
        if self._program is None:
            self._program = LaneStep(trainer, self.count, self.parallel)
        return self._program.rows(lane, shape)

    def put(self, lane: int, state: TrainState) -> None:
        """Puts the state of a run that starts, or that was rolled back, into its lane."""
        if self._stack is None:
            self._stack = self._program.empty()
        self._stack = self._program.put(self._stack, lane, state)

    def _rounds(self) -> None:
        """Lets every lane come to its next step and takes it, until all lanes have ended."""
        while True:
            for lane in self._lanes:
                if not lane.has_ended:
                    self._turn(lane)
            waiting = [lane for lane in self._lanes if lane.batch is not None]
            if not waiting:
                return
            self._taken += 1
            self.preemption.reached(self._taken)
            self._step(waiting)
            self._show(waiting)

    def _turn(self, lane: Lane) -> None:
        """Lets a lane run until it waits for its next step or has ended."""
        clock, start = lane.clock, time.perf_counter()
        before = clock.apart_seconds if clock else 0.0
        with self.clock.part(OTHERS):
            lane.resume()
        if lane.error is not None:
            raise lane.error
        # What this lane did besides steps is not time of the others' steps.
        same = clock is not None and lane.clock is clock
        apart = clock.apart_seconds - before if same else time.perf_counter() - start
        self._leave_out(apart, lane)

    def _leave_out(self, seconds: float, but: Lane | None = None) -> None:
        for lane in self._lanes:
            if lane is not but and lane.clock is not None:
                lane.clock.leave_out(seconds)

    def _step(self, waiting: list[Lane]) -> None:
        """One step of all lanes that wait."""
        shape = waiting[0].data.shape
        sources = max(lane.trainer.num_sources for lane in waiting)
        first = self._taken == 1
        if sources > self._program.num_sources:
            # A mixture with more sources than those before; a state does not depend on them.
            self._program = LaneStep(waiting[0].trainer, self.count, self.parallel, sources)
            first = True
        batches = [lane.batch for lane in self._lanes]
        started = time.perf_counter()
        compiling = Progress(f"compiling the train step of {self.count} lanes")
        try:
            with compiling if first else contextlib.nullcontext():
                joined = self._program.join_batches(batches, shape)
                self._stack, metrics = self._program.step(self._stack, joined)
        except jax.errors.JaxRuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise RunFailed(
                f"the step of {self.count} lanes has failed: {reason}; set a smaller sweep.lanes, "
                "or sweep.parallel=none; the same command resumes all runs"
            ) from error
        if first:
            self._leave_out(time.perf_counter() - started)
        for lane in waiting:
            lane.batch = None
            lane.answer = (
                LaneState(self._program, lambda: self._stack, lane.number),
                LaneMetrics(metrics, lane.number),
            )
        self._done += len(waiting)

    def _show(self, waiting: list[Lane]) -> None:
        """Logs a line for all lanes now and then."""
        now = time.perf_counter()
        if now - self._since < _SECONDS:
            return
        rate = self._done / (now - self._since)
        steps = [lane.clock.step + 1 for lane in waiting]
        left = len(self._tasks) * self._steps + sum(self._steps - step for step in steps)
        total = self._ended + len(self._tasks) + len(waiting)
        _log.info(
            f"{len(waiting)} runs at steps {min(steps)} to {max(steps)} of {self._steps}, "
            f"{self._ended} of {total} ended: {rate:.3g} steps/s of all runs together, about "
            f"{duration(left / rate)} left"
        )
        self._since, self._done = now, 0

    def _abandon(self) -> None:
        """Ends the threads of all lanes."""
        self.abandoned = True
        for lane in self._lanes:
            lane.end()


class Lane(Seat, Generic[Task]):
    """The seat of the runs that one thread trains one after the other."""

    is_alone = False

    def __init__(self, number: int, lanes: Lanes[Task], work: Callable[[Task, Seat], int]) -> None:
        """Makes the thread, which waits for its first turn."""
        self.number, self._lanes, self._work = number, lanes, work
        self.has_ended = False
        # What left `work` besides exceptions that a run may end with.
        self.error: BaseException | None = None
        # The batch of the step that the lane waits for, and what came out of it.
        self.batch: LaneBatch | None = None
        self.answer: tuple[LaneState, LaneMetrics] | None = None
        self.clock: Clock | None = None
        self._state: LaneState | None = None
        self._go, self._back, self._runs = threading.Semaphore(0), threading.Semaphore(0), False
        threading.Thread(target=self._main, name=f"lane {number}", daemon=True).start()

    # The main thread calls these.

    def resume(self) -> None:
        """Gives the thread its turn, and waits until the turn is over."""
        self._runs = True
        self._go.release()
        self._wait()

    def end(self) -> None:
        """Ends the thread, whose runs have been abandoned."""
        if self._runs:
            # The main thread was interrupted while it waited.
            self._wait()
        while not self.has_ended:
            self.resume()

    def _wait(self) -> None:
        self._back.acquire()
        self._runs = False

    # The lane's thread calls these.

    def take(self, trainer: Trainer, data: TrainingData, writer: MetricsWriter) -> None:
        """Seats a run before its first step."""
        super().take(trainer, data, writer)
        self._rows = self._lanes.rows(trainer, self.number, data.shape)

    def preemption(self, grace_seconds: float) -> Preemption:
        """The main thread's, as the run may read it."""
        return _LanePreemption(self._lanes.preemption)

    def batches(self, first: int, stop: int) -> Generator[LaneBatch, None, None]:
        """The rows of the batches first..stop that this process reads."""
        batches = self.data.host_batches(first, stop, self._rows)
        with contextlib.closing(batches):
            for arrays in batches:
                yield LaneBatch(Batch(**arrays), self._rows)

    def step(self, state: TrainState, batch: LaneBatch) -> tuple[LaneState, LaneMetrics]:
        """Hands in a step and waits until it is taken, together with those of all lanes."""
        if state is not self._state:
            self._lanes.put(self.number, state)
        if self._state is not None:
            self._state.forget()
        self.batch = batch
        with self.clock.part(OTHERS):
            self._pause()
        (self._state, metrics), self.answer = self.answer, None
        return self._state, metrics

    def between_batches(self) -> None:
        """Abandons an evaluation after a signal; several processes finish it, as `Preemption`."""
        if self._lanes.preemption.received and jax.process_count() == 1:
            raise Preempted

    def _pause(self) -> None:
        """Ends the turn, and waits for the next one."""
        self._back.release()
        self._go.acquire()
        if self._lanes.abandoned:
            raise Abandoned

    def _main(self) -> None:
        self._go.acquire()
        try:
            while not self._lanes.abandoned and (task := self._lanes.next_task()) is not None:
                code = self._work(task, self)
                # Frees what the run has held.
                self.trainer = self.data = self.clock = self._state = self.batch = None
                self._lanes.finished()
                if code == STOPPED:
                    break
        except Abandoned:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self.batch, self.has_ended = None, True
            self._back.release()


class _LanePreemption(Preemption):
    """The SIGTERM that the main thread has received, as a run sees it."""

    def __init__(self, whole: Preemption) -> None:
        self._whole = whole

    @property
    def received(self) -> bool:
        """Whether to save and stop."""
        return self._whole.received

    @contextlib.contextmanager
    def handled(self) -> Generator[None, None, None]:
        """The main thread handles the signal."""
        yield

    def reached(self, step: int) -> bool:
        """Whether all processes save this step and stop."""
        return self.received
