"""The train loop: what a run is made of, and its steps with the hooks that follow each."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from marco_jax.data.corpus import Corpus
from marco_jax.data.load import load_corpus
from marco_jax.data.run_tokenizer import find_tokenizer
from marco_jax.data.training_data import TrainingData
from marco_jax.model.mesh import Sharding
from marco_jax.reinforcement.prompt_data import PromptData
from marco_jax.runtime.device_memory import make_room_on_cpu
from marco_jax.runtime.errors import RunFailed
from marco_jax.runtime.lock import locked
from marco_jax.runtime.processes import first_process_first
from marco_jax.runtime.progress import Progress
from marco_jax.tokenizers.tokenizer import Tokenizer
from marco_jax.trackers.tracked_run import start_trackers
from marco_jax.training.assemble import (
    create_sharding,
    create_trainer,
    global_rows,
    keep_batch,
)
from marco_jax.training.checks import check_model, check_sources, check_start
from marco_jax.training.clock import CHECKPOINT, COMPILE, Clock
from marco_jax.training.config import GRPO, RunPlan, model_config, plan_run
from marco_jax.training.faults import Anomalies, Preemption, Rollback, Watchdog
from marco_jax.training.hooks import CheckpointHook, Event, MetricsHook, ProgressHook, SnapshotHook
from marco_jax.training.metrics_log import MetricsWriter
from marco_jax.training.outputs import (
    EvaluationHook,
    Evaluators,
    ExportHook,
    ProfileHook,
    create_evaluators,
    update_evaluators,
)
from marco_jax.training.references import cached_references, pairs_per_row
from marco_jax.training.restore import Restorer, record_config, record_environment
from marco_jax.training.rollout_seat import RolloutSeat
from marco_jax.training.seat import Seat
from marco_jax.training.state import Batch, StepMetrics, TrainState
from marco_jax.training.step import Trainer
from marco_jax.weights.checkpoints import METRICS, Checkpoints, Meta
from marco_jax.weights.models import FoundModel, find_model
from marco_jax.weights.snapshots import Snapshots

_log = logging.getLogger(__name__)

DONE, STOPPED = 0, 143


def train(
    config: ConfigDict,
    workdir: str,
    seat: Seat | None = None,
    started: float | None = None,
    config_path: str = "",
) -> int:
    """Trains as `config` says in `workdir`, from its newest whole checkpoint if it has one.

    Args:
        config: of the run.
        workdir: of the run alone.
        seat: how the run shares its process with others; by default it is alone.
        started: when this attempt of the run was started, in seconds since 1970; default: now.
        config_path: of the config file, for a reader of the run; "": it has none.

    Returns:
        0 when all steps are done, 143 when a SIGTERM ended the run after saving.

    Raises:
        ValueError: a config or a workdir that cannot be used, or that another run uses.
        RunFailed: the run cannot go on; what it saved is kept.
        FloatingPointError: too many steps without a finite loss.
    """
    started = time.time() if started is None else started
    # Before anything is created.
    directory = check_start(config, workdir)
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory):
        checkpoints = Checkpoints(directory, config.checkpoint)
        snapshots = Snapshots(directory, config.checkpoint)

        # Mesh, and the steps that the run takes on it.
        sharding = create_sharding(config)
        keep_batch(config, sharding, directory)
        plan = plan_run(config, global_rows(config, sharding))
        record_environment(config, directory, started, config_path)

        # Data: text, its tokenizer, and batches by step. What can be refused is refused before
        # sources are tokenised, which may take hours.
        with Progress(f"reading {config.data}"):
            corpus = load_corpus(config.data, config.seed, config.data_errors)
        check_sources(config, plan.stages, corpus.infos())
        own = bool(config.tokenizer.path)
        base = find_model(config.init_from, weights_only=own) if config.init_from else None
        with first_process_first("tokenizer"):
            tokenizer = find_tokenizer(config, corpus, directory, base and base.tokenizer)
        model = base.config if base else model_config(config, tokenizer.vocab_size)
        check_model(config, model, tokenizer, sharding, directory)
        evaluators = create_evaluators(config, corpus, tokenizer, model, sharding)
        data = _read_data(config, directory, corpus, tokenizer, plan, base, sharding)
        evaluators = update_evaluators(evaluators, config, corpus, tokenizer, model, sharding)

        # Model and optimizer: the compiled step.
        labels, size = data.labels, tokenizer.vocab_size
        trainer = create_trainer(config, model, sharding, len(labels), size, plan.stages)

        # Restore: the newest whole checkpoint, or the first state.
        restorer = Restorer(
            config, directory, checkpoints, snapshots, trainer, base, tokenizer.fingerprint
        )
        state, meta = restorer.restore(data)
        make_room_on_cpu(state.arrays)
        data.record()
        record_config(config, directory, state, sharding)

        # Hooks: what follows a step.
        trackers = start_trackers(directory, config, meta["step"], first=not jax.process_index())
        writer = MetricsWriter(directory, trainer, labels, plan.length, meta, trackers, started)
        seat = seat or _seat_alone(config, tokenizer, directory)
        outputs = _outputs(config, evaluators, trainer, tokenizer, directory, writer, seat)
        seat.take(trainer, data, writer)
        loop = _Loop(
            *(config, plan, data, trainer, restorer, checkpoints, snapshots),
            *(writer, outputs, state, seat),
        )

        # Steps.
        with _failures(writer.clock), contextlib.closing(data), contextlib.closing(loop):
            return loop.run()


def _read_data(
    config: ConfigDict,
    directory: pathlib.Path,
    corpus: Corpus,
    tokenizer: Tokenizer,
    plan: RunPlan,
    base: FoundModel | None,
    sharding: Sharding,
) -> TrainingData | PromptData:
    """The data of a run, which is tokenised here: texts, or prompts that the model answers."""
    if config.objective == GRPO:
        return PromptData(config, directory, corpus, tokenizer, plan)
    references = cached_references(config, base, tokenizer, sharding)
    return TrainingData(
        config, directory, corpus, tokenizer, plan, references, pairs_per_row(config)
    )


def _seat_alone(config: ConfigDict, tokenizer: Tokenizer, directory: pathlib.Path) -> Seat:
    """The seat of a run that has the process to itself."""
    return RolloutSeat(config, tokenizer, directory) if config.objective == GRPO else Seat()


class _Outputs(NamedTuple):
    """The hooks that write what is neither metrics nor checkpoints."""

    profile: ProfileHook
    evaluations: list[EvaluationHook]
    export: ExportHook


class _Loop:
    """The steps that are left of a run."""

    def __init__(
        self,
        config: ConfigDict,
        plan: RunPlan,
        data: TrainingData | PromptData,
        trainer: Trainer,
        restorer: Restorer,
        checkpoints: Checkpoints,
        snapshots: Snapshots,
        writer: MetricsWriter,
        outputs: _Outputs,
        state: TrainState,
        seat: Seat,
    ) -> None:
        self.config, self.plan, self.data, self.trainer = config, plan, data, trainer
        self.restorer, self.checkpoints, self.writer = restorer, checkpoints, writer
        self.state, self.seat = state, seat
        # Finished steps, and the step whose batch is read next: after a rollback it is earlier.
        self.first = self.read_from = writer.clock.step
        self.anomalies = Anomalies(config.anomaly, data.describe_batch, self._has_checkpoint)
        writer.inspect = self._inspect
        self.metrics = MetricsHook(writer, config.log_every, plan.tokens_per_step)
        self.evaluations = outputs.evaluations
        self.progress = ProgressHook(
            *(self.metrics, config.steps, self.first, self._headline), shown=seat.is_alone
        )
        self.save = CheckpointHook(
            checkpoints, trainer.config, writer, config.checkpoint.every, self._describe
        )
        self.snapshots = snapshots
        snapshot = SnapshotHook(snapshots, trainer.config, writer, self._describe)
        self.hooks: list[Callable[[Event], None]] = [
            self.metrics,
            self.progress,
            outputs.profile,
            *self.evaluations,
            snapshot,
            self.save,
            outputs.export,
        ]

    def run(self) -> int:
        """Takes all steps that are left; returns 0, or 143 after a SIGTERM."""
        clock = self.writer.clock
        preemption = self.seat.preemption(self.config.preemption_grace_seconds)
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
                self.writer.record_time()
                for line in self.writer.attempts.describe() if self.seat.is_alone else ():
                    _log.info(line)
                if code == STOPPED:
                    saved = f"step {clock.step} is saved" if clock.step else "before its first step"
                    _log.info(f"stopped by SIGTERM: {saved}")
                return code

    def close(self) -> None:
        """Waits for saves and closes the files."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.checkpoints.close)
            stack.callback(self.snapshots.wait)
            stack.callback(self.writer.close)
            stack.callback(self.progress.close)

    def _steps(self, preemption: Preemption) -> int:
        clock = self.writer.clock
        clock.step = self.first
        clock.begin_steps()
        self._call(self._event(self.first))
        if preemption.received:
            return STOPPED
        start = self.read_from
        while start < self.config.steps:
            self._adapt(start)
            stop = self.data.next_change(start)
            with contextlib.closing(self.seat.batches(start, stop)) as batches:
                for step, batch in enumerate(clock.waiting(batches), start=start + 1):
                    # After a rollback the batches up to it are passed over.
                    if step <= self.first:
                        continue
                    if self._step(step, batch, preemption) == STOPPED:
                        return STOPPED
            start = stop
        return STOPPED if any(hook.cut for hook in self.evaluations) else DONE

    def _step(self, step: int, batch: Batch, preemption: Preemption) -> int | None:
        """One step and its hooks; STOPPED where a signal ends the run after it."""
        clock = self.writer.clock
        if step - 1 in self.plan.ends:
            self.state = self.trainer.forget_losses(self.state)
        # The first call compiles, and its time is booked as compilation, its own step included.
        compiles = step == self.first + 1 and self.seat.is_alone
        with self._compiling() if compiles else contextlib.nullcontext():
            self.state, metrics = self.seat.step(self.state, batch)
        clock.step = step
        last = step == self.config.steps
        event = self._event(step, metrics, preemption.reached(step) and not last)
        self._call(event)
        self.writer.record_time(due_only=True)
        # The signal may have come since, and ended an evaluation.
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
        if not self.data.is_adaptive:
            return
        self.writer.flush()
        shares = self.data.adapt(step)
        self.writer.always = {
            f"share/{name}": share for name, share in self.data.shares(step).items()
        }
        if shares:
            text = ", ".join(f"{name} {share:.2%}" for name, share in shares.items())
            _log.info(f"shares from step {step} on: {text}")

    def _inspect(self, row: dict[str, Any]) -> None:
        """Looks at a line of metrics before it is written; may raise to end or roll back."""
        self.anomalies.inspect(row)
        self.data.observe(row)

    def _call(self, event: Event) -> None:
        for hook in self.hooks:
            hook(event)

    def _event(
        self, step: int, metrics: StepMetrics | None = None, stopping: bool = False
    ) -> Event:
        stage = self.plan.stage_at(max(step - 1, 0))
        return Event(step, stage, self.state, metrics, step in self.plan.ends, stopping)

    def _describe(self, step: int) -> Meta:
        """The meta of a checkpoint: what a restart needs besides arrays, and the best metric."""
        meta = self.restorer.identity()
        meta |= {"tokens": self.writer.tokens, "data": self.data.state(step)}
        rows = [self.metrics.last, *(hook.last for hook in self.evaluations)]
        name = self.config.checkpoint.keep_best.removeprefix("-")
        found = [row[name] for row in rows if row and row["step"] == step and row.get(name)]
        return meta | {METRICS: {name: found[0]} if found else {}}

    def _headline(self) -> str:
        """The first means of the newest evaluation; empty before any."""
        return next((hook.headline for hook in self.evaluations if hook.headline), "")

    def _has_checkpoint(self) -> bool:
        self.checkpoints.wait()
        return self.checkpoints.latest() is not None

    def _roll_back(self, step: int) -> None:
        """Takes the parameters of the newest checkpoint to the batch after `step`."""
        with self.writer.clock.part(CHECKPOINT):
            state, meta = self.restorer.restore(self.data, self.state.frozen)
        self.state = self.trainer.pass_over(state, step - meta["step"])
        self.writer.attempts.lose_after(meta["step"])
        self.first, self.read_from = step, meta["step"]
        _log.warning(
            f"rolled back to the parameters of step {meta['step']}: the batches of steps "
            f"{meta['step'] + 1} to {step} are passed over"
        )


def _outputs(
    config: ConfigDict,
    evaluators: Evaluators | None,
    trainer: Trainer,
    tokenizer: Tokenizer,
    directory: pathlib.Path,
    writer: MetricsWriter,
    seat: Seat,
) -> _Outputs:
    fields, evaluations = config.evaluation, []
    if evaluators is not None:
        hook = EvaluationHook(
            evaluators,
            directory,
            writer,
            fields.every,
            # A random model is not worth an evaluation; the model of init_from is the baseline.
            at_start=bool(config.init_from) and fields.at_start,
            max_seconds=fields.max_seconds,
            model_params=trainer.model_params,
            between=seat.between_batches,
        )
        evaluations.append(hook)
    return _Outputs(
        ProfileHook(directory, config.profile),
        evaluations,
        ExportHook(config, trainer, tokenizer, directory, writer),
    )


@contextlib.contextmanager
def _failures(clock: Clock) -> Iterator[None]:
    """Turns what the storage or a device raises into one line that names the step."""
    try:
        yield
    except (OSError, jax.errors.JaxRuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise RunFailed(
            f"the run has ended after step {clock.step}: {reason}; the same command resumes from "
            "the newest checkpoint"
        ) from error
