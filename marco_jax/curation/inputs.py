"""Reads records of raw files; faulty records are reported and skipped."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterable, Iterator
from typing import IO, Any

from marco_jax.extras import optional
from marco_jax.languages import names_in

with optional():
    from apache_beam.io.filesystems import FileSystems

# A longer line is skipped without being held in memory.
LINE_BYTES = 32 << 20
_BLOCK = 1 << 20

# Files of lines are read in parallel parts of this size; a compressed file by one worker.
PART_BYTES = 256 << 20

_LINES = (".jsonl", ".json", ".ndjson", ".txt", ".tsv")

# A record and "", or None and its fault.
RecordOrFault = tuple[dict[str, Any] | None, str]


def matching_files(patterns: tuple[str, ...]) -> list[str]:
    """The files that match paths and globs, each once, sorted.

    Raises:
        FileNotFoundError: a pattern matches nothing.
    """
    files: set[str] = set()
    for pattern in patterns:
        matched = {found.path for found in FileSystems.match([pattern])[0].metadata_list}
        if not matched:
            raise FileNotFoundError(f"no file matches {pattern!r}")
        files |= matched
    return sorted(files)


@dataclasses.dataclass(frozen=True)
class Part:
    """The lines of a file that start in bytes [start, stop); a `stop` of 0 is the file's end."""

    number: int
    path: str
    start: int = 0
    stop: int = 0


def parts_of(files: list[str]) -> list[Part]:
    """Splits files into parts that workers can read in parallel."""
    found: list[Part] = []
    for path in files:
        size = FileSystems.match([path])[0].metadata_list[0].size_in_bytes
        step = PART_BYTES if path.endswith(_LINES) else size + 1
        starts = range(0, max(1, size), step)
        for start in starts:
            stop = 0 if start == starts[-1] else start + step
            found.append(Part(len(found), path, start, stop))
    return found


def sizes_of(files: Iterable[str], times: bool = False) -> list[Any]:
    """Sizes of files in bytes; with `times`, pairs with the time of the last change."""
    found = FileSystems.match([*files])
    metadata = [match.metadata_list[0] for match in found]
    if times:
        return [[one.size_in_bytes, one.last_updated_in_seconds] for one in metadata]
    return [one.size_in_bytes for one in metadata]


def benchmark_items(paths: str) -> Iterator[tuple[str, str]]:
    """Yields the (text, language) of every text field of benchmark items.

    Args:
        paths: JSONL files, comma-separated.

    Raises:
        ValueError: a record cannot be read.
    """
    for path in names_in(paths):
        for part in parts_of(matching_files((path,))):
            for record, fault in read(part):
                if record is None:
                    raise ValueError(f"config.benchmarks: {part.path}: {fault}")
                language = str(record.get("language") or record.get("lang") or "")
                names = set(record) - {"id", "language", "lang"}
                for name in sorted(names):
                    if isinstance(record[name], str):
                        yield record[name], language


def read(part: Part) -> Iterator[RecordOrFault]:
    """Yields the records of a part of a file; None and the fault for an unreadable one."""
    name = part.path.removesuffix(".gz").removesuffix(".zst")
    try:
        with FileSystems.open(part.path) as stream:
            if name.endswith(".parquet"):
                yield from _parquet(stream)
            elif name.endswith((".warc", ".wet")):
                yield from _warc(stream)
            elif name.endswith((".jsonl", ".json", ".ndjson")):
                yield from map(_json, _lines(stream, part))
            else:
                for line in _lines(stream, part):
                    yield ({"text": line}, "") if isinstance(line, str) else (None, line[0])
    except (OSError, EOFError, ValueError) as error:
        yield None, f"unreadable file: {type(error).__name__}"
    except Exception as error:  # decompressors raise their own exception types
        if type(error).__module__.partition(".")[0] not in ("zlib", "zstandard", "pyarrow"):
            raise
        yield None, f"unreadable file: {type(error).__name__}"


def _lines(stream: IO[bytes], part: Part) -> Iterator[str | tuple[str]]:
    """Yields lines that are not blank; the fault of an unreadable line as a tuple."""
    pending: list[bytes] = []
    held = 0
    # Start one byte early: a line that begins before `start` belongs to the previous part.
    at = max(0, part.start - 1)
    skipping = part.start > 0
    if at:
        stream.seek(at)
    while True:
        block = stream.read(_BLOCK)
        *ended, rest = block.split(b"\n")
        for piece in ended:
            if not skipping:
                yield from _decoded(pending, held, piece)
            at += held + len(piece) + 1
            pending, held, skipping = [], 0, False
            if part.stop and at >= part.stop:
                return
        held += len(rest)
        if held <= LINE_BYTES:
            pending.append(rest)
        else:
            pending = []
        if not block:
            if not skipping:
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


def _json(line: str | tuple[str]) -> RecordOrFault:
    if not isinstance(line, str):
        return None, line[0]
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        return None, "no JSON"
    return (record, "") if isinstance(record, dict) else (None, "no JSON object")


def _parquet(stream: IO[bytes]) -> Iterator[RecordOrFault]:
    import pyarrow.parquet

    for batch in pyarrow.parquet.ParquetFile(stream).iter_batches(1024):
        yield from ((record, "") for record in batch.to_pylist())


def _warc(stream: IO[bytes]) -> Iterator[RecordOrFault]:
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
    """Adapts a stream of bytes to io.RawIOBase, so that it can be buffered."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
