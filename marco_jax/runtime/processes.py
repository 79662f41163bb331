"""The processes of a run: how they connect, agree on problems, and detect that one has died."""

from __future__ import annotations

import atexit
import contextlib
import glob
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
from marco_jax.stores.connect import store_error

_log = logging.getLogger(__name__)

# The longest message of `agree`, in bytes.
_MESSAGE_BYTES = 512
# How long a process that has finished waits for the others to finish.
_SHUTDOWN_SECONDS = 60
_CONNECT_SECONDS = 60
# What a process sends to the others when it ends: successfully, or with an exception.
_BYE, _FAILED = b".", b"!"
# Time for a process to report its own error, after another one has failed.
_FAILED_SECONDS = 3.0


def join(fields: Mapping[str, Any]) -> str:
    """Connects this process to the others of its run; call it before JAX starts.

    Args:
        fields: `config.distributed`. Without a coordinator its fields are taken from the
            environment (JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID). Without
            either, a TPU host finds the hosts of its slice, and any other process runs alone.
            Processes on CPUs communicate with gloo.

    Returns:
        the host of the first process; empty if JAX has found it, or for a single process.

    Raises:
        ValueError: a coordinator, but num_processes or process_id do not fit.
        ConnectionError: the others cannot be reached.
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
            f"{number}: give each process its number, from 0"
        )
    if "cpu" in given("JAX_PLATFORMS", "cpu"):
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(coordinator, processes, number, **options)
    except jax.errors.JaxRuntimeError as error:
        raise ConnectionError(
            f"process {number} of {processes} cannot reach a run at {coordinator}: "
            f"{' '.join(str(error).split())[:200]}"
        ) from None
    set_process_index(number)
    return coordinator.rpartition(":")[0]


def _on_tpu() -> bool:
    if "cpu" in os.environ.get("JAX_PLATFORMS", "") or not importlib.util.find_spec("libtpu"):
        return False
    return bool(glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*"))


def agree(problem: str) -> str:
    """Returns the first problem of any process in all of them; empty if no process has one.

    Every process must call it at the same point of the program.
    """
    if jax.process_count() == 1:
        return problem
    text = problem.encode()[:_MESSAGE_BYTES]
    mine = np.zeros(_MESSAGE_BYTES, np.uint8)
    mine[: len(text)] = np.frombuffer(text, np.uint8)
    for row in np.asarray(multihost_utils.process_allgather(mine)).reshape(-1, _MESSAGE_BYTES):
        if row[0]:
            return row[row > 0].tobytes().decode(errors="replace")
    return ""


@contextlib.contextmanager
def first_process_first(name: str) -> Iterator[None]:
    """Runs the block in the first process, then in the others, which can read files it wrote."""
    first = jax.process_index() == 0
    if not first:
        barrier(name)
    yield
    if first:
        barrier(name)


def barrier(name: str) -> None:
    """Waits until all processes have called this with the same name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def watch_others(host: str = "") -> Iterator[None]:
    """Ends this process within seconds after another process of the run has died.

    Otherwise it would wait in a collective for the dead process. Each process has a connection to
    the first, and the kernel closes the connections of a process that dies. A host that disappears
    without closing them is detected by JAX's heartbeats (`config.distributed.heartbeat_seconds`),
    which also end the process. An exception that leaves the block ends the process without waiting
    for the others. `host` is the address of the first process, by default its host name.
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
        _send(connections, _FAILED)
        bad_input = isinstance(error, (ValueError, OSError)) and not store_error(error)
        code = 2 if bad_input else 1
        # At exit JAX would wait for the other processes, which may never end.
        atexit.register(leave, code)
        raise
    _send(connections, _BYE)
    for thread in threads:
        thread.join(timeout=_SHUTDOWN_SECONDS)


def _connect(host: str) -> dict[int, socket.socket]:
    """Opens connections, by the process at the other end: the first process has one to each other.

    Empty if the network does not allow them; then only heartbeats detect a death.
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
            f"cannot connect to the other processes ({problem}): only heartbeats detect their end",
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


def _send(connections: Mapping[int, socket.socket], message: bytes) -> None:
    for connection in connections.values():
        with contextlib.suppress(OSError):
            connection.sendall(message)


def _wait_for_end(process: int, connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        message = connection.recv(1)
        if message == _BYE:
            return
        if message == _FAILED:
            time.sleep(_FAILED_SECONDS)
    _log.warning(
        f"process {process} of the run has ended: this one cannot continue; restart all processes",
        extra=EVERY_PROCESS,
    )
    leave(1)


def is_running(process: int) -> bool:
    """Whether a process of this host is there, and not only a zombie."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # A container without an init process keeps killed processes as zombies.
    with contextlib.suppress(OSError, IndexError):
        status = pathlib.Path(f"/proc/{process}/stat").read_text()
        return status.rpartition(")")[2].split()[0] != "Z"
    return True


def leave(code: int) -> None:
    """Ends the process at once, from any thread."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
