"""Measures what the runs of a sweep take, by a few steps of some of them: `sweep --dry_run`."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Sequence

import jax
from ml_collections import ConfigDict

from marco_jax.ablation.proxies import STOPPED, Proxy, Runs
from marco_jax.files import remove_tree
from marco_jax.languages import names_in
from marco_jax.reports.run_data import read_metrics
from marco_jax.runtime.errors import RunFailed
from marco_jax.runtime.processes import barrier

# Of a run of the trial. Evaluations and checkpoints between steps, where the sweep's runs have any,
# come after steps 2 and 4; the first evaluation compiles, the second is timed.
STEPS, _EVERY, _TIMED = 6, 2, slice(2, 6)


@dataclasses.dataclass(frozen=True)
class RunCost:
    """Seconds that runs of one shape take on the devices of the trial.

    Attributes:
        compile: of all programs, once for all runs: later ones find them in JAX's cache.
        start: of a group of runs, whatever comes once: loading, the evaluation and the checkpoint
            at the end.
        step: of a step of all runs of a group.
        evaluation: of a group's evaluation between steps.
        checkpoint: of a group's checkpoint between steps.
        lanes: runs of a group, which train at once.
    """

    compile: float
    start: float
    step: float
    evaluation: float
    checkpoint: float
    lanes: int

    def seconds(self, config: ConfigDict, runs: int, steps: int) -> float:
        """Of `runs` runs of `steps` steps each."""
        group = self.start + steps * self.step
        group += _between(config.evaluation.every, steps) * self.evaluation
        group += _between(config.checkpoint.every, steps) * self.checkpoint
        return self.compile + math.ceil(runs / self.lanes) * group

    def line(self) -> str:
        """What was measured, in print."""
        many = f" of {self.lanes} runs at once" if self.lanes > 1 else ""
        parts = [f"{self.step:.3g} s a step{many}", f"{self.start:.0f} s a run besides"]
        if self.evaluation:
            parts.append(f"{self.evaluation:.1f} s an evaluation")
        if self.checkpoint:
            parts.append(f"{self.checkpoint:.1f} s a checkpoint")
        return f"measured here: {', '.join(parts)}, {self.compile:.0f} s to compile"


def time_runs(
    config: ConfigDict,
    proxies: Sequence[Proxy],
    root: pathlib.Path,
    train: Callable[..., int],
    lanes: int = 1,
    now: Callable[[], float] = time.perf_counter,
) -> RunCost | None:
    """Trains two groups of runs for a few steps each, the first of which compiles.

    Args:
        config: of the sweep.
        proxies: the runs to try, of one shape.
        root: a folder for their workdirs, which is deleted.
        train: `marco_jax.training.loop.train`.
        lanes: runs that train at once.
        now: seconds on a clock.

    Returns:
        What they cost; None after a SIGTERM.

    Raises:
        RunFailed: a run has failed, as all others would.
    """
    config = _shortened(config)
    walls, rows = [], []
    try:
        for group in range(2):
            tried = [_tried(proxies, group * lanes + number) for number in range(lanes)]
            runs = Runs(root, config, tried, train, lanes)
            start = now()
            if runs.run() == STOPPED:
                return None
            walls.append(now() - start)
            for proxy in tried:
                if reason := runs.state(proxy).reason:
                    raise RunFailed(f"a run of {STEPS} steps has failed: {reason}")
            rows = [read_metrics(runs.workdir(proxy) / "metrics.jsonl") for proxy in tried]
            # All processes have read them before the first deletes them.
            barrier("trial")
    finally:
        if jax.process_index() == 0:
            remove_tree(root, ignore_errors=True)
    return _cost(config, walls, rows, lanes)


def _shortened(config: ConfigDict) -> ConfigDict:
    """The config of runs of a few steps."""
    evaluated = _between(config.evaluation.every, config.steps)
    saved = _between(config.checkpoint.every, config.steps)
    config = config.copy_and_resolve_references()
    config.steps, config.log_every = STEPS, 1
    for name in names_in(config.stages):
        if config.stage[name].get("steps", 0):
            config.stage[name].steps = STEPS
    config.evaluation.every = _EVERY if evaluated else 0
    config.checkpoint.every = _EVERY if saved else STEPS + 1
    return config


def _tried(proxies: Sequence[Proxy], number: int) -> Proxy:
    changes = dict(proxies[number % len(proxies)].changes) | {"evaluation.at_start": False}
    return Proxy(f"trial{number}", changes)


def _cost(
    config: ConfigDict, walls: Sequence[float], rows: Sequence[list[dict]], lanes: int
) -> RunCost:
    """From the seconds of both groups, and the metrics of the second one's runs."""
    timed = [row["step_seconds"] for row in rows[0][_TIMED]]
    step = sum(timed) / len(timed)
    # One run of a group after the other evaluates and saves: their times add up. The row after the
    # last evaluation between steps has the sum of all so far.
    evaluation = checkpoint = 0.0
    if config.evaluation.every:
        evaluation = sum(run[-1]["evaluation_seconds"] for run in rows) / 2
    if config.checkpoint.every <= STEPS:
        checkpoint = sum(run[-1]["checkpoint_seconds"] for run in rows) / 2
    start = walls[1] - STEPS * step - 2 * (evaluation + checkpoint)
    compiling = max(0.0, walls[0] - walls[1])
    return RunCost(compiling, max(0.0, start), step, evaluation, checkpoint, lanes)


def _between(every: int, steps: int) -> int:
    """How often something happens before the last step that happens every so many steps."""
    return (steps - 1) // every if every else 0
