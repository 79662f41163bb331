"""Paths of objects, with the methods of pathlib.

An object appears when its last byte has arrived, or not at all: what is written goes to a temporary
local file first, and is uploaded when that is closed without an error.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import glob
import io
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple

from marco_jax.stores.connect import URL, configure, file_system

# Written files up to this size are kept in memory until they are uploaded.
_SPOOL_BYTES = 8 << 20


def object_path(url: str) -> ObjectPath:
    """The path of a URL.

    Raises:
        MissingExtra: the libraries of its store are not installed.
        ValueError: it has no bucket.
    """
    scheme, bucket, _ = URL.match(url).groups()
    if not bucket:
        raise ValueError(f"{url}: write {scheme}://BUCKET/NAME")
    configure(scheme)
    return ObjectPath(url)


class ObjectPath(pathlib.PurePosixPath):
    """The path of an object, or of all objects whose names begin with it and "/".

    It has the methods of pathlib.Path that this package calls, but is not a path of the system: to
    ask for one (`os.fspath`) is refused, since that would write a local folder named "gs:". It is
    held as /SCHEME/BUCKET/NAME.
    """

    if sys.version_info < (3, 12):

        def __new__(cls, *parts: Any) -> ObjectPath:
            return super().__new__(cls, *map(_without_scheme, parts))

    else:

        def __init__(self, *parts: Any) -> None:
            super().__init__(*map(_without_scheme, parts))

    def __str__(self) -> str:
        root, *names = self.parts or ("",)
        return f"{names[0]}://{'/'.join(names[1:])}" if root == "/" else super().__str__()

    def __repr__(self) -> str:
        return f"ObjectPath({str(self)!r})"

    def __fspath__(self) -> str:
        raise TypeError(f"{self} is in an object store, and no file of this system")

    @property
    def files(self) -> Any:
        """Fsspec's file system of the store."""
        return file_system(self.parts[1])

    @property
    def key(self) -> str:
        """BUCKET/NAME."""
        return "/".join(self.parts[2:])

    def absolute(self) -> ObjectPath:
        return self

    def resolve(self, strict: bool = False) -> ObjectPath:
        return ObjectPath(os.path.normpath("/".join(("", *self.parts[1:]))))

    def expanduser(self) -> ObjectPath:
        return self

    def exists(self) -> bool:
        return self.files.exists(self.key)

    def is_file(self) -> bool:
        return self.files.isfile(self.key)

    def is_dir(self) -> bool:
        return self.files.isdir(self.key)

    def is_symlink(self) -> bool:
        return False

    def stat(self) -> Stat:
        with self._naming():
            return stat_of(self.files.info(self.key))

    def iterdir(self) -> Iterator[ObjectPath]:
        """What is directly below; nothing where there is nothing, since a folder is not made."""
        try:
            keys = self.files.ls(self.key, detail=False)
        except FileNotFoundError:
            keys = []
        for key in keys:
            if key.rstrip("/") != self.key:
                yield self._at(key.rstrip("/"))

    def glob(self, pattern: str) -> Iterator[ObjectPath]:
        return iter(
            self._at(key.rstrip("/"))
            for key in self.files.glob(f"{glob.escape(self.key)}/{pattern}")
        )

    def rglob(self, pattern: str) -> Iterator[ObjectPath]:
        """Objects below whose path matches; not the folders that they seem to be in."""
        found = (self._at(key) for key in self.files.find(self.key))
        return (path for path in found if path.match(pattern))

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing: a name with "/" needs no folder."""

    def unlink(self, missing_ok: bool = False) -> None:
        with contextlib.suppress(*((FileNotFoundError,) if missing_ok else ())), self._naming():
            self.files.rm_file(self.key)

    def rename(self, target: Any) -> ObjectPath:
        """Copies all objects in the store, then removes them: not atomic."""
        target = ObjectPath(target)
        names = list_objects(self)
        pairs = [(self / name, target / name) for name in names] if names else [(self, target)]
        self.files.copy([one.key for one, _ in pairs], [other.key for _, other in pairs])
        self.files.rm([one.key for one, _ in pairs])
        return target

    replace = rename

    def open(
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO:
        """As pathlib.Path.open, without "a" and "+"; a written file appears when it is closed."""
        if set(mode) - set("rwbt"):
            raise io.UnsupportedOperation(f"{self}: an object cannot be opened in mode {mode!r}")
        with self._naming():
            file = self.files.open(self.key, "rb") if "r" in mode else _Upload(self)
        if "b" in mode:
            return file
        text = io.TextIOWrapper if "r" in mode else _TextUpload
        return text(file, encoding or "utf-8", errors, newline)

    def read_bytes(self) -> bytes:
        with self._naming():
            return self.files.cat_file(self.key)

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def write_bytes(self, data: bytes) -> int:
        self.files.pipe_file(self.key, bytes(data))
        return len(data)

    def write_text(
        self, data: str, encoding: str | None = None, errors: str | None = None, newline: Any = None
    ) -> int:
        return self.write_bytes(data.encode(encoding or "utf-8", errors or "strict"))

    def touch(self, mode: int = 0o666, exist_ok: bool = True) -> None:
        self.write_bytes(b"")

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        """Errors name the object as users do."""
        try:
            yield
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "there is no such object", str(self)) from None

    def _at(self, key: str) -> ObjectPath:
        return ObjectPath(f"/{self.parts[1]}/{key}")


def list_objects(path: ObjectPath) -> dict[str, Stat]:
    """What is known of the objects below a path, by name relative to it."""
    found = path.files.find(path.key, detail=True)
    root = f"{path.key}/"
    return {name.removeprefix(root): stat_of(about) for name, about in found.items()}


class Stat(NamedTuple):
    """What is known of an object: bytes, and when it was written, in seconds and nanoseconds."""

    st_size: int
    st_mtime: float
    st_mtime_ns: int


def stat_of(about: Mapping[str, Any]) -> Stat:
    """What fsspec tells of an object."""
    when = about.get("mtime") or about.get("LastModified") or about.get("updated") or 0.0
    if isinstance(when, str):
        when = datetime.datetime.fromisoformat(when.replace("Z", "+00:00"))
    if isinstance(when, datetime.datetime):
        when = when.timestamp()
    return Stat(int(about["size"] or 0), float(when), int(when * 1e9))


def _without_scheme(part: Any) -> Any:
    """Writes "gs://bucket/name" as "/gs/bucket/name"; other parts as they are."""
    found = URL.match(part) if isinstance(part, str) else None
    return f"/{found[1]}/{found[2]}/{found[3]}" if found else part


class _Upload(tempfile.SpooledTemporaryFile):
    """A file that becomes an object when it is closed, but not by an error in its `with` block."""

    def __init__(self, path: Any) -> None:
        super().__init__(max_size=_SPOOL_BYTES)
        self._target = path

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if kind is not None:
            self.discard()
        self.close()

    def discard(self) -> None:
        """Makes no object of it."""
        self._target = None

    def close(self) -> None:
        target, self._target = self._target, None
        try:
            if target is not None:
                _send(self, target)
        finally:
            super().close()


class _TextUpload(io.TextIOWrapper):
    """Text that becomes an object, as `_Upload`."""

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if kind is not None:
            self.buffer.discard()
        self.close()


def _send(file: IO[bytes], target: ObjectPath) -> None:
    """Uploads an open file, in parts where it is large."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size <= _SPOOL_BYTES:
        target.write_bytes(file.read())
        return
    file.rollover()
    file.flush()
    # By its descriptor, since a temporary file has no name.
    target.files.put_file(f"/proc/self/fd/{file.fileno()}", target.key)
