"""The cascade on Apache Beam."""

from __future__ import annotations

import collections
import dataclasses
import gzip
import json
import os
import pathlib
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam

from marco_jax.curation.benchmarks import Benchmarks
from marco_jax.curation.documents import Document, cascade, document_of, is_tsv, pair_of
from marco_jax.curation.duplicates import clusters, describe, links
from marco_jax.curation.inputs import read
from marco_jax.curation.pairs import bad_pair
from marco_jax.curation.personal import mask
from marco_jax.data.ngrams import normalized_words

REJECTED = "rejected"
# Language of a document that was thrown away before its language was known.
UNKNOWN = "und"


def build(
    pipeline: beam.Pipeline,
    files: list[str],
    settings: Mapping[str, Any],
    items: list[tuple[str, str]],
    blocked: frozenset[str],
    work: pathlib.Path,
    with_rejects: bool,
    sample: int,
) -> None:
    """Adds the whole cascade to a pipeline; it leaves data, rejects and statistics in `work`.

    Args:
        pipeline: of any runner.
        files: raw.
        settings: the fields of settings.py.
        items: benchmark items as (text, language).
        blocked: hosts.
        work: a directory that all workers write to.
        with_rejects: also write what was thrown away.
        sample: texts to keep for the report, by language, stage and reason.
    """
    read_files = (
        pipeline | beam.Create(files) | beam.Reshuffle() | beam.ParDo(_Read()).with_outputs("bad")
    )
    documents, pairs_read = read_files[None] | beam.Partition(
        lambda document, _: int("-" in document.language), 2
    )
    judged = (
        documents
        | "SameIds" >> beam.Map(lambda document: (document.id, document))
        | "ById" >> beam.GroupByKey()
        | beam.FlatMap(_distinct)
        | "Cascade" >> beam.Map(cascade, blocked, settings["foreign_lines"])
        | "PassOrNot" >> beam.Partition(lambda document, _: int(bool(document.stage)), 2)
    )
    passed, failed = judged
    pairs = (
        passed
        | "Describe" >> beam.FlatMap(_keyed)
        | "Bands" >> beam.GroupByKey()
        | beam.FlatMapTuple(
            lambda _, members: links(members, settings["near_duplicate"], settings["containment"])
        )
        | beam.combiners.ToList()
        | beam.Map(clusters)
    )
    ended = (
        passed
        | "Duplicates" >> beam.Map(_settle, beam.pvalue.AsSingleton(pairs))
        | "Finish" >> beam.ParDo(_Finish(items, settings["mask_personal_data"]))
    )
    every = (ended, failed, _pairs(pairs_read)) | beam.Flatten()
    written = every if with_rejects else every | beam.Filter(lambda document: not document.stage)
    (
        written
        | beam.Map(lambda document: (_shard(document, settings["shards"]), document))
        | "Shards" >> beam.GroupByKey()
        | beam.Map(_write, str(work))
    )
    counts = every | beam.Map(_row) | beam.CombinePerKey(_Statistics(sample))
    faults = (
        read_files["bad"]
        | beam.combiners.Count.PerElement()
        | beam.MapTuple(lambda reason, count: (("", "input", reason), {"documents": count}))
    )
    (
        (counts, faults)
        | "AllCounts" >> beam.Flatten()
        | "CountList" >> beam.combiners.ToList()
        | beam.Map(_write_counts, str(work))
    )


def _pairs(read_pairs: beam.PCollection) -> beam.PCollection:
    """The parallel cascade: rules, then one pair for a text of either side."""
    judged = (
        read_pairs
        | "SamePairs" >> beam.Map(lambda pair: (pair.id, pair))
        | "PairsById" >> beam.GroupByKey()
        | "DistinctPairs" >> beam.FlatMap(_distinct)
        | "PairRules" >> beam.Map(_judge_pair)
    )
    for side in (0, 1):
        judged = (
            judged
            | f"Side{side}" >> beam.Map(_by_side, side)
            | f"Same{side}" >> beam.GroupByKey()
            | f"One{side}" >> beam.FlatMap(_first_of_side)
        )
    return judged


def _judge_pair(pair: Document) -> Document:
    source, target = pair.text.split("\t")
    first, second = pair.language.split("-")
    reason = bad_pair(source, target, (first, second))
    return pair.rejected("pairs", reason) if reason else pair


def _by_side(pair: Document, side: int) -> tuple[str, Document]:
    # What was rejected already takes no part.
    words = " ".join(normalized_words(pair.text.split("\t")[side]))
    return f"{pair.language}\t{pair.id if pair.stage else words}\t{pair.stage}", pair


def _first_of_side(item: tuple[str, Iterable[Document]]) -> Iterator[Document]:
    first, *rest = sorted(item[1], key=lambda pair: pair.id)
    yield first
    for pair in rest:
        yield pair if pair.stage else pair.rejected("pairs", "duplicate")


class _Read(beam.DoFn):
    def process(self, path: str) -> Iterator[Any]:
        for record, fault in read(path):
            try:
                if record is None:
                    raise ValueError(fault)
                yield pair_of(record, path) if is_tsv(path) else document_of(record)
            except ValueError as error:
                yield beam.pvalue.TaggedOutput("bad", str(error))


class _Finish(beam.DoFn):
    """Masks personal data and leaves out what holds a benchmark's item."""

    def __init__(self, items: list[tuple[str, str]], masks: bool) -> None:
        self._items, self._masks = items, masks

    def setup(self) -> None:
        self._benchmarks = Benchmarks(self._items)

    def process(self, document: Document) -> Iterator[Document]:
        if not document.stage:
            if self._benchmarks.found(document.text):
                document = document.rejected("benchmarks", "holds an item")
            elif self._masks:
                text, masked = mask(document.text)
                document = dataclasses.replace(document, text=text, masked=masked)
        yield document


def _distinct(item: tuple[str, Iterable[Document]]) -> Iterator[Document]:
    """Documents that share an id: the first by text keeps it, others get a number."""
    for number, document in enumerate(sorted(item[1], key=lambda d: (d.text, d.url))):
        yield dataclasses.replace(document, id=f"{item[0]}#{number}") if number else document


def _keyed(document: Document) -> Iterator[tuple[bytes, Any]]:
    member, keys = describe(document.id, document.text)
    return ((key, member) for key in keys)


def _settle(document: Document, found: Mapping[str, tuple[str, int, bool]]) -> Document:
    kept, size, equal = found.get(document.id, (document.id, 1, False))
    document = dataclasses.replace(document, cluster=size)
    if kept == document.id:
        return document
    return document.rejected("duplicates", f"{'exact' if equal else 'near'} copy of {kept}")


def _shard(document: Document, shards: int) -> tuple[str, int]:
    number = zlib.crc32(document.id.encode("utf-8", "replace")) % shards
    return f"{document.language or UNKNOWN}{'.' + REJECTED if document.stage else ''}", number


def _write(shard: tuple[tuple[str, int], Iterable[Document]], work: str) -> None:
    (name, number), documents = shard
    path = pathlib.Path(work) / f"{name}.{number:05d}.jsonl.gz"
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    # Sorted, and without a time in its header: the same documents make the same file.
    with open(partial, "wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as out:
        for document in sorted(documents, key=lambda document: document.id):
            line = json.dumps(document.to_row(), ensure_ascii=False)
            out.write(line.encode("utf-8", "replace") + b"\n")
    os.replace(partial, path)


def _row(document: Document) -> tuple[tuple[str, str, str], tuple]:
    reason = "exact" if document.reason.startswith("exact") else document.reason
    reason = "near" if reason.startswith("near") else reason
    size = len(document.text.encode("utf-8", "replace"))
    key = (document.language or UNKNOWN, document.stage, reason)
    draw = zlib.crc32(document.id.encode("utf-8", "replace"))
    return key, (size, document.cluster, document.masked, draw, document.id, document.text[:400])


class _Statistics(beam.CombineFn):
    """Counts, bytes, masked data, sizes of clusters, and a sample that order does not change."""

    def __init__(self, sample: int) -> None:
        self._sample = sample

    def create_accumulator(self) -> dict[str, Any]:
        return {"documents": 0, "bytes": 0, "masked": 0, "clusters": {}, "sample": []}

    def add_input(self, total: dict[str, Any], row: tuple) -> dict[str, Any]:
        size, cluster, masked, draw, key, text = row
        one = {"documents": 1, "bytes": size, "masked": masked, "clusters": {str(cluster): 1}}
        return self.merge_accumulators([total, {**one, "sample": [(draw, key, text)]}])

    def merge_accumulators(self, totals: Iterable[dict[str, Any]]) -> dict[str, Any]:
        merged = self.create_accumulator()
        sizes: collections.Counter[str] = collections.Counter()
        for total in totals:
            for name in ("documents", "bytes", "masked"):
                merged[name] += total[name]
            sizes.update(total["clusters"])
            merged["sample"] = sorted([*merged["sample"], *total["sample"]])[: self._sample]
        return {**merged, "clusters": dict(sorted(sizes.items()))}

    def extract_output(self, total: dict[str, Any]) -> dict[str, Any]:
        return total


def _write_counts(rows: list[tuple], work: str) -> None:
    table = sorted(({"key": list(key), **value} for key, value in rows), key=lambda r: r["key"])
    text = json.dumps(table, ensure_ascii=False)
    (pathlib.Path(work) / "counts.json").write_text(text, encoding="utf-8", errors="replace")
