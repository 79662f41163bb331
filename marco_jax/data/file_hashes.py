"""Hashes of the content of files, which are read again only after they were written to."""

from __future__ import annotations

import hashlib
import logging
import pathlib
import time
from typing import Any

from marco_jax.data.checksums import read_checked, write_checked
from marco_jax.files import as_path, is_remote

_log = logging.getLogger(__name__)

_BLOCK = 1 << 20
# Nanoseconds in which a file counts as recently written: its hash is not kept.
_RECENT = 2_000_000_000


class FileHashes:
    """Hashes of files by path.

    A file whose size, inode and times of modification and of change are those that were recorded
    is not read again. The time of change cannot be set by a program, so that text which is replaced
    by other text of the same size and modification time is noticed.
    """

    def __init__(self, path: pathlib.Path | None = None) -> None:
        """Reads what was recorded in `path`; without one nothing is kept."""
        self._path = path
        self._known: dict[str, list[Any]] = {}
        if path and path.exists():
            try:
                self._known = read_checked(path)
            except ValueError:
                _log.warning(f"{path} is damaged: the files of the data are read again")

    def of(self, path: str) -> str:
        """The hash of a file, 32 hexadecimal digits.

        Raises:
            OSError: it cannot be read.
        """
        state = _state(path)
        known = self._known.get(path)
        if isinstance(known, list) and known[:-1] == state and state:
            return known[-1]
        digest = hashlib.blake2b(digest_size=16)
        with as_path(path).open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        # A file that is being written to may change again at the time of the clock that it has.
        if state and time.time_ns() - state[2] > _RECENT:
            self._known[path] = [*state, digest.hexdigest()]
        return digest.hexdigest()

    def save(self) -> None:
        """Records the hashes."""
        if self._path:
            write_checked(self._path, self._known)


def _state(path: str) -> list[int]:
    """What changes when a file is written to."""
    status = as_path(path).stat()
    if is_remote(path):
        return [status.st_size, status.st_mtime_ns, status.st_mtime_ns]
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
