"""Training metrics: one JSON line a step in metrics.jsonl, and the trackers of the run."""

from __future__ import annotations

import json
import logging
import math
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from marco_jax.appended_files import AppendedFile
from marco_jax.files import write_json_lines
from marco_jax.reports.run_data import read_metrics
from marco_jax.runtime.attempts import AttemptLog
from marco_jax.runtime.chips import PEAK_FLOPS
from marco_jax.runtime.device_memory import memory_metrics
from marco_jax.trackers.tracked_run import TrackedRun
from marco_jax.training.clock import Clock
from marco_jax.training.state import StepMetrics
from marco_jax.training.step import Trainer

_log = logging.getLogger(__name__)


class MetricsWriter:
    """Collects step metrics on the device and writes them out when asked.

    Fetching waits for the device, so it is done rarely; still every step has its line. Speeds and
    the times of `clock` are means of the steps that are written together. Speeds count all tokens
    that are read; `tokens` counts target tokens: of conversations the assistant's.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        trainer: Trainer,
        labels: tuple[str, ...],
        length: int,
        meta: Mapping[str, Any],
        trackers: TrackedRun,
        started: float | None = None,
    ) -> None:
        """Opens the files; lines of steps that a restart repeats are dropped.

        Args:
            workdir: where they are.
            trainer: of the run: it knows the FLOPs of a step.
            labels: by source id, a source's name, or "source/language".
            length: positions of a sequence.
            meta: `step` (finished steps) and `tokens` (trained on by then).
            trackers: are given every metric, too; closed with the files.
            started: when this attempt of the run was started, in seconds since 1970; default: now.
        """
        self._path = workdir / "metrics.jsonl"
        if jax.process_index() == 0:
            _drop_after(self._path, meta["step"])
        self._file = AppendedFile(self._path) if jax.process_index() == 0 else None
        self.tokens = meta["tokens"]
        # The newest line that was written.
        self.last: dict[str, Any] | None = None
        # Is given each line before it is written; where it raises, that line is the last one.
        self.inspect: Callable[[dict[str, Any]], None] = lambda row: None
        self._trackers = trackers
        self._groups = _groups(labels)
        flops = trainer.config.flops_per_token(length)
        self._flops_per_token = flops * trainer.options.model_flops
        peak = PEAK_FLOPS.get(jax.devices()[0].device_kind)
        self._peak = peak and peak * jax.device_count()
        self._pending: list[tuple[int, str, int, StepMetrics]] = []
        now = time.time()
        started = now if started is None else started
        first = jax.process_index() == 0
        self.attempts = AttemptLog(workdir, started, meta["step"], write=first)
        self.clock = Clock(started_for=max(now - started, 0.0))
        self.clock.step = meta["step"]
        # Metrics that every line has besides its own.
        self.always: dict[str, float] = {"devices": jax.device_count()}
        # Further metrics of steps that are not written yet, by step.
        self.of_step: dict[int, dict[str, float]] = {}

    def add(self, step: int, stage: str, positions: int, metrics: StepMetrics) -> None:
        """Keeps the metrics of a finished step; `positions` counts tokens and padding."""
        self._pending.append((step, stage, positions, metrics))

    def flush(self) -> dict[str, Any] | None:
        """Writes the kept lines; returns the last one, or None when there was none."""
        if not self._pending:
            return None
        fetched = jax.device_get([metrics for *_, metrics in self._pending])
        total = sum(float(metrics.filled) for metrics in fetched)
        times = self.clock.lap(len(fetched))
        times["goodput"] = self.attempts.update(self.clock.by_cause(), self._pending[-1][0])
        rate = total / (times["step_seconds"] * len(fetched))
        shared = times | self.always | memory_metrics()
        rows: list[dict[str, Any]] = []
        try:
            for (step, stage, positions, _), metrics in zip(self._pending, fetched, strict=True):
                row = self._row(step, stage, positions, metrics, rate) | shared
                rows.append(row | self.of_step.pop(step, {}))
                self.inspect(rows[-1])
        finally:
            self._pending.clear()
            self._write(rows)
            self.attempts.write()
        self.last = rows[-1]
        return self.last

    def _write(self, rows: list[dict[str, Any]]) -> None:
        if self._file is None:
            return
        self._file.write("".join(json.dumps(row) + "\n" for row in rows))
        for row in rows:
            metrics = {
                name if "/" in name else f"train/{name}": value
                for name, value in row.items()
                if isinstance(value, float)
            }
            self._trackers.log(row["step"], metrics)

    def record_time(self, *, due_only: bool = False) -> None:
        """Records where the time of the run has gone; with `due_only` once in some seconds."""
        if not due_only or self.attempts.is_due:
            self.attempts.update(self.clock.by_cause(), self.clock.step)
            self.attempts.write()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Gives further metrics of a step to the trackers alone."""
        self._trackers.log(step, metrics)

    def sync(self) -> None:
        """Makes what is written safe, as it must be before a checkpoint says it is."""
        if self._file is not None:
            self._file.sync()
        self._trackers.sync()

    def close(self) -> None:
        """Closes the files. Lines that are not written yet are of steps that a restart repeats."""
        if self._file is not None:
            self._file.close()
        self._trackers.close()

    def _row(
        self, step: int, stage: str, positions: int, metrics: StepMetrics, rate: float
    ) -> dict[str, Any]:
        self.tokens += int(metrics.token_counts.sum())
        count = max(float(metrics.loss_counts.sum()), 1.0)
        row = {
            "step": step,
            "stage": stage,
            "loss": _finite(metrics.loss_sums.sum(dtype=np.float64) / count),
            "learning_rate": float(metrics.learning_rate),
            "grad_norm": _finite(metrics.grad_norm),
            "tokens": self.tokens,
            "tokens_per_second": rate,
            "mfu": self._peak and rate * self._flops_per_token / self._peak,
            "padding": 1.0 - float(metrics.filled) / positions,
            "skipped_steps": int(metrics.skipped_steps),
        }
        if metrics.skipped:
            row["skipped"] = True
        for name, sums in metrics.metrics.items():
            row[name] = _finite(sums.sum(dtype=np.float64) / count)
        for label, numbers in self._groups.items():
            own = float(metrics.loss_counts[numbers].sum())
            if own:
                row[f"loss/{label}"] = _finite(metrics.loss_sums[numbers].sum() / own)
                row[f"tokens/{label}"] = int(metrics.token_counts[numbers].sum())
                for name, sums in metrics.metrics.items():
                    row[f"{name}/{label}"] = _finite(sums[numbers].sum() / own)
        return row


def _groups(labels: tuple[str, ...]) -> dict[str, list[int]]:
    """The numbers of every label, and of every source that has several."""
    groups: dict[str, list[int]] = {}
    for number, label in enumerate(labels):
        source = label.partition("/")[0]
        for name in dict.fromkeys((source, label)):
            groups.setdefault(name, []).append(number)
    return groups


def _finite(value: Any) -> float | None:
    """A number that JSON has, or None."""
    return float(value) if math.isfinite(value) else None


def _drop_after(path: pathlib.Path, step: int) -> None:
    """Keeps the rows up to `step`; copies a file that does not reach it, and warns."""
    rows = [row for row in read_metrics(path) if row["step"] <= step]
    if step and (not rows or rows[-1]["step"] < step):
        kept = "there was no such file"
        if path.exists():
            aside = path.with_name("metrics.damaged.jsonl")
            aside.write_bytes(path.read_bytes())
            kept = f"what was there: {aside}"
        last = rows[-1]["step"] if rows else 0
        _log.warning(
            f"{path} has no readable lines of steps {last + 1} to {step}; the run goes on "
            f"without them ({kept})"
        )
    write_json_lines(path, rows)
