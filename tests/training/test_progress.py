"""What a watcher sees: the live line on terminals of several widths, and lines in a log."""

import contextlib
import fcntl
import logging
import os
import pty
import re
import shlex
import shutil
import struct
import subprocess
import sys
import termios
import time
import types

import pytest

from marco_jax.evaluation.results import Result
from marco_jax.runtime import live_line
from marco_jax.runtime.live_line import fitting_parts
from marco_jax.training import hooks
from marco_jax.training.hooks import Event, ProgressHook
from marco_jax.training.outputs import _headline

ROW = {"loss": 2.5, "learning_rate": 1e-3, "tokens_per_second": 12_345.0, "mfu": 0.412}
EVALUATED = "bits_per_byte 2.130 (low 2.660) at step 160"


class Screen:
    """A terminal: standard error of this process, and the lines that a person sees on it."""

    def __init__(self, columns):
        self.master, slave = pty.openpty()
        os.set_blocking(self.master, False)
        self.resize(columns)
        self.stream = os.fdopen(slave, "w", encoding="utf-8")
        self.lines, self.column, self.writes = [""], 0, 0

    def resize(self, columns):
        self.columns = columns
        size = struct.pack("HHHH", 24, columns, 0, 0)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)

    def read(self):
        """Follows what was written since; a line that wraps fails the test."""
        text = ""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.master, 65536):
                text += data.decode()
        self.writes += text.count("\x1b[K")
        for token in re.findall(r"\x1b\[K|[\r\n]|[^\x1b\r\n]+", text):
            if token == "\x1b[K":
                self.lines[-1] = self.lines[-1][: self.column]
            elif token == "\r":
                self.column = 0
            elif token == "\n":
                self.lines.append("")
            else:
                rest = self.lines[-1][self.column + len(token) :]
                self.lines[-1] = self.lines[-1][: self.column] + token + rest
                self.column += len(token)
                assert self.column < self.columns, f"wraps at {self.columns}: {token}"
        return self.lines

    def wait_for(self, text):
        """Waits until a text stands in the last line."""
        end = time.monotonic() + 10
        while text not in self.read()[-1] and time.monotonic() < end:
            time.sleep(0.02)
        assert text in self.lines[-1], self.lines
        return self.lines[-1]


@pytest.fixture
def terminal(monkeypatch):
    """Makes a terminal of a width the standard error."""
    monkeypatch.delenv("TMUX", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    screens = []

    def make(columns):
        screen = Screen(columns)
        screens.append(screen)
        monkeypatch.setattr(sys, "stderr", screen.stream)
        return screen

    yield make
    monkeypatch.undo()
    for screen in screens:
        screen.stream.close()
        os.close(screen.master)


def hook_of(steps, row=None, first=0):
    metrics = types.SimpleNamespace(last=row)
    hook = ProgressHook(metrics, steps, first, lambda: EVALUATED)
    hook(Event(first, "stage1", None, None))
    return hook, metrics


def take(hook, *steps):
    for step in steps:
        hook(Event(step, "stage1", None, object()))


def test_the_live_line_has_everything_and_its_end_stays(terminal):
    screen = terminal(200)
    hook, _ = hook_of(400, ROW)
    take(hook, 1)
    time.sleep(0.1)
    take(hook, 2)
    shown = screen.wait_for("stage1 2/400 0%, loss 2.500, ")
    assert re.search(r", \d+ (s|min) left, 12,345 tokens/s, MFU 41\.2%, ", shown)
    assert shown.endswith(EVALUATED)
    take(hook, 400)
    hook.close()
    hook.close()
    *_, last, cursor = screen.read()
    assert last == f"stage1 400/400 100%, loss 2.500, 12,345 tokens/s, MFU 41.2%, {EVALUATED}"
    assert cursor == "" and len(screen.lines) == 2


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (10, "stage1 1/"),
        (21, "stage1 1/400 0%"),
        (32, "stage1 1/400 0%, loss 2.500"),
        (60, "stage1 1/400 0%, loss 2.500, 12,345 tokens/s, MFU 41.2%"),
    ],
)
def test_a_narrow_terminal_has_whole_parts_of_the_line(terminal, columns, shown):
    screen = terminal(columns)
    hook, _ = hook_of(400, ROW)
    take(hook, 1)
    assert screen.wait_for(shown) == shown
    hook.close()


def test_a_terminal_that_is_resized(terminal):
    screen = terminal(200)
    hook, _ = hook_of(400, ROW)
    take(hook, 1)
    screen.wait_for(EVALUATED)
    # No step ends meanwhile, and there is a line of another width all the same.
    screen.resize(40)
    shown = "stage1 1/400 0%, loss 2.500"
    end = time.monotonic() + 10
    while screen.lines[-1] != shown and time.monotonic() < end:
        time.sleep(0.02)
        screen.read()
    assert screen.lines == [shown]
    screen.resize(200)
    screen.wait_for(EVALUATED)
    hook.close()


IN_TMUX = """
import sys, time, types
from marco_jax.training.hooks import Event, ProgressHook

for number in range(20):
    print("log line", number, file=sys.stderr)
row = {"loss": 2.5, "tokens_per_second": 12345.0, "mfu": 0.412}
hook = ProgressHook(types.SimpleNamespace(last=row), 400, 0, lambda: "bits_per_byte 2.130")
hook(Event(0, "stage1", None, None))
hook(Event(1, "stage1", None, object()))
time.sleep(100)
"""


@pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed")
def test_a_window_of_tmux_that_is_made_narrower_has_one_line(root, tmp_path):
    def tmux(*words):
        command = ["tmux", "-S", str(tmp_path / "socket"), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment)

    def shows(*lines):
        end = time.monotonic() + 60
        while True:
            shown = [line for line in tmux("capture-pane", "-p").stdout.splitlines() if line]
            if shown[-2:] == [*lines] or time.monotonic() > end:
                assert shown[-2:] == [*lines]
                return
            time.sleep(0.1)

    script = tmp_path / "watched.py"
    script.write_text(IN_TMUX)
    environment = {**os.environ, "PYTHONPATH": str(root), "TERM": "xterm"}
    tmux("new-session", "-d", "-x", "100", "-y", "8", shlex.join([sys.executable, str(script)]))
    try:
        log, line = "log line 19", "stage1 1/400 0%, loss 2.500"
        shows(log, f"{line}, 12,345 tokens/s, MFU 41.2%, bits_per_byte 2.130")
        tmux("resize-window", "-x", "30")
        shows(log, line)
        tmux("resize-window", "-x", "50")
        shows(log, f"{line}, 12,345 tokens/s")
    finally:
        tmux("kill-server")


def test_the_newest_metrics_are_shown_without_another_step(terminal):
    screen = terminal(200)
    hook, metrics = hook_of(400)
    take(hook, 1)
    screen.wait_for("stage1 1/400 0%, bits_per_byte")
    metrics.last = ROW | {"loss": 1.25}
    screen.wait_for("loss 1.250")
    hook.close()


def test_the_line_is_written_twice_a_second_at_most_and_only_if_it_changes(terminal):
    screen = terminal(120)
    hook, metrics = hook_of(10**6)
    start, step = time.monotonic(), 0
    while time.monotonic() - start < 2.0:
        step += 1
        metrics.last = ROW | {"loss": float(step)}
        take(hook, step)
    screen.read()
    # The first one at once.
    assert 2 <= screen.writes <= 1 + 2.5 / live_line.SECONDS
    hook.seconds_left = None
    time.sleep(1.2)
    screen.read()
    before = screen.writes
    time.sleep(1.5)
    screen.read()
    assert screen.writes == before
    hook.close()


def test_log_lines_go_above_the_line(terminal):
    screen = terminal(100)
    hook, _ = hook_of(400, ROW)
    take(hook, 1)
    screen.wait_for("MFU")
    logging.getLogger("marco_jax").warning("a warning")
    screen.wait_for("stage1 1/400")
    assert screen.lines[0].endswith("WARNING a warning") and len(screen.lines) == 2
    hook.close()


def test_time_left_does_not_count_the_compilation(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(hooks.time, "perf_counter", lambda: now[0])
    hook, _ = hook_of(14, first=10)
    for now[0], step in ((100.0, 11), (102.0, 12)):
        take(hook, step)
    assert hook.seconds_left == 4.0


def test_a_first_step_of_minutes_has_no_time_left_yet(monkeypatch, caplog):
    caplog.set_level("INFO", hooks.__name__)
    now = [0.0]
    monkeypatch.setattr(hooks.time, "perf_counter", lambda: now[0])
    hook, _ = hook_of(14, ROW)
    for now[0], step in ((100.0, 1), (160.0, 2)):
        take(hook, step)
    first, second = caplog.messages
    assert first.endswith("learning rate 1.00e-03")
    assert second.endswith("learning rate 1.00e-03, 12.0 min left")


def test_plain_lines_in_a_log_and_none_for_a_loss_that_is_not_there(caplog):
    caplog.set_level("INFO", hooks.__name__)
    hook, metrics = hook_of(2, ROW)
    take(hook, 1)
    metrics.last = ROW | {"loss": None, "mfu": None}
    take(hook, 2)
    hook.close()
    assert caplog.messages == [
        "step 2/2 stage1: loss none, 12,345 tokens/s, learning rate 1.00e-03, 0.0 min left"
    ]


def test_parts_that_do_not_fit_are_left_out_from_the_end():
    assert fitting_parts(["abc", "", "defg", "h"], 9) == "abc, defg"
    assert fitting_parts(["abc", "defg", "h"], 8) == "abc"
    assert fitting_parts(["abc"], 2) == "ab"
    assert fitting_parts(["abc"], 0) == "" == fitting_parts([], 10)


def test_the_evaluation_of_the_line_is_the_first_metric_over_all_and_low_resource_languages():
    def result(language, value, metric="bits_per_byte"):
        return Result("bits_per_byte", language, 0, metric, value, 0.0, 1)

    results = [result("kk", 3.0), result("all", 2.13), result("high", 1.5), result("low", 2.66)]
    results.append(result("low", 9.0, "other"))
    assert _headline(results, 160) == "bits_per_byte 2.130 (low 2.660) at step 160"
    assert _headline(results[:1], 160) == ""
