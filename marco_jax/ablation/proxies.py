"""Trains the runs of a sweep one after the other, each as an ordinary run in its own workdir.

A run already uses the whole mesh, evaluates itself and saves checkpoints. Runs in parallel, by
`vmap` over parameters, would share one data feed and one checkpoint and fail together; they would
gain only if a proxy leaves the mesh idle. In one process, equal programs are compiled once (JAX's
cache), and JAX and TensorFlow start once.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import logging
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from marco_jax.evaluation.results import Result, read_results
from marco_jax.files import write_json
from marco_jax.runtime.processes import agree
from marco_jax.weights.checkpoints import CHECKPOINTS
from marco_jax.weights.manifest import finished_steps

_log = logging.getLogger(__name__)

STATUS = "status.json"
DONE, STOPPED = 0, 143
# A run counts as failed after its process has died so often without a new checkpoint.
_ATTEMPTS = 3


@dataclasses.dataclass(frozen=True)
class Proxy:
    """A run of a sweep: its name, and the config fields that differ from the sweep's."""

    name: str
    changes: Mapping[str, Any]

    def config(self, sweep: ConfigDict) -> ConfigDict:
        """The config of an ordinary training run."""
        config = ConfigDict(sweep.to_dict())
        if "sweep" in config:
            del config["sweep"]
        config.update_from_flattened_dict(dict(self.changes))
        return config


@dataclasses.dataclass(frozen=True)
class State:
    """The recorded state of a run.

    Attributes:
        status: "left" (to do), "running", "done" or "failed".
        seconds: wall-clock time over all starts.
        attempts: consecutive starts after which the process died.
        reason: why the run failed.
        step: step of the newest checkpoint at the last start.
    """

    status: str = "left"
    seconds: float = 0.0
    attempts: int = 0
    reason: str = ""
    step: int = 0


class Runs:
    """The runs below a directory `root`, a workdir each, with what differs from the sweep's config.

    `train` trains a config in a workdir: `marco_jax.training.loop.train`.
    """

    def __init__(
        self,
        root: pathlib.Path,
        config: ConfigDict,
        proxies: Sequence[Proxy],
        train: Callable[[ConfigDict, str], int],
    ) -> None:
        self.root, self.base, self.proxies, self._train = root, config, list(proxies), train
        self._keep = "sweep" in config and config.sweep.keep

    def workdir(self, proxy: Proxy) -> pathlib.Path:
        """The workdir of a run."""
        return self.root / proxy.name

    def state(self, proxy: Proxy) -> State:
        """The state of a run; "done" if its last evaluation exists."""
        try:
            state = State(**json.loads((self.workdir(proxy) / STATUS).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            state = State()
        done = (self.workdir(proxy) / "eval" / f"{self._steps(proxy)}.json").exists()
        return dataclasses.replace(state, status="done") if done else state

    def run(self) -> int:
        """Trains all runs that are not done; returns 143 after a SIGTERM, otherwise 0.

        A failed run is logged and skipped; the next start of the sweep tries it again.
        """
        for proxy in self.proxies:
            if agree("done" if self.state(proxy).status == "done" else ""):
                continue
            changes = (f"{field}={value}" for field, value in proxy.changes.items())
            _log.info(f"{proxy.name}: {', '.join(changes)}")
            if self._run(proxy) == STOPPED:
                return STOPPED
            for line in self.table():
                _log.info(line)
        return DONE

    def _run(self, proxy: Proxy) -> int:
        before, start = self.state(proxy), time.perf_counter()
        saved = self.workdir(proxy) / CHECKPOINTS
        newest = max(finished_steps(saved), default=0) if saved.is_dir() else 0
        # A start that reached a new checkpoint does not count as an attempt.
        stuck = before.status == "running" and newest == before.step
        attempts = before.attempts if stuck else 0
        if attempts >= _ATTEMPTS:
            self._record(proxy, State("failed", before.seconds, 0, "the process died in it"))
            _log.warning(f"{proxy.name} is skipped: the process has died in it {attempts} times")
            return DONE
        # Recorded before training, since a process that dies cannot record it.
        self._record(proxy, State("running", before.seconds, attempts + 1, "", newest))
        code, status, reason = DONE, "done", ""
        try:
            code = self._train(proxy.config(self.base), str(self.workdir(proxy)))
            status = "left" if code == STOPPED else "done"
        except KeyboardInterrupt:
            self._record(proxy, dataclasses.replace(before, status="left"))
            raise
        except Exception as error:  # A failed run must not end the sweep.
            status, reason = "failed", " ".join(f"{type(error).__name__}: {error}".split())
            _log.warning(f"{proxy.name} has failed: {reason}")
        seconds = before.seconds + time.perf_counter() - start
        self._record(proxy, State(status, seconds, 0, reason))
        # Free the memory of programs that later runs do not use.
        jax.clear_caches()
        if status == "done" and not self._keep and jax.process_index() == 0:
            shutil.rmtree(saved, ignore_errors=True)
        return code

    def _record(self, proxy: Proxy, state: State) -> None:
        if jax.process_index() == 0:
            write_json(self.workdir(proxy) / STATUS, dataclasses.asdict(state))

    def _steps(self, proxy: Proxy) -> int:
        return proxy.changes.get("steps", self.base.steps)

    def table(self) -> list[str]:
        """Lines with the numbers of runs by status, the remaining time, and faults."""
        states = [(proxy, self.state(proxy)) for proxy in self.proxies]
        count = collections.Counter(state.status for _, state in states)
        kinds = ("done", "failed", "running", "left")
        line = ", ".join(f"{count[kind]} {kind}" for kind in kinds if count[kind])
        paces = [
            state.seconds / self._steps(proxy)
            for proxy, state in states
            if state.status == "done" and state.seconds
        ]
        waiting = [proxy for proxy, state in states if state.status in ("left", "running")]
        if paces and waiting:
            seconds = sum(map(self._steps, waiting)) * sum(paces) / len(paces)
            line += f"; {seconds / 60:.0f} min to go"
        failed = [f"  {proxy.name} failed: {s.reason}" for proxy, s in states if s.reason]
        return [f"runs: {line}", *failed]

    def results(self, proxy: Proxy, step: int | None = None) -> list[Result]:
        """Evaluation results of a run after a step, by default the last; empty if missing."""
        step = self._steps(proxy) if step is None else step
        path = self.workdir(proxy) / "eval" / f"{step}.json"
        return read_results(path) if path.exists() else []
