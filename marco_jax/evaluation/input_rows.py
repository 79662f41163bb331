"""Reads a user's input rows: objects of a JSONL file, or lines of a text file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from marco_jax.data.readers import read_records
from marco_jax.data.record_errors import RecordErrors


def read_input_rows(path: str, lines: str = "prompt") -> list[dict[str, Any]]:
    """Reads the objects of a JSONL file, or each line of any other file as the field `lines`.

    Raises:
        ValueError: the file is not UTF-8, or a line is not a JSON object.
    """
    errors = RecordErrors(remedy="correct the file")
    if path.endswith((".jsonl", ".json")):
        return [dict(record) for _, record in read_records(path, "jsonl", errors=errors)]
    return [{lines: record["text"]} for _, record in read_records(path, "lines", errors=errors)]


def check_field(rows: Sequence[Mapping[str, Any]], field: str, location: str) -> None:
    """Checks that every row has a text under a field.

    Raises:
        ValueError: a row of the file `location` has none.
    """
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get(field), str):
            raise ValueError(f'{location}:{number} has no text under "{field}"')
