"""Runs of a sweep: ordinary training runs, one after the other, each in a workdir of its own.

They run in sequence, in this process. A run already spreads over the whole mesh, evaluates and
saves itself; several at once, by `vmap` over parameters, would share one data feed, one
checkpoint and one fate, and gain only where a proxy leaves the mesh idle. In one process, programs
that are alike are compiled once (JAX's cache), and JAX and TensorFlow start once.
"""

from __future__ import annotations

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
from marco_jax.weights.recovery import finished_steps

_log = logging.getLogger(__name__)

STATUS = "status.json"
DONE, STOPPED = 0, 143
# Starts of a run that end without a word (the process dies) until it counts as failed.
_ATTEMPTS = 3


@dataclasses.dataclass(frozen=True)
class Proxy:
    """One run: its name, and the fields in which its config differs from the sweep's."""

    name: str
    changes: Mapping[str, Any]

    def config(self, sweep: ConfigDict) -> ConfigDict:
        """The config of an ordinary training run."""
        config = ConfigDict(sweep.to_dict())
        if "sweep" in config:
            del config["sweep"]
        for field, value in self.changes.items():
            config.update_from_flattened_dict({field: value})
        return config


@dataclasses.dataclass(frozen=True)
class State:
    """What is known of a run: "left", "running", "done" or "failed", with its time and its fault.

    Attributes:
        status: one of these.
        seconds: wall clock over all its starts.
        attempts: starts that have not come to an end.
        reason: why it failed.
        step: of its newest checkpoint when it was started last.
    """

    status: str = "left"
    seconds: float = 0.0
    attempts: int = 0
    reason: str = ""
    step: int = 0


class Runs:
    """The runs below one directory."""

    def __init__(
        self,
        root: pathlib.Path,
        config: ConfigDict,
        proxies: Sequence[Proxy],
        train: Callable[[ConfigDict, str], int],
    ) -> None:
        """Reads what is there.

        Args:
            root: has a workdir a run.
            config: of the sweep.
            proxies: in the order in which they run.
            train: trains a config in a workdir: `marco_jax.training.loop.train`.
        """
        self.root, self.base, self.proxies, self._train = root, config, list(proxies), train
        self._keep = "sweep" in config and config.sweep.keep

    def workdir(self, proxy: Proxy) -> pathlib.Path:
        """Where a run's files are."""
        return self.root / proxy.name

    def state(self, proxy: Proxy) -> State:
        """What is known of a run."""
        try:
            state = State(**json.loads((self.workdir(proxy) / STATUS).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            state = State()
        done = (self.workdir(proxy) / "eval" / f"{self._steps(proxy)}.json").exists()
        return dataclasses.replace(state, status="done") if done else state

    def run(self) -> int:
        """Trains what is not done; 143 where a SIGTERM has ended it, 0 otherwise.

        A run that fails is said and left; the next start of the sweep tries it again.
        """
        for proxy in self.proxies:
            if agree("done" if self.state(proxy).status == "done" else ""):
                continue
            _log.info(f"{proxy.name}: {self._changes(proxy)}")
            if self._run(proxy) == STOPPED:
                return STOPPED
            for line in self.table():
                _log.info(line)
        return DONE

    def _run(self, proxy: Proxy) -> int:
        before, start = self.state(proxy), time.perf_counter()
        saved = self.workdir(proxy) / CHECKPOINTS
        newest = max(finished_steps(saved), default=0) if saved.is_dir() else 0
        # A run that got further, however often it was cut off, is no hopeless one.
        stuck = before.status == "running" and newest == before.step
        attempts = before.attempts if stuck else 0
        if attempts >= _ATTEMPTS:
            self._record(proxy, State("failed", before.seconds, 0, "the process died with it"))
            _log.warning(f"{proxy.name} is left out: the process has died with it {attempts} times")
            return DONE
        # Written before: a process that dies says nothing after.
        self._record(proxy, State("running", before.seconds, attempts + 1, "", newest))
        code, status, reason = DONE, "done", ""
        try:
            code = self._train(proxy.config(self.base), str(self.workdir(proxy)))
            status = "left" if code == STOPPED else "done"
        except KeyboardInterrupt:
            self._record(proxy, dataclasses.replace(before, status="left"))
            raise
        except Exception as error:  # One run is not the sweep.
            status, reason = "failed", " ".join(f"{type(error).__name__}: {error}".split())
            _log.warning(f"{proxy.name} has failed: {reason}")
        seconds = before.seconds + time.perf_counter() - start
        self._record(proxy, State(status, seconds, 0, reason))
        # Other programs, other data: nothing of this run is wanted again.
        jax.clear_caches()
        if status == "done" and not self._keep and jax.process_index() == 0:
            shutil.rmtree(saved, ignore_errors=True)
        return code

    def _record(self, proxy: Proxy, state: State) -> None:
        if jax.process_index() == 0:
            write_json(self.workdir(proxy) / STATUS, dataclasses.asdict(state))

    def _steps(self, proxy: Proxy) -> int:
        return proxy.changes.get("steps", self.base.steps)

    def _changes(self, proxy: Proxy) -> str:
        return ", ".join(f"{field}={value}" for field, value in proxy.changes.items())

    def table(self) -> list[str]:
        """What is done, failed and left, and the time to go."""
        states = [(proxy, self.state(proxy)) for proxy in self.proxies]
        kinds = ("done", "failed", "running", "left")
        count = {kind: sum(state.status == kind for _, state in states) for kind in kinds}
        line = ", ".join(f"{number} {kind}" for kind, number in count.items() if number)
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
        """Figures of a run after a step, by default the last; none where they are not there."""
        step = self._steps(proxy) if step is None else step
        path = self.workdir(proxy) / "eval" / f"{step}.json"
        return read_results(path) if path.exists() else []


def figures_of(results: Sequence[Result]) -> dict[str, float]:
    """Figures by "TASK/METRIC/LANGUAGE", all such that lower is better and positive.

    Shares of right answers become those of wrong ones, and BLEU and chrF what is missing of 100.
    """
    found = {}
    for result in results:
        value = result.value
        if result.part:
            continue
        if result.metric != "bits_per_byte":
            whole = 100 if "chrf" in result.metric or "bleu" in result.metric else 1
            value = whole - value
        found[f"{result.task}/{result.metric}/{result.language}"] = value
    return found
