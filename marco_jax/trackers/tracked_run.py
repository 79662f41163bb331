"""The trackers of a run: each in a thread of its own, and none can end or hold up the training."""

from __future__ import annotations

import logging
import math
import pathlib
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from marco_jax.trackers.choose import tracker_class, tracker_names

_log = logging.getLogger(__name__)

# Calls that wait for a tracker, at most.
_CALLS = 10_000
# Seconds that a checkpoint, and the end of the run, wait for a tracker.
_SECONDS = 30.0


class TrackedRun:
    """Passes the metrics of a run on to its trackers."""

    def __init__(self, trackers: Mapping[str, Any], seconds: float = _SECONDS) -> None:
        """Starts a thread for each tracker.

        Args:
            trackers: by name, with the methods of Tracker.
            seconds: that `sync` and `close` wait for a tracker, at most.
        """
        self._seconds = seconds
        self._threads = [_TrackerThread(name, tracker) for name, tracker in trackers.items()]

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Passes metrics of a step on; infinite and undefined numbers are left out."""
        metrics = {name: value for name, value in metrics.items() if math.isfinite(value)}
        if metrics:
            for thread in self._threads:
                thread.call(lambda tracker: tracker.log(step, metrics))

    def sync(self) -> None:
        """Makes what was logged safe; returns when it is, or when it takes too long."""
        for thread in self._threads:
            thread.call(lambda tracker: tracker.sync())
        self._wait()

    def close(self) -> None:
        """Ends the trackers; returns when all is sent, or when it takes too long."""
        for thread in self._threads:
            thread.call(lambda tracker: tracker.close())
        self._wait()
        for thread in self._threads:
            thread.end()

    def _wait(self) -> None:
        end = time.monotonic() + self._seconds
        for thread in self._threads:
            thread.wait(end - time.monotonic())


class _TrackerThread:
    """Makes the calls of one tracker, in order."""

    def __init__(self, name: str, tracker: Any) -> None:
        self._name, self._tracker, self._warned = name, tracker, False
        self._calls: queue.Queue[Callable[[Any], None] | None] = queue.Queue(_CALLS)
        # Is set when the calls before the last wait are made.
        self._done = threading.Event()
        self._done.set()
        self._thread = threading.Thread(target=self._run, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def call(self, function: Callable[[Any], None]) -> None:
        """Has a function called with the tracker, after those before it."""
        try:
            self._calls.put_nowait(function)
        except queue.Full:
            self._warn(f"does not keep up: {_CALLS:,} calls wait for it, and more are dropped")

    def wait(self, seconds: float) -> None:
        """Waits until all calls are made; at once where the last wait was too short."""
        if not self._done.is_set():
            return
        done = self._done = threading.Event()
        self.call(lambda tracker: done.set())
        if not done.wait(max(seconds, 0.0)):
            self._warn("does not answer, and is not waited for until it has caught up")

    def end(self) -> None:
        """Ends the thread after its last call."""
        self.call(None)

    def _run(self) -> None:
        while (function := self._calls.get()) is not None:
            try:
                function(self._tracker)
            except Exception as error:
                self._warn(f"fails ({_reason(error)})")

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            _log.warning(f"the tracker {self._name} {text}; {_REMAINS}")


_REMAINS = "training goes on, and metrics.jsonl has all metrics"


def start_trackers(
    workdir: pathlib.Path, config: ConfigDict, step: int, *, first: bool
) -> TrackedRun:
    """Starts the trackers of a config; one that cannot be started is left out, with a warning.

    Args:
        workdir: of the run.
        config: of the run, with its steps resolved; `check_trackers` has passed it.
        step: finished steps that the run goes on from.
        first: whether this is the first process of the run: the others have no trackers.
    """
    found: dict[str, Any] = {}
    for name in tracker_names(config) if first else ():
        try:
            found[name] = tracker_class(name)(workdir, config.to_dict(), step)
        except Exception as error:  # the service is out of reach, or the user's class fails
            _log.warning(f"the tracker {name} cannot be started ({_reason(error)}); {_REMAINS}")
    return TrackedRun(found)


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
