"""Files: which paths a command can serve, and writers whose files appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

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


@contextlib.contextmanager
def new_file(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """A file to write, which gets its name when the block ends well; its folder is made.

    A reader sees the old file or the new one. Two writers of one path do not disturb each other:
    the last to finish stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with partial.open("wb") as file:
            yield file
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Writes a file in one piece."""
    with new_file(path) as file:
        file.write(data)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a UTF-8 file in one piece; what UTF-8 cannot encode becomes "?"."""
    write_bytes(path, text.encode("utf-8", "replace"))


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a JSON file in one piece, indented for readers."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_json_lines(path: pathlib.Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a JSONL file in one piece, an object a line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """Reads the objects of a JSONL file and skips damaged lines; a missing file has no objects.

    A process that was killed while it wrote leaves an incomplete line.
    """
    if not path.exists():
        return []
    found = []
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return [row for row in found if isinstance(row, dict)]


@contextlib.contextmanager
def new_directory(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary folder that takes the place of `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The last component may be a link or "..": the temporary one goes beside the real folder.
    path = path.resolve()
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
        new = pathlib.Path(scratch) / "new"
        new.mkdir()
        yield new
        if path.exists():
            path.rename(pathlib.Path(scratch) / "old")
        new.rename(path)
