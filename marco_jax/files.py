"""Checks of input and output paths, and writers whose files appear complete or not at all."""

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

# Free space that a disk must keep.
_SPARE_BYTES = 64 << 20
# At least two letters, since "C:/" is a drive; one slash, since joining paths turns "gs://b" into
# "gs:/b".
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")


def check_local(name: str, path: str | os.PathLike) -> None:
    """Checks that a path is local, not a URL of an object store, a hub or a web server.

    Args:
        name: of its flag or field, such as "--workdir".
        path: the path, or several separated by commas.

    Raises:
        ValueError: a path is a URL; the message has the remedy.
    """
    for part in os.fspath(path).split(","):
        found = _SCHEME.match(part.strip())
        if found is None:
            continue
        scheme = found[1].lower()
        if scheme in ("hf", "http", "https"):
            remedy = "download it first, and give the path of the download"
        else:
            remedy = "mount the bucket as a folder, and give the path of a file or folder below it"
        raise ValueError(f"{name}={part.strip()}: {scheme}:// paths cannot be used here: {remedy}")


def check_writable(name: str, path: str | os.PathLike, *, file: bool = False) -> None:
    """Checks that an output can be written, before the work for it starts. Creates no files.

    Args:
        name: of its flag.
        path: of a folder, or with `file` of a file.
        file: whether `path` is a file.

    Raises:
        OSError: the path cannot be written to.
    """
    if file and pathlib.Path(path).is_dir():
        raise IsADirectoryError(f"{name}={path} is a folder: give the path of a file")
    existing = nearest_existing(path if not file else pathlib.Path(path).absolute().parent)
    if not existing.is_dir():
        raise NotADirectoryError(f"{name}={path}: {existing} is a file, not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(f"{name}={path}: {existing} cannot be written to")


def nearest_existing(path: str | os.PathLike) -> pathlib.Path:
    """The path itself if it exists, else its nearest parent that does."""
    existing = pathlib.Path(path).absolute()
    while not existing.exists():
        existing = existing.parent
    return existing


def check_space(directory: pathlib.Path, nbytes: int) -> None:
    """Checks that `nbytes` fit on the disk of `directory`, or of its nearest existing parent.

    Raises:
        OSError: they do not fit.
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
    """Opens a temporary file, which gets its final name if the block succeeds; creates its folder.

    A reader sees either the old file or the new one. If several processes write the same path, the
    file of the last one remains.
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
    """Writes a file atomically."""
    with new_file(path) as file:
        file.write(data)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a UTF-8 file atomically; characters that UTF-8 cannot encode become "?"."""
    write_bytes(path, text.encode("utf-8", "replace"))


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes an indented JSON file atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_json_lines(path: pathlib.Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a JSONL file atomically, one object per line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json_object(path: pathlib.Path) -> dict[str, Any]:
    """Reads the object in a JSON file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it does not hold a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} is not a JSON object but a {type(value).__name__}")
    return value


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
    """Creates a temporary folder, which replaces `path` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # `path` may be a link or end in "..": the temporary folder must be beside the real one.
    path = path.resolve()
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
        new = pathlib.Path(scratch) / "new"
        new.mkdir()
        yield new
        if path.exists():
            path.rename(pathlib.Path(scratch) / "old")
        new.rename(path)
