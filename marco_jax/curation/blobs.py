"""Blobs of bytes that pass between the stages of a pipeline, by value or by address.

A runner keeps the elements of a GroupByKey in memory or on its own disks. The local runner has
memory alone, so texts and tables must not be elements there: a `BlobStore` with a folder writes
them to files, and the element is the address of the bytes. Without a folder the element is the
bytes themselves, which suits runners that spill to disk.
"""

from __future__ import annotations

import dataclasses
import io
import json
import uuid
from collections.abc import Iterable, Iterator
from typing import IO, Any

from marco_jax.extras import optional

with optional():
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

_INLINE, _STORED = b"=", b"@"
_BUFFER = 1 << 16


@dataclasses.dataclass(frozen=True)
class BlobStore:
    """Where blobs are kept: in files of `folder`, or in the elements themselves without one."""

    folder: str = ""

    def write(self, blobs: Iterable[bytes]) -> list[bytes]:
        """Stores blobs and returns a handle of each, in order.

        The file has a new name, so that a repeated bundle never overwrites what another one wrote;
        only the files whose handles are passed on are ever read.
        """
        if not self.folder:
            return [_INLINE + blob for blob in blobs]
        handles = []
        path, at = FileSystems.join(self.folder, f"{uuid.uuid4().hex}.blobs"), 0
        with _create(path) as file:
            for blob in blobs:
                file.write(blob)
                handles.append(_STORED + json.dumps([path, at, len(blob)]).encode())
                at += len(blob)
        return handles

    def read(self, handle: bytes) -> bytes:
        """The blob of a handle."""
        with self.open(handle) as stream:
            return stream.read()

    def open(self, handle: bytes) -> IO[bytes]:
        """The blob of a handle as a stream."""
        if handle[:1] == _INLINE:
            return io.BytesIO(handle[1:])
        path, at, size = json.loads(handle[1:])
        file = FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
        file.seek(at)
        return io.BufferedReader(_Region(file, size), _BUFFER)

    def rows(self, handle: bytes) -> Iterator[Any]:
        """The rows of a blob that `pack_json_rows` made."""
        import zstandard

        with self.open(handle) as stream:
            reader = zstandard.ZstdDecompressor().stream_reader(stream)
            yield from map(json.loads, io.TextIOWrapper(reader, encoding="utf-8", newline="\n"))


class _Region(io.RawIOBase):
    """The next bytes of a file, up to a size; closes the file with itself."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def pack_json_rows(rows: Iterable[Any]) -> bytes:
    """JSON-able rows as one compressed blob."""
    import zstandard

    packer = zstandard.ZstdCompressor(level=1).compressobj()
    lines = (json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    return b"".join([*map(packer.compress, lines), packer.flush()])


def _create(path: str) -> IO[bytes]:
    return FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED)
