"""Generation for a file of prompts, with results saved in blocks and resumed after a kill."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from marco_jax.appended_files import AppendedFile
from marco_jax.files import new_file, write_text

# Returns the records of rows start..stop, one per row.
Answer = Callable[[int, int], list[dict[str, Any]]]
# Converts a record to the one that is written in the end, or None to drop it.
Keep = Callable[[dict[str, Any]], dict[str, Any] | None]

# Prompts between two writes. Random draws depend on where a block starts, so a resumed job draws
# the same samples as an uninterrupted one.
BLOCK = 256


def run_blocks(
    answer: Answer,
    rows: Sequence[Mapping[str, Any]],
    out: pathlib.Path,
    *,
    settings: Mapping[str, Any],
    progress: Callable[[int], None] = lambda count: None,
    block: int | None = None,
    keep: Keep = lambda record: record,
) -> int:
    """Computes a record for each row, block by block, and writes them as JSON lines, in order.

    Records are appended to a partial file beside `out`; `out` is written when all are there. A job
    that is started again with the same rows and settings continues where the partial file ends.

    Args:
        settings: other inputs that determine the records, such as the model and the sampling.
        progress: called with the number of finished rows, including those of an earlier start.
        block: rows between two writes, BLOCK by default.
        keep: converts or drops records as `out` is written.

    Returns:
        The number of rows that an earlier start had finished.
    """
    block = block or BLOCK
    partial = out.with_name(f".{out.name}.partial")
    identity = json.dumps([list(rows), dict(settings)], sort_keys=True, default=str)
    mark = hashlib.sha256(identity.encode()).hexdigest()
    done = _finished_rows(partial, mark, block)
    writes = jax.process_index() == 0
    if not done and writes:
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(mark + "\n", encoding="utf-8")
    progress(done)
    file = AppendedFile(partial) if writes else None
    for start in range(done, len(rows), block):
        stop = min(start + block, len(rows))
        lines = [_line(record) for record in answer(start, stop)]
        if writes:
            file.write("".join(lines))
        progress(stop)
    if writes:
        file.close()
        _finish(partial, out, keep)
    return done


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _finished_rows(partial: pathlib.Path, mark: str, block: int) -> int:
    """Counts rows of whole blocks in the partial file, and deletes those of a cut block.

    A partial file of another job, whose first line is not `mark`, counts as 0.
    """
    if not partial.exists():
        return 0
    with partial.open(encoding="utf-8", errors="replace", newline="\n") as file:
        lines = file.readlines()
    if not lines or lines[0].strip() != mark:
        return 0
    whole = [line for line in lines[1:] if line.endswith("\n")]
    kept = len(whole) // block * block
    if kept < len(lines) - 1 and jax.process_index() == 0:
        write_text(partial, "".join([lines[0], *whole[:kept]]))
    return kept


def _finish(partial: pathlib.Path, out: pathlib.Path, keep: Keep) -> None:
    """Writes the kept records to `out`, without the first line, which identifies the job."""
    with partial.open(encoding="utf-8") as source, new_file(out) as file:
        next(source)
        for line in source:
            record = keep(json.loads(line))
            if record is not None:
                file.write(_line(record).encode("utf-8", "replace"))
    partial.unlink()
