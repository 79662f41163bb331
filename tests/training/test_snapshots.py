"""Local snapshots of one process: which is taken, and that the run goes on as if uninterrupted."""

import json
import shutil

import jax
import numpy as np
import pytest

from marco_jax.reports.run_data import read_metrics
from marco_jax.runtime import device_memory
from marco_jax.training.hooks import MetricsHook
from marco_jax.training.loop import train
from marco_jax.weights.manifest import Damaged
from marco_jax.weights.models import load_model
from marco_jax.weights.shard_files import ShardFolder, local_shards, write_shards
from marco_jax.weights.snapshots import Snapshots

pytestmark = pytest.mark.usefixtures("compiled_once")


class Ended(Exception):
    """The end of a process, as a test makes it."""


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    cache = tmp_path_factory.mktemp("data")
    fields = [f"data_cache={cache}", "steps=8", "checkpoint.every=3", "log_every=1"]
    # A spike's window and adaptive weights are state besides the arrays.
    fields += ["anomaly.spike_sigmas=50", "anomaly.spike_window=4"]
    fields += ["stages=base", "mixture.name=base"]
    return [*fields, "mixture.adaptive.every=2", "mixture.adaptive.rate=0.5"]


@pytest.fixture(scope="module")
def whole(small_config, fields, tmp_path_factory):
    """A run without snapshots that nothing has interrupted."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    assert train(small_config(*fields), workdir) == 0
    return workdir


@pytest.fixture
def config(small_config, fields, tmp_path):
    """The config of the same run with a snapshot of every second step."""
    local = ["checkpoint.local_every=2", f"checkpoint.local_dir={tmp_path / 'local'}"]

    def make(*changes):
        return small_config(*fields, *local, *changes)

    return make


def train_to(step, config, workdir, monkeypatch):
    """The run ends before the hooks that follow `step`."""
    with monkeypatch.context() as patch:
        call = MetricsHook.__call__

        def ends(self, event):
            if event.step == step and event.metrics is not None:
                raise Ended
            call(self, event)

        patch.setattr(MetricsHook, "__call__", ends)
        with pytest.raises(Ended):
            train(config, workdir)


def assert_same(workdir, whole):
    rows = [read_metrics(one / "metrics.jsonl") for one in (workdir, whole)]
    names = ("step", "loss", "grad_norm", "tokens", "learning_rate")
    values = [[[row[name] for name in names] for row in one] for one in rows]
    for found, wanted in zip(*values, strict=True):
        assert found == wanted
    models = [jax.tree.leaves(load_model(one).params) for one in (workdir, whole)]
    for a, b in zip(*models, strict=True):
        np.testing.assert_array_equal(a, b)


def steps(tmp_path):
    return sorted(path.name for path in tmp_path.glob("local/*/process-0/*"))


def test_a_restart_takes_the_newest_snapshot(config, whole, tmp_path, monkeypatch, capsys):
    workdir = tmp_path / "run"
    train_to(5, config(), workdir, monkeypatch)
    assert steps(tmp_path) == ["2", "4"]
    assert train(config(), workdir) == 0
    assert "resuming at step 4 from local snapshots" in capsys.readouterr().err
    assert_same(workdir, whole)
    assert steps(tmp_path) == ["4", "6", "8"]  # the newest two, and the one behind them


def test_a_damaged_snapshot_is_passed_over(config, whole, tmp_path, monkeypatch, capsys):
    workdir = tmp_path / "run"
    train_to(5, config("checkpoint.every=0"), workdir, monkeypatch)
    (file,) = tmp_path.glob("local/*/process-0/4/shards.bin")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert train(config("checkpoint.every=0"), workdir) == 0
    said = capsys.readouterr().err
    assert "has changed since it was written (checksum)" in said
    assert "resuming at step 2 from local snapshots" in said
    assert_same(workdir, whole)


def test_a_newer_checkpoint_is_taken(config, whole, tmp_path, monkeypatch, capsys):
    workdir = tmp_path / "run"
    train_to(4, config(), workdir, monkeypatch)
    assert train(config(), workdir) == 0
    assert "resuming at step 3\n" in capsys.readouterr().err
    assert_same(workdir, whole)


def test_snapshots_of_another_run_are_not_taken(config, tmp_path, monkeypatch, capsys):
    workdir = tmp_path / "run"
    train_to(5, config(), workdir, monkeypatch)
    copy = shutil.copytree(workdir, tmp_path / "copy")
    assert train(config(), copy) == 0
    assert "resuming at step 3\n" in capsys.readouterr().err
    # A new run where another one was.
    shutil.rmtree(workdir)
    assert train(config("seed=1"), workdir) == 0
    assert "resuming" not in capsys.readouterr().err


def test_snapshots_that_the_run_has_left_behind_are_not_taken(
    config, tmp_path, monkeypatch, capsys
):
    """The disk with step 6 is away while the run goes on from step 3, and comes back."""
    workdir, local = tmp_path / "run", tmp_path / "local"
    train_to(7, config("checkpoint.every=0"), workdir, monkeypatch)
    local.rename(tmp_path / "away")
    train_to(5, config("checkpoint.every=1"), workdir, monkeypatch)
    shutil.rmtree(local)
    (tmp_path / "away").rename(local)
    capsys.readouterr()
    assert train(config(), workdir) == 0
    assert "resuming at step 4\n" in capsys.readouterr().err


def test_a_disk_without_room_does_not_end_the_run(config, whole, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("marco_jax.weights.snapshots.write_shards", full)
    assert train(config(), tmp_path / "run") == 0
    assert "the snapshot of step 2 could not be written" in capsys.readouterr().err
    assert_same(tmp_path / "run", whole)


def test_fields_that_do_not_fit_are_refused(small_config, tmp_path):
    with pytest.raises(ValueError, match="local_dir is empty: name a folder"):
        train(small_config("checkpoint.local_every=2"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_large_arrays_on_a_cpu_are_written_before_the_next_step(config, tmp_path, monkeypatch):
    snapshots, waits = Snapshots(tmp_path, config().checkpoint), []
    wait = snapshots.wait
    monkeypatch.setattr(snapshots, "wait", lambda: (waits.append(None), wait()))
    snapshots.begin(0)
    arrays = {"a": jax.numpy.ones(1000)}
    for step, limit, waited in ((2, 9 * 4000, 1), (4, 7 * 4000, 3)):
        monkeypatch.setattr(device_memory, "memory_limit", lambda limit=limit: limit)
        snapshots.save(step, arrays, {})
        assert len(waits) == waited
    (folder,) = tmp_path.glob("local/*/*/4")
    assert ShardFolder(folder).fields["step"] == 4


def test_shards_are_read_as_they_were_written(tmp_path):
    arrays = {
        "a": jax.numpy.arange(6, dtype=jax.numpy.bfloat16).reshape(2, 3),
        "n": jax.numpy.int32(7),
    }
    shards = local_shards(arrays)
    write_shards(tmp_path / "3", shards, {"step": 3})
    folder = ShardFolder(tmp_path / "3")
    assert folder.fields["step"] == 3
    for key, array in shards.items():
        assert key in folder
        found = folder.read(key)
        assert found.dtype == array.dtype and found.shape == array.shape
        np.testing.assert_array_equal(found, array)
    (tmp_path / "3" / "shards.bin").write_bytes(b"")
    with pytest.raises(Damaged, match="has 0 bytes"):
        ShardFolder(tmp_path / "3")
    (tmp_path / "3" / "manifest.json").write_text(json.dumps({"step": 3}))
    with pytest.raises(Damaged, match="cannot be read"):
        ShardFolder(tmp_path / "3")
