"""Text files that grow by lines, local or in an object store, where nothing can be appended to."""

from __future__ import annotations

import pathlib
import tempfile
import time

from marco_jax.files import is_remote, upload

# An object is uploaded whole whenever lines were added, but not more often than every so many
# seconds, and at most at so many bytes a second on the average.
_SECONDS = 15.0
_BYTES_PER_SECOND = 4e6


class AppendedFile:
    """A text file that lines are added to; what it has already is kept.

    A local file has each line at once. An object is written anew every some seconds, when `sync` is
    called, and when the file is closed: what was added since is lost with a process that is killed.
    """

    def __init__(self, path: pathlib.Path) -> None:
        """Takes the file as it is; it need not exist."""
        self.path = path
        self._copy, self._dirty, self._last = None, False, time.monotonic()
        if is_remote(path):
            self._copy = tempfile.NamedTemporaryFile()  # noqa: SIM115
            if path.exists():
                self._copy.write(path.read_bytes())

    def write(self, text: str) -> None:
        """Adds text."""
        if self._copy is None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
            return
        self._copy.write(text.encode())
        self._dirty = True
        pause = max(_SECONDS, self._copy.tell() / _BYTES_PER_SECOND)
        if time.monotonic() - self._last >= pause:
            self.sync()

    def sync(self) -> None:
        """Uploads what was added."""
        if self._copy is not None and self._dirty:
            self._copy.flush()
            upload(pathlib.Path(self._copy.name), self.path)
            self._dirty, self._last = False, time.monotonic()

    def close(self) -> None:
        """Uploads what was added, and ends the file; closing twice does nothing."""
        if self._copy is not None:
            self.sync()
            self._copy.close()
            self._copy = None
