"""Runs a curation job: reads raw files, writes a corpus with manifest and report."""

from __future__ import annotations

import gzip
import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict

from marco_jax.curation import storage
from marco_jax.curation.cascade import Perplexity
from marco_jax.curation.charsets import CHARSET
from marco_jax.curation.curation_config import check
from marco_jax.curation.curation_report import bounds_of, report_of
from marco_jax.curation.inputs import Part, matching_files, parts_of, read
from marco_jax.curation.pair_rules import Similarity
from marco_jax.curation.pipeline import LOCAL, BeamEngine, run
from marco_jax.curation.stages import Job
from marco_jax.curation.tally import Tally
from marco_jax.curation.thresholds import THRESHOLDS
from marco_jax.extras import require
from marco_jax.files import new_file, write_json
from marco_jax.languages import language_code, names_in


def curate(
    inputs: tuple[str, ...],
    out: pathlib.Path,
    config: ConfigDict,
    *,
    runner: str = LOCAL,
    options: Sequence[str] = (),
    workers: int = 1,
    rejects: pathlib.Path | None = None,
    sample: int = 0,
    explain: str = "",
    perplexity: Perplexity | None = None,
    similarity: Similarity | None = None,
    count_tokens: Callable[[str], int] | None = None,
) -> dict[str, Any]:
    """Runs all curation stages and creates `out` atomically.

    `out` holds the corpus, docs/xx.NNNNN.jsonl.gz and pairs/xx-yy.NNNNN.jsonl.gz, which training
    reads as `config.data`, with manifest.json and report.json. A killed run resumes if it is
    started again with the same input and settings.

    Args:
        inputs: paths and globs.
        out: a new directory; all workers must see it and the inputs.
        config: fields of curation_config.py.
        runner: "local", or the name of a Beam runner.
        options: options of that runner.
        workers: processes of the local runner.
        rejects: a new directory for rejected documents.
        sample: number of texts per language and outcome to show in the report.
        explain: the id of a document to trace.
        perplexity: computes bits per byte; must be picklable for runners with several processes.
        similarity: similarity in meaning of two sentences, 0 to 1; by default from a lexicon that
            is estimated from the pairs.
        count_tokens: counts the tokens of a text, for the report.

    Returns:
        The report, with lines under "explained" if `explain` is set.

    Raises:
        ValueError: a setting is invalid, or a directory already exists.
        FileNotFoundError: there is no input.
        MissingExtra: a package of the extra "curation" is not installed.
    """
    _check_request(out, config, rejects, perplexity)
    parts = parts_of(matching_files(inputs))
    # Raise for names that match nothing before any work is done.
    matching_files(names_in(config.lexicon_pairs))
    items = tuple(_items(config.benchmarks))
    blocked = frozenset()
    if config.blocked_hosts:
        lines = pathlib.Path(config.blocked_hosts).read_text(encoding="utf-8").split()
        blocked = frozenset(line.lower() for line in lines)
    work = out.with_name(f"{out.name}.partial").resolve()
    with_rejects = bool(rejects or explain)
    job = Job(
        work, config.to_dict(), items, blocked, with_rejects, sample,
        perplexity, similarity, count_tokens,
    )  # fmt: skip
    _begin(job, parts)
    run(BeamEngine(runner, options, workers), parts, job)
    tally = Tally(sample)
    for path in sorted((work / "counts").glob("*.json")):
        tally.merge(json.loads(path.read_text(encoding="utf-8")))
    report = report_of(tally, job.settings)
    if explain:
        report["explained"] = _explain(work, explain, job.settings)
    if rejects:
        (work / "rejects").mkdir(exist_ok=True)
        shutil.move(work / "rejects", rejects)
    _publish(work, out, report, config)
    return report


def _check_request(
    out: pathlib.Path,
    config: ConfigDict,
    rejects: pathlib.Path | None,
    perplexity: Perplexity | None,
) -> None:
    """Refuses settings and directories that cannot be used; see `curate`."""
    require("curation")
    check(config)
    for directory in filter(None, (out, rejects)):
        if directory.exists():
            raise ValueError(f"{directory} exists: name a new directory")
    if rejects and out.resolve() in rejects.resolve().parents:
        raise ValueError(
            f"--rejects={rejects} is inside --out and would be read as training text: move it"
        )
    if config.perplexity_model and perplexity is None:
        raise ValueError("config.perplexity_model needs a model: pass `perplexity`")


def _publish(
    work: pathlib.Path, out: pathlib.Path, report: dict[str, Any], config: ConfigDict
) -> None:
    """Moves the corpus with its manifest and report from `work` to `out`, and removes `work`."""
    final = work / "final"
    final.mkdir()
    for kind in ("docs", "pairs"):
        if (work / kind).exists():
            (work / kind).rename(final / kind)
    write_json(final / "manifest.json", _manifest(final, report, config))
    write_json(final / "report.json", report)
    final.rename(out)
    shutil.rmtree(work)


def _begin(job: Job, parts: list[Part]) -> None:
    """Prepares the work directory; removes the files of a job with other input or settings."""
    about = [vars(part) for part in parts], job.settings, job.items, sorted(job.blocked)
    switches = [job.with_rejects, job.sample, bool(job.similarity), bool(job.count_tokens)]
    sizes = [pathlib.Path(p.path).stat() for p in parts if pathlib.Path(p.path).exists()]
    files = [(stat.st_size, stat.st_mtime_ns) for stat in sizes]
    text = json.dumps([*about, switches, files], ensure_ascii=False)
    name = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()
    mark = job.work / "job"
    if not mark.exists() or mark.read_text() != name or (job.work / "final").exists():
        shutil.rmtree(job.work, ignore_errors=True)
        with new_file(mark) as file:
            file.write(name.encode())


def _items(paths: str) -> Iterator[tuple[str, str]]:
    for path in names_in(paths):
        for part in parts_of(matching_files((path,))):
            for record in read(part):
                if record.fields is None:
                    raise ValueError(f"config.benchmarks: {part.path}: {record.fault}")
                fields = record.fields
                language = language_code(str(fields.get("language") or fields.get("lang") or ""))
                names = set(fields) - {"id", "language", "lang", CHARSET}
                for name in sorted(names):
                    if isinstance(fields[name], str):
                        yield fields[name], language


def _explain(work: pathlib.Path, key: str, settings: dict[str, Any]) -> list[str]:
    """Lines with each score of a document and whether it was kept."""
    for kind in ("docs", "pairs", "rejects"):
        for file in sorted((work / kind).glob("*.jsonl.gz")):
            with gzip.open(file, "rt", encoding="utf-8") as lines:
                for row in map(json.loads, lines):
                    if row["id"] == key:
                        return [*_measured(work, key, settings), _fate(key, row)]
    return [f"{key}: no document has this id"]


def _fate(key: str, row: dict[str, Any]) -> str:
    fate = f"rejected by {row['stage']}: {row['reason']}" if "stage" in row else ""
    fate = fate or f"kept, from a group of {row['cluster_size']} duplicates"
    return f"{key}: language {row.get('language') or 'unknown'}; {fate}"


def _measured(work: pathlib.Path, key: str, settings: dict[str, Any]) -> Iterator[str]:
    rows = (r for f in sorted((work / "judged").glob("*.zst")) for r in storage.rows(f))
    rejected = (r for f in sorted(work.glob("pieces/rejects/*/*.zst")) for r in storage.rows(f))
    for row in (*rows, *rejected):
        if row["id"] == key and row.get("scores"):
            for name, value in row["scores"].items():
                low, high = bounds_of(name, row.get("language", ""), settings)
                yield f"{key}: {name} {value:g} (allowed {low:g} to {high:g})"
            return


def _manifest(work: pathlib.Path, report: dict[str, Any], config: ConfigDict) -> dict[str, Any]:
    shards = []
    for file in sorted(work.glob("*/*.jsonl.gz")):
        digest, count = hashlib.blake2b(digest_size=16), 0
        with file.open("rb") as data:
            while block := data.read(1 << 20):
                digest.update(block)
        with gzip.open(file) as lines:
            count = sum(1 for _ in lines)
        shards.append(
            {
                "file": str(file.relative_to(work)),
                "documents": count,
                "bytes": file.stat().st_size,
                "fingerprint": digest.hexdigest(),
            }
        )
    return {
        "shards": shards,
        "total": report["total"],
        "settings": config.to_dict(),
        "thresholds": {code: vars(row) for code, row in THRESHOLDS.items()},
    }
