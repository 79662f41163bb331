"""The most memory that a job of curation takes, in one process.

    python -m benchmarks.curation_memory --corpora=../shared/corpora --megabytes=200 --work=DIR
    python -m benchmarks.curation_memory --documents=1500000 --work=DIR

The first writes raw text of so many megabytes, documents put together from sentences of the clean
corpora (one in eight is a copy), and curates it. A job that is stopped goes on where it was when
the same command is given again; the peak is then that of the last part. The second does what needs
all documents at once, which alone grows with their number: it fills the tables of so many
documents at random, one in eight a copy, and finds the copies. Printed, as JSON: sizes, seconds,
peak resident memory, and what it was before the work began.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import resource
import shutil
import time
from typing import Any

import numpy as np

from marco_jax.curation import joins, storage
from marco_jax.curation.curate import curate
from marco_jax.curation.curation_config import curation_config
from marco_jax.curation.duplicates import BANDS, ROWS
from marco_jax.curation.stages import TABLE, Job
from marco_jax.files import new_file

SENTENCES = 24
COPIES = 8
# Documents of one file of 64 MiB.
CHUNK = 20_000


def peak() -> int:
    """The most resident memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def write_raw(corpora: pathlib.Path, path: pathlib.Path, megabytes: int) -> None:
    """Documents in all languages of the corpora, the same for the same size."""
    lines: dict[str, list[str]] = {}
    for file in sorted(corpora.glob("*/mono/??.txt")):
        found = file.read_text(encoding="utf-8").splitlines()
        lines.setdefault(file.stem, []).extend(line for line in found if len(line) > 20)
    draw, codes, written, number = random.Random(0), sorted(lines), 0, 0
    last: list[str] = []
    with new_file(path) as out:
        while written < megabytes << 20:
            number += 1
            code = draw.choice(codes)
            text = "\n".join(draw.choices(lines[code], k=SENTENCES))
            if last and number % COPIES == 0:
                code, text = last
            last = [code, text]
            url = f"https://site{draw.randrange(5000)}.example/{number}"
            row = {"id": f"d{number}", "url": url, "language": code, "text": text}
            written += out.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def whole(corpora: pathlib.Path, work: pathlib.Path, megabytes: int) -> dict[str, Any]:
    """Curates raw text."""
    raw = work / f"raw{megabytes}.jsonl"
    if not raw.exists():
        write_raw(corpora, raw, megabytes)
    before, begin = peak(), time.perf_counter()
    report = curate((str(raw),), work / f"out{megabytes}", curation_config())
    seconds = time.perf_counter() - begin
    return {
        "megabytes": raw.stat().st_size >> 20,
        "documents": report["total"]["read"],
        "kept": report["total"]["kept"],
        "seconds": round(seconds),
        "documents_per_second": round(report["total"]["read"] / seconds, 1),
        "peak_mib_before": before,
        "peak_mib": peak(),
    }


def tables(work: pathlib.Path, documents: int) -> dict[str, Any]:
    """Finds the copies among documents of which there are tables alone."""
    settings = curation_config()
    job = Job(work / "tables", settings.to_dict())
    shutil.rmtree(job.work, ignore_errors=True)
    draw = np.random.default_rng(0)
    for number in range(-(-documents // CHUNK)):
        size, name = min(CHUNK, documents - number * CHUNK), f"d{number:05d}-00000"
        table = np.zeros(size, TABLE)
        for field in ("key", "record", "digest", "host"):
            table[field] = draw.integers(0, 1 << 63, size, dtype=np.uint64)
        table["size"], table["length"] = 2000, draw.integers(500, 9000, size)
        signatures = draw.integers(0, 1 << 16, (size, BANDS * ROWS), dtype=np.uint16)
        keys = draw.integers(0, 1 << 63, (BANDS + 2, size), dtype=np.uint64)
        # A copy has the numbers of the document before it.
        copies = np.arange(COPIES, size, COPIES)
        signatures[copies], keys[:, copies] = signatures[copies - 1], keys[:, copies - 1]
        columns = job.work / "columns"
        with storage.new_rows(job.work / "read" / f"{name}.zst"):
            pass
        with storage.new_rows(columns / f"{name}.ids.zst") as add:
            for at in range(size):
                add(f"<urn:uuid:00000000-0000-0000-{number:04d}-{at:012d}>")
        for kind, values in (("table", table), ("signatures", signatures), ("keys", keys)):
            storage.write_array(columns / f"{name}.{kind}.npy", values)
        del table, signatures, keys
    before, begin = peak(), time.perf_counter()
    for column in range(joins.COLUMNS + 1):
        joins.link_column(column, job)
    joins.resolve_duplicates(job)
    removed = sum(
        bool(row[0]) for p in (job.work / "verdicts").glob("*") for row in storage.rows(p)
    )
    result = {"documents": documents, "copies_found": removed}
    result |= {"seconds": round(time.perf_counter() - begin), "peak_mib_before": before}
    shutil.rmtree(job.work)
    return {**result, "peak_mib": peak()}


def main() -> None:
    """Measures and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", type=pathlib.Path, default=pathlib.Path("../shared/corpora"))
    parser.add_argument("--work", type=pathlib.Path, required=True, help="a folder with room")
    parser.add_argument("--megabytes", type=int, default=0)
    parser.add_argument("--documents", type=int, default=0)
    args = parser.parse_args()
    if args.documents:
        print(json.dumps(tables(args.work, args.documents), indent=2))
    if args.megabytes:
        print(json.dumps(whole(args.corpora, args.work, args.megabytes), indent=2))


if __name__ == "__main__":
    main()
