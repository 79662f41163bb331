"""Work that follows a step: metrics, checkpoints, progress. A hook decides whether it is due."""

from __future__ import annotations

import dataclasses
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from marco_jax.model.qwen2_config import Qwen2Config
from marco_jax.runtime.live_line import LiveLine
from marco_jax.runtime.progress import duration
from marco_jax.training.clock import CHECKPOINT
from marco_jax.training.metrics_log import MetricsWriter
from marco_jax.training.step import StepMetrics, TrainState
from marco_jax.weights.checkpoints import Checkpoints
from marco_jax.weights.snapshots import Snapshots

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Event:
    """A finished step.

    `step` counts finished steps. Before the first of them, and before the first after a restart,
    metrics is None. `boundary` marks the end of a stage; `stopping` the last call before the run
    ends early.
    """

    step: int
    stage: str
    state: TrainState
    metrics: StepMetrics | None
    boundary: bool = False
    stopping: bool = False

    def due(self, every: int) -> bool:
        """Whether work that is done every `every` steps (0: never) and at stage ends is due."""
        return self.boundary or (every > 0 and self.step > 0 and self.step % every == 0)


class MetricsHook:
    """Writes metrics.jsonl, and passes the metrics on to the trackers."""

    def __init__(self, writer: MetricsWriter, every: int, positions: int) -> None:
        """`positions` is the number of positions (tokens and padding) of a global batch."""
        self.writer, self.every, self.positions = writer, every, positions

    @property
    def last(self) -> dict[str, Any] | None:
        """The newest line of metrics, whoever had it written; None before the first."""
        return self.writer.last

    def __call__(self, event: Event) -> None:
        """Keeps the step's metrics and writes them when due."""
        if event.metrics is None:
            return
        self.writer.add(event.step, event.stage, self.positions, event.metrics)
        if event.due(self.every) or event.stopping:
            self.writer.flush()


class CheckpointHook:
    """Saves the state; the metrics up to it are on disk first."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        config: Qwen2Config,
        writer: MetricsWriter,
        every: int,
        describe: Callable[[int], dict[str, Any]],
    ) -> None:
        """Saves every `every` steps, at stage ends, and when the run is stopped.

        `describe` gives what goes into the meta of a step.
        """
        self.checkpoints, self.config, self.writer, self.every = checkpoints, config, writer, every
        self.describe = describe

    def __call__(self, event: Event) -> None:
        """Saves when due."""
        if event.metrics is None or not (event.due(self.every) or event.stopping):
            return
        self.writer.flush()
        self.writer.attempts.mark()
        self.writer.sync()
        meta = {"stage": event.stage, **self.describe(event.step)}
        with self.writer.clock.part(CHECKPOINT):
            meta |= event.state.meta()
            self.checkpoints.save(event.step, event.state.arrays, self.config, meta)


class SnapshotHook:
    """Writes the shards of this host to its own disk; the metrics up to the step are on disk first.

    It stands before the CheckpointHook of the same steps, and takes the same meta.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        config: Qwen2Config,
        writer: MetricsWriter,
        describe: Callable[[int], dict[str, Any]],
    ) -> None:
        """`describe` gives what goes into the meta of a step."""
        self.snapshots, self.config, self.writer = snapshots, config, writer
        self.describe = describe

    def __call__(self, event: Event) -> None:
        """Writes every `checkpoint.local_every` steps."""
        every = self.snapshots.every
        if event.metrics is None or not every or event.step % every or event.stopping:
            return
        self.writer.flush()
        self.writer.attempts.mark()
        meta = {"stage": event.stage, "model": dataclasses.asdict(self.config)}
        meta |= self.describe(event.step)
        with self.writer.clock.part(CHECKPOINT):
            meta |= event.state.meta()
            self.snapshots.save(event.step, event.state.arrays, meta)


class ProgressHook:
    """A live line on a terminal; a plain line now and then in a log.

    It shows what has been written to metrics.jsonl, and fetches nothing from the device: that would
    wait for the steps that the device still has before it.
    """

    def __init__(
        self,
        metrics: MetricsHook,
        steps: int,
        first_step: int,
        evaluated: Callable[[], str],
        *,
        shown: bool = True,
    ) -> None:
        """Counts from `first_step` to `steps`; `evaluated` has the newest evaluation in print."""
        self.metrics, self.evaluated, self.shown = metrics, evaluated, shown
        self.steps, self.step, self.stage = steps, first_step, ""
        # Finished steps and the time at which the rate is counted from.
        self.counted, self.start = first_step, time.perf_counter()
        self.compiled = False
        self.seconds_left: float | None = None
        self.printed = self.start
        self.line = LiveLine(self._parts) if sys.stderr.isatty() and shown else None

    def __call__(self, event: Event) -> None:
        """Shows the newest metrics."""
        now = time.perf_counter()
        self.step, self.stage = event.step, event.stage
        if event.metrics is None:
            self.counted, self.start, self.printed = event.step, now, now
            self.compiled = False
            return
        if not self.compiled:
            # The first step compiles: those after it say how long the rest takes.
            self.counted, self.start, self.compiled = event.step, now, True
        else:
            pace = (now - self.start) / (event.step - self.counted)
            self.seconds_left = pace * (self.steps - event.step)
        row = self.metrics.last
        if row is None or not self.shown or self.line is not None:
            return
        if now - self.printed > 15 or event.step == self.steps:
            self.printed = now
            parts = [_loss(row), *_speeds(row), f"learning rate {row['learning_rate']:.2e}"]
            if self.seconds_left is not None:
                parts.append(f"{self.seconds_left / 60:.1f} min left")
            _log.info(
                f"step {event.step}/{self.steps} {event.stage}: {', '.join(filter(None, parts))}"
            )

    def close(self) -> None:
        """Ends the live line."""
        if self.line is not None:
            self.line.close()

    def _parts(self) -> list[str]:
        """The parts of the live line, the most important first."""
        row = self.metrics.last
        share = f"{self.step / self.steps:.0%}" if self.steps else ""
        parts = [" ".join(filter(None, (self.stage, f"{self.step}/{self.steps}", share)))]
        if row is not None:
            parts.append(_loss(row))
        if self.seconds_left is not None and self.step < self.steps:
            parts.append(f"{duration(self.seconds_left)} left")
        if row is not None:
            parts += _speeds(row)
        return [*parts, self.evaluated()]


def _loss(row: dict[str, Any]) -> str:
    """The loss of a line of metrics, for a person."""
    return "loss none" if row["loss"] is None else f"loss {row['loss']:.3f}"


def _speeds(row: dict[str, Any]) -> tuple[str, str]:
    """Tokens a second, and the MFU or ""."""
    mfu = f"MFU {row['mfu']:.1%}" if row["mfu"] else ""
    return f"{row['tokens_per_second']:,.0f} tokens/s", mfu
