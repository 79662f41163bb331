"""The train loop: a step, then a list of hooks."""

from __future__ import annotations

import contextlib
import json
import pathlib
import signal
from collections.abc import Callable, Iterator

import jax
from ml_collections import ConfigDict

from marco_jax.training.checkpoint import Checkpoints, write_json
from marco_jax.training.clock import COMPILE
from marco_jax.training.config import changed_fields
from marco_jax.training.hooks import (
    CheckpointHook,
    EvaluationHook,
    Event,
    MetricsHook,
    ProfileHook,
    ProgressHook,
    say,
)
from marco_jax.training.metrics import MetricsWriter
from marco_jax.training.run import Run

DONE, STOPPED = 0, 143


def train(config: ConfigDict, workdir: str) -> int:
    """Trains as `config` says in `workdir`, from its newest checkpoint if it has one.

    Returns:
        0 when all steps are done, 143 when a SIGTERM ended the run after saving.
    """
    directory = pathlib.Path(workdir)
    directory.mkdir(parents=True, exist_ok=True)
    _record_config(config, directory)
    run = Run(config, directory)
    checkpoints = Checkpoints(directory, keep=config.checkpoint.keep or None)
    first = checkpoints.latest()
    if first is None:
        state = run.initial_state()
    else:
        say(f"resuming at step {first}")
        state, meta = checkpoints.restore(first, run.trainer.abstract_state())
        run.resume(meta["data"], first)
    run.record_mixture()
    first = first or 0
    writer = MetricsWriter(directory, run.model, run.feed.sources, config.batch.length, first)
    metrics = MetricsHook(writer, config.log_every, run.batch_rows * config.batch.length)
    progress = ProgressHook(metrics, config.steps, first)
    hooks: list[Callable[[Event], None]] = [
        metrics,
        progress,
        ProfileHook(directory, config.profile),
        *_evaluation(config, run, directory, writer),
        CheckpointHook(checkpoints, run.model, run.data_state, writer, config.checkpoint.every),
    ]

    def call(event: Event) -> None:
        for hook in hooks:
            hook(event)

    with contextlib.ExitStack() as stack:
        stack.callback(checkpoints.close)
        stack.callback(writer.close)
        stack.callback(progress.close)
        stopped = stack.enter_context(_sigterm())
        batches = stack.enter_context(contextlib.closing(run.batches(first)))
        if first == 0:
            call(Event(0, run.stage_at(0), state, None))
        for step, batch in enumerate(writer.clock.waiting(batches), start=first + 1):
            # The first call compiles, and is booked so, its own dispatch with it.
            with writer.clock.part(COMPILE) if step == first + 1 else contextlib.nullcontext():
                state, step_metrics = run.trainer.step(state, batch)
            stopping = stopped() and step < config.steps
            boundary = step in run.stage_ends
            call(Event(step, run.stage_at(step - 1), state, step_metrics, boundary, stopping))
            if stopping:
                say(f"stopped by SIGTERM: step {step} is saved")
                return STOPPED
    return DONE


def _evaluation(
    config: ConfigDict, run: Run, directory: pathlib.Path, writer: MetricsWriter
) -> list[EvaluationHook]:
    if not config.evaluation.tasks:
        return []
    fields = config.evaluation
    engine = run.engine()
    evaluators = [run.evaluator(engine, tasks) for tasks in (fields.tasks, fields.every_tasks)]
    # Random weights have no figures worth their time; a given model's are the baseline.
    at_start = bool(config.init_from)
    return [EvaluationHook(*evaluators, directory, writer, fields.every, at_start=at_start)]


def _record_config(config: ConfigDict, directory: pathlib.Path) -> None:
    path = directory / "config.json"
    resolved = json.loads(config.to_json())
    if path.exists():
        for line in changed_fields(json.loads(path.read_text(encoding="utf-8")), resolved):
            say(f"config changed since this workdir's last run: {line}")
    if jax.process_index() == 0:
        write_json(path, resolved)


@contextlib.contextmanager
def _sigterm() -> Iterator[Callable[[], bool]]:
    """Turns SIGTERM into a question that the loop asks after each step."""
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGTERM, before)
