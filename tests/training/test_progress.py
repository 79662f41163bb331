"""What a watcher sees: the live line, lines in a log, Weights & Biases."""

import io
import sys
import types

import pytest

from marco_jax.extras import MissingExtra
from marco_jax.training import hooks
from marco_jax.training.boards import Boards
from marco_jax.training.hooks import Event, ProgressHook

ROW = {"loss": 2.5, "learning_rate": 1e-3, "tokens_per_second": 12_345.0, "mfu": 0.412}


class Terminal(io.StringIO):
    """A standard error that is a terminal."""

    def isatty(self):
        return True


def watch(rows):
    """Calls the hook with a step a row, and closes it."""
    metrics = types.SimpleNamespace(last=None)
    hook = ProgressHook(metrics, len(rows), 0, lambda: "bits_per_byte 2.130 at step 1")
    for step, row in enumerate(rows, 1):
        metrics.last = row
        hook(Event(step, "stage1", None, object()))
    hook.close()


def test_a_live_line_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("COLUMNS", "200")
    watch([ROW] * 3)
    shown = terminal.getvalue().split("\r")[-1]
    assert "stage1" in shown and "3/3" in shown
    for part in ("loss 2.500", "12,345 tokens/s", "MFU 41.2%", "bits_per_byte 2.130 at step 1"):
        assert part in shown


def test_plain_lines_in_a_log_and_none_for_a_loss_that_is_not_there(caplog):
    caplog.set_level("INFO", hooks.__name__)
    watch([ROW, ROW | {"loss": None, "mfu": None}])
    assert caplog.messages == [
        "step 2/2 stage1: loss none, 12,345 tokens/s, learning rate 1.00e-03, 0.0 min left"
    ]


class StubRun:
    """Records what is logged."""

    def __init__(self):
        self.logged, self.finished = [], False

    def log(self, figures, step):
        self.logged.append((step, figures))

    def finish(self):
        self.finished = True


def test_weights_and_biases_when_asked(monkeypatch, small_config, tmp_path):
    run, given = StubRun(), {}
    stub = types.SimpleNamespace(init=lambda **fields: given.update(fields) or run)
    monkeypatch.setitem(sys.modules, "wandb", stub)
    boards = Boards(tmp_path / "my_run", small_config("wandb.project=marco"), first=True)
    for step in (1, 2):
        boards.scalar("train/loss", 2.0 + step, step)
        boards.scalar("train/mfu", float("nan"), step)
        boards.scalar("loss/kk", 1.0, step)
    boards.close()
    assert (given["project"], given["name"], given["resume"]) == ("marco", "my_run", "allow")
    assert given["config"]["wandb"]["project"] == "marco"
    assert run.logged == [(s, {"train/loss": 2.0 + s, "loss/kk": 1.0}) for s in (1, 2)]
    assert run.finished


def test_weights_and_biases_that_is_not_installed(monkeypatch, small_config, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtra, match="needs wandb, which is not installed: .*\\[wandb\\]"):
        Boards(tmp_path, small_config("wandb.project=marco"), first=True)
    # Not asked for, or in another process than the first: nothing is wanted of it.
    Boards(tmp_path, small_config(), first=True).close()
    Boards(tmp_path, small_config("wandb.project=marco"), first=False).close()
