"""Progress of long work: a bar on a terminal, otherwise a log line every twenty seconds."""

from __future__ import annotations

import logging
import sys
import threading
import time

from tqdm import tqdm

_log = logging.getLogger(__name__)

# Between two log lines.
SECONDS = 20.0


class Progress:
    """Counts and shows the finished units of some work. A context manager; call it with a count.

    A thread logs the lines, so that they also appear while one unit (such as a compilation) takes
    long. Work that ends within `SECONDS` logs no line.
    """

    def __init__(
        self, name: str, total: int | None = None, unit: str = "", *, initial: int = 0
    ) -> None:
        """Starts counting.

        Args:
            name: the start of every line, such as "tokenising kk".
            total: the number of units; None if unknown.
            unit: name of the units, in the plural; "B" is shown as MB or GB. If empty, lines show
                the time only.
            initial: units that an earlier call of the program has finished.
        """
        self.name, self.total, self.unit = name, total, unit
        self.initial = self.done = initial
        self.start = time.perf_counter()
        self._ended = threading.Event()
        self._bar = tqdm(
            total=total,
            initial=initial,
            desc=name,
            unit=unit if unit == "B" else f" {unit}",
            unit_scale=unit == "B",
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
            # A finished bar disappears, since it may be one of many.
            leave=False,
        )
        self._thread = threading.Thread(target=self._tick, name="progress", daemon=True)

    def __call__(self, count: int = 1) -> None:
        """Adds finished units."""
        self.done += count
        self._bar.update(count)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.start

    @property
    def rate(self) -> float:
        """Units per second."""
        return (self.done - self.initial) / max(self.seconds, 1e-9)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._bar.close()

    def _tick(self) -> None:
        pause = 1.0 if not self._bar.disable else SECONDS
        while not self._ended.wait(pause):
            if self._bar.disable:
                _log.info(self.line())
            else:
                self._bar.refresh()

    def line(self) -> str:
        """The progress in one line."""
        if self.done == self.initial or not self.unit:
            return f"{self.name}: {self.seconds:,.0f} s so far"
        done = self._number(self.done)
        if self.total is not None:
            done += f" of {self._number(self.total)}"
        unit = "" if self.unit == "B" else f" {self.unit}"
        text = f"{self.name}: {done}{unit}, {self._number(self.rate)}/s"
        if self.total is None:
            return text
        return f"{text}, {duration((self.total - self.done) / self.rate)} left"

    def _number(self, count: float) -> str:
        if self.unit == "B":
            return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
        return f"{count:,.0f}" if count >= 10 else f"{count:.2g}"


def duration(seconds: float) -> str:
    """Formats a time in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
