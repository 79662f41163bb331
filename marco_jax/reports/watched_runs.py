"""Runs in some folders, read again when their files have changed."""

from __future__ import annotations

import hashlib
import pathlib
import threading
import time
from collections.abc import Callable, Sequence

from marco_jax.files import as_path, is_remote, map_files
from marco_jax.reports.run_data import RunData, load_run

_FILES = ("metrics.jsonl", "attempts.json", "config.json", "mixture.json", "environment.json")
_FOLDERS = ("eval", "samples", "checkpoints")
# Seconds for which what is known of a run counts, in a file system and in an object store, where
# a look costs several requests.
_FRESH, _FRESH_REMOTE = 1.0, 15.0
# A page that took seconds to make counts so many times as long.
_PATIENCE = 5
# How far below a folder its runs may lie.
_DEPTH = 3


class WatchedRuns:
    """The runs in or below some folders. Threads may share it."""

    def __init__(self, folders: Sequence[str]) -> None:
        """Takes the folders, local or in object stores.

        Raises:
            NotADirectoryError: there is no such folder.
        """
        self._folders = [as_path(folder) for folder in folders]
        for folder in self._folders:
            if not folder.is_dir():
                raise NotADirectoryError(
                    f"{folder} is not a directory: give the workdir of a run, or a folder of some"
                )
        self._lock = threading.RLock()
        self._kept: dict[str, tuple[str, RunData]] = {}
        self._rendered: dict[tuple[str, ...], tuple[str, str]] = {}
        self._looked: dict[str, tuple[float, str]] = {}
        self._costs: dict[str, float] = {}
        self._listed: tuple[float, list[str]] = (-float("inf"), [])

    def names(self) -> list[str]:
        """The workdirs of the runs there are now."""
        with self._lock:
            when, found = self._listed
            fresh = _FRESH_REMOTE if any(map(is_remote, self._folders)) else _FRESH
            if time.monotonic() - when > fresh:
                found = [str(path) for folder in self._folders for path in _runs_below(folder)]
                found = list(dict.fromkeys(found))
                self._listed = time.monotonic(), found
            return found

    def version(self, name: str) -> str:
        """A text that changes when the files of a run do."""
        path = as_path(name)
        with self._lock:
            when, found = self._looked.get(name, (-float("inf"), ""))
            fresh = _FRESH_REMOTE if is_remote(path) else _FRESH
            if time.monotonic() - when > max(fresh, _PATIENCE * self._costs.get(name, 0.0)):
                found = _version(path)
                self._looked[name] = time.monotonic(), found
            return found

    def run(self, name: str) -> RunData:
        """A run as it is now.

        Raises:
            NotADirectoryError: it is gone.
        """
        with self._lock:
            version = self.version(name)
            if name not in self._kept or self._kept[name][0] != version:
                self._kept[name] = version, load_run(name)
            return self._kept[name][1]

    def rendered(self, kind: str, names: Sequence[str], render: Callable[[str], str]) -> str:
        """What `render` makes of the version of these runs; it is called when that is new."""
        with self._lock:
            version = self.versions(names)
            key = (kind, *names)
            if key not in self._rendered or self._rendered[key][0] != version:
                begun = time.monotonic()
                self._rendered[key] = version, render(version)
                self._costs |= dict.fromkeys(names, time.monotonic() - begun)
            return self._rendered[key][1]

    def versions(self, names: Sequence[str]) -> str:
        """A text that changes when the files of one of these runs do."""
        return hashlib.sha256("\n".join(map(self.version, names)).encode()).hexdigest()[:16]


def _runs_below(folder: pathlib.Path, depth: int = _DEPTH) -> list[pathlib.Path]:
    """The folder if it is the workdir of a run, else the runs in its folders, sorted."""
    if (folder / "metrics.jsonl").exists():
        return [folder]
    if not depth:
        return []
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    return [run for runs in map_files(lambda p: _runs_below(p, depth - 1), inside) for run in runs]


def _version(workdir: pathlib.Path) -> str:
    marks = []
    for name in _FILES:
        try:
            about = (workdir / name).stat()
        except OSError:
            continue
        marks.append(f"{name} {about.st_size} {about.st_mtime}")
    for name in _FOLDERS:
        marks += sorted(path.name for path in (workdir / name).glob("*"))
    return hashlib.sha256("\n".join(marks).encode()).hexdigest()[:16]
