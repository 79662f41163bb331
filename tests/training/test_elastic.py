"""A run of two slices goes on with one, and back: the same batches, the same losses."""

import json
import shutil

import jax
import numpy as np
import pytest

from marco_jax.reports.run_data import read_metrics
from marco_jax.training import loop
from marco_jax.training.assemble import create_sharding, keep_batch
from marco_jax.training.loop import train
from marco_jax.training.seat import Seat
from tests.processes import run_processes

STEPS = 6


class RecordingSeat(Seat):
    """Keeps the token ids of every global batch."""

    def __init__(self):
        self.tokens = []

    def step(self, state, batch):
        self.tokens.append(np.asarray(batch.tokens))
        return super().step(state, batch)


@pytest.fixture(scope="module")
def fields(overrides, tmp_path_factory):
    fields = [*overrides, f"data_cache={tmp_path_factory.mktemp('data')}", f"steps={STEPS}"]
    fields += ["stages=base", "mixture.name=base", "log_every=1", "checkpoint.every=2"]
    fields += ["mesh.tensor=1", "mesh.fsdp=4", "mesh.num_slices=2", "mesh.elastic=true"]
    return [*fields, "batch.sequences_per_chip=2"]


def cut(workdir, copy, step):
    """A copy of a workdir as it was after a checkpoint."""
    shutil.copytree(workdir, copy)
    for saved in (copy / "checkpoints").iterdir():
        if int(saved.name) > step:
            shutil.rmtree(saved)
    return copy


def assert_near(workdir, whole):
    rows = [read_metrics(one / "metrics.jsonl") for one in (workdir, whole)]
    assert [[row["step"] for row in one] for one in rows] == [list(range(1, STEPS + 1))] * 2
    losses = [[row["loss"] for row in one] for one in rows]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert [row["tokens"] for row in rows[0]] == [row["tokens"] for row in rows[1]]


def batch(workdir):
    fields = json.loads((workdir / "config.json").read_text())["batch"]
    return fields["sequences"], fields["accumulation_steps"]


@pytest.mark.usefixtures("compiled_once")
def test_a_run_goes_on_with_one_slice_and_back(root, small_config, fields, tmp_path, monkeypatch):
    def train_on(devices, workdir):
        seat = RecordingSeat()
        monkeypatch.setattr(
            loop, "create_sharding", lambda c: create_sharding(c, jax.devices()[:devices])
        )
        assert train(small_config(*fields), workdir, seat) == 0
        return seat.tokens

    whole = tmp_path / "whole"
    tokens = train_on(8, whole)
    assert tokens[0].shape == (16, 32)
    less = cut(whole, tmp_path / "less", 2)
    np.testing.assert_array_equal(train_on(4, less), tokens[2:])
    assert batch(less) == (16, 2)
    assert_near(less, whole)
    back = cut(less, tmp_path / "back", 4)
    np.testing.assert_array_equal(train_on(8, back), tokens[4:])
    assert batch(back) == (16, 1)
    assert_near(back, whole)


def test_a_batch_that_the_mesh_does_not_divide_is_refused(small_config, fields, tmp_path):
    (tmp_path / "batch.json").write_text(json.dumps({"rows": 10, "rows_at_once": 2}))
    config = small_config(*fields)
    sharding = create_sharding(config)
    assert sharding.mesh.shape["slice"] == 2
    with pytest.raises(ValueError, match="keeps 10 sequences in a step"):
        keep_batch(config, sharding, tmp_path)
    # What a chip computes at once never grows.
    (tmp_path / "batch.json").write_text(json.dumps({"rows": 48, "rows_at_once": 2.5}))
    keep_batch(config, sharding, tmp_path)
    assert (config.batch.sequences, config.batch.accumulation_steps) == (48, 3)


@pytest.mark.slow
def test_the_command_of_two_processes_goes_on_with_one(fields, tmp_path):
    """Each process stands for a slice of four devices."""
    command = ["train", "--config=configs/demo.py", *(f"--config.{field}" for field in fields)]
    whole = tmp_path / "whole"
    run_processes([*command, f"--workdir={whole}"], 2, 4)
    less = cut(whole, tmp_path / "less", 2)
    run_processes([*command, f"--workdir={less}"], 1, 4)
    assert batch(less) == (16, 2)
    assert_near(less, whole)
