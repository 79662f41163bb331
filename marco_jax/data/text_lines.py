"""Files as streams of bytes and lines: local or remote, compressed or not, never held in memory."""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

from marco_jax.data.record_errors import RecordErrors
from marco_jax.files import as_path

# A line longer than this is a mistake, not a text.
LINE_BYTES = 1 << 28
COMPRESSED = {".gz": "gzip", ".zst": "zstd"}

# The bytes [start, stop) of a file.
Span = tuple[int, int]

_BLOCK = 1 << 20
# What a file may start with, the longest first: the first two of UTF-32 are UTF-16's.
_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_UTF8_MARK = b"\xef\xbb\xbf"


def read_lines(
    path: str, errors: RecordErrors, span: Span | None = None
) -> Iterator[tuple[str, str | None]]:
    """The lines of a file, each with its location and None for one that cannot be read.

    Lines end with a newline, and lose carriage returns before it. Other separators, such as
    U+2028, are part of a text. A byte order mark of UTF-8 is dropped.

    Args:
        path: of the file.
        errors: takes reports of lines, and of the byte behind which a file is damaged.
        span: only the lines that begin in these bytes of an uncompressed local file. Locations are
            bytes then, for the numbers of lines are not known.

    Raises:
        ValueError: a line that cannot be read, and the policy is "stop".
        OSError: a file that cannot be opened.
    """
    number, (start, stop) = 0, span or (0, math.inf)
    with open_bytes(path) as raw:
        buffered = isinstance(raw, io.BufferedReader)
        stream = raw if buffered else io.BufferedReader(_RawStream(raw), _BLOCK)
        try:
            if start:
                start = _first_line(stream, span)
            while start < stop and (line := stream.readline(LINE_BYTES + 1)):
                number += 1
                place = f"{path}, byte {start}" if span else f"{path}:{number}"
                if not start and (name := _encoding(line)):
                    remedy = f"the file is {name} by its byte order mark: convert it to UTF-8"
                    errors.report(place, "not UTF-8", remedy)
                    return
                size, text = len(line), None
                if size > LINE_BYTES and line[-1:] != b"\n":
                    del line
                    size += _pass_line(stream)
                    longer = f"the line is longer than {LINE_BYTES:,} bytes"
                    errors.report(place, "line too long", longer)
                else:
                    text = _decoded(line, place, errors, first=not start)
                start += size
                yield place, text
        except (EOFError, OSError, zlib.error) as error:
            # Files and disks that fail have an error number; streams that are damaged do not.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            detail = f"nothing can be read from here on: {error}"
            errors.report(f"{path}, byte {start}", "file ends early", detail)


@contextlib.contextmanager
def open_bytes(path: str) -> Iterator[IO[bytes]]:
    """Opens a file to be read; .gz and .zst are decompressed."""
    with contextlib.ExitStack() as stack:

        def opened() -> Any:
            raw: Any = as_path(path).open("rb", _BLOCK)
            stack.callback(raw.close)
            return raw

        if path.endswith(".gz"):
            yield stack.enter_context(gzip.GzipFile(fileobj=opened()))
        elif path.endswith(".zst"):
            yield _ZstdStream(opened)
        else:
            yield opened()


def _first_line(stream: IO[bytes], span: Span) -> int:
    """Moves to the first line that begins in a span or behind it, and returns its byte.

    In a file that is not UTF-8 that is the end of the span: the file's first span reports it.
    """
    start, stop = span
    if _encoding(stream.read(4)):
        return stop
    # A newline just before the span ends the line before it.
    stream.seek(start - 1)
    return start - 1 + _pass_line(stream)


def _encoding(data: bytes) -> str:
    """The encoding, other than UTF-8, whose byte order mark starts a file; else empty."""
    return next((name for mark, name in _MARKS.items() if data.startswith(mark)), "")


def _pass_line(stream: IO[bytes]) -> int:
    """Passes over the rest of a line without holding it, and returns its bytes."""
    passed = 0
    while piece := stream.readline(_BLOCK):
        passed += len(piece)
        if piece.endswith(b"\n"):
            break
    return passed


def _decoded(line: bytes, place: str, errors: RecordErrors, *, first: bool) -> str | None:
    if first:
        line = line.removeprefix(_UTF8_MARK)
    try:
        return line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        bad = f"0x{line[error.start]:02x} in byte {error.start} of the line"
        errors.report(place, "not UTF-8", f"not UTF-8: {error.reason}, {bad}")
        return None


class _RawStream(io.RawIOBase):
    """Any stream of bytes as one that can be buffered."""

    def __init__(self, stream: Any) -> None:
        # One read of a damaged gzip file gives what is before the damage; `read` would drop it.
        self._read = stream.read1 if isinstance(stream, gzip.GzipFile) else stream.read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _ZstdStream:
    """Decompressed bytes, all those before a damage too, of which pyarrow drops the last ones."""

    def __init__(self, opened: Callable[[], Any]) -> None:
        import pyarrow

        self._start = lambda: pyarrow.CompressedInputStream(opened(), "zstd")
        self._stream = self._start()
        self._read = 0
        self._error: OSError | None = None

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most `size` of them."""
        if self._error is not None:
            raise self._error
        try:
            data = self._stream.read(None if size < 0 else size)
        except OSError as error:
            if error.errno is not None:
                raise
            self._error = error
            data = self._before_damage()
            if not data:
                raise
        self._read += len(data)
        return data

    def _before_damage(self) -> bytes:
        """From the file's start again, and from here on byte by byte: no read fails early."""
        stream, left, found = self._start(), self._read, bytearray()
        while left:
            left -= len(stream.read(min(left, _BLOCK)))
        with contextlib.suppress(OSError):
            while byte := stream.read(1):
                found += byte
        return bytes(found)
