"""Generation for a file of prompts: results are kept as they come, and a cut-off job goes on."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from marco_jax.decoding.requests import GenerateRequest, Generation
from marco_jax.files import new_file, write_text

# Answers requests; the number tells blocks apart.
Ask = Callable[[Sequence[GenerateRequest], int], list[Generation]]
# The records of rows start..stop, one a row.
Answer = Callable[[int, int], list[dict[str, Any]]]
# What of a record is written in the end: another record, or None for nothing.
Keep = Callable[[dict[str, Any]], dict[str, Any] | None]

# Prompts between two writes. Where blocks begin decides the draws of a sample, so that it is the
# same whether a job was cut off or not.
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
    """Writes each row with the text generated for it as JSON lines, in order.

    Args:
        ask: answers the requests of a block, given the number of its first row, which tells the
            draws of its samples from those of other blocks.
        rows: what each line repeats.
        requests: one a row.
        out: the file to write.
        settings: what else decides the results, such as the model and the sampling.
        field: takes the text.
        progress: is told how many rows have been done, those of an earlier start included.
        keep: see `run_blocks`.

    Returns:
        how many rows were there from an earlier start.
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
    """Writes the records that rows are answered with as JSON lines, in order.

    Records go to a file beside `out`, which takes its place when all are there. A job that is
    started again with the same rows and settings goes on where that file ends.

    Args:
        answer: one record a row of start..stop.
        rows: what is asked.
        out: the file to write.
        settings: what else decides the records.
        progress: is told how many rows have been done, those of an earlier start included.
        block: rows between two writes, BLOCK by default.
        keep: what of each record `out` holds, decided when all are there.

    Returns:
        how many rows were there from an earlier start.
    """
    block = block or BLOCK
    partial = out.with_name(f".{out.name}.partial")
    mark = _fingerprint(rows, settings)
    done = _done(partial, mark, block)
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


def _done(partial: pathlib.Path, mark: str, block: int) -> int:
    """Rows of whole blocks that an earlier start of the same job has left; a cut one is dropped."""
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
    """Puts what is kept of the records in place, without the line that marks the job."""
    with open(partial, encoding="utf-8") as source, new_file(out) as file:
        next(source)
        for line in source:
            record = keep(json.loads(line))
            if record is not None:
                file.write(_line(record).encode("utf-8", "replace"))
    partial.unlink()
