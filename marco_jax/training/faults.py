"""What ends a run before its last step: SIGTERM, a stall, a loss that is not finite, a failure."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from marco_jax.runtime.logs import EVERY_PROCESS
from marco_jax.runtime.processes import leave
from marco_jax.training.clock import EVALUATION, OTHERS, Clock

_log = logging.getLogger(__name__)

POLICIES = ("skip", "stop", "rollback")
# Rows of a skipped batch that the message describes.
_ROWS = 32


class Preempted(Exception):
    """SIGTERM came during work that may be abandoned."""


class Rollback(Exception):
    """Asks the loop to go back to a checkpoint and to skip the batches up to `step`."""

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step


class Preemption:
    """Turns SIGTERM into a flag that the loop reads after each step.

    Several processes stop at the same step, whichever of them gets the signal: JAX's own handler
    passes it to its coordination service, which asks all processes for their step and chooses the
    next one. Reading the flag sends no message. A single process abandons an evaluation at once;
    several finish it, because they would abandon it at different points.

    Attributes:
        received: whether to save and stop.
    """

    def __init__(self, clock: Clock, grace_seconds: float) -> None:
        """After a signal the process has `grace_seconds` to save and stop; 0: no limit."""
        self._clock, self._grace = clock, grace_seconds
        self.received = False
        self._timer = threading.Timer(grace_seconds, self._give_up)
        self._timer.daemon = True

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handles the signal inside the block."""
        # With several processes JAX has its own handler.
        alone = jax.process_count() == 1
        before = signal.signal(signal.SIGTERM, self._receive) if alone else None
        try:
            yield
        finally:
            self._timer.cancel()
            if alone:
                signal.signal(signal.SIGTERM, before)

    def reached(self, step: int) -> bool:
        """Whether all processes save this step and stop; called once for every step."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self._note()
        return self.received

    def _receive(self, *_: Any) -> None:
        self._note()
        if self._clock.doing[0] == EVALUATION:
            raise Preempted

    def _note(self) -> None:
        if self._grace and not self.received:
            self._timer.start()
        self.received = True

    def _give_up(self) -> None:
        what = self._clock.doing[0]
        _log.warning(
            f"SIGTERM {self._grace:g} s ago (config.preemption_grace_seconds) and still in {what}: "
            "a restart resumes from the newest checkpoint",
            extra=EVERY_PROCESS,
        )
        leave(1)


class Watchdog:
    """Ends the process when one part of a step takes longer than any should.

    A collective that waits for a lost host raises no error and blocks the main thread. The turns of
    other runs in the process are not watched here.
    """

    def __init__(self, clock: Clock, stall_seconds: float) -> None:
        """Watches `clock` in a thread of its own; 0 seconds turns it off."""
        self._clock, self._limit = clock, stall_seconds
        self._ended = threading.Event()
        if stall_seconds:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def close(self) -> None:
        """Stops watching."""
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(min(self._limit / 10, 5.0)):
            what, since = self._clock.doing
            waited = time.perf_counter() - since
            if waited > self._limit and what != OTHERS:
                _log.warning(
                    f"waited {waited:.0f} s for {what} after step {self._clock.step}, longer than "
                    f"config.stall_seconds ({self._limit:g}): another process or the storage does "
                    "not answer; start all again, the run resumes from its newest checkpoint",
                    extra=EVERY_PROCESS,
                )
                leave(1)


class Anomalies:
    """Reacts to the steps that the device has skipped, once the host sees their metrics."""

    def __init__(
        self,
        fields: ConfigDict,
        describe: Callable[[int], list[str]],
        has_checkpoint: Callable[[], bool],
    ) -> None:
        """Follows `config.anomaly`.

        `describe` lists source and documents of each row of the batch at a step index. Without a
        checkpoint to go back to, "rollback" skips the step.
        """
        if fields.nonfinite not in POLICIES:
            raise ValueError(
                f"anomaly.nonfinite is {fields.nonfinite!r}: choose one of {', '.join(POLICIES)}"
            )
        self._policy, self._allowed, self._describe = fields.nonfinite, fields.max_skips, describe
        self._has_checkpoint = has_checkpoint
        self._in_a_row = 0
        self._rollbacks = 0

    def inspect(self, row: dict[str, Any]) -> None:
        """Logs which step was skipped and why; ends or rolls back the run as the policy says.

        Raises:
            FloatingPointError: the policy is "stop", or there were too many.
            Rollback: the policy is "rollback".
        """
        if not row.get("skipped"):
            self._in_a_row = 0
            return
        self._in_a_row += 1
        step = row["step"]
        batch = self._batch(step)
        loss, norm = (
            "not finite" if row[name] is None else f"{row[name]:.4g}"
            for name in ("loss", "grad_norm")
        )
        what = f"step {step}: loss {loss}, gradient norm {norm}; its batch: {batch}"
        if self._policy == "stop":
            raise FloatingPointError(
                f"{what}. Look at it, lower the learning rate, or pass over it with "
                "--config.anomaly.nonfinite=skip"
            )
        if max(self._in_a_row, self._rollbacks) > self._allowed:
            raise FloatingPointError(
                f"{what}. That is more than anomaly.max_skips ({self._allowed}) in a row: lower "
                "the learning rate, or start from a checkpoint before the trouble"
            )
        if self._policy == "rollback" and self._has_checkpoint():
            self._rollbacks += 1
            raise Rollback(step)
        _log.warning(f"skipped {what}")

    def _batch(self, step: int) -> str:
        try:
            rows = self._describe(step - 1)
        except IndexError as error:  # of a streamed source, rows are gone when they are past
            return str(error)
        more = f"; and {len(rows) - _ROWS} rows more" if len(rows) > _ROWS else ""
        return "; ".join(rows[:_ROWS]) + more
