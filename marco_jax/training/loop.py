"""The train loop: a step, then a list of hooks."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from marco_jax.files import check_local, check_writable
from marco_jax.model.parameters import Params
from marco_jax.runtime.errors import RunFailed
from marco_jax.runtime.lock import locked
from marco_jax.runtime.progress import Progress
from marco_jax.training.boards import Boards
from marco_jax.training.checks import check_config
from marco_jax.training.clock import CHECKPOINT, COMPILE
from marco_jax.training.export_hook import ExportHook
from marco_jax.training.faults import Anomalies, Preemption, Rollback, Watchdog
from marco_jax.training.hooks import (
    CheckpointHook,
    EvaluationHook,
    Event,
    MetricsHook,
    ProfileHook,
    ProgressHook,
)
from marco_jax.training.metrics_log import MetricsWriter
from marco_jax.training.run import Run
from marco_jax.training.step import Batch, StepMetrics, TrainState
from marco_jax.training.workdir import check_belongs, record_config
from marco_jax.weights.checkpoints import METRICS, Checkpoints, Meta

_log = logging.getLogger(__name__)

DONE, STOPPED = 0, 143


def train(config: ConfigDict, workdir: str) -> int:
    """Trains as `config` says in `workdir`, from its newest whole checkpoint if it has one.

    Returns:
        0 when all steps are done, 143 when a SIGTERM ended the run after saving.

    Raises:
        ValueError: a config or a workdir that cannot be used, or that another run uses.
        RunFailed: the run cannot go on; what it saved stands.
        FloatingPointError: too many steps without a finite loss.
    """
    check_local("--workdir", workdir)
    directory = pathlib.Path(workdir)
    # Before anything is created.
    check_config(config)
    check_writable("--workdir", directory)
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory):
        loop = _Loop(config, directory)
        try:
            with contextlib.closing(loop):
                return loop.run()
        except (OSError, jax.errors.JaxRuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise RunFailed(
                f"the run has ended after step {loop.writer.clock.step}: {reason}; the same "
                "command resumes from the newest checkpoint"
            ) from error


class _Loop:
    """A run from its newest checkpoint on."""

    def __init__(self, config: ConfigDict, directory: pathlib.Path) -> None:
        self.config, self.directory = config, directory
        # Its fields are checked before data is read.
        self.checkpoints = Checkpoints(directory, config.checkpoint)
        self.parts = parts = Run(config, directory)
        self.state, meta = self._restore()
        self.first = self.read_from = meta["step"]
        parts.record_mixture()
        record_config(config, directory)
        self.anomalies = Anomalies(config.anomaly, parts.describe_batch, self._has_checkpoint)
        self.writer = writer = MetricsWriter(
            directory,
            parts.model,
            parts.feed.labels,
            config.batch.length,
            self.first,
            meta["tokens"],
            self._inspect,
            Boards(directory, config, jax.process_index() == 0),
            parts.trainer.options.model_flops,
        )
        self.metrics = MetricsHook(writer, config.log_every, parts.batch_rows * config.batch.length)
        self.progress = ProgressHook(
            self.metrics, config.steps, self.first, lambda: _newest(self.evaluations)
        )
        self.evaluations = _evaluation(config, parts, directory, writer)
        self.save = CheckpointHook(
            self.checkpoints, parts.model, writer, config.checkpoint.every, self._describe
        )
        self.hooks: list[Callable[[Event], None]] = [
            self.metrics,
            self.progress,
            ProfileHook(directory, config.profile),
            *self.evaluations,
            self.save,
            ExportHook(config, parts, directory, writer),
        ]

    def run(self) -> int:
        """All steps that are left; 0, or 143 after a SIGTERM."""
        clock = self.writer.clock
        preemption = Preemption(clock, self.config.preemption_grace_seconds)
        watchdog = Watchdog(clock, self.config.stall_seconds)
        with contextlib.closing(watchdog), preemption.handled():
            while True:
                try:
                    code = self._steps(preemption)
                except Rollback as rollback:
                    self._roll_back(rollback.step)
                    continue
                with clock.part(CHECKPOINT):
                    self.checkpoints.wait()
                if code == STOPPED:
                    saved = f"step {clock.step} is saved" if clock.step else "before its first step"
                    _log.info(f"stopped by SIGTERM: {saved}")
                return code

    def close(self) -> None:
        """Waits for saves and closes the files."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.checkpoints.close)
            stack.callback(self.writer.close)
            stack.callback(self.progress.close)

    def _steps(self, preemption: Preemption) -> int:
        parts, clock = self.parts, self.writer.clock
        clock.step = self.first
        self._call(self._event(self.first))
        if preemption.received:
            return STOPPED
        start = self.read_from
        while start < self.config.steps:
            self._adapt(start)
            stop = parts.next_change(start)
            with contextlib.closing(parts.batches(start, stop)) as batches:
                for step, batch in enumerate(clock.waiting(batches), start=start + 1):
                    # After a rollback batches are passed over.
                    if step > self.first and self._step(step, batch, preemption) == STOPPED:
                        return STOPPED
            start = stop
        return STOPPED if any(hook.cut for hook in self.evaluations) else DONE

    def _step(self, step: int, batch: Batch, preemption: Preemption) -> int | None:
        """One step and its hooks; STOPPED where a signal ends the run after it."""
        parts, clock = self.parts, self.writer.clock
        if step - 1 in parts.stage_ends:
            self.state = parts.trainer.forget_losses(self.state)
        # The first call compiles, and is booked so, its own dispatch with it.
        with self._compiling() if step == self.first + 1 else contextlib.nullcontext():
            self.state, metrics = parts.trainer.step(self.state, batch)
        clock.step = step
        last = step == self.config.steps
        event = self._event(step, metrics, preemption.reached(step) and not last)
        self._call(event)
        # The signal may have come since, and an evaluation been left for it.
        if preemption.received and not last:
            self.save(dataclasses.replace(event, stopping=True))
            return STOPPED
        return None

    @contextlib.contextmanager
    def _compiling(self) -> Iterator[None]:
        with self.writer.clock.part(COMPILE), Progress("compiling the train step"):
            yield

    def _adapt(self, step: int) -> None:
        """Changes the mixture's weights where they follow the losses; those are read first."""
        if not self.parts.adaptive:
            return
        self.writer.flush()
        shares = self.parts.adapt(step)
        self.writer.always = {
            f"share/{name}": share for name, share in self.parts.feed.shares(step).items()
        }
        if shares:
            text = ", ".join(f"{name} {share:.2%}" for name, share in shares.items())
            _log.info(f"shares from step {step} on: {text}")

    def _inspect(self, row: dict[str, Any]) -> None:
        """Looks at a line of metrics before it is written."""
        self.anomalies.inspect(row)
        if self.parts.adaptive:
            self.parts.adaptive.observe(row)

    def _call(self, event: Event) -> None:
        for hook in self.hooks:
            hook(event)

    def _event(
        self, step: int, metrics: StepMetrics | None = None, stopping: bool = False
    ) -> Event:
        stage = self.parts.stage_at(max(step - 1, 0))
        boundary = step in self.parts.stage_ends
        return Event(step, stage, self.state, metrics, boundary, stopping)

    def _restore(self, frozen: Params | None = None) -> tuple[TrainState, Meta]:
        """The state to go on from, and what belongs to it; `frozen` where it is at hand."""
        parts, trainer = self.parts, self.parts.trainer
        here = parts.identity() | {"model": dataclasses.asdict(parts.model)}
        restored = self.checkpoints.restore_newest(
            trainer.abstract_state().saved()[0], lambda meta: check_belongs(meta, here)
        )
        if restored is None:
            if (self.directory / "metrics.jsonl").exists():
                _log.info("the last run here ended before its first checkpoint: starting at step 0")
            return parts.initial_state(), {"step": 0, "tokens": 0}
        arrays, meta = restored
        state = TrainState.restored(arrays, meta, trainer.options.guard)
        _log.info(f"resuming at step {meta['step']}")
        parts.resume(meta.get("data", {}), meta["step"])
        # What does not train has not changed since the run began.
        return state._replace(frozen=parts.frozen() if frozen is None else frozen), meta

    def _describe(self, step: int) -> Meta:
        """What the checkpoint of a step holds besides the state, and figures to choose it by."""
        meta = self.parts.identity()
        meta |= {"tokens": self.writer.tokens, "data": self.parts.data_state(step)}
        rows = [self.metrics.last, *(hook.last for hook in self.evaluations)]
        name = self.config.checkpoint.keep_best.removeprefix("-")
        found = [row[name] for row in rows if row and row["step"] == step and row.get(name)]
        return meta | {METRICS: {name: found[0]} if found else {}}

    def _has_checkpoint(self) -> bool:
        self.checkpoints.wait()
        return self.checkpoints.latest() is not None

    def _roll_back(self, step: int) -> None:
        """Takes the parameters of the newest checkpoint to the batch after `step`."""
        state, meta = self._restore(self.state.frozen)
        self.state = self.parts.trainer.pass_over(state, step - meta["step"])
        self.first, self.read_from = step, meta["step"]
        _log.warning(
            f"rolled back to the parameters of step {meta['step']}: the batches of steps "
            f"{meta['step'] + 1} to {step} are passed over"
        )


def _evaluation(
    config: ConfigDict, run: Run, directory: pathlib.Path, writer: MetricsWriter
) -> list[EvaluationHook]:
    if run.evaluators is None:
        return []
    fields = config.evaluation
    # Random weights have no figures worth their time; a given model's are the baseline.
    at_start = bool(config.init_from) and fields.at_start
    hook = EvaluationHook(
        *run.evaluators,
        directory,
        writer,
        fields.every,
        at_start=at_start,
        model_params=run.trainer.model_params,
    )
    return [hook]


def _newest(evaluations: Sequence[EvaluationHook]) -> str:
    """The first figure of the newest evaluation in print; empty before any."""
    return next((hook.headline for hook in evaluations if hook.headline), "")
