"""Log lines of a command: UTC time, process, level, message, on standard error.

Modules log with `logging.getLogger(__name__)`. Only the command line calls `configure_logging`, so
that programs which import the package keep their own handlers. Processes of one run do the same
work and log the same lines: only those of the first process are shown, besides errors and lines
that are logged with `extra=EVERY_PROCESS`.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import sys
import time
from collections.abc import Iterator

# Passed as `extra` to a log call, so that every process shows the line.
EVERY_PROCESS = {"every_process": True}

_FORMAT = "%(asctime)sZ %(process_index)d %(levelname)s %(tag)s%(message)s"
# Packages whose messages are shown from INFO on.
_PACKAGES = ("marco_jax", "experiments")


class _Handler(logging.Handler):
    """Writes to standard error, above a live progress bar."""

    def __init__(self) -> None:
        super().__init__()
        self.process_index = 0
        formatter = logging.Formatter(_FORMAT, "%Y-%m-%d %H:%M:%S")
        formatter.converter = time.gmtime
        self.setFormatter(formatter)

    def filter(self, record: logging.LogRecord) -> bool:
        record.process_index = self.process_index
        record.tag = _tag.get()
        ours = record.name.partition(".")[0] in _PACKAGES
        shared = ours and record.levelno < logging.ERROR
        everywhere = getattr(record, "every_process", False)
        return self.process_index == 0 or everywhere or not shared

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        try:
            tqdm.write(self.format(record), file=sys.stderr)
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


# In front of every message that a thread logs.
_tag = contextvars.ContextVar("tag", default="")
_handler = _Handler()


def configure_logging() -> None:
    """Shows messages of this project from INFO on, and of other packages from WARNING on."""
    root = logging.getLogger()
    # Orbax logs while it is imported, for which absl installs a handler of its own where there is
    # none yet: every line would be shown twice.
    for handler in [one for one in root.handlers if type(one) is logging.StreamHandler]:
        root.removeHandler(handler)
    if _handler not in root.handlers:
        root.addHandler(_handler)
    for name in _PACKAGES:
        logging.getLogger(name).setLevel(logging.INFO)


@contextlib.contextmanager
def tagged(name: str) -> Iterator[None]:
    """Puts a name in front of the messages that this thread logs inside the block."""
    token = _tag.set(f"{name}: ")
    try:
        yield
    finally:
        _tag.reset(token)


def set_process_index(index: int) -> None:
    """Sets the index of this process in its run, which log lines then contain."""
    _handler.process_index = index
