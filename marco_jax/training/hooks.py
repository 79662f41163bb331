"""Work that follows a step: metrics, checkpoints, progress. A hook decides whether it is due."""

from __future__ import annotations

import dataclasses
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from marco_jax.model.qwen2_config import Qwen2Config
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
    """Writes metrics.jsonl and TensorBoard."""

    def __init__(self, writer: MetricsWriter, every: int, positions: int) -> None:
        """`positions` is the number of positions (tokens and padding) of a global batch."""
        self.writer, self.every, self.positions = writer, every, positions
        self.last: dict[str, Any] | None = None

    def __call__(self, event: Event) -> None:
        """Keeps the step's metrics and writes them when due."""
        if event.metrics is None:
            return
        self.writer.add(event.step, event.stage, self.positions, event.metrics)
        if event.due(self.every) or event.stopping:
            self.last = self.writer.flush() or self.last


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
    """A live line on a terminal; a plain line now and then in a log."""

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
        self.live = sys.stderr.isatty() and shown
        self.bar = tqdm(
            total=steps, initial=first_step, disable=not self.live, dynamic_ncols=True, unit="step"
        )
        self.steps, self.first_step, self.start = steps, first_step, time.perf_counter()
        self.printed = self.start

    def __call__(self, event: Event) -> None:
        """Shows the newest metrics."""
        if event.metrics is None:
            self.start = self.printed = time.perf_counter()
            return
        self.bar.update(1)
        row, now = self.metrics.last, time.perf_counter()
        if row is None or not self.shown:
            return
        if self.live:
            self.bar.set_description(event.stage)
            self.bar.set_postfix_str(_describe(row, self.evaluated()), refresh=False)
        elif now - self.printed > 15 or event.step == self.steps:
            self.printed = now
            left = (now - self.start) / (event.step - self.first_step) * (self.steps - event.step)
            _log.info(
                f"step {event.step}/{self.steps} {event.stage}: {_describe(row)}, "
                f"learning rate {row['learning_rate']:.2e}, {left / 60:.1f} min left"
            )

    def close(self) -> None:
        """Ends the live line."""
        self.bar.close()


def _describe(row: dict[str, Any], evaluated: str = "") -> str:
    """The metrics of a line that a person watches."""
    loss = "none" if row["loss"] is None else f"{row['loss']:.3f}"
    parts = [f"loss {loss}", f"{row['tokens_per_second']:,.0f} tokens/s"]
    if row["mfu"]:
        parts.append(f"MFU {row['mfu']:.1%}")
    if evaluated:
        parts.append(evaluated)
    return ", ".join(parts)
