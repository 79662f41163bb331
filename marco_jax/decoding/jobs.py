"""Generation for a file of prompts, with results saved in blocks and resumed after a kill."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from marco_jax.decoding.requests import GenerateRequest, Generation
from marco_jax.files import new_file, write_text

# Generates for the requests of a block, given the number of the block's first row.
Ask = Callable[[Sequence[GenerateRequest], int], list[Generation]]
# Returns the records of rows start..stop, one per row.
Answer = Callable[[int, int], list[dict[str, Any]]]
# Converts a record to the one that is written in the end, or None to drop it.
Keep = Callable[[dict[str, Any]], dict[str, Any] | None]

# Prompts between two writes. Random draws depend on where a block starts, so a resumed job draws
# the same samples as an uninterrupted one.
BLOCK = 256


def run_job(
    ask: Ask,
    rows: Sequence[Mapping[str, Any]],
    requests: Sequence[GenerateRequest],
    out: pathlib.Path,
    *,
    settings: Mapping[str, Any],
    field: str = "text",
    progress: Callable[[int], None] = lambda count: None,
    keep: Keep = lambda record: record,
) -> int:
    """Generates a text for each row and writes the rows with it as JSON lines, in order.

    Args:
        ask: generates for a block; uses the number of its first row as part of the random seed.
        rows: the fields of each line.
        requests: one per row.
        out: the file to write.
        settings: other inputs that determine the results, such as the model and the sampling.
        field: the name of the field for the text.
        progress: called with the number of finished rows, including those of an earlier start.
        keep: see `run_blocks`.

    Returns:
        The number of rows that an earlier start had finished.
    """

    def answer(start: int, stop: int) -> list[dict[str, Any]]:
        results = ask(requests[start:stop], start)
        return [
            {**row, field: result.text}
            for row, result in zip(rows[start:stop], results, strict=True)
        ]

    return run_blocks(answer, rows, out, settings=settings, progress=progress, keep=keep)


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
        answer: returns the records of rows start..stop.
        rows: the inputs.
        out: the file to write.
        settings: other inputs that determine the records.
        progress: called with the number of finished rows, including those of an earlier start.
        block: rows between two writes, BLOCK by default.
        keep: converts or drops records as `out` is written.

    Returns:
        The number of rows that an earlier start had finished.
    """
    block = block or BLOCK
    partial = out.with_name(f".{out.name}.partial")
    mark = _fingerprint(rows, settings)
    done = _finished_rows(partial, mark, block)
    writes = jax.process_index() == 0
    if not done and writes:
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(mark + "\n", encoding="utf-8")
    progress(done)
    for start in range(done, len(rows), block):
        stop = min(start + block, len(rows))
        lines = [_line(record) for record in answer(start, stop)]
        if writes:
            with open(partial, "a", encoding="utf-8") as file:
                file.write("".join(lines))
        progress(stop)
    if writes:
        _finish(partial, out, keep)
    return done


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _fingerprint(rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> str:
    text = json.dumps([list(rows), dict(settings)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _finished_rows(partial: pathlib.Path, mark: str, block: int) -> int:
    """Counts rows of whole blocks in the partial file, and deletes those of a cut block.

    A partial file of another job, whose first line is not `mark`, counts as 0.
    """
    if not partial.exists():
        return 0
    with open(partial, encoding="utf-8", errors="replace", newline="\n") as file:
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
    with open(partial, encoding="utf-8") as source, new_file(out) as file:
        next(source)
        for line in source:
            record = keep(json.loads(line))
            if record is not None:
                file.write(_line(record).encode("utf-8", "replace"))
    partial.unlink()
