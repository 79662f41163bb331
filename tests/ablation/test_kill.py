"""kill -9 in mid-sweep, the same command again: the same final table."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.ablation.small import small_runs

MARCO = (sys.executable, "-m", "marco_jax")


def flags_of(root, data, workdir, parallel):
    fields = small_runs(data) | {
        "steps": 8,
        "batch.sequences_per_chip": 2,
        "checkpoint.every": 3,
        "sweep.units": "sources",
        "sweep.runs": 5,
        "sweep.max_epochs": 1000000,
        "sweep.confirm.seeds": 0,
        "sweep.parallel": parallel,
    }
    config = f"--config={root / 'configs/mixture_ablation.py'}"
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    return ["sweep", config, f"--workdir={workdir}", *flags]


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["none", "vmap"])
def test_a_killed_sweep_ends_with_the_table_of_one_that_was_not(root, data, tmp_path, parallel):
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"), "XLA_FLAGS": ""}
    options = {"cwd": root, "env": os.environ | cache}
    whole = subprocess.run(
        [*MARCO, *flags_of(root, data, tmp_path / "whole", parallel)],
        **options,
        capture_output=True,
        text=True,
    )
    assert whole.returncode == 0, whole.stderr[-2000:]
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [*MARCO, *flags_of(root, data, killed, parallel)],
        **options,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # In the middle of the third run (in lanes: of them all), past its first checkpoint.
    wanted = killed / "proxies/random000/checkpoints/3/manifest.json"
    deadline = time.monotonic() + 300
    while not wanted.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "runs.csv").exists()
    again = subprocess.run(
        [*MARCO, *flags_of(root, data, killed, parallel)], **options, capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr[-2000:]
    assert "resuming at step" in again.stderr
    for name in ("runs.csv", "analysis.json"):
        assert (killed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
