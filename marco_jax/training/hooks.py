"""Periodic work of the loop. A hook is called after every step and decides whether it is due."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from tqdm import tqdm

from marco_jax.evaluation.evaluator import Evaluator
from marco_jax.evaluation.results import ALL, HIGH, LOW, Result, write_results
from marco_jax.model.parameters import Params
from marco_jax.model.qwen2_config import Qwen2Config
from marco_jax.runtime.processes import agree
from marco_jax.training.clock import CHECKPOINT, EVALUATION
from marco_jax.training.config import profiled_steps
from marco_jax.training.faults import Preempted
from marco_jax.training.metrics_log import MetricsWriter
from marco_jax.training.step import StepMetrics, TrainState
from marco_jax.weights.checkpoints import Checkpoints

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

    def __init__(self, writer: MetricsWriter, every: int, places: int) -> None:
        """`places` is the number of places (tokens and padding) of a global batch."""
        self.writer, self.every, self.places = writer, every, places
        self.last: dict[str, Any] | None = None

    def __call__(self, event: Event) -> None:
        """Keeps the step's metrics and writes them when due."""
        if event.metrics is None:
            return
        self.writer.add(event.step, event.stage, self.places, event.metrics)
        if event.due(self.every) or event.stopping:
            self.last = self.writer.flush() or self.last


class EvaluationHook:
    """Scores the training parameters where they lie and writes eval/<step>.json."""

    def __init__(
        self,
        evaluator: Evaluator,
        frequent: Evaluator,
        workdir: pathlib.Path,
        writer: MetricsWriter,
        every: int,
        *,
        at_start: bool,
        model_params: Callable[[TrainState], Params] = lambda state: state.params,
    ) -> None:
        """All tasks at stage ends (and before the first step if `at_start`), some more often.

        Args:
            evaluator: of all tasks.
            frequent: of the tasks that run every `every` steps as well.
            workdir: where eval/<step>.json goes.
            writer: of TensorBoard figures; evaluations are booked on its clock.
            every: 0 for stage ends alone.
            at_start: whether the parameters that the run starts from are evaluated.
            model_params: of a state, those of the model.
        """
        self.evaluator, self.frequent = evaluator, frequent
        self.workdir, self.writer = workdir, writer
        self.every, self.at_start, self.model_params = every, at_start, model_params
        # The figures of the step that was evaluated last, by name, with its `step`.
        self.last: dict[str, Any] = {}
        # Whether the last evaluation was left for a signal.
        self.cut = False
        # The first mean of the last evaluation, in print.
        self.headline = ""

    def __call__(self, event: Event) -> None:
        """Evaluates when due, and after a restart where the figures of its step are missing."""
        due = self.at_start if event.step == 0 else event.due(self.every)
        if event.stopping or not due:
            return
        out = self.workdir / "eval" / f"{event.step}.json"
        restarted = event.metrics is None and event.step > 0
        # What one process sees, all go by: file systems may tell them at different times.
        if restarted and agree("there" if out.exists() else ""):
            return
        whole = event.boundary or event.step == 0
        self.writer.flush()
        start = time.perf_counter()
        try:
            with self.writer.clock.part(EVALUATION):
                evaluator = self.evaluator if whole else self.frequent
                evaluation = evaluator.run(self.model_params(event.state))
        except Preempted:
            _log.info(f"SIGTERM: the evaluation at step {event.step} is left for the restart")
            self.cut = True
            return
        elapsed = time.perf_counter() - start
        if jax.process_index() == 0:
            write_results(out, evaluation.results)
        figures = {
            f"eval/{r.task}/{r.metric}/{r.language}" + (f"/{r.part}" if r.part else ""): r.value
            for r in evaluation.results
        }
        self.last = {"step": event.step, **figures}
        for name, value in figures.items():
            self.writer.scalar(name, value, event.step)
        _log.info(f"evaluation at step {event.step} ({event.stage}), {elapsed:.0f} s")
        for line in _means(evaluation.results):
            _log.info(line)
        for result in evaluation.results:
            if result.language == ALL:
                self.headline = f"{result.task} {result.value:.3f} at step {event.step}"
                break


def _means(results: Sequence[Result]) -> Iterator[str]:
    """A line a task and metric: its means over all, high- and low-resource languages."""
    rows: dict[tuple[str, str], list[str]] = {}
    for result in results:
        if result.language in (ALL, HIGH, LOW):
            figure = f"{result.language} {result.value:7.3f} ± {result.stderr:.3f}"
            rows.setdefault((result.task, result.metric), []).append(figure)
    for (task, metric), figures in rows.items():
        name = task if task == metric else f"{task} {metric}"
        yield f"  {name:<32}" + "   ".join(figures)


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
        meta = {"stage": event.stage, **self.describe(event.step)}
        with self.writer.clock.part(CHECKPOINT):
            arrays, about = event.state.saved()
            self.checkpoints.save(event.step, arrays, self.config, meta | about)


class ProfileHook:
    """A jax.profiler trace of some steps, under the workdir's profile/ (TensorBoard reads it)."""

    def __init__(self, workdir: pathlib.Path, steps: str) -> None:
        """`steps` is "FIRST:LAST", counted from 1; empty: no trace.

        Raises:
            ValueError: anything else.
        """
        self.directory = str(workdir / "profile")
        self.tracing = False
        self.first, self.last = profiled_steps(steps) or (-1, -1)

    def __call__(self, event: Event) -> None:
        """Starts before the first of its steps, and stops when the last is done."""
        if event.step == self.first - 1:
            jax.block_until_ready(event.state)
            jax.profiler.start_trace(self.directory)
            self.tracing = True
        elif self.tracing and (event.step >= self.last or event.stopping):
            jax.block_until_ready(event.state)
            jax.profiler.stop_trace()
            self.tracing = False
            _log.info(f"trace of steps {self.first} to {event.step}: {self.directory}")


class ProgressHook:
    """A live line on a terminal; a plain line now and then in a log."""

    def __init__(
        self, metrics: MetricsHook, steps: int, first_step: int, evaluated: Callable[[], str]
    ) -> None:
        """Counts from `first_step` to `steps`; `evaluated` has the newest evaluation in print."""
        self.metrics, self.evaluated = metrics, evaluated
        self.live = sys.stderr.isatty()
        self.bar = tqdm(
            total=steps, initial=first_step, disable=not self.live, dynamic_ncols=True, unit="step"
        )
        self.steps, self.first_step, self.start = steps, first_step, time.perf_counter()
        self.printed = self.start

    def __call__(self, event: Event) -> None:
        """Shows the newest figures."""
        if event.metrics is None:
            self.start = self.printed = time.perf_counter()
            return
        self.bar.update(1)
        row, now = self.metrics.last, time.perf_counter()
        if row is None:
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
    """The figures of a line of metrics that a watcher wants."""
    loss = "none" if row["loss"] is None else f"{row['loss']:.3f}"
    parts = [f"loss {loss}", f"{row['tokens_per_second']:,.0f} tokens/s"]
    if row["mfu"]:
        parts.append(f"MFU {row['mfu']:.1%}")
    if evaluated:
        parts.append(evaluated)
    return ", ".join(parts)
