"""The processes of a run: how they find one another, agree, and notice that one has gone."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import logging
import os
import pathlib
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from marco_jax.runtime.logs import EVERY_PROCESS, set_process_index

_log = logging.getLogger(__name__)

# Bytes of a message that `agree` carries.
_MESSAGE = 512
# How long a process waits at its end for the others to come to theirs.
_SHUTDOWN_SECONDS = 60
_CONNECT_SECONDS = 60
# What a process says when it comes to its end well, and when it does not.
_BYE, _FAILED = b".", b"!"
# For others to find what has failed in one of them, and say so themselves.
_FAILED_SECONDS = 3.0


def join(fields: Mapping[str, Any]) -> str:
    """Joins the processes of a run, before JAX starts; nothing to do where there is only one.

    Args:
        fields: `config.distributed`. Without a coordinator the environment is asked
            (JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID), and where that names none,
            a TPU machine joins its slice by itself. Processes on CPUs talk by gloo.

    Returns:
        the host of the first process, empty where JAX has found it.

    Raises:
        ValueError: a coordinator without a number of processes or this process's place.
        ConnectionError: the others do not come.
    """
    options = {
        "heartbeat_timeout_seconds": fields["heartbeat_seconds"],
        "shutdown_timeout_seconds": _SHUTDOWN_SECONDS,
    }
    given = os.environ.get
    coordinator, processes, number = (
        fields[name] for name in ("coordinator", "num_processes", "process_id")
    )
    if not coordinator and given("JAX_NUM_PROCESSES") and given("JAX_PROCESS_ID"):
        coordinator = given("JAX_COORDINATOR_ADDRESS", "")
        processes, number = int(given("JAX_NUM_PROCESSES")), int(given("JAX_PROCESS_ID"))
    if not coordinator:
        if _on_tpu():
            jax.distributed.initialize(**options)
            set_process_index(jax.process_index())
        return ""
    if not 0 <= number < processes:
        raise ValueError(
            f"distributed.coordinator is {coordinator}, num_processes {processes} and process_id "
            f"{number}: give each process its place, from 0"
        )
    if "cpu" in given("JAX_PLATFORMS", "cpu"):
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(coordinator, processes, number, **options)
    except jax.errors.JaxRuntimeError as error:
        raise ConnectionError(
            f"process {number} of {processes} finds no run at {coordinator}: "
            f"{' '.join(str(error).split())[:200]}"
        ) from None
    set_process_index(number)
    return coordinator.rpartition(":")[0]


def _on_tpu() -> bool:
    if "cpu" in os.environ.get("JAX_PLATFORMS", "") or not importlib.util.find_spec("libtpu"):
        return False
    devices = pathlib.Path("/dev")
    return bool([*devices.glob("accel*"), *devices.glob("vfio/[0-9]*")])


def agree(problem: str) -> str:
    """The first problem that any process has, known to all of them; empty where none has any.

    Every process must call it at the same point.
    """
    if jax.process_count() == 1:
        return problem
    text = problem.encode()[:_MESSAGE]
    mine = np.zeros(_MESSAGE, np.uint8)
    mine[: len(text)] = np.frombuffer(text, np.uint8)
    for row in np.asarray(multihost_utils.process_allgather(mine)).reshape(-1, _MESSAGE):
        if row[0]:
            return row[row > 0].tobytes().decode(errors="replace")
    return ""


@contextlib.contextmanager
def first_process_first(name: str) -> Iterator[None]:
    """The block runs in the first process, then in the others, which find what it has written."""
    first = jax.process_index() == 0
    if not first:
        together(name)
    yield
    if first:
        together(name)


def together(name: str) -> None:
    """Waits until all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def watch_others(host: str = "") -> Iterator[None]:
    """Ends this process within moments of another's death.

    Each process holds a connection to the first; a kernel closes those of a process that dies, so
    that nobody waits in a collective for it. A host that goes without a word is left to JAX's
    heartbeats (`config.distributed.heartbeat_seconds`), which end the process as well.
    An exception that leaves the block ends the process, too, without waiting for the others.

    Args:
        host: what the first process is reached by; its own name by default.
    """
    if jax.process_count() == 1:
        yield
        return
    connections = _connect(host)
    threads = [
        threading.Thread(target=_wait_for_end, args=item, name="watch", daemon=True)
        for item in connections.items()
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    except BaseException as error:
        _tell(connections, _FAILED)
        code = 2 if isinstance(error, (ValueError, OSError)) else 1
        # JAX would wait at exit for processes that will not come; others learn of this one's end.
        atexit.register(leave, code)
        raise
    _tell(connections, _BYE)
    for thread in threads:
        thread.join(timeout=_SHUTDOWN_SECONDS)


def _connect(host: str) -> dict[int, socket.socket]:
    """Connections by the process at their other end: the first has one to each, all others one.

    None where the network does not let them through: heartbeats remain.
    """
    first = jax.process_index() == 0
    server = socket.create_server(("", 0)) if first else None
    port = server.getsockname()[1] if first else 0
    address = agree(f"{host or socket.gethostname()} {port}" if first else "")
    connections, problem = {}, ""
    try:
        if server:
            with server:
                connections = _accept(server, jax.process_count() - 1)
        else:
            name, port = address.split()
            connections[0] = socket.create_connection((name, int(port)), timeout=_CONNECT_SECONDS)
            connections[0].settimeout(None)
            connections[0].sendall(struct.pack("!I", jax.process_index()))
    except OSError as error:
        problem = str(error)
    if problem := agree(problem):
        _log.warning(
            f"no connection for watching the other processes ({problem}): heartbeats remain",
            extra=EVERY_PROCESS,
        )
        return {}
    return connections


def _accept(server: socket.socket, count: int) -> dict[int, socket.socket]:
    connections: dict[int, socket.socket] = {}
    server.settimeout(_CONNECT_SECONDS)
    while len(connections) < count:
        connection, _ = server.accept()
        connection.settimeout(_CONNECT_SECONDS)
        (process,) = struct.unpack("!I", connection.recv(4, socket.MSG_WAITALL).rjust(4, b"\xff"))
        connection.settimeout(None)
        connections[process] = connection
    return connections


def _tell(connections: Mapping[int, socket.socket], word: bytes) -> None:
    for connection in connections.values():
        with contextlib.suppress(OSError):
            connection.sendall(word)


def _wait_for_end(process: int, connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        word = connection.recv(1)
        if word == _BYE:
            return
        if word == _FAILED:
            time.sleep(_FAILED_SECONDS)
    _log.warning(
        f"process {process} of the run has ended: this one cannot go on; start all again",
        extra=EVERY_PROCESS,
    )
    leave(1)


def leave(code: int) -> None:
    """Ends the process from any thread, without waiting for anything."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
