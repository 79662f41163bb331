"""What happens to a run: bad workdirs, numbers that are none, two runs in one place, stalls."""

import json
import pathlib
import shutil
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marco_jax.__main__ import main
from marco_jax.data.training_data import TrainingData
from marco_jax.model.mesh import Sharding, create_mesh
from marco_jax.model.qwen2_config import PRESETS
from marco_jax.reports.run_data import read_metrics
from marco_jax.training import faults
from marco_jax.training.clock import INPUT, Clock
from marco_jax.training.optimizer import StageSchedule, create_optimizer
from marco_jax.training.state import GuardOptions
from marco_jax.training.step import Batch, StepOptions, Trainer
from marco_jax.weights.models import load_model

pytestmark = pytest.mark.usefixtures("compiled_once")

TINY = PRESETS["tiny"]
STEPS = 6


@pytest.fixture(scope="module")
def command(root, overrides, tmp_path_factory):
    """Runs `marco train` on a workdir in this process, with further overrides."""
    cache = tmp_path_factory.mktemp("data")
    base = [*overrides, f"data_cache={cache}", f"steps={STEPS}", "mesh.tensor=1"]
    base += ["mixture.name=base", "stages=base"]

    def run(workdir, *changes):
        flags = [f"--config.{item}" for item in [*base, *changes]]
        config = f"--config={root / 'configs/demo.py'}"
        return main(["train", config, f"--workdir={workdir}", *flags])

    return run


@pytest.fixture(scope="module")
def finished(command, tmp_path_factory):
    """The workdir of a run that has saved steps 3 and 6."""
    workdir = tmp_path_factory.mktemp("finished")
    assert command(workdir) == 0
    return workdir


@pytest.fixture
def cut(finished, tmp_path):
    """The same workdir as it was after step 3."""
    workdir = pathlib.Path(shutil.copytree(finished, tmp_path / "run"))
    shutil.rmtree(workdir / "checkpoints/6")
    return workdir


def lines(capsys):
    """What was said, but for the notes on mixtures."""
    said = capsys.readouterr().err.splitlines()
    return [line for line in said if line.strip() and not line.startswith("mixture ")]


def figures(workdir):
    names = ("step", "loss", "tokens", "grad_norm", "skipped_steps")
    return [[row[name] for name in names] for row in read_metrics(workdir / "metrics.jsonl")]


def assert_same_end(workdir, finished):
    a, b = load_model(workdir), load_model(finished)
    assert a.step == b.step == STEPS
    for x, y in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.hidden_size=64", "model.hidden_size is 64, and 32"),
        ("model.rms_norm_eps=1e-5", "no field 'rms_norm_eps'"),
        ("objective=dpo", "objective"),
        ("tokenizer", "the tokenizer is not the one"),
    ],
)
def test_a_config_of_another_model_is_refused_and_nothing_changes(
    change, message, cut, command, capsys
):
    if change == "tokenizer":
        # As if another corpus had trained it.
        shutil.rmtree(cut / "tokenizer")
        change = "tokenizer.vocab_size=330"
    before = (cut / "config.json").read_bytes()
    assert command(cut, change) == 2
    said = lines(capsys)
    assert message in said[-1] and said[-1].startswith("marco train: ")
    assert (cut / "config.json").read_bytes() == before
    assert [path.name for path in (cut / "checkpoints").iterdir()] == ["3"]


def test_garbage_beside_the_checkpoints_does_not_stop_a_run(cut, finished, command, capsys):
    (cut / "metrics.jsonl").write_bytes(b'{"step": 1, "loss"\xff\xfe\x00')
    (cut / "config.json").write_text('{"steps": ')
    shutil.rmtree(cut / "tokenizer")  # the corpus gives the same one again
    assert command(cut) == 0
    said = "\n".join(lines(capsys))
    assert "no readable lines of steps 1 to 3" in said
    assert "config.json cannot be read" in said
    assert (cut / "metrics.damaged.jsonl").read_bytes().startswith(b'{"step": 1')
    assert figures(cut) == figures(finished)[3:]
    assert json.loads((cut / "config.json").read_text())["steps"] == STEPS
    assert_same_end(cut, finished)


def test_a_damaged_tokenizer_is_refused(cut, command, capsys):
    for path in (cut / "tokenizer").iterdir():
        path.write_bytes(path.read_bytes()[:20])
    assert command(cut) == 2
    assert lines(capsys)[-1].startswith("marco train: ")


def test_a_workdir_in_use_is_refused_and_one_of_a_dead_run_is_not(cut, command, capsys):
    code = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'a+'); fcntl.lockf(f, fcntl.LOCK_EX);"
        "f.truncate(0); f.write('process 7 on there'); f.flush(); print('held', flush=True);"
        "time.sleep(600)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(cut / ".lock")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        assert command(cut) == 2
        assert "is in use by process 7 on there" in lines(capsys)[-1]
    finally:
        holder.kill()
        holder.wait()
    assert command(cut) == 0


@pytest.fixture
def poisoned(monkeypatch):
    """Makes loss and gradient of the batches at some step indices no numbers."""
    batches, gradients = TrainingData.batches, Trainer.gradients
    mark = 1_000_000

    def poison(*steps):
        def marked(self, first, stop, layout):
            for index, batch in enumerate(batches(self, first, stop, layout), start=first):
                if index in steps:
                    batch["positions"] += mark
                yield batch

        def spoilt(self, params, batch, *rest):
            sums, grads = gradients(self, params, batch, *rest)
            factor = jnp.where(batch.positions.max() >= mark, jnp.nan, 1.0)
            grads = jax.tree.map(lambda grad: grad * factor.astype(grad.dtype), grads)
            return sums._replace(loss_sums=sums.loss_sums * factor), grads

        monkeypatch.setattr(TrainingData, "batches", marked)
        monkeypatch.setattr(Trainer, "gradients", spoilt)

    return poison


def test_a_step_without_a_number_is_skipped_and_said(poisoned, command, finished, tmp_path, capsys):
    poisoned(1)
    assert command(tmp_path) == 0
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["skipped_steps"] for row in rows] == [0, 1, 1, 1, 1, 1]
    assert rows[1]["loss"] is None and rows[1]["skipped"] is True
    assert rows[0]["loss"] == figures(finished)[0][1]
    assert all(np.isfinite(row["loss"]) for row in rows if "skipped" not in row)
    [said] = [line for line in lines(capsys) if "skipped" in line]
    assert "WARNING skipped step 2: loss not finite" in said
    assert "its batch: " in said and "en" in said.partition("its batch: ")[2]


def test_stop_ends_with_the_last_good_checkpoint(poisoned, command, tmp_path, capsys):
    poisoned(4)
    assert command(tmp_path, "anomaly.nonfinite=stop") == 1
    assert lines(capsys)[-1].startswith("marco train: step 5: loss not finite")
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["3"]
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5]


def test_too_many_in_a_row_end_the_run(poisoned, command, tmp_path, capsys):
    poisoned(1, 2, 3)
    assert command(tmp_path, "anomaly.max_skips=2") == 1
    said = lines(capsys)[-1]
    assert "step 4" in said and "anomaly.max_skips (2)" in said


def test_rollback_passes_over_the_batches_since_the_checkpoint(
    poisoned, command, finished, tmp_path, capsys
):
    poisoned(4)
    assert command(tmp_path, "anomaly.nonfinite=rollback") == 0
    said = "\n".join(lines(capsys))
    assert "rolled back to the parameters of step 3: the batches of steps 4 to 5 are passed" in said
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["skipped_steps"] == 2
    # Step 6 started from the parameters of step 3, so its loss is not that of the other run.
    assert rows[-1]["loss"] != figures(finished)[-1][1]
    assert rows[-1]["tokens"] == figures(finished)[-1][2]


def test_a_policy_that_is_none_is_named(command, tmp_path, capsys):
    assert command(tmp_path, "anomaly.nonfinite=ignore") == 2
    assert "anomaly.nonfinite is 'ignore'" in lines(capsys)[-1]
    assert command(tmp_path, "anomaly.spike_sigmas=-1") == 2
    assert "anomaly.spike_sigmas" in lines(capsys)[-1]


def make_step(guard=None):
    schedule = StageSchedule(steps=50, peak=1e-2).build()
    fields = {"b1": 0.9, "b2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "clip_norm": 1.0}
    optimizer = create_optimizer(TINY, schedule, **fields)
    options = StepOptions(guard=guard or GuardOptions())
    sharding = Sharding(create_mesh({"fsdp": 1}, jax.devices()[:1]))
    return Trainer(TINY, optimizer, schedule, sharding, 1, options)


def batch_of(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 250, (8, 17)).astype(np.int32)
    ones = np.ones((8, 16), np.int32)
    weights = np.full((8, 16), scale, np.float32)
    positions = np.arange(16, dtype=np.int32) * ones
    return Batch(tokens[:, :-1], tokens[:, 1:], positions, ones, weights, 0 * ones)


@pytest.fixture(scope="module")
def plain():
    """A trainer with the guard that every run has."""
    return make_step()


def test_a_skipped_step_leaves_parameters_and_optimizer_bit_for_bit(plain):
    trainer = plain
    state, _ = trainer.step(trainer.init(0), batch_of(0))
    before = jax.device_get(state)
    state, metrics = trainer.step(state, batch_of(1, scale=float("inf")))
    assert metrics.skipped and metrics.skipped_steps == 1 and state.step == 2
    for a, b in zip(
        jax.tree.leaves((state.params, state.optimizer)),
        jax.tree.leaves((before.params, before.optimizer)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    rate = float(metrics.learning_rate)
    state, metrics = trainer.step(state, batch_of(2))
    assert not metrics.skipped and metrics.skipped_steps == 1
    # The schedule has waited with the optimizer.
    assert float(metrics.learning_rate) == rate
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(state.params)))


def test_a_guard_that_skips_nothing_changes_no_bit(plain):
    states = []
    for trainer in (plain, make_step(GuardOptions(spike_sigmas=50.0, spike_window=3))):
        state = trainer.init(0)
        for step in range(6):
            state, _ = trainer.step(state, batch_of(step))
        states.append(state)
    for a, b in zip(*(jax.tree.leaves((s.params, s.optimizer)) for s in states), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_spike_is_skipped_once_the_window_is_full():
    options = GuardOptions(spike_sigmas=4.0, spike_window=8)
    judge = jax.jit(options.judge)
    guard, skipped = options.init(), []
    rng = np.random.default_rng(0)
    losses = [9.0, *(3.0 + 0.1 * rng.standard_normal(20)), 5.0, 3.05, float("nan"), 2.0, 3.0]
    for loss in losses:
        skip, guard = judge(guard, np.float32(loss), np.float32(1.0))
        skipped.append(bool(skip))
    # The first is high, and nothing to compare it with; lower is never a spike.
    assert [i for i, skip in enumerate(skipped) if skip] == [21, 23]
    assert guard.skipped == 2
    assert not np.isin(np.float32(5.0), guard.losses)
    skip, _ = judge(guard, np.float32(3.0), np.float32("inf"))
    assert skip


def test_a_stall_names_what_is_waited_for(monkeypatch, capsys):
    left = threading.Event()
    monkeypatch.setattr(faults, "leave", lambda code: left.set() if code == 1 else None)
    clock = Clock()
    watchdog = faults.Watchdog(clock, stall_seconds=0.3)
    for _ in range(4):  # what goes on is no stall
        with clock.part(INPUT):
            time.sleep(0.1)
    assert not left.is_set()
    clock.step = 41
    with clock.part(INPUT):
        assert left.wait(5)
    watchdog.close()
    assert "for input after step 41" in capsys.readouterr().err
