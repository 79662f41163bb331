"""Paths that a user gives: which of them a command can serve, before it begins."""

from __future__ import annotations

import os
import pathlib
import re
import shutil

# What a disk must have free besides what is to be written.
_SPARE_BYTES = 64 << 20
# Two letters at least: "C:/" is a drive. "gs:/b" is what a program that joins paths makes of
# "gs://b".
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")


def check_local(name: str, path: str | os.PathLike) -> None:
    """Refuses a path that names an object store, a hub or a web server.

    Args:
        name: of the flag or field that holds it, such as "--workdir".
        path: the path, or several with commas between them.

    Raises:
        ValueError: what it is, and what to do instead.
    """
    for part in os.fspath(path).split(","):
        found = _SCHEME.match(part.strip())
        if found is None:
            continue
        scheme = found[1].lower()
        if scheme in ("hf", "http", "https"):
            remedy = "download it first, and give the path of what was downloaded"
        else:
            remedy = "mount the bucket as a folder, and give the path of a file or folder below it"
        raise ValueError(f"{name}={part.strip()}: {scheme}:// paths cannot be used here: {remedy}")


def check_writable(name: str, path: str | os.PathLike, *, file: bool = False) -> None:
    """Refuses an output that could not be written at the end of the work. Creates nothing.

    Args:
        name: of the flag that holds it.
        path: of a folder, or of a file where `file` is set.

    Raises:
        OSError: what is in the way.
    """
    if file and pathlib.Path(path).is_dir():
        raise IsADirectoryError(f"{name}={path} is a folder: give the path of a file")
    there = nearest_existing(path if not file else pathlib.Path(path).absolute().parent)
    if not there.is_dir():
        raise NotADirectoryError(f"{name}={path}: {there} is a file, not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"{name}={path}: {there} cannot be written to")


def nearest_existing(path: str | os.PathLike) -> pathlib.Path:
    """The path itself where it exists, else the nearest folder above it that does."""
    there = pathlib.Path(path).absolute()
    while not there.exists():
        there = there.parent
    return there


def check_space(directory: pathlib.Path, nbytes: int) -> None:
    """Refuses to begin what would not fit on the disk of `directory` or its nearest parent.

    Raises:
        OSError: there is less room than that.
    """
    directory = nearest_existing(directory)
    free = shutil.disk_usage(directory).free
    if free < nbytes + _SPARE_BYTES:
        raise OSError(
            f"{directory} has {free / 1e9:,.1f} GB free and {nbytes / 1e9:,.1f} GB are needed: "
            "make room, or choose another disk"
        )
