"""Local snapshots of four processes, each with a disk of its own: hosts die, and lose their disks.

Every continued run equals, bit for bit, one on the same mesh that nothing has interrupted.
"""

import pathlib
import shutil

import jax
import numpy as np
import pytest

from marco_jax.reports.run_data import read_metrics
from marco_jax.weights.models import load_model
from tests.processes import run_processes

pytestmark = pytest.mark.slow

# `marco` of which some processes kill themselves within the snapshot of a step: its shards are
# written, and its manifest is not.
KILLED = """
import os, signal, sys
step, victims = int(sys.argv.pop(1)), sys.argv.pop(1).split(",")
rank = sys.argv[-1].rpartition("=")[2]
from marco_jax.weights import shard_files, snapshots
write = snapshots.write_shards

class Killing:
    @staticmethod
    def dump(*_):
        os.kill(os.getpid(), signal.SIGKILL)

def killed(directory, shards, fields):
    if fields["step"] == step and rank in victims:
        shard_files.json = Killing
    write(directory, shards, fields)

snapshots.write_shards = killed
from marco_jax.__main__ import main
sys.exit(main())
"""
STEPS = 7


class Hosts:
    """Runs on four processes of one device each; every process has a disk of its own."""

    def __init__(self, folder: pathlib.Path, fields: list[str]) -> None:
        self.folder, self.workdir, self.saved = folder, folder / "run", folder / "saved"
        fields = [f"--config.{field}" for field in fields]
        self.command = ["train", "--config=configs/demo.py", *fields]
        self.whole = folder / "whole"
        run_processes([*self.command, f"--workdir={self.whole}"], 4, 1)

    def disk(self, rank: int) -> pathlib.Path:
        return self.folder / "run" / f"disk{rank}"

    def launch(self, *, victims: str = "") -> list[str]:
        """Starts the run, or goes on with it; `victims` die within the snapshot of step 5."""
        command = [*self.command, f"--workdir={self.workdir}", "--config.checkpoint.local_every=1"]

        def own(rank: int) -> list[str]:
            # The last argument tells a process its number.
            return [f"--config.checkpoint.local_dir={self.disk(rank)}"]

        program = ["-c", KILLED, "5", victims] if victims else ["-m", "marco_jax"]
        return run_processes(
            command, 4, 1, own_arguments=own, program=program, succeeds=not victims
        )

    def die(self, victims: str) -> None:
        """Makes the killed run that `again` goes on from."""
        self.launch(victims=victims)
        assert len(list(self.workdir.glob("disk*/*/process-*/5.unfinished.*"))) >= 1
        shutil.copytree(self.workdir, self.saved)

    def again(self, *, lost: int | None = None) -> list[str]:
        """Goes on with the killed run, after the disk of one host is gone."""
        shutil.rmtree(self.workdir)
        shutil.copytree(self.saved, self.workdir)
        if lost is not None:
            shutil.rmtree(self.disk(lost))
        said = self.launch()
        self.assert_same()
        return said

    def assert_same(self) -> None:
        rows = [read_metrics(one / "metrics.jsonl") for one in (self.workdir, self.whole)]
        names = ("step", "loss", "grad_norm", "tokens")
        values = [[[row[name] for name in names] for row in one] for one in rows]
        assert len(values[0]) == STEPS and values[0] == values[1]
        models = [jax.tree.leaves(load_model(one).params) for one in (self.workdir, self.whole)]
        for a, b in zip(*models, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def fields(overrides, tmp_path_factory):
    fields = [*overrides, f"data_cache={tmp_path_factory.mktemp('data')}", f"steps={STEPS}"]
    fields += ["stages=base", "mixture.name=base", "mesh.tensor=1", "log_every=1"]
    return [*fields, "batch.sequences=8", "checkpoint.every=3"]


@pytest.fixture(scope="module")
def replicas(fields, tmp_path_factory):
    """A mesh in which two processes hold each shard; all died within the snapshot of step 5."""
    hosts = Hosts(tmp_path_factory.mktemp("replicas"), [*fields, "mesh.data=2", "mesh.fsdp=2"])
    hosts.die("0,1,2,3")
    return hosts


@pytest.fixture(scope="module")
def split(fields, tmp_path_factory):
    """A mesh in which each shard is on one process; one died within the snapshot of step 5."""
    hosts = Hosts(tmp_path_factory.mktemp("split"), [*fields, "mesh.fsdp=4"])
    hosts.die("2")
    return hosts


def test_a_restart_takes_the_newest_step_that_all_have(replicas):
    said = replicas.again()
    assert "resuming at step 4 from local snapshots" in said[0]
    assert "another host's disk" not in said[0]


def test_a_host_without_its_disk_gets_shards_of_a_replica(replicas):
    said = replicas.again(lost=3)
    assert "come from another host's disk" in said[0]
    assert "resuming at step 4 from local snapshots" in said[0]


def test_a_host_that_died_within_a_snapshot_has_the_one_before(split):
    said = split.again()
    assert "resuming at step 4 from local snapshots" in said[0]


def test_shards_that_only_the_lost_disk_had_are_those_of_the_checkpoint(split):
    said = split.again(lost=1)
    assert "resuming at step 3\n" in said[0]
