"""Paths in object stores, gs:// and s3://, with the methods of pathlib.

fsspec's gcsfs and s3fs do the work: Orbax and TFDS read and write by fsspec as well (etils.epath),
so that one set of credentials and one way of retrying serve them all. They are imported when the
first such path is made. Their listings are not cached, since other
processes write to the same bucket; a failed request is repeated with growing pauses, for about a
minute in all.

An object appears when its last byte has arrived, or not at all: what is written goes to a temporary
local file first, and is uploaded when that is closed without an error.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import functools
import glob
import io
import logging
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple

from marco_jax.extras import optional

# Schemes, and the extra that each needs.
SCHEMES = {"gs": "gcs", "s3": "s3"}
# One slash too, since joining paths turns "gs://b" into "gs:/b".
_URL = re.compile(r"(gs|s3):/+([^/]*)/*(.*)", re.DOTALL)
# s3fs pauses for 0.1 s * 1.7^n, 15 s at most: a minute in all. gcsfs pauses for 2^n seconds, with
# six tries.
_S3_TRIES = 13
# Written files up to this size are kept in memory until they are uploaded.
_SPOOL_BYTES = 8 << 20
# Errors of a connection or a disk, which a later attempt may not meet.
_PASSING = (
    *(errno.EIO, errno.EBUSY, errno.ETIMEDOUT, errno.EPIPE, errno.ENETUNREACH, errno.EHOSTUNREACH),
    *(errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED),
)


def is_url(path: str | os.PathLike | Any) -> bool:
    """Whether a path is one of an object store."""
    return _URL.match(str(path)) is not None


def object_path(url: str) -> ObjectPath:
    """The path of a URL.

    Raises:
        MissingExtra: the libraries of its store are not installed.
        ValueError: it has no bucket.
    """
    scheme, bucket, _ = _URL.match(url).groups()
    if not bucket:
        raise ValueError(f"{url}: write {scheme}://BUCKET/NAME")
    _configure(scheme)
    return ObjectPath(url)


def create(path: ObjectPath, data: bytes) -> bool:
    """Writes an object only if there is none of that name; False if there is.

    The store itself decides, so of two writers one succeeds.
    """
    try:
        path.files.pipe_file(path.key, data, mode="create")
    except Exception as error:
        # A repeated request meets what the first one wrote, where only the answer was lost.
        if _exists_already(error):
            return path.read_bytes() == data
        raise
    return True


def read_range(path: ObjectPath, start: int, stop: int) -> bytes:
    """Bytes start..stop of an object; fewer where it ends before."""
    return path.files.cat_file(path.key, start=start, end=stop) if stop > start else b""


def check_bucket(path: ObjectPath) -> None:
    """Checks that a path's bucket exists and that its objects may be listed.

    Raises:
        OSError: it does not, or they may not; the message has the remedy.
    """
    root = ObjectPath("/", *path.parts[1:3])
    remedy = "check the name of the bucket, and the credentials (docs/object_stores.md)"
    try:
        path.files.ls(path.key, detail=False)
    except FileNotFoundError:
        if path != root and not root.exists():
            raise FileNotFoundError(f"{root} is not there or may not be read: {remedy}") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise PermissionError(f"{root} cannot be read ({reason}): {remedy}") from error


def list_objects(path: ObjectPath) -> dict[str, Stat]:
    """What is known of the objects below a path, by name relative to it."""
    found = path.files.find(path.key, detail=True)
    root = f"{path.key}/"
    return {name.removeprefix(root): _stat(about) for name, about in found.items()}


def find_objects(pattern: str) -> list[str]:
    """The URLs of the objects that a pattern ("**" too) matches, sorted."""
    scheme = _URL.match(pattern)[1]
    # "?" and "*" are not of a URL here.
    _, _, rest = pattern.partition(":")
    found = _file_system(scheme).glob(rest.lstrip("/"), detail=True)
    return sorted(f"{scheme}://{key}" for key, about in found.items() if about["type"] == "file")


def upload(file: pathlib.Path, target: ObjectPath) -> None:
    """Copies a local file to a store."""
    target.files.put_file(str(file), target.key)


def download(path: ObjectPath, file: pathlib.Path) -> None:
    """Copies an object to a local file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    path.files.get_file(path.key, str(file))


def remove_objects(path: ObjectPath) -> None:
    """Removes an object and all objects below it; nothing where there are none."""
    names = path.files.find(path.key)
    if names:
        path.files.rm(names)


def kvstore_spec(url: str) -> dict[str, Any]:
    """TensorStore's specification of an object or folder, which it reads and writes itself."""
    scheme, bucket, name = _URL.match(url).groups()
    _configure(scheme)
    name = name.strip("/")
    if scheme == "gs":
        return {"driver": "gcs", "bucket": bucket, "path": name}
    spec = {"driver": "s3", "bucket": bucket, "path": name}
    if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        spec["endpoint"] = endpoint
        spec["aws_region"] = os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
    return spec


def _exists_already(error: Exception) -> bool:
    """Whether an object was not created because there is one: HTTP 412."""
    if isinstance(error, FileExistsError) or getattr(error, "code", None) in (412, "412"):
        return True
    response = getattr(error, "response", None) or {}
    return response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 412


def store_error(error: BaseException) -> bool:
    """Whether an error is that of a store or its connection, not of what a user has given."""
    if isinstance(error, OSError) and error.errno in _PASSING:
        return True
    names = {
        "aiohttp": ("ClientError",),
        "gcsfs.retry": ("HttpError",),
        "botocore.exceptions": ("BotoCoreError", "ClientError"),
        "google.auth.exceptions": ("GoogleAuthError",),
    }
    classes = [
        getattr(sys.modules[module], name)
        for module, found in names.items()
        if module in sys.modules
        for name in found
    ]
    return isinstance(error, tuple(classes))


@functools.cache
def _configure(scheme: str) -> None:
    """Sets the defaults of the libraries of a scheme, for our own paths and for Orbax's.

    The variables that Google's and Amazon's tools read for a server of one's own count for all.
    """
    # etils.epath would use TensorFlow's file systems, which have their own credentials and errors.
    os.environ.setdefault("EPATH_USE_TF", "0")
    with optional(f"{scheme}:// paths"):
        import fsspec

        defaults: dict[str, Any] = {"use_listings_cache": False}
        if scheme == "gs":
            if server := os.environ.get("STORAGE_EMULATOR_HOST"):
                os.environ.setdefault("TENSORSTORE_GCS_HTTP_URL", server)
                os.environ.setdefault("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")
                # Asks another server what kind of bucket it is, and waits for it for a minute.
                os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
                defaults["token"] = "anon"
            import gcsfs  # noqa: F401
        else:
            import s3fs

            s3fs.S3FileSystem.retries = _S3_TRIES
            attempts = {"retries": {"mode": "standard", "max_attempts": 5}}
            defaults["config_kwargs"] = attempts
    # They log the traceback of a request that failed for good, which is reported in one line.
    for name in ("gcsfs", "gcsfs.retry", "s3fs"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for protocol in ("gs", "gcs") if scheme == "gs" else ("s3",):
        fsspec.config.conf[protocol] = defaults | fsspec.config.conf.get(protocol, {})


class ObjectPath(pathlib.PurePosixPath):
    """The path of an object, or of all objects whose names begin with it and "/".

    It has the methods of pathlib.Path that this package calls, but is no path of the system: what
    asks for one (`os.fspath`) is refused, since it would write a local folder named "gs:". It is
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
        return _file_system(self.parts[1])

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
            return _stat(self.files.info(self.key))

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
        return io.TextIOWrapper(file, encoding or "utf-8", errors, newline)

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


class Stat(NamedTuple):
    """What is known of an object: bytes, and when it was written, in seconds and nanoseconds."""

    st_size: int
    st_mtime: float
    st_mtime_ns: int


def _stat(about: Mapping[str, Any]) -> Stat:
    when = about.get("mtime") or about.get("LastModified") or about.get("updated") or 0.0
    if isinstance(when, str):
        when = datetime.datetime.fromisoformat(when.replace("Z", "+00:00"))
    if isinstance(when, datetime.datetime):
        when = when.timestamp()
    return Stat(int(about["size"] or 0), float(when), int(when * 1e9))


def _without_scheme(part: Any) -> Any:
    """Writes "gs://bucket/name" as "/gs/bucket/name"; other parts as they are."""
    found = _URL.match(part) if isinstance(part, str) else None
    return f"/{found[1]}/{found[2]}/{found[3]}" if found else part


class _Upload(tempfile.SpooledTemporaryFile):
    """A file that becomes an object when it is closed, unless by an error in its `with` block."""

    def __init__(self, path: Any) -> None:
        super().__init__(max_size=_SPOOL_BYTES)
        self._target = path

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if kind is not None:
            self._target = None
        self.close()

    def close(self) -> None:
        target, self._target = self._target, None
        try:
            if target is not None:
                _send(self, target)
        finally:
            super().close()


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


@functools.cache
def _file_system(scheme: str) -> Any:
    _configure(scheme)
    import fsspec

    return fsspec.filesystem(scheme)
