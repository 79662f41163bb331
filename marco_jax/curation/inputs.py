"""Reads records of raw files; faulty records are reported and skipped."""

from __future__ import annotations

import codecs
import dataclasses
import json
from collections.abc import Iterable, Iterator
from typing import IO, Any

from marco_jax.curation import charsets, warc
from marco_jax.curation.beam_files import check_file_system
from marco_jax.curation.charsets import CHARSET
from marco_jax.extras import optional
from marco_jax.languages import language_code, names_in

with optional():
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

# A longer line is skipped without being held in memory.
LINE_BYTES = 32 << 20
_BLOCK = 1 << 20
# Bytes at the beginning of a file of text from which its charset is detected.
_SAMPLE = 1 << 16

# Files of lines and packed WARC files are read in parallel parts of this size.
PART_BYTES = 256 << 20

_JSON = (".jsonl", ".json", ".ndjson")
_ONE_VALUE = "one JSON value, not a line per record"
_PACKED_WARC = (".warc.gz", ".wet.gz")
_SPLIT = (*_JSON, ".txt", ".tsv", *_PACKED_WARC)


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """A record of a file, or the fault of an unreadable one.

    `position` identifies it in its file, however the file is split: the byte offset of a line, or
    of a WARC record, in the unpacked file; the offset of a gzip member; the row of a Parquet file.
    """

    position: int
    fields: dict[str, Any] | None
    fault: str = ""


def matching_files(patterns: tuple[str, ...]) -> list[str]:
    """The files that match paths and globs, each once, sorted.

    Raises:
        FileNotFoundError: a pattern matches nothing.
        ValueError: packages for the scheme of a pattern are not installed.
    """
    files: set[str] = set()
    for pattern in patterns:
        check_file_system(pattern)
        matched = {found.path for found in FileSystems.match([pattern])[0].metadata_list}
        if not matched:
            raise FileNotFoundError(f"no file matches {pattern!r}")
        files |= matched
    return sorted(files)


@dataclasses.dataclass(frozen=True)
class Part:
    """Records of a file that start in bytes [start, stop); a `stop` of 0 is the file's end."""

    number: int
    path: str
    start: int = 0
    stop: int = 0


def parts_of(files: list[str]) -> list[Part]:
    """Splits files into parts that workers can read in parallel."""
    found: list[Part] = []
    for path in files:
        size = FileSystems.match([path])[0].metadata_list[0].size_in_bytes
        step = PART_BYTES if path.endswith(_SPLIT) else size + 1
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
            for record in read(part):
                if record.fields is None:
                    raise ValueError(f"config.benchmarks: {part.path}: {record.fault}")
                fields = record.fields
                language = language_code(str(fields.get("language") or fields.get("lang") or ""))
                for name in sorted(set(fields) - {"id", "language", "lang", CHARSET}):
                    if isinstance(fields[name], str):
                        yield fields[name], language


def read(part: Part) -> Iterator[Record]:
    """Yields the records of a part of a file; unreadable ones with their fault.

    An error that ends the file is the last record, a fault at the position after the one before.
    """
    position = part.start - 1
    try:
        for record in _records(part):
            position = record.position
            yield record
    except Exception as error:
        # Decompressors raise types of their own.
        foreign = type(error).__module__.partition(".")[0] in ("zlib", "zstandard", "pyarrow")
        if not foreign and not isinstance(error, (OSError, EOFError, ValueError, OverflowError)):
            raise
        yield Record(position + 1, None, f"unreadable file: {type(error).__name__}")


def _records(part: Part) -> Iterator[Record]:
    name = part.path.removesuffix(".gz").removesuffix(".zst")
    if name.endswith((".warc", ".wet")):
        yield from _warc_records(part)
        return
    if part.path.endswith(".parquet.gz") or part.path.endswith(".parquet.zst"):
        raise ValueError("packed Parquet")
    with FileSystems.open(part.path) as stream:
        if name.endswith(".parquet"):
            yield from _parquet(stream)
            return
        charset = _charset(stream, name.endswith(_JSON))
        lines = _wide_lines(stream, charset) if _is_wide(charset) else _lines(stream, part)
        if _is_wide(charset) and part.start:
            return
        make = _json if name.endswith(_JSON) else _text
        for position, line in lines:
            if isinstance(line, _Fault):
                yield Record(position, None, line)
            elif (record := make(position, line, charset)) is not None:
                yield record
                if record.fault == _ONE_VALUE:
                    return


def _warc_records(part: Part) -> Iterator[Record]:
    kind = CompressionTypes.UNCOMPRESSED
    with FileSystems.open(part.path, compression_type=kind) as stream:
        if part.path.endswith(".gz"):
            found = warc.packed_records(stream, part.start, part.stop)
        elif part.path.endswith(".zst"):
            found = warc.zstandard_records(stream)
        else:
            found = (item for item in warc.records(stream) if item[1] is not None or item[2])
        yield from (Record(*item) for item in found)


class _Fault(str):
    """The fault of a line, in its place."""


def _charset(stream: IO[bytes], json_lines: bool) -> str:
    """The codec of a file of text, from its beginning; "" if that is ASCII or the file JSON."""
    sample = stream.read(_SAMPLE)
    stream.seek(0)
    if json_lines:
        # JSON is UTF-8, but files of some programs are UTF-16 with a byte order mark.
        return "utf_16" if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else ""
    codec = charsets.charset_of(sample)
    return "" if codec == "utf_8" and sample.isascii() else codec


def _is_wide(charset: str) -> bool:
    return charset.startswith(("utf_16", "utf_32"))


def _lines(stream: IO[bytes], part: Part) -> Iterator[tuple[int, bytes | _Fault]]:
    """Yields the offsets of lines and their bytes, without the end of the line."""
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
                yield at, _joined(pending, held, piece)
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
                yield at, _joined(pending, held, b"")
            return


def _joined(pending: list[bytes], held: int, piece: bytes) -> bytes | _Fault:
    if held + len(piece) > LINE_BYTES:
        return _Fault("line too long")
    return b"".join([*pending, piece])


def _wide_lines(stream: IO[bytes], codec: str) -> Iterator[tuple[int, bytes | _Fault]]:
    """Yields the lines of a UTF-16 or UTF-32 file, as UTF-8; its parts are read as one."""
    decoder = codecs.getincrementaldecoder(codec)("replace")
    width, at = (4 if "32" in codec else 2), 0
    held, skipping = "", False
    while True:
        block = stream.read(_BLOCK)
        held += decoder.decode(block, final=not block)
        *ended, held = held.split("\n")
        for line in ended if block else [*ended, held]:
            skipped, skipping = skipping, False
            yield at, _Fault("line too long") if skipped else line.encode("utf-8", "replace")
            at += width * (len(line) + 1)
        if len(held) > LINE_BYTES // width:
            at += width * len(held)
            held, skipping = "", True
        if not block:
            return


def _text(position: int, line: bytes, charset: str) -> Record | None:
    """The text of a line; a line of a file that begins in ASCII is decoded by itself."""
    if not charset:
        text, name = charsets.decode_text(line)
    elif _is_wide(charset):
        text, name = line.decode("utf-8"), charsets.charset_name(charset)
    else:
        text, name = charsets.decoded(line, charset), charsets.charset_name(charset)
    text = text.rstrip("\r")
    if position == 0:
        text = text.removeprefix("\ufeff")
    if not text.strip():
        return None
    fields = {"text": text}
    return Record(position, fields if name == charsets.UTF_8 else {**fields, CHARSET: name})


def _json(position: int, line: bytes, charset: str) -> Record | None:
    if position == 0:
        line = line.removeprefix(codecs.BOM_UTF8)
    if not line.strip():
        return None
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return Record(position, None, "not UTF-8")
    try:
        fields = json.loads(text)
    # Numbers of more than 4,300 digits are ValueErrors, and deep nesting is a RecursionError.
    except (ValueError, RecursionError):
        start = text.strip()
        whole = position == 0 and (start == "{" or start.rstrip("{").strip() == "[")
        return Record(position, None, _ONE_VALUE if whole else "no JSON")
    if isinstance(fields, dict):
        return Record(
            position, {**fields, CHARSET: charsets.charset_name(charset)} if charset else fields
        )
    if position == 0 and isinstance(fields, list) and fields and isinstance(fields[0], dict):
        return Record(position, None, _ONE_VALUE)
    return Record(position, None, "no JSON object")


def _parquet(stream: IO[bytes]) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    position = 0
    for batch in pyarrow.parquet.ParquetFile(stream).iter_batches(1024):
        try:
            rows: list[dict[str, Any] | None] = list(batch.to_pylist())
        except (ValueError, OverflowError, pyarrow.ArrowException):
            rows = [_row(batch.slice(number, 1)) for number in range(batch.num_rows)]
        for row in rows:
            yield Record(position, row, "" if row is not None else "unreadable row")
            position += 1


def _row(batch: Any) -> dict[str, Any] | None:
    """The one row of a batch, or None if a value has no Python form."""
    import pyarrow

    try:
        return batch.to_pylist()[0]
    except (ValueError, OverflowError, pyarrow.ArrowException):
        return None
