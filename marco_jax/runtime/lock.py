"""A lock on a workdir, which only one run at a time may write to."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import pathlib
import socket
import time
from collections.abc import Iterator

import jax

from marco_jax.files import is_remote
from marco_jax.runtime.processes import agree
from marco_jax.runtime.store_lock import StoreLock

_log = logging.getLogger(__name__)

LOCK = ".lock"


@contextlib.contextmanager
def locked(directory: pathlib.Path) -> Iterator[None]:
    """Locks a workdir, in the first process of a run, until the block or the process ends.

    It is a POSIX record lock: forked processes do not inherit it, and network file systems support
    it. On mounts without locks a warning is logged and the run continues. In an object store it is
    a `StoreLock`.

    Raises:
        ValueError: another run has locked it; the message names its process.
    """
    problem, file = "", None
    if jax.process_index() == 0 and is_remote(directory):
        try:
            file = StoreLock(directory, LOCK)
        except ValueError as error:
            problem = str(error)
    elif jax.process_index() == 0:
        file = open(directory / LOCK, "a+", encoding="utf-8")  # noqa: SIM115
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read().strip() or "another process"
            problem = f"{directory} is in use by {holder}: stop that run, or give another workdir"
        except OSError as error:
            _log.warning(f"{directory} cannot be locked ({error}): do not start a second run in it")
        else:
            file.truncate(0)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}")
            file.flush()
    try:
        if problem := agree(problem):
            raise ValueError(problem)
        yield
    finally:
        if file:
            file.close()
