"""Files of the package, local or in an object store: every path that is read or written.

`as_path` makes a pathlib.Path of a local path, and of a gs:// or s3:// URL an ObjectPath, which has
the same methods; where modules say pathlib.Path, they take either. Writers here make files that
appear complete or not at all.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import glob
import json
import os
import pathlib
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

from marco_jax.stores.connect import SCHEMES, is_url, kvstore_spec
from marco_jax.stores.object_path import ObjectPath, list_objects, object_path
from marco_jax.stores.objects import check_bucket, download, find_objects, remove_objects, upload

# Free space that a disk must keep.
_SPARE_BYTES = 64 << 20
# At least two letters, since "C:/" is a drive; one slash, since joining paths turns "gs://b" into
# "gs:/b".
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
# Files of an object store that are read or written at the same time.
_TRANSFERS = 16


def as_path(path: str | os.PathLike | ObjectPath) -> pathlib.Path:
    """The path of a local file or folder, or of a gs:// or s3:// URL.

    Raises:
        MissingExtra: the libraries of its store are not installed.
        ValueError: a URL without a bucket.
    """
    if isinstance(path, ObjectPath):
        return path
    return object_path(os.fspath(path)) if is_url(path) else pathlib.Path(path)


def is_remote(path: str | os.PathLike | ObjectPath) -> bool:
    """Whether a path is in an object store."""
    return isinstance(path, ObjectPath) or is_url(path)


def check_path(name: str, path: str | os.PathLike) -> None:
    """Checks that a path is local or in an object store, whose libraries are installed.

    Args:
        name: of its flag or field, such as "--workdir".
        path: the path, or several separated by commas.

    Raises:
        ValueError: another URL, or one without a bucket; the message has the remedy.
        MissingExtra: the libraries are not installed.
    """
    for part in os.fspath(path).split(","):
        part = part.strip()
        found = _SCHEME.match(part)
        if found is None:
            continue
        scheme = found[1].lower()
        if scheme in SCHEMES:
            as_path(part)
            continue
        remedy = "give a local path, or a URL of gs:// or s3://"
        if scheme in ("hf", "http", "https"):
            remedy = "download it first, and give the path of the download"
        raise ValueError(f"{name}={part}: {scheme}:// paths cannot be used here: {remedy}")


def check_writable(name: str, path: str | os.PathLike, *, file: bool = False) -> None:
    """Checks that an output can be written, before the work for it starts. Creates no files.

    Of an object store it checks that the bucket is there and may be read.

    Args:
        name: of its flag.
        path: of a folder, or with `file` of a file.
        file: whether `path` is a file.

    Raises:
        OSError: the path cannot be written to.
    """
    if is_remote(path):
        check_bucket(as_path(path))
        return
    if file and pathlib.Path(path).is_dir():
        raise IsADirectoryError(f"{name}={path} is a folder: give the path of a file")
    existing = nearest_existing(path if not file else pathlib.Path(path).absolute().parent)
    if not existing.is_dir():
        raise NotADirectoryError(f"{name}={path}: {existing} is a file, not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(f"{name}={path}: {existing} cannot be written to")


def nearest_existing(path: str | os.PathLike) -> pathlib.Path:
    """The path itself if it exists, else its nearest parent that does; local."""
    existing = pathlib.Path(path).absolute()
    while not existing.exists():
        existing = existing.parent
    return existing


def check_space(directory: pathlib.Path, nbytes: int) -> None:
    """Checks that `nbytes` fit on the disk of `directory`, or of its nearest existing parent.

    An object store has no limit.

    Raises:
        OSError: they do not fit.
    """
    if is_remote(directory):
        return
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
    if is_remote(path):
        with path.open("wb") as file:
            yield file
        return
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
def new_directory(path: pathlib.Path, last: str) -> Iterator[pathlib.Path]:
    """Creates a temporary folder, which replaces `path` if the block succeeds.

    In an object store, which has no folders to rename, what is at `path` is removed first, and the
    block writes there. The folder counts as unfinished until the block writes the file `last` at
    its end. If the block fails, what it wrote is removed.

    Args:
        path: of the folder.
        last: name of the file that the block writes last.
    """
    if is_remote(path):
        (path / last).unlink(missing_ok=True)
        remove_tree(path)
        try:
            yield path
        except BaseException:
            remove_tree(path, ignore_errors=True)
            raise
        return
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


def remove_tree(path: pathlib.Path, *, ignore_errors: bool = False) -> None:
    """Removes a folder and what is in it.

    Args:
        path: of the folder.
        ignore_errors: leave what cannot be removed.

    Raises:
        OSError: something cannot be removed.
    """
    if not is_remote(path):
        shutil.rmtree(path, ignore_errors=ignore_errors)
        return
    with contextlib.suppress(*((Exception,) if ignore_errors else ())):
        remove_objects(path)


def glob_paths(pattern: str) -> list[str]:
    """The paths that a pattern matches ("**" too), sorted; local or in an object store."""
    if not is_url(pattern):
        return sorted(path for path in glob.glob(pattern, recursive=True) if path[-1:] != "/")
    if not glob.has_magic(pattern):
        return [str(as_path(pattern))] if as_path(pattern).is_file() else []
    return find_objects(pattern)


def sizes_below(directory: pathlib.Path) -> dict[str, int]:
    """Sizes in bytes of all files below a folder, by relative name; {} where there is none."""
    if is_remote(directory):
        return {name: about.st_size for name, about in list_objects(directory).items()}
    return {
        path.relative_to(directory).as_posix(): path.stat().st_size
        for path in directory.rglob("*")
        if path.is_file()
    }


def file_sizes(paths: Iterable[pathlib.Path]) -> dict[pathlib.Path, int]:
    """Sizes in bytes of those of the given files that are there.

    Files of an object store are listed folder by folder, which takes a request a folder.
    """
    paths = list(paths)
    sizes = {path: path.stat().st_size for path in paths if not is_remote(path) and path.is_file()}
    remote = {path for path in paths if is_remote(path)}
    folders = list({path.parent for path in remote})
    for folder, found in zip(folders, map_files(sizes_below, folders), strict=True):
        sizes |= {folder / name: size for name, size in found.items() if folder / name in remote}
    return sizes


def map_files(function: Callable[[pathlib.Path], Any], paths: Sequence[pathlib.Path]) -> list[Any]:
    """Results of a function for files or folders, in order; remote ones several at a time."""
    return _together(function, paths) if any(map(is_remote, paths)) else list(map(function, paths))


def _together(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Results of a function, several calls at a time."""
    with concurrent.futures.ThreadPoolExecutor(_TRANSFERS) as pool:
        return list(pool.map(function, items))


def kvstore_of(directory: pathlib.Path) -> dict[str, Any]:
    """TensorStore's specification of a folder, which it reads and writes itself."""
    if is_remote(directory):
        return kvstore_spec(str(directory))
    return {"driver": "file", "path": f"{directory}/"}


def upload_tree(folder: pathlib.Path, target: pathlib.Path, last: str = "") -> None:
    """Uploads all files below a local folder to an object store, several at a time.

    Args:
        folder: local.
        target: where they go.
        last: name of a file that is uploaded when all others are there.
    """
    names = [name for name in sizes_below(folder) if name != last]
    _together(lambda name: upload(folder / name, target / name), names)
    if last:
        upload(folder / last, target / last)


@contextlib.contextmanager
def local_copy(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder or file for libraries that read local ones alone: itself, or a temporary copy."""
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as scratch:
        copy = pathlib.Path(scratch) / path.name
        names = list(list_objects(path)) if path.is_dir() else [""]
        _together(lambda name: download(path / name, copy / name), names)
        yield copy
