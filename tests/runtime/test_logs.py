"""Log lines: time, process, level; and how far long work is."""

import logging
import re
import subprocess
import sys
import time

import pytest

from marco_jax.runtime import progress
from marco_jax.runtime.logs import EVERY_PROCESS, configure_logging, set_process_index
from marco_jax.runtime.progress import Progress, duration

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ (\d+) ([A-Z]+) (.+)")


@pytest.fixture
def third_process():
    set_process_index(2)
    yield
    set_process_index(0)


def shown(capsys):
    lines = capsys.readouterr().err.splitlines()
    found = [LINE.fullmatch(line) for line in lines]
    assert all(found), lines
    return [match.groups() for match in found]


def test_a_line_has_time_process_and_level_and_stands_there_once(capsys):
    configure_logging()
    configure_logging()
    logging.getLogger("marco_jax.training.loop").info("resuming at step %d", 4)
    logging.getLogger("marco_jax.x").debug("a detail")
    logging.getLogger("absl").info("other packages are heard from warnings on")
    logging.getLogger("absl").warning("such as this")
    assert shown(capsys) == [("0", "INFO", "resuming at step 4"), ("0", "WARNING", "such as this")]


def test_the_time_is_utc(capsys, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Almaty")
    time.tzset()
    try:
        logging.getLogger("marco_jax").info("now")
        line = capsys.readouterr().err
    finally:
        monkeypatch.undo()
        time.tzset()
    written = time.strptime(line[:19], "%Y-%m-%d %H:%M:%S")
    assert abs(time.mktime(written) - time.mktime(time.gmtime())) <= 2


def test_what_all_processes_do_is_shown_by_the_first_alone(capsys, third_process):
    log = logging.getLogger("marco_jax.training")
    log.info("a step")
    log.warning("the mixture lacks kk")
    log.warning("SIGTERM", extra=EVERY_PROCESS)
    log.error("lost")
    logging.getLogger("absl").warning("a note of this host")
    assert shown(capsys) == [
        ("2", "WARNING", "SIGTERM"),
        ("2", "ERROR", "lost"),
        ("2", "WARNING", "a note of this host"),
    ]


def test_long_work_logs_while_one_unit_takes_long(monkeypatch, caplog):
    caplog.set_level("INFO", progress.__name__)
    monkeypatch.setattr(progress, "SECONDS", 0.05)
    with Progress("compiling") as work:
        time.sleep(0.2)
    assert "compiling: 0 s so far" in caplog.messages
    caplog.clear()
    with Progress("tokenising kk", 400, "tokens", initial=100) as work:
        work(150)
        time.sleep(0.2)
    assert re.fullmatch(
        r"tokenising kk: 250 of 400 tokens, [\d,]+/s, \d s left", caplog.messages[0]
    )


def test_short_work_leaves_no_line(caplog):
    caplog.set_level("INFO", progress.__name__)
    with Progress("scoring", 3, "requests") as work:
        work(3)
    assert not caplog.messages


def test_an_error_inside_passes_through():
    with pytest.raises(KeyError), Progress("reading"):
        raise KeyError("x")


def test_bytes_and_times_are_for_people():
    work = Progress("importing", 4_000_000_000, "B")
    work(1_500_000_000)
    assert "1.5 GB of 4.0 GB" in work.line()
    assert [duration(s) for s in (8, 600, 7200)] == ["8 s", "10 min", "2.0 h"]


def test_lines_are_shown_once_though_a_package_has_configured_logging():
    """As absl does where Orbax is imported first."""
    code = (
        "import logging\n"
        "logging.basicConfig()\n"
        "from marco_jax.runtime.logs import configure_logging\n"
        "configure_logging()\n"
        "logging.getLogger('marco_jax.data').info('one line')\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr.count("one line") == 1
