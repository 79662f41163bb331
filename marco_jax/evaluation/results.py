"""Reads and writes evaluation results, the rows of `eval/<step>.json`."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

from marco_jax.files import as_path, write_text

# The "language" of rows that average over languages; they differ from all language codes.
ALL, HIGH, LOW = "all", "high", "low"
AVERAGES = (ALL, HIGH, LOW)
# The "part" of rows that hold the unweighted mean over a language's parts.
MEAN = "mean"

# Fields that are omitted from a row if empty.
_OPTIONAL = ("signature", "part")


@dataclasses.dataclass(frozen=True)
class Result:
    """A metric of a task in one language, or averaged over languages.

    Attributes:
        task: name of the task, such as "pick_translation".
        language: a language code, or one of AVERAGES for a mean over languages.
        shots: number of shots in the prompt.
        metric: name of the metric, such as "accuracy".
        value: the metric's value; nan if the model's scores were not finite.
        stderr: its standard error; nan if it is not defined (a single example).
        examples: number of evaluated items, documents or sentences.
        signature: sacrebleu's signature of a translation metric; "mixed" for a mean over languages
            with different signatures. Rows of other metrics do not have the field.
        part: a subject of a benchmark with several, or MEAN; rows of whole tasks, which weight
            subjects by their size, do not have the field.
    """

    task: str
    language: str
    shots: int
    metric: str
    value: float
    stderr: float
    examples: int
    signature: str = ""
    part: str = ""

    def to_row(self) -> dict[str, Any]:
        """Converts to a JSON object; values that are not finite become null."""
        row = dataclasses.asdict(self)
        row["value"], row["stderr"] = _finite(self.value), _finite(self.stderr)
        return {name: value for name, value in row.items() if value or name not in _OPTIONAL}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Result:
        """Converts from a JSON object.

        Raises:
            ValueError: a field is missing or unknown.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if set(row) | set(_OPTIONAL) != names:
            raise ValueError(f"result row has fields {sorted(row)}: it needs {sorted(names)}")
        values = {
            name: math.nan if row[name] is None else row[name] for name in ("value", "stderr")
        }
        return cls(**{**row, **values})


def write_results(path: str | os.PathLike, results: Iterable[Result]) -> None:
    """Writes results atomically as a JSON list, one row per line."""
    rows = ",\n".join(json.dumps(result.to_row(), allow_nan=False) for result in results)
    write_text(as_path(path), f"[\n{rows}\n]\n")


def read_results(path: str | os.PathLike) -> list[Result]:
    """Reads the results that `write_results` wrote.

    Raises:
        ValueError: the file is not a JSON list of result rows.
    """
    try:
        rows = json.loads(as_path(path).read_text(encoding="utf-8"))
        if not isinstance(rows, list):
            raise ValueError("it is not a list of rows")
        return [Result.from_row(row) for row in rows]
    except (ValueError, TypeError) as error:
        raise ValueError(f"cannot read results from {path}: {error}") from error


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
