"""Runs a curation job: reads raw files, writes a corpus with manifest and report."""

from __future__ import annotations

import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

from marco_jax.curation.beam_runs import LOCAL, Results, run_chained, run_in_phases
from marco_jax.curation.blobs import BlobStore
from marco_jax.curation.curation_config import check
from marco_jax.curation.curation_report import bounds_of, report_of
from marco_jax.curation.document_stages import BitsPerByte
from marco_jax.curation.documents import RawDocument
from marco_jax.curation.grouping import parts_for
from marco_jax.curation.inputs import benchmark_items, matching_files, sizes_of
from marco_jax.curation.pair_stages import Similarity
from marco_jax.curation.pipeline import Job
from marco_jax.curation.tally import Tally
from marco_jax.curation.thresholds import THRESHOLDS
from marco_jax.extras import require
from marco_jax.files import new_file, write_json
from marco_jax.languages import names_in


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
    perplexity: BitsPerByte | None = None,
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
    files = matching_files(inputs)
    # Raise for names that match nothing, and for items that cannot be read, before any work.
    matching_files(names_in(config.lexicon_pairs))
    for _ in benchmark_items(config.benchmarks):
        pass
    blocked = frozenset()
    if config.blocked_hosts:
        lines = pathlib.Path(config.blocked_hosts).read_text(encoding="utf-8").split()
        blocked = frozenset(line.lower() for line in lines)
    work = out.with_name(f"{out.name}.partial").resolve()
    job = Job(
        settings=config.to_dict(),
        files=tuple(files),
        parts=parts_for(sum(sizes_of(files))),
        final=str(work / "final"),
        pieces=BlobStore(str(work / "pieces") if runner == LOCAL else ""),
        blocked=blocked,
        with_rejects=rejects is not None,
        sample=sample,
        explain=explain,
        bits_per_byte=perplexity,
        similarity=similarity,
        count_tokens=count_tokens,
    )
    _begin(job, work)
    if runner == LOCAL:
        results = run_in_phases(job, work, workers)
    else:
        results = run_chained(job, str(work / "results"), runner, options)
    report = report_of(_tally(results, sample), job.settings)
    report["pair_judges"] = sorted(results["judges"], key=lambda judge: judge["languages"])
    if explain:
        report["explained"] = _explain(results["explained"], explain, job.settings)
    if rejects:
        (work / "final" / "rejects").mkdir(parents=True, exist_ok=True)
        shutil.move(work / "final" / "rejects", rejects)
    _publish(work, out, report, config, results["shards"])
    return report


def _check_request(
    out: pathlib.Path,
    config: ConfigDict,
    rejects: pathlib.Path | None,
    perplexity: BitsPerByte | None,
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


def _tally(results: Results, sample: int) -> Tally:
    tally = Tally(sample)
    for one in results["tallies"]:
        tally.merge(json.loads(one))
    return tally


def _publish(
    work: pathlib.Path,
    out: pathlib.Path,
    report: dict[str, Any],
    config: ConfigDict,
    shards: list[dict[str, Any]],
) -> None:
    """Adds manifest and report to the corpus in `work`, moves it to `out`, and removes `work`."""
    final = work / "final"
    final.mkdir(exist_ok=True)
    manifest = {
        "shards": [
            {name: value for name, value in shard.items() if name != "kind"}
            for shard in sorted(shards, key=lambda shard: shard["file"])
            if shard["kind"] != "rejects"
        ],
        "total": report["total"],
        "settings": config.to_dict(),
        "thresholds": {code: vars(row) for code, row in THRESHOLDS.items()},
    }
    write_json(final / "manifest.json", manifest)
    write_json(final / "report.json", report)
    final.rename(out)
    shutil.rmtree(work)


def _begin(job: Job, work: pathlib.Path) -> None:
    """Prepares the work directory; removes the files of a job with other input or settings."""
    switches = [job.with_rejects, job.sample, job.explain, bool(job.similarity)]
    switches += [bool(job.count_tokens), sorted(job.blocked)]
    about = [job.files, sizes_of(job.files, times=True), job.settings, *switches]
    text = json.dumps(about, ensure_ascii=False)
    name = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()
    mark = work / "job"
    if not mark.exists() or mark.read_text() != name or (work / "final" / "report.json").exists():
        shutil.rmtree(work, ignore_errors=True)
        with new_file(mark) as file:
            file.write(name.encode())


def _explain(found: list[str], key: str, settings: dict[str, Any]) -> list[str]:
    """Lines with each score of a document and whether it was kept."""
    if not found:
        return [f"{key}: no document has this id"]
    document = RawDocument(**json.loads(sorted(found)[0]))
    lines = []
    for name, value in document.scores.items():
        low, high = bounds_of(name, document.language, settings)
        lines.append(f"{key}: {name} {value:g} (allowed {low:g} to {high:g})")
    fate = f"kept, from a group of {document.cluster} duplicates"
    if document.stage:
        fate = f"rejected by {document.stage}: {document.reason}"
    return [*lines, f"{key}: language {document.language or 'unknown'}; {fate}"]
