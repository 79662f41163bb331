"""A line of a terminal that shows how far long work is, and is written anew in place."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TextIO

from tqdm import tqdm
from tqdm.utils import disp_len, disp_trim

# Seconds between two writings of the line: more often than twice a second it flickers.
SECONDS = 0.5
_ERASE_REST = "\x1b[K"


class LiveLine:
    """Shows the parts of a line, as they are at the time, on standard error.

    A thread writes it, at most every `SECONDS`, and only if the text or the terminal's width has
    changed. The line is written over and never cleared before, so that it does not flicker, and it
    is shorter than the terminal is wide, so that it does not wrap. Log lines and the bars of
    `Progress` go above and below it.
    """

    def __init__(self, parts: Callable[[], Sequence[str]]) -> None:
        """Starts to show the line.

        Args:
            parts: of the line, the most important first; called in the thread.
        """
        self._line = _Line(parts)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="live line", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Shows the line for the last time and leaves it there; closing twice does nothing."""
        if not self._ended.is_set():
            self._ended.set()
            self._thread.join()
            self._line.close()

    def _tick(self) -> None:
        while not self._ended.wait(SECONDS):
            self._line.show()


class _Line(tqdm):
    """The line as one of tqdm's bars, so that tqdm keeps it apart from log lines and other bars."""

    def __init__(self, parts: Callable[[], Sequence[str]]) -> None:
        self._parts, self._shown = parts, ""
        # tqdm itself never writes with this interval: `show` decides.
        super().__init__(file=sys.stderr, leave=True, mininterval=float("inf"))

    def show(self) -> None:
        """Writes the line if it is another than the one that stands there."""
        if str(self) != self._shown:
            with self.get_lock():
                self._erase_wrapped()
                self.refresh(nolock=True)

    def _erase_wrapped(self) -> None:
        """Removes the line where tmux, made narrower, has wrapped what stood there.

        Other terminals may cut lines instead of wrapping them: to go up there would erase the log.
        """
        rows = max(disp_len(self._shown) - 1, 0) // terminal_width(sys.stderr)
        if rows and _in_tmux() and len(type(self)._instances) == 1:
            sys.stderr.write(f"\r\x1b[{rows}A\x1b[J")

    def __str__(self) -> str:
        return fitting_parts(self._parts(), terminal_width(sys.stderr) - 1)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        text = str(self) if msg is None else msg
        self._shown = text
        return super().display(text, pos)

    @staticmethod
    def status_printer(file: TextIO) -> Callable[[str], None]:
        """Writes over the line; tqdm's own would pad it to the width of a wider terminal."""

        def write(text: str) -> None:
            file.write(f"\r{text}{_ERASE_REST}")
            file.flush()

        return write


def _in_tmux() -> bool:
    # The variable TMUX does not follow a user to another host, TERM does.
    return "TMUX" in os.environ or os.environ.get("TERM", "").startswith("tmux")


def fitting_parts(parts: Sequence[str], width: int) -> str:
    """As many of the first parts, joined by commas, as fit; the first one is cut if it must be.

    Args:
        parts: the most important first; empty ones are left out.
        width: in columns of a terminal.
    """
    text = ""
    for part in filter(None, parts):
        longer = f"{text}, {part}" if text else disp_trim(part, max(width, 0))
        if disp_len(longer) > width:
            break
        text = longer
    return text


def terminal_width(stream: TextIO) -> int:
    """Columns of the terminal of a stream at this moment, else those of the environment."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError, AttributeError):
        columns = 0
    return columns or shutil.get_terminal_size().columns
