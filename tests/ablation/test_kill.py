"""kill -9 in mid-sweep, the same command again: the same final table."""

import os
import signal
import subprocess
import sys
import time

import pytest


def command(root, data, workdir, parallel):
    fields = {
        "data": data / "corpus.jsonl",
        "tokenizer.path": data / "tokenizer",
        "steps": 8,
        "model.hidden_size": 32,
        "model.intermediate_size": 64,
        "model.num_hidden_layers": 1,
        "model.num_attention_heads": 2,
        "model.head_dim": 16,
        "batch.length": 32,
        "batch.sequences_per_chip": 2,
        "checkpoint.every": 3,
        "evaluation.max_length": 128,
        "evaluation.examples.bits_per_byte": 2,
        "sweep.units": "sources",
        "sweep.runs": 5,
        "sweep.max_epochs": 1000000,
        "sweep.confirm.seeds": 0,
        "sweep.parallel": parallel,
    }
    config = f"--config={root / 'configs/mixture_ablation.py'}"
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    return [sys.executable, "-m", "marco_jax", "sweep", config, f"--workdir={workdir}", *flags]


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["none", "vmap"])
def test_a_killed_sweep_ends_with_the_table_of_one_that_was_not(root, data, tmp_path, parallel):
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"), "XLA_FLAGS": ""}
    options = {"cwd": root, "env": os.environ | cache}
    whole = subprocess.run(
        command(root, data, tmp_path / "whole", parallel), **options, capture_output=True, text=True
    )
    assert whole.returncode == 0, whole.stderr[-2000:]
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        command(root, data, killed, parallel),
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
        command(root, data, killed, parallel), **options, capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr[-2000:]
    assert "resuming at step" in again.stderr
    for name in ("runs.csv", "analysis.json"):
        assert (killed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
