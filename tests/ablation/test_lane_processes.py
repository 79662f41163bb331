"""A sweep in lanes on several processes: each group of devices may be of one process alone."""

import os
import socket
import subprocess

import numpy as np
import pytest

from marco_jax.reports.run_data import read_metrics
from tests.ablation.test_kill import command


def launch(arguments, root, cache, processes, devices):
    """The same command on processes with some virtual devices each, to its end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
    }
    started = []
    for rank in range(processes):
        own = list(arguments)
        if processes > 1:
            own += [
                f"--config.distributed.coordinator=127.0.0.1:{port}",
                f"--config.distributed.num_processes={processes}",
                f"--config.distributed.process_id={rank}",
            ]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(own, cwd=root, env=environment, **pipes))
    outputs = [process.communicate(timeout=500) for process in started]
    assert [process.returncode for process in started] == [0] * processes, outputs


@pytest.mark.slow
def test_two_processes_train_the_runs_of_one_process(root, data, tmp_path):
    shapes = {"alone": ("none", 1, 4), "vmap": ("vmap", 2, 2), "slices": ("slices", 2, 2)}
    for name, (parallel, processes, devices) in shapes.items():
        arguments = command(root, data, tmp_path / name, parallel)
        arguments += ["--config.log_every=1", "--config.sweep.two_stages=False"]
        launch(arguments, root, tmp_path / f"cache{processes}", processes, devices)
    for wanted in (tmp_path / "alone/proxies").iterdir():
        want = read_metrics(wanted / "metrics.jsonl")
        assert len(want) == 8
        for name in ("vmap", "slices"):
            found = read_metrics(tmp_path / name / "proxies" / wanted.name / "metrics.jsonl")
            assert [row["step"] for row in found] == [row["step"] for row in want]
            for field in ("loss", "grad_norm"):
                # Sums in another order, and Adam's epsilon is the usual one.
                values = ([row[field] for row in rows] for rows in (found, want))
                np.testing.assert_allclose(*values, rtol=1e-3, err_msg=f"{name} {wanted.name}")
