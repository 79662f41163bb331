"""Records of raw files, whatever is wrong with some of them: those are told of and passed over."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import IO, Any

from apache_beam.io.filesystems import FileSystems

# A longer line is no document. It is passed over without being held.
LINE_BYTES = 32 << 20
_BLOCK = 1 << 20

# A record, or what is wrong with one.
Found = tuple[dict[str, Any] | None, str]


def expand(patterns: tuple[str, ...]) -> list[str]:
    """The files that paths and globs name, each once, in order.

    Raises:
        FileNotFoundError: a pattern that matches nothing.
    """
    files: set[str] = set()
    for pattern in patterns:
        matched = {found.path for found in FileSystems.match([pattern])[0].metadata_list}
        if not matched:
            raise FileNotFoundError(f"--input: no file matches {pattern!r}")
        files |= matched
    return sorted(files)


def read(path: str) -> Iterator[Found]:
    """The records of a file; for one that cannot be read, None and why."""
    name = path.removesuffix(".gz").removesuffix(".zst")
    try:
        with FileSystems.open(path) as stream:
            if name.endswith(".parquet"):
                yield from _parquet(stream)
            elif name.endswith((".warc", ".wet")):
                yield from _warc(stream)
            elif name.endswith((".jsonl", ".json", ".ndjson")):
                yield from map(_json, _lines(stream))
            else:
                for line in _lines(stream):
                    yield ({"text": line}, "") if isinstance(line, str) else (None, line[0])
    except (OSError, EOFError, ValueError) as error:
        yield None, f"unreadable file: {type(error).__name__}"
    except Exception as error:  # decompressors raise types of their own
        if type(error).__module__.partition(".")[0] not in ("zlib", "zstandard", "pyarrow"):
            raise
        yield None, f"unreadable file: {type(error).__name__}"


def _lines(stream: IO[bytes]) -> Iterator[str | tuple[str]]:
    """Lines that say something; what is wrong with one comes as a tuple."""
    pending: list[bytes] = []
    held = 0
    while True:
        block = stream.read(_BLOCK)
        *ended, rest = block.split(b"\n")
        for piece in ended:
            yield from _decoded(pending, held, piece)
            pending, held = [], 0
        held += len(rest)
        if held <= LINE_BYTES:
            pending.append(rest)
        else:
            pending = []
        if not block:
            yield from _decoded(pending, held, b"")
            return


def _decoded(pending: list[bytes], held: int, piece: bytes) -> Iterator[str | tuple[str]]:
    if held + len(piece) > LINE_BYTES:
        yield ("line too long",)
        return
    try:
        line = b"".join([*pending, piece]).decode("utf-8")
    except UnicodeDecodeError:
        yield ("not UTF-8",)
        return
    if line.strip():
        yield line


def _json(line: str | tuple[str]) -> Found:
    if not isinstance(line, str):
        return None, line[0]
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        return None, "no JSON"
    return (record, "") if isinstance(record, dict) else (None, "no JSON object")


def _parquet(stream: IO[bytes]) -> Iterator[Found]:
    import pyarrow.parquet

    for batch in pyarrow.parquet.ParquetFile(stream).iter_batches(1024):
        yield from ((record, "") for record in batch.to_pylist())


def _warc(stream: IO[bytes]) -> Iterator[Found]:
    """Pages of a WARC file, and the texts of a WET file (ISO 28500)."""
    reader = io.BufferedReader(_Raw(stream), _BLOCK)
    while line := reader.readline(_BLOCK):
        if not line.startswith(b"WARC/"):
            continue
        fields = _fields(reader)
        size = fields.get("content-length", "")
        if not size.isdigit() or int(size) > LINE_BYTES:
            yield None, "WARC record without a sensible length"
            continue
        body = reader.read(int(size))
        kind = fields.get("warc-type", "")
        if kind not in ("conversion", "response"):
            continue
        if kind == "response":
            body = body.partition(b"\r\n\r\n")[2]
        record = {
            "id": fields.get("warc-record-id", "").strip("<>") or None,
            "url": fields.get("warc-target-uri", ""),
        }
        try:
            record["html" if kind == "response" else "text"] = body.decode("utf-8")
        except UnicodeDecodeError:
            yield None, "not UTF-8"
            continue
        yield record, ""


def _fields(reader: IO[bytes]) -> dict[str, str]:
    fields = {}
    while (line := reader.readline(_BLOCK)).strip():
        name, _, value = line.decode("utf-8", "replace").partition(":")
        fields[name.strip().lower()] = value.strip()
    return fields


class _Raw(io.RawIOBase):
    """Any stream of bytes as one that can be buffered."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
