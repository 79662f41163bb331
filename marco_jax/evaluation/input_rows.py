"""Rows that models are asked with: objects of a JSONL file, or lines of a text file."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any


def read_rows(path: str, lines: str = "prompt") -> list[dict[str, Any]]:
    """Objects of a JSONL file; of any other file each line is a text under the field `lines`.

    Raises:
        ValueError: it is not UTF-8, or a line is no object.
    """
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 at byte {error.start}") from None
    if not path.endswith((".jsonl", ".json")):
        return [{lines: line} for line in text.splitlines()]
    rows = []
    # Characters that Python takes for other line ends may stand in a text.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number} is no JSON: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{number} is no object with fields")
        rows.append(row)
    return rows


def check_field(rows: Sequence[Mapping[str, Any]], field: str, place: str) -> None:
    """Sees to it that every row has a text under a field.

    Raises:
        ValueError: one at `place` has none.
    """
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get(field), str):
            raise ValueError(f'{place}:{number} has no text under "{field}"')
