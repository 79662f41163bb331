"""A lock in an object store, which is held by renewing it and lost by not doing so.

A lock is an object with a number in its name, and the highest number counts. A run takes the lock
by creating the object of the next number, which the store lets only one of several runs do. It
writes to the object every some seconds. A run that is killed stops doing that, and after a while
another one may take the next number. A run that was only stopped for so long finds that number
when it goes on, and ends.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time

from marco_jax.runtime.processes import is_running, leave
from marco_jax.stores.object_path import ObjectPath
from marco_jax.stores.objects import create

_log = logging.getLogger(__name__)

# Seconds between two renewals, and without one until the lock is free.
_RENEWED, _LEASE = 15.0, 60.0
_POLL = 3.0


class StoreLock:
    """A lock on a folder of an object store."""

    def __init__(self, directory: ObjectPath, name: str) -> None:
        """Takes the lock; waits for that of a run which may have been killed.

        Raises:
            ValueError: another run holds it; the message names its process.
        """
        self._directory, self._name = directory, name
        self._number = self._take()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lock", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Releases the lock."""
        self._stop.set()
        self._thread.join()
        self._path(self._number).unlink(missing_ok=True)

    def _path(self, number: int) -> ObjectPath:
        return self._directory / f"{self._name}.{number}"

    def _numbers(self) -> list[int]:
        found = self._directory.glob(f"{self._name}.*")
        return sorted(int(n) for path in found if (n := path.name.rpartition(".")[2]).isdigit())

    def _take(self) -> int:
        while True:
            numbers = self._numbers()
            number = numbers[-1] + 1 if numbers else 0
            if numbers:
                self._wait_for_end(numbers[-1])
            if create(self._path(number), _holder()):
                for other in numbers:
                    self._path(other).unlink(missing_ok=True)
                return number

    def _wait_for_end(self, number: int) -> None:
        """Returns when the lock of a number is free; raises when it is renewed."""
        path, seen = self._path(number), None
        try:
            while True:
                renewed, holder = path.stat().st_mtime, json.loads(path.read_bytes())
                mine = holder["host"] == socket.gethostname()
                if time.time() - renewed > _LEASE or (mine and not is_running(holder["process"])):
                    return
                if seen not in (None, renewed) or mine:
                    raise ValueError(
                        f"{self._directory} is in use by process {holder['process']} on "
                        f"{holder['host']} since {holder['since']}: stop that run, or give another "
                        "workdir"
                    )
                if seen is None:
                    _log.info(
                        f"{self._directory} was in use by process {holder['process']} on "
                        f"{holder['host']} {time.time() - renewed:.0f} s ago: waiting for up to "
                        f"{_LEASE:.0f} s to see whether it still is"
                    )
                seen = renewed
                time.sleep(_POLL)
        except FileNotFoundError:  # it was released
            return

    def _renew(self) -> None:
        text = _holder()
        while not self._stop.wait(_RENEWED):
            with contextlib.suppress(Exception):  # the store may answer next time
                if self._numbers()[-1:] > [self._number]:
                    _log.error(
                        f"{self._directory} was taken over by another run, since this one had not "
                        f"reached the store for {_LEASE:.0f} s: this one ends"
                    )
                    leave(1)
                self._path(self._number).write_bytes(text)


def _holder() -> bytes:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    holder = {"process": os.getpid(), "host": socket.gethostname(), "since": since}
    return json.dumps(holder).encode()
