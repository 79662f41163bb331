"""Training metrics: one JSON line a step in metrics.jsonl, and TensorBoard."""

from __future__ import annotations

import json
import math
import os
import pathlib
from typing import Any

import jax
import numpy as np
import tensorboardX

from marco_jax.model.config import Qwen2Config
from marco_jax.training.chips import CHIPS
from marco_jax.training.clock import Clock
from marco_jax.training.step import StepMetrics

# Peak dense bf16 FLOP/s of one device as JAX counts devices, by jax's device_kind (the vendors'
# data sheets). A kind that is not here has no MFU.
PEAK_FLOPS = {
    **{kind: chip.peak_flops for chip in CHIPS.values() for kind in chip.kinds},
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}


class MetricsWriter:
    """Collects step metrics on the device and writes them out when asked.

    Fetching is what waits for the device, so it is done rarely; still every step has its line.
    Speeds and the times of `clock`, which whoever does something else books, are means of the
    steps that are written together.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        config: Qwen2Config,
        sources: tuple[str, ...],
        length: int,
        first_step: int,
    ) -> None:
        """Opens the files; lines of steps after `first_step` (of a killed run) are dropped."""
        self._path = workdir / "metrics.jsonl"
        self._tokens = _drop_after(self._path, first_step)
        self._board = tensorboardX.SummaryWriter(str(workdir / "tensorboard"), flush_secs=30)
        self._sources = sources
        self._flops_per_token = config.flops_per_token(length)
        peak = PEAK_FLOPS.get(jax.devices()[0].device_kind)
        self._peak = peak and peak * jax.device_count()
        self._pending: list[tuple[int, str, int, StepMetrics]] = []
        self.clock = Clock()

    def add(self, step: int, stage: str, places: int, metrics: StepMetrics) -> None:
        """Keeps the metrics of finished step `step`; `places` counts tokens and padding."""
        self._pending.append((step, stage, places, metrics))

    def flush(self) -> dict[str, Any] | None:
        """Writes the kept lines; returns the last one, or None when there was none."""
        if not self._pending:
            return None
        fetched = jax.device_get([metrics for *_, metrics in self._pending])
        total = sum(float(metrics.token_counts.sum()) for metrics in fetched)
        times = self.clock.lap(len(fetched))
        rate = total / (times["step_seconds"] * len(fetched))
        rows = []
        for (step, stage, places, _), metrics in zip(self._pending, fetched, strict=True):
            rows.append(self._row(step, stage, places, metrics, rate) | times)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
        for row in rows:
            for name, value in row.items():
                if isinstance(value, float):
                    tag = name if "/" in name else f"train/{name}"
                    self._board.add_scalar(tag, value, row["step"])
        self._pending.clear()
        return rows[-1]

    def scalar(self, name: str, value: float, step: int) -> None:
        """Writes one figure to TensorBoard."""
        self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes what is left and closes the files."""
        self.flush()
        self._board.close()

    def _row(
        self, step: int, stage: str, places: int, metrics: StepMetrics, rate: float
    ) -> dict[str, Any]:
        tokens = float(metrics.token_counts.sum())
        self._tokens += int(tokens)
        row = {
            "step": step,
            "stage": stage,
            "loss": float(metrics.loss_sums.sum(dtype=np.float64) / max(tokens, 1.0)),
            "learning_rate": float(metrics.learning_rate),
            "grad_norm": float(metrics.grad_norm),
            "tokens": self._tokens,
            "tokens_per_second": rate,
            "mfu": self._peak and rate * self._flops_per_token / self._peak,
            "padding": 1.0 - tokens / places,
        }
        columns = zip(self._sources, metrics.loss_sums, metrics.token_counts, strict=True)
        for source, loss_sum, count in columns:
            if count:
                row[f"loss/{source}"] = float(loss_sum / count)
                row[f"tokens/{source}"] = int(count)
        if not math.isfinite(row["loss"]):
            raise FloatingPointError(
                f"the loss of step {step} is {row['loss']}: lower the learning rate, "
                "or look at the rows of this step"
            )
        return row


def read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; a last line cut by a kill is left out."""
    rows = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows


def _drop_after(path: pathlib.Path, step: int) -> int:
    """Keeps the lines up to `step`; returns the tokens counted so far."""
    rows = [row for row in read_metrics(path) if row["step"] <= step]
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    os.replace(temporary, path)
    return rows[-1]["tokens"] if rows else 0
