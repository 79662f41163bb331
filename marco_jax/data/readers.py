"""Records of raw text files, streamed: no file is held in memory.

Files are local or in an object store ("gs://..."). Every record comes with its location, for
messages. What happens to bad ones: record_errors.py.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from marco_jax.data.record_errors import LONE_SURROGATE, RecordErrors, has_lone_surrogate
from marco_jax.data.text_lines import COMPRESSED, Span, open_bytes, read_lines
from marco_jax.files import as_path, glob_paths

Record = Mapping[str, Any]
Records = Iterator[tuple[str, Record]]

# The half of a surrogate pair that JSON writes as an escape; whole pairs match too.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def expand_globs(patterns: Sequence[str]) -> list[str]:
    """The files that paths or globs ("**" too) name: sorted within a pattern, each once.

    Raises:
        FileNotFoundError: a pattern that matches nothing.
    """
    files: dict[str, None] = {}
    for pattern in patterns:
        found = glob_paths(pattern)
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
    path: str,
    form: str = "",
    columns: Sequence[str] = (),
    errors: RecordErrors | None = None,
    span: Span | None = None,
    containing: str = "",
) -> Records:
    """The records of a file in their order, each with its location.

    A bad record is reported, and with policy "skip" left out. Behind a damage where nothing can be
    read, the rest of the file is left out. A line of form "lines" is never left out, for it may
    belong to the same line of another file: a bad one is empty.

    Args:
        path: of the file; .gz and .zst are read through.
        form: a key of FORMS; by default its name tells.
        columns: names of the columns of a TSV; "source" and "target" by default.
        errors: takes reports of bad records; by default the first one ends the reading.
        span: only the lines that begin in these bytes of the file: one of `split_spans`.
        containing: of form "jsonl": only lines that hold this text; others are not parsed.

    Raises:
        ValueError: a record that cannot be read, and the policy is "stop"; file and line are
            named. Also a span of a file that is not split.
        OSError: a file that cannot be opened.
    """
    form = form or form_of(path)
    errors = errors or RecordErrors()
    unsplit = form not in SPLIT_FORMS or path.endswith(tuple(COMPRESSED))
    if span and unsplit:
        raise ValueError(f"{path}: only uncompressed files of lines are read in spans")
    if form == "jsonl":
        yield from _jsonl(path, columns, errors, span, containing)
    elif span:
        yield from FORMS[form](path, columns, errors, span)
    else:
        yield from FORMS[form](path, columns, errors)


def split_spans(path: str, form: str, size: int) -> list[Span | None]:
    """Spans that together cover a file, for `read_records`; [None] where it is read whole.

    Args:
        path: of the file.
        form: a key of FORMS; empty: its name tells.
        size: about how many bytes a span has. Smaller files are read whole.

    Raises:
        ValueError: the size is not positive.
        OSError: a file that cannot be opened.
    """
    if size < 1:
        raise ValueError(f"the size of spans is {size}: write 1 or more")
    if (form or form_of(path)) not in SPLIT_FORMS:
        return [None]
    if path.endswith(tuple(COMPRESSED)):
        return [None]
    total = as_path(path).stat().st_size
    count = -(-total // size)
    if count < 2:
        return [None]
    bounds = [total * part // count for part in range(count + 1)]
    return list(itertools.pairwise(bounds))


def file_fingerprint(path: str) -> tuple[str, int, int]:
    """Name, size in bytes, and time of change in nanoseconds: they change when a file does."""
    status = as_path(path).stat()
    return path.rpartition("/")[2], status.st_size, status.st_mtime_ns


def _jsonl(
    path: str,
    columns: Sequence[str],
    errors: RecordErrors,
    span: Span | None = None,
    containing: str = "",
) -> Records:
    for place, line in read_lines(path, errors, span):
        if line and containing in line and line.strip():
            record = _parsed(line, place, errors)
            if record is not None:
                yield place, record


def _text(
    path: str, columns: Sequence[str], errors: RecordErrors, span: Span | None = None
) -> Records:
    for place, line in read_lines(path, errors, span):
        if line and line.strip():
            yield place, {"text": line}


def _every_line(path: str, columns: Sequence[str], errors: RecordErrors) -> Records:
    """Empty lines too: the n-th line of a file may belong to the n-th of another."""
    for place, line in read_lines(path, errors):
        yield place, {"text": line or ""}


def _tsv(
    path: str, columns: Sequence[str], errors: RecordErrors, span: Span | None = None
) -> Records:
    names = columns or ("source", "target")
    for place, line in read_lines(path, errors, span):
        if not line or not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) == len(names):
            yield place, dict(zip(names, cells, strict=True))
        else:
            detail = f"{len(cells)} columns where {len(names)} belong: {' TAB '.join(names)}"
            errors.report(place, "wrong number of columns", detail)


def _parquet(path: str, columns: Sequence[str], errors: RecordErrors) -> Records:
    import pyarrow.parquet

    number = 0
    with open_bytes(path) as stream:
        try:
            file = pyarrow.parquet.ParquetFile(stream, page_checksum_verification=True)
            # One group after another, so that a damaged one leaves those before it.
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(1024, row_groups=[group]):
                    for row, record in _rows_of(batch, path, number, errors):
                        yield f"{path}, row {row}", record
                    number += batch.num_rows
        except (pyarrow.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            _report_damage(f"{path}, row {number + 1}", error, errors)


def _rows_of(
    batch: Any, path: str, before: int, errors: RecordErrors
) -> Iterator[tuple[int, Record]]:
    """The rows of a batch with their numbers in the file."""
    # Where a value cannot be read, row by row: only one of them is bad.
    rows = None
    with contextlib.suppress(ValueError, OverflowError):
        rows = batch.to_pylist()
    if rows is not None:
        yield from enumerate(rows, before + 1)
        return
    for index in range(batch.num_rows):
        place = f"{path}, row {before + index + 1}"
        try:
            (record,) = batch.slice(index, 1).to_pylist()
        except UnicodeDecodeError as error:
            errors.report(place, "not UTF-8", f"not UTF-8: {error.reason}, byte {error.start}")
        except (ValueError, OverflowError) as error:
            errors.report(place, "unreadable value", f"a value cannot be read: {error}")
        else:
            yield before + index + 1, record


def _tfrecord(path: str, columns: Sequence[str], errors: RecordErrors) -> Records:
    import tensorflow as tf

    compression = "GZIP" if path.endswith(".gz") else ""
    number = size = 0
    try:
        for data in tf.data.TFRecordDataset(path, compression).as_numpy_iterator():
            number += 1
            # Its length takes 8 bytes, and two checksums 4 each.
            size += len(data) + 16
            place = f"{path}, record {number}"
            if (record := _example(data, place, errors)) is not None:
                yield place, record
    except tf.errors.DataLossError as error:
        message = re.sub(r"\{\{.*?\}\}| \[Op:.*", "", error.message)
        _report_damage(f"{path}, record {number + 1}", message, errors)
        return
    # TensorFlow overlooks a file that ends in the middle of a length.
    if not compression and size != file_fingerprint(path)[1]:
        _report_damage(f"{path}, record {number + 1}", "its length is incomplete", errors)


def _array_record(path: str, columns: Sequence[str], errors: RecordErrors) -> Records:
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(path)
    place = f"{path}, record 1"
    try:
        for number in range(1, reader.num_records() + 1):
            place = f"{path}, record {number}"
            if (record := _example(reader.read(), place, errors)) is not None:
                yield place, record
        # It raises what is wrong with a damaged file, which seems to have no records.
        reader.close()
    except RuntimeError as error:
        _report_damage(place, error, errors)
    finally:
        with contextlib.suppress(RuntimeError):
            reader.close()


def _report_damage(place: str, error: object, errors: RecordErrors) -> None:
    errors.report(place, "file ends early", f"nothing can be read from here on: {error}")


def _parsed(data: str, place: str, errors: RecordErrors) -> Record | None:
    """The JSON object of a text; None, and a report, for anything else."""
    reason = detail = ""
    try:
        record = json.loads(data)
        if not isinstance(record, dict):
            reason = "not a JSON object"
            detail = f"not a JSON object but of type {type(record).__name__}"
        elif _SURROGATE.search(data) and has_lone_surrogate(json.dumps(record, ensure_ascii=False)):
            reason, detail = "lone surrogate", f"the record has {LONE_SURROGATE}"
    except json.JSONDecodeError as error:
        reason, detail = "not valid JSON", f"not valid JSON: {error.msg}, column {error.colno}"
    except RecursionError:
        reason, detail = "nested too deep", "the JSON is nested too deep"
    except ValueError:
        digits = sys.get_int_max_str_digits()
        reason, detail = "number too large", f"an integer has more than {digits} digits"
    if not reason:
        return record
    errors.report(place, reason, detail)
    return None


def _example(data: bytes, place: str, errors: RecordErrors) -> Record | None:
    """A tf.train.Example's features (single values), or a JSON object."""
    record: dict[str, Any] = {}
    try:
        if data[:1] == b"{":
            return _parsed(data.decode("utf-8"), place, errors)
        features = _features(data)
        if features is None:
            kind = "neither a tf.train.Example nor a JSON object"
            errors.report(place, "not an Example", kind)
            return None
        for name, feature in features.items():
            values = list(getattr(feature, feature.WhichOneof("kind") or "bytes_list").value)
            values = [value.decode() if isinstance(value, bytes) else value for value in values]
            record[name] = values[0] if len(values) == 1 else values
    except UnicodeDecodeError as error:
        errors.report(place, "not UTF-8", f"not UTF-8: {error.reason}, byte {error.start}")
        return None
    return record


def _features(data: bytes) -> Mapping[str, Any] | None:
    import tensorflow as tf

    try:
        return tf.train.Example.FromString(data).features.feature
    except Exception:  # protobuf's own error types differ between its implementations
        return None


# A span of bytes is the last argument of those in SPLIT_FORMS.
FORMS: dict[str, Callable[..., Records]] = {
    "jsonl": _jsonl,
    "text": _text,
    "lines": _every_line,
    "tsv": _tsv,
    "parquet": _parquet,
    "tfrecord": _tfrecord,
    "array_record": _array_record,
}
SPLIT_FORMS = ("jsonl", "text", "tsv")
