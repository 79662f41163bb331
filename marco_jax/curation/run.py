"""One job of curation: raw files in, a directory of corpus, manifest and report out."""

from __future__ import annotations

import gzip
import hashlib
import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from ml_collections import ConfigDict

from marco_jax.curation.inputs import expand, read
from marco_jax.curation.pipeline import REJECTED, build
from marco_jax.curation.report import report_of, write_page
from marco_jax.curation.settings import check
from marco_jax.curation.thresholds import THRESHOLDS


def curate(
    inputs: tuple[str, ...],
    out: pathlib.Path,
    config: ConfigDict,
    *,
    runner: str = "local",
    rejects: pathlib.Path | None = None,
    sample: int = 0,
    explain: str = "",
) -> dict[str, Any]:
    """Runs the cascade; `out` appears whole or not at all.

    The corpus lies in docs/xx.NNNNN.jsonl.gz and pairs/xx-yy.NNNNN.jsonl.gz, which training reads
    as `config.data`; beside it are manifest.json, report.json and report.html.

    Returns:
        The report, with lines under "explained" where a document was asked for.

    Raises:
        ValueError: a setting that makes no sense, or a directory that is not new.
        FileNotFoundError: no input.
    """
    check(config)
    for directory in filter(None, (out, rejects)):
        if directory.exists():
            raise ValueError(f"{directory} exists: name a new directory")
    if rejects and out.resolve() in rejects.resolve().parents:
        raise ValueError(f"--rejects={rejects} lies in --out: it would be read as training text")
    files = expand(inputs)
    items = list(_items(config.benchmarks))
    blocked = frozenset()
    if config.blocked_hosts:
        lines = pathlib.Path(config.blocked_hosts).read_text(encoding="utf-8").split()
        blocked = frozenset(line.lower() for line in lines)
    # What a killed run left is of no use: the work starts again.
    work = out.with_name(f"{out.name}.partial").resolve()
    shutil.rmtree(work, ignore_errors=True)
    parts = work / "parts"
    parts.mkdir(parents=True)
    engine = FnApiRunner() if runner == "local" else runner
    # Arguments of the process are this program's, not Beam's.
    with beam.Pipeline(runner=engine, options=PipelineOptions([])) as pipeline:
        wanted = bool(rejects or explain)
        build(pipeline, files, config.to_dict(), items, blocked, parts, wanted, sample)
    report = report_of(json.loads((parts / "counts.json").read_text(encoding="utf-8")))
    if explain:
        report["explained"] = _explain(parts, explain)
    _place(work, parts, rejects)
    _write_json(work / "manifest.json", _manifest(work, report, config))
    _write_json(work / "report.json", report)
    write_page(work / "report.html", report)
    work.rename(out)
    return report


def _items(paths: str) -> Iterator[tuple[str, str]]:
    for path in filter(None, (path.strip() for path in paths.split(","))):
        for file in expand((path,)):
            for record, fault in read(file):
                if record is None:
                    raise ValueError(f"config.benchmarks: {file}: {fault}")
                language = str(record.get("language") or record.get("lang") or "")
                names = set(record) - {"id", "language", "lang"}
                yield from ((record[n], language) for n in names if isinstance(record[n], str))


def _explain(parts: pathlib.Path, key: str) -> list[str]:
    for file in sorted(parts.glob("*.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                if row["id"] == key:
                    fate = f"rejected by {row['stage']}: {row['reason']}" if "stage" in row else ""
                    fate = fate or f"kept, of a group of {row['cluster_size']}"
                    return [f"{key}: language {row.get('language') or 'unknown'}; {fate}"]
    return [f"{key}: no document has this id"]


def _place(work: pathlib.Path, parts: pathlib.Path, rejects: pathlib.Path | None) -> None:
    thrown = sorted(parts.glob(f"*.{REJECTED}.*.jsonl.gz"))
    if rejects:
        rejects.mkdir(parents=True)
        for file in thrown:
            shutil.move(file, rejects / file.name.replace(f".{REJECTED}", ""))
    else:
        for file in thrown:
            file.unlink()
    for file in sorted(parts.glob("*.jsonl.gz")):
        folder = work / ("pairs" if "-" in file.name.partition(".")[0] else "docs")
        folder.mkdir(exist_ok=True)
        file.rename(folder / file.name)
    shutil.rmtree(parts)


def _manifest(work: pathlib.Path, report: dict[str, Any], config: ConfigDict) -> dict[str, Any]:
    shards = []
    for file in sorted(work.glob("*/*.jsonl.gz")):
        data = file.read_bytes()
        with gzip.open(file) as lines:
            count = sum(1 for _ in lines)
        digest = hashlib.blake2b(data, digest_size=16).hexdigest()
        shards.append(
            {
                "file": str(file.relative_to(work)),
                "documents": count,
                "bytes": len(data),
                "fingerprint": digest,
            }
        )
    return {
        "shards": shards,
        "total": report["total"],
        "settings": config.to_dict(),
        "thresholds": {code: vars(row) for code, row in THRESHOLDS.items()},
    }


def _write_json(path: pathlib.Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
