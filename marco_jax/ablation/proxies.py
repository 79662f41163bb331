"""Trains the runs of a sweep, each as an ordinary run in its own workdir.

A run evaluates itself, saves checkpoints and resumes from them, whether it has the devices to
itself or shares them. A small model leaves most of a large mesh idle: with `config.sweep.parallel`
the runs of one shape, which differ only in mixture and seed, train at once (lanes/lane_runs.py). A
run that has another shape (the one with two stages) trains alone, and so does one in which the
process has died twice. In one process JAX and TensorFlow start once.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import logging
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from marco_jax.evaluation.results import Result, read_results
from marco_jax.files import remove_tree, write_json
from marco_jax.lanes.lane_choice import fitting_lanes
from marco_jax.lanes.lane_runs import Abandoned, Lanes
from marco_jax.runtime.logs import tagged
from marco_jax.runtime.processes import agree
from marco_jax.training.assemble import create_sharding
from marco_jax.training.seat import Seat
from marco_jax.weights.checkpoints import CHECKPOINTS
from marco_jax.weights.manifest import finished_steps

_log = logging.getLogger(__name__)

STATUS = "status.json"
DONE, STOPPED = 0, 143
# A run counts as failed after its process has died so often without a new checkpoint.
_ATTEMPTS = 3
# What may differ between runs that train in lanes together.
_OWN_FIELDS = ("mixture.override", "seed", "evaluation.at_start")


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

    `train` trains a config in a workdir: `marco_jax.training.loop.train`. With `lanes` above 1, so
    many runs train at once.
    """

    def __init__(
        self,
        root: pathlib.Path,
        config: ConfigDict,
        proxies: Sequence[Proxy],
        train: Callable[..., int],
        lanes: int = 1,
    ) -> None:
        """Reads nothing yet.

        Args:
            root: where the workdirs are.
            config: of the sweep.
            proxies: the runs.
            train: called with a config, a workdir and, for runs in lanes, a Seat.
            lanes: the most runs that train at once.
        """
        self.root, self.base, self.proxies, self._train = root, config, list(proxies), train
        self._lanes = lanes
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
        waiting = [
            proxy
            for proxy in self.proxies
            if not agree("done" if self.state(proxy).status == "done" else "")
        ]
        for group in self._groups(waiting):
            if self._run_group(group) == STOPPED:
                return STOPPED
            # Free the memory of programs that later runs do not use.
            jax.clear_caches()
        return DONE

    def _groups(self, proxies: Sequence[Proxy]) -> list[list[Proxy]]:
        """The runs in order, those that train in lanes together in one list."""
        if self._lanes == 1:
            return [[proxy] for proxy in proxies]
        groups: dict[str, list[Proxy]] = {}
        for proxy in proxies:
            shape = {n: value for n, value in proxy.changes.items() if n not in _OWN_FIELDS}
            # Where the process dies in every start, it may be because of one of the runs.
            alone = agree(proxy.name if self.state(proxy).attempts >= _ATTEMPTS - 1 else "")
            groups.setdefault(alone or json.dumps(shape, sort_keys=True), []).append(proxy)
        return list(groups.values())

    def _run_group(self, group: Sequence[Proxy]) -> int:
        """Trains runs of one shape."""
        config, lanes = self.base, 1
        if self._lanes > 1 and len(group) > 1:
            parallel, sharding = config.sweep.parallel, create_sharding(config)
            lanes = fitting_lanes(parallel, sharding, self._lanes, len(group))
        if lanes == 1:
            for proxy in group:
                if self._run_and_report(proxy) == STOPPED:
                    return STOPPED
            return DONE
        _log.info(f"{len(group)} runs in {lanes} lanes (sweep.parallel={parallel})")
        shared = Lanes(
            parallel,
            lanes,
            steps=self._steps(group[0]),
            grace_seconds=config.preemption_grace_seconds,
            stall_seconds=config.stall_seconds,
        )
        return shared.run(group, self._run_and_report)

    def _run_and_report(self, proxy: Proxy, seat: Seat | None = None) -> int:
        """Trains a run, by default alone, and logs the state of all runs."""
        changes = (f"{field}={value}" for field, value in proxy.changes.items())
        _log.info(f"{proxy.name}: {', '.join(changes)}")
        with tagged(proxy.name) if seat else contextlib.nullcontext():
            code = self._run(proxy, seat)
        if code != STOPPED:
            for line in self.table():
                _log.info(line)
        return code

    def _run(self, proxy: Proxy, seat: Seat | None) -> int:
        before, start = self.state(proxy), time.perf_counter()
        saved = self.workdir(proxy) / CHECKPOINTS
        newest = max(finished_steps(saved), default=0) if saved.is_dir() else 0
        # A start that reached a new checkpoint does not count as an attempt.
        stuck = before.status == "running" and newest == before.step
        attempts = before.attempts if stuck else 0
        # Read by all processes before the first of them writes it anew.
        if agree(proxy.name if attempts >= _ATTEMPTS else ""):
            self._record(proxy, State("failed", before.seconds, 0, "the process died in it"))
            _log.warning(f"{proxy.name} is skipped: the process has died in it {attempts} times")
            return DONE
        # Recorded before training, since a process that dies cannot record it.
        self._record(proxy, State("running", before.seconds, attempts + 1, "", newest))
        code, status, reason = DONE, "done", ""
        try:
            arguments = (proxy.config(self.base), str(self.workdir(proxy)))
            code = self._train(*arguments, seat) if seat else self._train(*arguments)
            status = "left" if code == STOPPED else "done"
        except (KeyboardInterrupt, Abandoned):
            self._record(proxy, dataclasses.replace(before, status="left"))
            raise
        except Exception as error:  # A failed run must not end the sweep.
            reason = " ".join(f"{type(error).__name__}: {error}".split())
        # A run that has failed in one process has failed in all.
        if reason := agree(reason):
            code, status = DONE, "failed"
            _log.warning(f"{proxy.name} has failed: {reason}")
        seconds = before.seconds + time.perf_counter() - start
        self._record(proxy, State(status, seconds, 0, reason))
        if status == "done" and not self._keep and jax.process_index() == 0:
            remove_tree(saved, ignore_errors=True)
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
            seconds /= min(self._lanes, len(waiting))
            line += f"; {seconds / 60:.0f} min to go"
        failed = [f"  {proxy.name} failed: {s.reason}" for proxy, s in states if s.reason]
        return [f"runs: {line}", *failed]

    def results(self, proxy: Proxy, step: int | None = None) -> list[Result]:
        """Evaluation results of a run after a step, by default the last; empty if missing."""
        step = self._steps(proxy) if step is None else step
        path = self.workdir(proxy) / "eval" / f"{step}.json"
        return read_results(path) if path.exists() else []
