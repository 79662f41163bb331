"""Records of raw text files, streamed: no file is held in memory.

Files are local or lie wherever TensorFlow's file system reaches ("gs://..."). Every record comes
with its location, for messages.
"""

from __future__ import annotations

import contextlib
import glob
import gzip
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

Record = Mapping[str, Any]
# A line longer than this is a mistake, not a text.
LINE_BYTES = 1 << 28

COMPRESSED = {".gz": "gzip", ".zst": "zstd"}


def expand_globs(patterns: Sequence[str]) -> list[str]:
    """The files that paths or globs ("**" too) name: sorted within a pattern, each once.

    Raises:
        FileNotFoundError: a pattern that matches nothing.
    """
    files: dict[str, None] = {}
    for pattern in patterns:
        found = sorted(_gfile().glob(pattern) if "://" in pattern else _local(pattern))
        if not found:
            raise FileNotFoundError(f"no file matches {pattern!r}")
        files.update(dict.fromkeys(found))
    return list(files)


def form_of(path: str) -> str:
    """The form of a file by its name: a key of FORMS.

    Raises:
        ValueError: the name does not tell.
    """
    name = path
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    extension = name.rpartition(".")[2]
    form = {"txt": "text", "json": "jsonl", "tfrecords": "tfrecord"}.get(extension, extension)
    if form not in FORMS:
        raise ValueError(
            f"{path}: its name does not tell its format: set format to one of {list(FORMS)}"
        )
    return form


def read_records(
    path: str, form: str = "", columns: Sequence[str] = ()
) -> Iterator[tuple[str, Record]]:
    """The records of a file in their order, each with its location.

    Args:
        path: of the file; .gz and .zst are read through.
        form: a key of FORMS; by default its name tells.
        columns: names of the columns of a TSV; "source" and "target" by default.

    Raises:
        ValueError: a record that cannot be read; file and line are named.
        OSError: a file that cannot be.
    """
    yield from FORMS[form or form_of(path)](path, columns)


def file_fingerprint(path: str) -> tuple[str, int, int]:
    """Name, size in bytes, and time of change in nanoseconds: they change when a file does."""
    status = _gfile().stat(path) if "://" in path else _stat(path)
    return path.rpartition("/")[2], int(status[0]), int(status[1])


def _local(pattern: str) -> list[str]:
    return [path for path in glob.glob(pattern, recursive=True) if not path.endswith("/")]


def _stat(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


@contextlib.contextmanager
def _open(path: str) -> Iterator[IO[bytes]]:
    with contextlib.ExitStack() as stack:
        raw: Any = _gfile().open(path) if "://" in path else open(path, "rb")  # noqa: SIM115
        stack.callback(raw.close)
        if path.endswith(".gz"):
            raw = stack.enter_context(gzip.GzipFile(fileobj=raw))
        elif path.endswith(".zst"):
            import pyarrow

            raw = stack.enter_context(pyarrow.CompressedInputStream(raw, "zstd"))
        yield raw


def _lines(path: str) -> Iterator[tuple[str, str]]:
    """Lines ended by a newline alone: a text may hold other separators."""
    with _open(path) as stream:
        buffered = io.BufferedReader(_RawStream(stream), 1 << 20)
        number = 0
        while line := buffered.readline(LINE_BYTES):
            number += 1
            place = f"{path}:{number}"
            if len(line) == LINE_BYTES:
                raise ValueError(f"{place}: the line is longer than {LINE_BYTES >> 20} MiB")
            try:
                yield place, line.decode("utf-8").removesuffix("\n").removesuffix("\r")
            except UnicodeDecodeError as error:
                raise ValueError(f"{place} is not UTF-8: {error.reason}") from None


class _RawStream(io.RawIOBase):
    """Any stream of bytes as one that can be buffered."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _jsonl(path: str, columns: Sequence[str]) -> Iterator[tuple[str, Record]]:
    for place, line in _lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{place} is not valid JSON: {error}") from None
        if not isinstance(record, dict):
            raise ValueError(f"{place} is not a JSON object")
        yield place, record


def _text(path: str, columns: Sequence[str]) -> Iterator[tuple[str, Record]]:
    for place, line in _lines(path):
        if line.strip():
            yield place, {"text": line}


def _every_line(path: str, columns: Sequence[str]) -> Iterator[tuple[str, Record]]:
    """Empty lines too: the n-th line of a file may belong to the n-th of another."""
    for place, line in _lines(path):
        yield place, {"text": line}


def _tsv(path: str, columns: Sequence[str]) -> Iterator[tuple[str, Record]]:
    names = columns or ("source", "target")
    for place, line in _lines(path):
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) != len(names):
            raise ValueError(f"{place} has {len(cells)} columns: write {' TAB '.join(names)}")
        yield place, dict(zip(names, cells, strict=True))


def _parquet(path: str, columns: Sequence[str]) -> Iterator[tuple[str, Record]]:
    import pyarrow.parquet

    with _open(path) as stream:
        try:
            number = 0
            for batch in pyarrow.parquet.ParquetFile(stream).iter_batches(1024):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", record
        except pyarrow.ArrowInvalid as error:
            raise ValueError(f"{path} is not a Parquet file: {error}") from None


def _tfrecord(path: str, columns: Sequence[str]) -> Iterator[tuple[str, Record]]:
    import tensorflow as tf

    kind = "GZIP" if path.endswith(".gz") else ""
    try:
        for number, data in enumerate(tf.data.TFRecordDataset(path, kind).as_numpy_iterator(), 1):
            yield (place := f"{path}, record {number}"), _example(data, place)
    except tf.errors.DataLossError as error:
        raise ValueError(f"{path} is damaged: {error.message}") from None


def _array_record(path: str, columns: Sequence[str]) -> Iterator[tuple[str, Record]]:
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(path)
    try:
        for number in range(1, reader.num_records() + 1):
            yield (place := f"{path}, record {number}"), _example(reader.read(), place)
    finally:
        reader.close()


def _example(data: bytes, place: str) -> Record:
    """A tf.train.Example's features (single values), or a JSON object."""
    if data[:1] == b"{":
        return json.loads(data)
    import tensorflow as tf

    try:
        features = tf.train.Example.FromString(data).features.feature
    except Exception:  # protobuf's own error types differ between its implementations
        raise ValueError(f"{place} is neither a tf.train.Example nor JSON") from None
    record: dict[str, Any] = {}
    for name, feature in features.items():
        values = list(getattr(feature, feature.WhichOneof("kind") or "bytes_list").value)
        values = [value.decode() if isinstance(value, bytes) else value for value in values]
        record[name] = values[0] if len(values) == 1 else values
    return record


class _GFile:
    """The few calls of tf.io.gfile that are needed here."""

    def __init__(self) -> None:
        import tensorflow as tf

        self._gfile = tf.io.gfile

    def glob(self, pattern: str) -> list[str]:
        return self._gfile.glob(pattern)

    def open(self, path: str) -> IO[bytes]:
        return self._gfile.GFile(path, "rb")

    def stat(self, path: str) -> tuple[int, int]:
        status = self._gfile.stat(path)
        return status.length, status.mtime_nsec


_gfile: Callable[[], _GFile] = _GFile

FORMS: dict[str, Callable[..., Iterator[tuple[str, Record]]]] = {
    "jsonl": _jsonl,
    "text": _text,
    "lines": _every_line,
    "tsv": _tsv,
    "parquet": _parquet,
    "tfrecord": _tfrecord,
    "array_record": _array_record,
}
