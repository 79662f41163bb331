"""The rows of `eval/<step>.json`."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from marco_jax.files import write_text

# Languages of the rows that average others; no language code looks like them.
ALL, HIGH, LOW = "all", "high", "low"
AVERAGES = (ALL, HIGH, LOW)
# The part of a row that is the unweighted mean over a language's parts.
MEAN = "mean"


# Fields that rows without them leave out.
_OPTIONAL = ("signature", "part")


@dataclasses.dataclass(frozen=True)
class Result:
    """One figure: a metric of a task in one language, or averaged over languages.

    Attributes:
        task: name of the task, such as "pick_translation".
        language: a language code, or one of AVERAGES for a mean over languages.
        shots: solved examples in the prompt.
        metric: name of the metric, such as "accuracy".
        value: the figure; nan when the model's scores were not finite.
        stderr: its standard error; nan where it cannot be had (a single example).
        examples: items, documents or sentences behind the figure.
        signature: sacrebleu's, for scores of translations; "mixed" for a mean over languages whose
            scores were computed otherwise. Rows of other figures have no such field.
        part: a subject of a benchmark that has several, or MEAN; rows of whole tasks, which weight
            subjects by their size, have no such field.
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
        """A JSON object; figures that are not finite become null."""
        row = dataclasses.asdict(self)
        row["value"], row["stderr"] = _finite(self.value), _finite(self.stderr)
        return {name: value for name, value in row.items() if value or name not in _OPTIONAL}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Result:
        """The result behind a JSON object.

        Raises:
            ValueError: a field is missing or unknown.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if set(row) | set(_OPTIONAL) != names:
            raise ValueError(f"result row has fields {sorted(row)}: it needs {sorted(names)}")
        figures = {
            name: math.nan if row[name] is None else row[name] for name in ("value", "stderr")
        }
        return cls(**{**row, **figures})


def write_results(path: str | os.PathLike, results: Iterable[Result]) -> None:
    """Writes results as a JSON list, one row a line; the file appears whole or not at all."""
    rows = ",\n".join(json.dumps(result.to_row(), allow_nan=False) for result in results)
    write_text(pathlib.Path(path), f"[\n{rows}\n]\n")


def read_results(path: str | os.PathLike) -> list[Result]:
    """Reads what `write_results` wrote.

    Raises:
        ValueError: the file is not a JSON list of result rows.
    """
    try:
        rows = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        if not isinstance(rows, list):
            raise ValueError("it is not a list of rows")
        return [Result.from_row(row) for row in rows]
    except (ValueError, TypeError) as error:
        raise ValueError(f"cannot read results from {path}: {error}") from error


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
