"""Reads a user's input rows: objects of a JSONL file, or lines of a text file."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any


def read_input_rows(path: str, lines: str = "prompt") -> list[dict[str, Any]]:
    """Reads the objects of a JSONL file, or each line of any other file as the field `lines`.

    Raises:
        ValueError: the file is not UTF-8, or a line is not a JSON object.
    """
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 at byte {error.start}") from None
    if not path.endswith((".jsonl", ".json")):
        return [{lines: line} for line in text.splitlines()]
    rows = []
    # Not splitlines: texts may hold other characters that Python treats as line ends.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number} is not valid JSON: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{number} is not a JSON object")
        rows.append(row)
    return rows


def check_field(rows: Sequence[Mapping[str, Any]], field: str, location: str) -> None:
    """Checks that every row has a text under a field.

    Raises:
        ValueError: a row of the file `location` has none.
    """
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get(field), str):
            raise ValueError(f'{location}:{number} has no text under "{field}"')
