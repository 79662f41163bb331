"""How a run shares its process: alone, or beside other runs whose steps are computed together."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

from marco_jax.data.training_data import TrainingData
from marco_jax.training.faults import Preemption
from marco_jax.training.metrics_log import MetricsWriter
from marco_jax.training.state import Batch, StepMetrics, TrainState
from marco_jax.training.step import Trainer


class Seat:
    """The seat of a run that has the process to itself: its signals, its terminal, all devices.

    The train loop asks its seat for whatever depends on other runs in the process. A subclass seats
    a run beside others.
    """

    # Whether the run compiles its own step and shows its own progress.
    is_alone = True

    def take(self, trainer: Trainer, data: TrainingData, writer: MetricsWriter) -> None:
        """Seats a run before its first step."""
        self.trainer, self.data, self.writer = trainer, data, writer
        self.clock = writer.clock

    def preemption(self, grace_seconds: float) -> Preemption:
        """How the run learns of SIGTERM."""
        return Preemption(self.clock, grace_seconds)

    def batches(self, first: int, stop: int) -> Generator[Any, None, None]:
        """What `step` takes at the steps first..stop, counted from 0: global batches."""
        layout = self.trainer.batch_sharding
        with contextlib.closing(self.data.batches(first, stop, layout)) as batches:
            for arrays in batches:
                yield Batch(**arrays)

    def step(self, state: TrainState, batch: Any) -> tuple[TrainState, StepMetrics]:
        """The state after a step, and its metrics; `state` is used up."""
        return self.trainer.step(state, batch)

    def between_batches(self) -> None:
        """Is called between the batches of an evaluation; may raise Preempted to end it."""
