"""Starts a command of `marco` on several processes of this machine."""

import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run_processes(
    arguments: Sequence[str],
    processes: int,
    devices: int,
    environment: Mapping[str, str] | None = None,
    *,
    own_arguments: Callable[[int], Sequence[str]] = lambda rank: (),
    program: Sequence[str] = ("-m", "marco_jax"),
    succeeds: bool = True,
) -> list[str]:
    """`marco ARGUMENTS` on processes with some virtual devices each, to its end.

    Args:
        arguments: of all processes.
        processes: how many.
        devices: of each.
        environment: further variables.
        own_arguments: further arguments of a process.
        program: what Python runs in the place of `marco`.
        succeeds: whether all processes must, or none may.

    Returns:
        the standard error of each.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    started = []
    for rank in range(processes):
        command = [sys.executable, *program, *arguments, *own_arguments(rank)]
        if processes > 1:
            command += [
                f"--config.distributed.coordinator=127.0.0.1:{port}",
                f"--config.distributed.num_processes={processes}",
                f"--config.distributed.process_id={rank}",
            ]
        started.append(
            subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **own, **(environment or {})},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    outputs = [process.communicate(timeout=600) for process in started]
    ended = [process.returncode == 0 for process in started]
    assert ended == [succeeds] * processes, outputs
    return [error for _, error in outputs]
