"""Runs a curation job: reads raw files, writes a corpus with manifest and report."""

from __future__ import annotations

import collections
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

from marco_jax.curation.beam_files import file_exists, is_beam_url, write_whole
from marco_jax.curation.beam_runs import LOCAL, Results, run_chained, run_in_phases
from marco_jax.curation.blobs import BlobStore
from marco_jax.curation.curation_config import check
from marco_jax.curation.curation_report import bounds_of, report_of
from marco_jax.curation.document_stages import BitsPerByte
from marco_jax.curation.documents import RawDocument
from marco_jax.curation.grouping import parts_for
from marco_jax.curation.inputs import benchmark_items, matching_files, parts_of, read, sizes_of
from marco_jax.curation.pair_stages import Similarity
from marco_jax.curation.pipeline import Job
from marco_jax.curation.tally import Tally
from marco_jax.curation.thresholds import THRESHOLDS
from marco_jax.extras import require
from marco_jax.files import new_file
from marco_jax.languages import names_in


def curate(
    inputs: tuple[str, ...],
    out: str | os.PathLike,
    config: ConfigDict,
    *,
    runner: Any = LOCAL,
    options: Sequence[str] = (),
    workers: int = 1,
    rejects: str | os.PathLike = "",
    sample: int = 0,
    explain: str = "",
    perplexity: BitsPerByte | None = None,
    similarity: Similarity | None = None,
    count_tokens: Callable[[str], int] | None = None,
) -> dict[str, Any]:
    """Runs all curation stages and creates `out`.

    `out` holds the corpus, docs/xx.NNNNN.jsonl.gz and pairs/xx-yy.NNNNN.jsonl.gz, which training
    reads as `config.data`, with manifest.json and report.json. A folder appears whole or not at
    all; in an object store the manifest is written last. A killed run of the local runner resumes
    if it is started again with the same input and settings.

    Args:
        inputs: paths and globs, local or of an object store.
        out: a new directory, local or of an object store; all workers must see it and the inputs.
        config: fields of curation_config.py.
        runner: "local", "dask", or the name of another Beam runner.
        options: options of that runner.
        workers: processes of the local runner.
        rejects: a new directory for rejected documents.
        sample: number of texts per language and outcome to show in the report.
        explain: the id of a document to trace.
        perplexity: computes bits per byte; must be picklable for runners with several processes.
        similarity: similarity in meaning of two sentences, 0 to 1; by default from a judge that
            is trained on the pairs.
        count_tokens: counts the tokens of a text, for the report.

    Returns:
        The report, with lines under "explained" if `explain` is set.

    Raises:
        ValueError: a setting is invalid, or a directory already exists.
        FileNotFoundError: there is no input.
        MissingExtra: a package of the extra "curation" is not installed.
    """
    out, rejects = os.fspath(out), os.fspath(rejects)
    _check_request(out, config, rejects, perplexity, workers)
    work = _work_directory(out)
    files = _files(inputs, config)
    job = Job(
        settings=config.to_dict(),
        files=tuple(files),
        parts=parts_for(sum(sizes_of(files))),
        final=out if is_beam_url(out) else str(work / "final"),
        rejects=rejects if is_beam_url(rejects) else rejects and str(work / "rejects"),
        pieces=BlobStore(str(work / "pieces") if runner == LOCAL else ""),
        blocked=frozenset(_hosts(config.blocked_hosts)),
        sample=sample,
        explain=explain,
        bits_per_byte=perplexity,
        similarity=similarity,
        count_tokens=count_tokens,
    )
    _begin(job, work, resumed=runner == LOCAL)
    if runner == LOCAL:
        results = run_in_phases(job, work, workers)
    else:
        folder = f"{out}/results" if is_beam_url(out) else str(work / "results")
        results = run_chained(job, folder, _runner(runner), options)
    report = _report(results, job)
    if rejects and not is_beam_url(rejects):
        pathlib.Path(job.rejects).mkdir(exist_ok=True)
        shutil.move(job.rejects, rejects)
    _publish(job, out, report, results["shards"])
    shutil.rmtree(work)
    return report


def _files(inputs: tuple[str, ...], config: ConfigDict) -> list[str]:
    """The files to read, before any work is done; see `curate` for what is raised."""
    files = matching_files(inputs)
    matching_files(names_in(config.lexicon_pairs))
    # Read once, for a fault of a record.
    collections.deque(benchmark_items(config.benchmarks), 0)
    return files


def _runner(name: Any) -> Any:
    """The runner of a name; Dask's is the repaired one."""
    if name in ("dask", "DaskRunner"):
        from marco_jax.curation.dask_runner import ClusterRunner

        return ClusterRunner()
    return name


def _work_directory(out: str) -> pathlib.Path:
    """The local directory of all that is stored until the corpus is written."""
    if not is_beam_url(out):
        return pathlib.Path(out).with_name(f"{pathlib.Path(out).name}.partial").resolve()
    name = hashlib.blake2b(out.encode(), digest_size=8).hexdigest()
    return pathlib.Path(tempfile.gettempdir()) / f"marco-curate-{name}"


def _check_request(
    out: str, config: ConfigDict, rejects: str, perplexity: BitsPerByte | None, workers: int
) -> None:
    """Refuses settings and directories that cannot be used; see `curate`."""
    require("curation")
    check(config)
    for directory in filter(None, (out, rejects)):
        local = not is_beam_url(directory) and pathlib.Path(directory).exists()
        if local or file_exists(f"{directory}/manifest.json"):
            raise ValueError(f"{directory} exists: name a new directory")
    if rejects and pathlib.Path(out).resolve() in pathlib.Path(rejects).resolve().parents:
        raise ValueError(
            f"--rejects={rejects} is inside --out and would be read as training text: move it"
        )
    if workers < 1:
        raise ValueError(f"--workers={workers}: write 1 or more")
    if config.perplexity_model and perplexity is None:
        raise ValueError("config.perplexity_model needs a model: pass `perplexity`")


def _hosts(path: str) -> list[str]:
    """The hosts of a file, between white space."""
    if not path:
        return []
    records = (record for part in parts_of(matching_files((path,))) for record in read(part))
    texts = (record.fields["text"] for record in records if record.fields)
    return [host for text in texts for host in text.lower().split()]


def _report(results: Results, job: Job) -> dict[str, Any]:
    tally = Tally(job.sample)
    for one in results["tallies"]:
        tally.merge(json.loads(one))
    report = report_of(tally, job.settings)
    report["pair_judges"] = sorted(results["judges"], key=lambda judge: judge["languages"])
    if job.explain:
        report["explained"] = _explain(results["explained"], job.explain, job.settings)
    return report


def _publish(job: Job, out: str, report: dict[str, Any], shards: list[dict[str, Any]]) -> None:
    """Adds report and manifest to the corpus; a local one is then moved to `out`."""
    manifest = {
        "shards": [
            {name: value for name, value in shard.items() if name != "kind"}
            for shard in sorted(shards, key=lambda shard: shard["file"])
            if shard["kind"] != "rejects"
        ],
        "total": report["total"],
        "settings": job.settings,
        "thresholds": {code: vars(row) for code, row in THRESHOLDS.items()},
    }
    for name, value in (("report.json", report), ("manifest.json", manifest)):
        text = json.dumps(value, ensure_ascii=False, indent=2)
        write_whole(f"{job.final}/{name}", f"{text}\n".encode())
    if not is_beam_url(out):
        pathlib.Path(job.final).rename(out)


def _begin(job: Job, work: pathlib.Path, resumed: bool) -> None:
    """Prepares the work directory; removes the files of a job with other input or settings."""
    settings = job.settings
    switches = [job.rejects, job.sample, job.explain, bool(job.similarity)]
    switches += [bool(job.count_tokens), sorted(job.blocked)]
    other = matching_files(names_in(f"{settings['benchmarks']},{settings['lexicon_pairs']}"))
    files = [*job.files, *other]
    about = [files, sizes_of(files, times=True), settings, *switches]
    text = json.dumps(about, ensure_ascii=False)
    name = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()
    mark = work / "job"
    resumed &= mark.exists() and mark.read_text() == name
    if not resumed or (work / "final" / "report.json").exists():
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
