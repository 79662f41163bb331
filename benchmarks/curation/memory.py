"""The most memory that a job of curation takes, in one process.

Raw text of --megabytes is written to --work, documents put together from sentences of the clean
corpora (one in eight is a copy), and curated. A job that is stopped goes on where it was when the
same command is given again; the peak is then that of the last part. Measured: seconds, peak
resident memory, and what it was before the work began. There is nothing beside it.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import resource
import time
from typing import Any

from benchmarks.curation.readers import lines
from marco_jax.curation.curate import curate
from marco_jax.curation.curation_config import curation_config
from marco_jax.files import new_file

SENTENCES = 24
COPIES = 8


def peak() -> int:
    """The most resident memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def write_raw(corpora: pathlib.Path, path: pathlib.Path, megabytes: int) -> None:
    """Documents in all languages of the corpora, the same for the same size."""
    texts: dict[str, list[str]] = {}
    for file in sorted(corpora.glob("*/mono/??.txt")):
        texts.setdefault(file.stem, []).extend(line for line in lines(file) if len(line) > 20)
    draw, codes, written, number = random.Random(0), sorted(texts), 0, 0
    last: tuple[str, str] | None = None
    with new_file(path) as out:
        while written < megabytes << 20:
            number += 1
            code = draw.choice(codes)
            text = "\n".join(draw.choices(texts[code], k=SENTENCES))
            if last and number % COPIES == 0:
                code, text = last
            last = code, text
            url = f"https://site{draw.randrange(5000)}.example/{number}"
            row = {"id": f"d{number}", "url": url, "language": code, "text": text}
            written += out.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Curates raw text."""
    raw = args.work / f"raw{args.megabytes}.jsonl"
    if not raw.exists():
        write_raw(args.corpora, raw, args.megabytes)
    before, begin = peak(), time.perf_counter()
    report = curate((str(raw),), args.work / f"out{args.megabytes}", curation_config())
    return {
        "megabytes": raw.stat().st_size >> 20,
        "documents": report["total"]["read"],
        "kept": report["total"]["kept"],
        "seconds": round(time.perf_counter() - begin),
        "peak_mib_before": before,
        "peak_mib": peak(),
    }
