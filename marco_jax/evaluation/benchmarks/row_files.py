"""Reads rows of benchmark files, each with its location.

Benchmarks come as JSON Lines, JSON, CSV, TSV, SQuAD JSON, plain sentences, SGML, Parquet, Arrow or
prepared TFDS folders. Any fault of a file raises a `DataError` that names file and line.
"""

from __future__ import annotations

import ast
import csv
import dataclasses
import html
import io
import json
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from marco_jax.evaluation.benchmarks.repairs import repaired_line
from marco_jax.evaluation.benchmarks.spec import RowSource
from marco_jax.files import is_remote

# A CSV field may hold a whole passage.
csv.field_size_limit(1 << 27)


class DataError(ValueError):
    """A file has unexpected content; the message names the file, the line and the remedy."""


# The answers of MGSM's eight worked examples, since not every translation states them.
EXEMPLAR_ANSWERS = ("11", "29", "39", "9", "33", "8", "8", "5")


@dataclasses.dataclass(frozen=True)
class Row:
    """A record of a file: values by column, at "file:line" (or "file, row n" without lines)."""

    fields: Mapping[str, Any]
    location: str

    def fail(self, problem: str) -> NoReturn:
        """Raises a DataError about this row."""
        raise DataError(f"{self.location}: {problem}")


Rows = Iterator[Row]


def read_benchmark_rows(path: pathlib.Path, source: RowSource) -> Rows:
    """Yields the rows of a file (or folder of a prepared TFDS dataset) of a source, in order.

    Raises:
        DataError: the file is not UTF-8, is truncated, or does not have its form.
        OSError: the file cannot be read.
    """
    form = source.form or path.suffix.lstrip(".")
    if form == "tfds":
        return _tfds_rows(path, source.split)
    if form not in FORMS:
        raise DataError(f"{path} has an unknown form: name it *.{', *.'.join(sorted(FORMS))}")
    if form in ("parquet", "arrow"):
        return _table_rows(path, form)
    if form == "csv":
        return _records(path, _csv(path, _text(path)), source.columns, source.header)
    if form == "tsv":
        cells = _tsv(path, _text(path), source.quotes)
        return _records(path, cells, source.columns, source.header)
    return FORMS[form](path, _text(path))


def _text(path: pathlib.Path) -> str:
    """Reads a file as text, without a byte order mark."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: it is not UTF-8, convert it") from None


def _jsonl(path: pathlib.Path, text: str) -> Rows:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        location = f"{path}:{number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            # Not only JSONDecodeError: numbers with too many digits, too deep nesting.
            repaired = repaired_line(line, location)
            if repaired is None:
                raise DataError(f"{location}: it is not a JSON object: {error}") from None
            fields = json.loads(repaired)
        yield _object_row(fields, location)


def _json(path: pathlib.Path, text: str) -> Rows:
    """A JSON list of objects."""
    rows = _load_json(path, text)
    if not isinstance(rows, list):
        raise DataError(f"{path}:1: it is not a JSON list of objects")
    for number, fields in enumerate(rows, 1):
        yield _object_row(fields, f"{path}, row {number}")


def _object_row(fields: Any, location: str) -> Row:
    if not isinstance(fields, dict):
        raise DataError(f"{location}: it is not a JSON object but a {type(fields).__name__}")
    return Row(fields, location)


def _squad(path: pathlib.Path, text: str) -> Rows:
    """Questions of a SQuAD 1.1 file with the fields id, title, context, question, answers."""
    data = _load_json(path, text)
    number = 0
    try:
        for article in data["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    number += 1
                    answers = [str(answer["text"]) for answer in question["answers"]]
                    starts = [answer.get("answer_start") for answer in question["answers"]]
                    fields = {
                        "id": str(question["id"]),
                        "title": article.get("title", ""),
                        "context": paragraph["context"],
                        "question": question["question"],
                        "answers": {"text": answers, "answer_start": starts},
                    }
                    yield Row(fields, f"{path}, question {number}")
    except (KeyError, TypeError, AttributeError) as error:
        missing = f"has no {error}" if isinstance(error, KeyError) else f"is malformed ({error})"
        raise DataError(
            f"{path}, near question {number}: it {missing}, as SQuAD 1.1 files have"
        ) from None


def _load_json(path: pathlib.Path, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: it is not valid JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}:1: it is not valid JSON: {error}") from None


Cells = Iterator[tuple[int, list[str]]]


def _csv(path: pathlib.Path, text: str, delimiter: str = ",") -> Cells:
    """Values separated by commas, or tabs, with the line that each record starts on."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{path}:{first}: it is not valid CSV: {error}") from None
        if cells:
            yield first, cells


def _tsv(path: pathlib.Path, text: str, quotes: str) -> Cells:
    """Tab-separated values; the meaning of quotes is that of `RowSource.quotes`."""
    if quotes == "csv" or (quotes == "either" and _has_quoted_fields(text)):
        return _csv(path, text, "\t")
    return _plain_cells(text)


def _has_quoted_fields(text: str) -> bool:
    """Whether quotes enclose fields of a TSV file, and are doubled within them.

    They do if every field that starts with a quote could have been written so, and at least one
    has doubled quotes.
    """
    quoted = [cell for _, cells in _plain_cells(text) for cell in cells if cell.startswith('"')]
    if not all(re.fullmatch('"(?:[^"]|"")*"', cell) for cell in quoted):
        return False
    return any('""' in cell[1:-1] for cell in quoted)


def _plain_cells(text: str) -> Cells:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.removesuffix("\r").split("\t")


def _records(path: pathlib.Path, lines: Cells, columns: Sequence[str], header: str) -> Rows:
    for index, (number, cells) in enumerate(lines):
        if index == 0 and (not columns or (header and header in cells)):
            columns = cells
            continue
        if len(cells) != len(columns):
            raise DataError(
                f"{path}:{number}: it has {len(cells)} fields: "
                f"{len(columns)} are needed ({', '.join(columns)})"
            )
        yield Row(dict(zip(columns, cells, strict=True)), f"{path}:{number}")


def _sentences(path: pathlib.Path, text: str) -> Rows:
    """One sentence per line, numbered from 1 in the field `id`."""
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        yield Row({"id": number, "text": line}, f"{path}:{number}")


def _sgm(path: pathlib.Path, text: str) -> Rows:
    """The segments of a WMT test set, numbered from 1 in the field `id`."""
    for number, match in enumerate(re.finditer(r"<seg[^>]*>(.*?)</seg>", text, re.DOTALL), 1):
        line = text.count("\n", 0, match.start()) + 1
        sentence = html.unescape(match[1]).strip()
        yield Row({"id": number, "text": sentence}, f"{path}:{line}")


def _exemplars(path: pathlib.Path, text: str) -> Rows:
    """MGSM's worked examples {language: {"1": {"q", "a"}}}, as JSON or as the original Python."""
    if path.suffix == ".py":
        match = re.search(r"=\s*(\{.*\})", text, re.DOTALL)
        try:
            table = ast.literal_eval(match[1]) if match else None
        except (SyntaxError, ValueError) as error:
            raise DataError(f"{path}:1: its dictionary cannot be read: {error}") from None
    else:
        table = _load_json(path, text)
    try:
        for language, examples in table.items():
            for number, example in examples.items():
                fields = {
                    "language": language,
                    "question": example["q"],
                    "answer": example["a"],
                    "answer_number": EXEMPLAR_ANSWERS[int(number) - 1],
                }
                yield Row(fields, f"{path}, {language} {number}")
    except (AttributeError, TypeError, ValueError, KeyError, IndexError):
        problem = 'it is not a {language: {"1": {"q": .., "a": ..}}} table'
        raise DataError(f"{path}:1: {problem}") from None


def _agieval_shots(path: pathlib.Path, text: str) -> Rows:
    """AGIEval's few_shot_prompts.csv: a task per column, a sample (Python dict) per cell.

    As in AGIEval's own loader, sat-en-without-passage has the samples of sat-en without passages.
    """
    for row in _records(path, _csv(path, text), (), ""):
        if not str(row.fields.get("", "")).startswith("sample"):
            continue
        for part, cell in row.fields.items():
            if not part or not cell:
                continue
            try:
                fields = dict(ast.literal_eval(cell))
            except (SyntaxError, ValueError, TypeError):
                row.fail(f"the {row.fields['']} of {part} is not a Python dictionary")
            yield Row({**fields, "part": part}, row.location)
            if part == "sat-en":
                other = {"passage": None, "part": "sat-en-without-passage"}
                yield Row(fields | other, row.location)


def _table_rows(path: pathlib.Path, form: str) -> Rows:
    """Rows of a Parquet file, or of an Arrow file as Hugging Face datasets save it."""
    import pyarrow
    import pyarrow.ipc
    import pyarrow.parquet

    try:
        if form == "parquet":
            with path.open("rb") as source:
                table = pyarrow.parquet.read_table(source)
        else:
            remote = is_remote(path)
            opened = pyarrow.BufferReader(path.read_bytes()) if remote else None
            with opened or pyarrow.memory_map(str(path)) as source:
                try:
                    table = pyarrow.ipc.open_stream(source).read_all()
                except pyarrow.ArrowInvalid:
                    table = pyarrow.ipc.open_file(source).read_all()
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path}: it is not a valid {form.capitalize()} file: {error}") from None
    try:
        rows = table.to_pylist()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: a text is not UTF-8, convert it: {error}") from None
    for number, fields in enumerate(rows, 1):
        yield Row(fields, f"{path}, row {number}")


def _tfds_rows(path: pathlib.Path, split: str) -> Rows:
    """Rows of a prepared TFDS dataset, the folder that holds dataset_info.json."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(path))
    if split not in builder.info.splits:
        raise DataError(f"{path}: it has no split {split!r} but {', '.join(builder.info.splits)}")
    dataset = tfds.as_numpy(
        builder.as_dataset(split, read_config=tfds.ReadConfig(interleave_cycle_length=1))
    )
    for number, fields in enumerate(dataset, 1):
        location = f"{path}, row {number}"
        try:
            yield Row(_plain(fields), location)
        except UnicodeDecodeError:
            raise DataError(f"{location}: it is not UTF-8, convert it") from None


def _plain(value: Any) -> Any:
    """Converts TFDS values to plain Python values."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.decode()
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [_plain(item) for item in value] if isinstance(value, list) else value


FORMS: dict[str, Callable[..., Any] | None] = {
    "jsonl": _jsonl,
    "json": _json,
    "squad": _squad,
    "csv": None,
    "tsv": None,
    "sentences": _sentences,
    "sgm": _sgm,
    "exemplars": _exemplars,
    "agieval_shots": _agieval_shots,
    "parquet": None,
    "arrow": None,
    "tfds": None,
}
