"""Goodput: every second since the first start has one cause, through kills and rollbacks."""

import os
import signal
import subprocess
import sys
import time

import pytest

from marco_jax.reports.run_data import load_run, read_metrics
from marco_jax.reports.run_page import write_report
from marco_jax.runtime.attempts import (
    CAUSES,
    PRODUCTIVE,
    REPEATED,
    STOPPED_TIME,
    AttemptLog,
    lost_and_productive,
    read_attempts,
)
from marco_jax.training.clock import CHECKPOINT, EVALUATION, INPUT, SAMPLING, Clock

# `marco` whose run kills itself once the line of a step is written and a checkpoint is whole.
KILLED = """
import os, pathlib, signal, sys, time
from marco_jax.training.metrics_log import MetricsWriter

step, checkpoint = int(sys.argv.pop(1)), pathlib.Path(sys.argv.pop(1))
flush = MetricsWriter.flush

def killed(self):
    row = flush(self)
    if row and row["step"] == step:
        while not checkpoint.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return row

MetricsWriter.flush = killed
from marco_jax.__main__ import main
sys.exit(main())
"""


def test_seconds_are_booked_once_and_add_up():
    now = [100.0]
    clock = Clock(lambda: now[0], started_for=7.0)

    def work(seconds):
        now[0] += seconds

    work(1)  # of the start, as long as no step has begun
    clock.begin_steps()
    with clock.part(INPUT):
        work(2)
        with clock.part(SAMPLING):
            work(4)
    work(8)
    with clock.part(EVALUATION):
        work(16)
        with clock.part(INPUT):
            work(32)
    with clock.part(CHECKPOINT):
        work(64)
        found = clock.by_cause()
    assert found == {
        "start": 8.0,
        "input": 34.0,
        PRODUCTIVE: 12.0,
        "evaluation": 16.0,
        "checkpoint": 64.0,
    }
    assert sum(found.values()) == 7.0 + now[0] - 100.0


def test_a_rollback_and_a_restart_charge_what_they_repeat(tmp_path):
    log = AttemptLog(tmp_path, 1000.0, 0, write=True)
    log.update({"start": 10.0, PRODUCTIVE: 20.0}, 10)
    log.mark()
    assert log.update({"start": 10.0, PRODUCTIVE: 50.0}, 16) == 50 / 60
    log.lose_after(10)  # a rollback: 30 s for steps 11 to 16
    assert log.seconds()[REPEATED] == 30.0
    assert log.update({"start": 10.0, PRODUCTIVE: 90.0}, 20) == 60 / 100
    log.write()
    # The checkpoint of step 15 has no mark: half of the 40 s between 10 and 20.
    after = AttemptLog(tmp_path, 1150.0, 15, write=True)
    after.update({"start": 5.0}, 15)
    found = after.seconds()
    assert found == dict.fromkeys(CAUSES, 0.0) | {
        PRODUCTIVE: 40.0,
        "start": 15.0,
        REPEATED: 50.0,
        STOPPED_TIME: 50.0,
    }
    assert sum(found.values()) == 1155.0 - 1000.0


def test_a_file_that_cannot_be_read_starts_the_count_anew(tmp_path, capsys):
    (tmp_path / "attempts.json").write_text('{"attempts": 3}')
    log = AttemptLog(tmp_path, 10.0, 5, write=False)
    log.update({PRODUCTIVE: 3.0}, 6)
    assert log.seconds()[PRODUCTIVE] == 3.0
    assert "goodput counts from this start on" in capsys.readouterr().err


@pytest.fixture(scope="module")
def killed_twice(root, overrides, tmp_path_factory):
    """A run of 12 steps that was killed after steps 6 and 11; when it was begun and over."""
    workdir = tmp_path_factory.mktemp("killed") / "run"
    fields = [*overrides, "checkpoint.every=4", "log_every=1", "mesh.tensor=1", "mixture.name=base"]
    fields += ["stages=base"]
    command = ["train", "--config=configs/demo.py", f"--workdir={workdir}"]
    command += [f"--config.{field}" for field in fields]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)}
    begin, dropped, said = time.time(), [], ""
    for step, saved in ((6, 4), (11, 8), (0, 12)):
        ran = subprocess.run(
            [sys.executable, "-c", KILLED, str(step), f"{workdir}/checkpoints/{saved}", *command],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        said = ran.stderr
        assert ran.returncode == (-signal.SIGKILL if step else 0), said
        dropped.append([r for r in read_metrics(workdir / "metrics.jsonl") if r["step"] > saved])
    return workdir, begin, time.time(), dropped, said


def test_causes_of_a_run_that_was_killed_twice_add_up_to_its_wall_clock(killed_twice):
    workdir, begin, end, dropped, said = killed_twice
    attempts = read_attempts(workdir)
    assert [(one.first_step, one.last_step) for one in attempts] == [(0, 4), (4, 8), (8, 12)]
    found = lost_and_productive(attempts)
    wall = attempts[-1].end - attempts[0].start
    assert sum(found.values()) == pytest.approx(wall, abs=1e-3)
    # The kernel tells the start of a process in hundredths.
    assert begin - 0.05 <= attempts[0].start and attempts[-1].end <= end + 0.05
    for cause in (PRODUCTIVE, "start", "compile", "checkpoint", STOPPED_TIME):
        assert found[cause] > 0, cause
    # What the lines of the lost steps said that they took.
    for attempt, rows in zip(attempts, dropped, strict=True):
        spent = sum(row["step_seconds"] - row["input_seconds"] for row in rows)
        assert attempt.repeated == pytest.approx(spent, rel=0.05, abs=0.01)
    assert [len(rows) for rows in dropped] == [2, 3, 0]
    assert found[REPEATED] > 0
    last = read_metrics(workdir / "metrics.jsonl")[-1]
    assert 0 < last["goodput"] < 1
    assert f"goodput {found[PRODUCTIVE] / wall:.1%}" in said and CAUSES[REPEATED] in said


def test_the_report_shows_the_goodput(killed_twice):
    workdir = killed_twice[0]
    shown = load_run(workdir).goodput()
    assert CAUSES[PRODUCTIVE] in shown and CAUSES[REPEATED] in shown
    page = write_report(workdir).read_text(encoding="utf-8")
    assert CAUSES[STOPPED_TIME] in page and "attempts: 3" in page
