"""Signals and deaths: what one process is told, all do, and none waits for one that has gone."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from marco_jax.evaluation.evaluator import Evaluator
from marco_jax.reports.run_data import read_metrics
from marco_jax.runtime.processes import join
from marco_jax.training import faults
from marco_jax.training.clock import EVALUATION, Clock
from marco_jax.training.loop import STOPPED, train


def test_a_signal_cuts_an_evaluation_and_the_restart_makes_it(
    small_config, tmp_path, monkeypatch, capsys
):
    changes = ["steps=4", "mixture.name=base", "stages=base", "evaluation.tasks=bits_per_byte"]
    changes += ["evaluation.every=2", "evaluation.max_length=128", "evaluation.languages=kk"]
    changes += ["checkpoint.every=0", "mesh.tensor=1"]
    config = small_config(*changes)
    whole = Evaluator.run

    def cut(self, params, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
        return whole(self, params, **options)

    monkeypatch.setattr(Evaluator, "run", cut)
    assert train(config, tmp_path) == STOPPED
    assert "stopped by SIGTERM: step 2 is saved" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["2"]
    assert not (tmp_path / "eval").exists()
    monkeypatch.setattr(Evaluator, "run", whole)
    assert train(config, tmp_path) == 0
    assert {path.name for path in (tmp_path / "eval").glob("*.json")} == {"2.json", "4.json"}
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]


def test_the_grace_time_ends_what_does_not_end(monkeypatch, capsys):
    left = threading.Event()
    monkeypatch.setattr(faults, "leave", lambda code: left.set() if code == 1 else None)
    clock = Clock()
    preemption = faults.Preemption(clock, grace_seconds=0.2)
    with preemption.handled():
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.reached(7) and not left.is_set()
        with clock.part(EVALUATION), pytest.raises(faults.Preempted):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        assert left.wait(5)
    assert "still in step" in capsys.readouterr().err


def test_no_grace_is_any_time(monkeypatch):
    monkeypatch.setattr(faults, "leave", lambda code: pytest.fail("left"))
    preemption = faults.Preemption(Clock(), grace_seconds=0)
    with preemption.handled():
        assert not preemption.reached(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.reached(2)
        time.sleep(0.2)


@pytest.mark.parametrize(("processes", "place"), [(0, 0), (2, -1), (2, 2)])
def test_a_process_without_its_place_is_refused(processes, place):
    fields = {"coordinator": "there:1", "num_processes": processes, "process_id": place}
    with pytest.raises(ValueError, match="give each process its number"):
        join(fields | {"heartbeat_seconds": 60})


class Pair:
    """A run of two processes with four virtual devices each."""

    def __init__(self, root: pathlib.Path, workdir: pathlib.Path, overrides: list[str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
        environment["JAX_PLATFORMS"] = "cpu"
        common = [*overrides, f"distributed.coordinator=127.0.0.1:{port}"]
        self.processes = []
        for number in range(2):
            fields = [*common, "distributed.num_processes=2", f"distributed.process_id={number}"]
            command = [sys.executable, "-m", "marco_jax", "train", "--config=configs/demo.py"]
            command += [f"--workdir={workdir}", *(f"--config.{field}" for field in fields)]
            self.processes.append(
                subprocess.Popen(
                    command,
                    cwd=root,
                    env=environment,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )

    def outputs(self, timeout: float) -> list[str]:
        try:
            return [process.communicate(timeout=timeout)[1] for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()

    def codes(self) -> list[int]:
        return [process.returncode for process in self.processes]


def wait_for_step(pair, workdir, step):
    deadline = time.monotonic() + 240
    while not any(row["step"] >= step for row in read_metrics(workdir / "metrics.jsonl")):
        if any(process.poll() is not None for process in pair.processes):
            pytest.fail("".join(pair.outputs(60)))
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_two_processes_save_the_same_step_and_none_survives_the_other(root, overrides, tmp_path):
    many = [*overrides, "steps=4000", "checkpoint.every=50", "checkpoint.keep=2"]
    pair = Pair(root, tmp_path, many)
    wait_for_step(pair, tmp_path, 2)
    pair.processes[1].send_signal(signal.SIGTERM)
    outputs = pair.outputs(60)
    assert pair.codes() == [STOPPED, STOPPED], outputs
    saved = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert f"step {saved} is saved" in outputs[0]
    manifest = json.loads((tmp_path / f"checkpoints/{saved}/manifest.json").read_text())
    writers = {name.split("/")[1] for name in manifest["files"] if "ocdbt.process" in name}
    assert writers == {"ocdbt.process_0", "ocdbt.process_1"}
    for victim in (1, 0):
        (tmp_path / "metrics.jsonl").unlink()  # its next lines are of this start
        pair = Pair(root, tmp_path, many)
        wait_for_step(pair, tmp_path, 1)
        pair.processes[victim].kill()
        begin = time.monotonic()
        outputs = pair.outputs(60)
        assert time.monotonic() - begin < 20
        # Of the first process JAX's own service may notice the death first; it aborts.
        assert pair.codes()[1 - victim] in ((1,) if victim else (1, -signal.SIGABRT))
        if victim:
            assert "process 0: process 1 of the run has ended" in outputs[0]
        assert f"resuming at step {saved}" in (
            outputs[0] if victim else f"resuming at step {saved}"
        )
