"""Transforms that count what became of documents, and write them as a corpus."""

from __future__ import annotations

import collections
import gzip
import hashlib
import heapq
import json
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from marco_jax.curation.beam_files import replace_file
from marco_jax.curation.blobs import BlobStore, pack_json_rows
from marco_jax.curation.documents import RawDocument
from marco_jax.curation.exact_duplicates import record_hash
from marco_jax.curation.grouping import FLUSH_BYTES, BundleDoFn
from marco_jax.curation.tally import UNKNOWN, Tally
from marco_jax.extras import optional

with optional():
    import apache_beam as beam
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

# Blobs that are merged at once; each is an open file.
MERGED_AT_ONCE = 128
# How often FineWeb2 (arXiv 2506.20920) repeats a document, by the size of its duplicate group.
WEIGHTS = ((1, 1), (2, 2), (4, 3), (99, 5), (999, 8))

# Kind of the documents ("docs", "pairs" or "rejects"), and language with number.
Shard = tuple[str, str]


def weight_of(size: int) -> int:
    """How often to repeat the document that is kept of `size` duplicates."""
    return next((weight for most, weight in WEIGHTS if size <= most), 1)


class CollectOutcomes(beam.PTransform):
    """Counts documents whose fate is decided, and keeps them for their file.

    The outputs are `pieces`, ((kind, shard), handle) of sorted rows; `tallies`, counts as JSON; and
    `explained`, the fields of the document whose id is `explain`, as JSON.
    """

    def __init__(
        self,
        store: BlobStore,
        *,
        shards: int = 1,
        written: bool = True,
        rehydrate: bool = False,
        sample: int = 0,
        explain: str = "",
        count_tokens: Callable[[str], int] | None = None,
    ) -> None:
        """Sets what is collected.

        Args:
            store: where the pieces are kept until they are merged.
            shards: files per language.
            written: whether the documents are wanted, or only their counts.
            rehydrate: whether each has a field `weight`, by the size of its cluster.
            sample: number of texts per language and outcome to keep with the counts.
            explain: the id of a document to trace.
            count_tokens: counts the tokens of a text.
        """
        super().__init__()
        self._function = _Collect(store, shards, written, rehydrate, sample, explain, count_tokens)

    def expand(self, documents: beam.PCollection) -> beam.pvalue.DoOutputsTuple:
        """From documents to the three outputs."""
        outputs = beam.ParDo(self._function)
        return documents | outputs.with_outputs("tallies", "explained", main="pieces")


class _Collect(BundleDoFn):
    def __init__(
        self,
        store: BlobStore,
        shards: int,
        written: bool,
        rehydrate: bool,
        sample: int,
        explain: str,
        count_tokens: Callable[[str], int] | None,
    ) -> None:
        self._store, self._shards, self._written, self._rehydrate = (
            store, shards, written, rehydrate,
        )  # fmt: skip
        self._sample, self._explain, self._count = sample, explain, count_tokens

    def start_bundle(self) -> None:
        self._tally = Tally(self._sample)
        self._rows: dict[Shard, list[tuple]] = collections.defaultdict(list)
        self._size = 0

    def process(self, document: RawDocument) -> Iterator[Any]:
        self._tally.add(document, self._count(document.text) if self._count else 0)
        if document.id == self._explain:
            state = json.dumps(document.to_state(), ensure_ascii=False)
            yield beam.pvalue.TaggedOutput("explained", state)
        if self._written:
            row = document.to_row()
            if self._rehydrate and not document.stage:
                row["weight"] = weight_of(document.cluster)
            order = document.id, record_hash(document), document.origin
            self._rows[self._shard(document)].append((order, row))
            self._size += len(document.text)
            if self._size > FLUSH_BYTES:
                yield from self._flushed()

    def rest(self) -> Iterator[tuple[str, Any]]:
        for element in self._flushed():
            yield "", element
        yield "tallies", json.dumps(self._tally.to_json(), ensure_ascii=False)

    def _flushed(self) -> Iterator[tuple[Shard, bytes]]:
        shards = sorted(self._rows)
        blobs = (pack_json_rows(sorted(self._rows[shard], key=_order)) for shard in shards)
        yield from zip(shards, self._store.write(blobs), strict=True)
        self._rows.clear()
        self._size = 0

    def _shard(self, document: RawDocument) -> Shard:
        language = document.language or document.claimed or UNKNOWN
        # A claim may be any text: use it in a file name only if it looks like a code.
        language = language if language.replace("-", "").isalnum() else UNKNOWN
        number = zlib.crc32(document.id.encode("utf-8", "replace")) % self._shards
        kind = "rejects" if document.stage else "pairs" if document.is_pair else "docs"
        return kind, f"{language}.{number:05d}"


def _order(row: tuple | list) -> tuple:
    return tuple(row[0])


class CountFaults(beam.PTransform):
    """Counts records that could not be read: from reasons to tallies as JSON."""

    def expand(self, faults: beam.PCollection) -> beam.PCollection:
        """From texts to JSON."""
        return faults | beam.combiners.Count.PerElement() | beam.Map(_faults_as_tally)


def _faults_as_tally(counted: tuple[str, int]) -> str:
    tally = Tally()
    tally.faults[counted[0]] = counted[1]
    return json.dumps(tally.to_json(), ensure_ascii=False)


class MergeTallies(beam.CombineFn):
    """Combines the JSON of tallies."""

    def __init__(self, sample: int = 0) -> None:
        """Keeps `sample` texts per outcome."""
        super().__init__()
        self._sample = sample

    def create_accumulator(self) -> Tally:
        """The counts of nothing."""
        return Tally(self._sample)

    def add_input(self, accumulator: Tally, element: str) -> Tally:
        """Adds counts."""
        accumulator.merge(json.loads(element))
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Tally]) -> Tally:
        """Adds counts."""
        total = Tally(self._sample)
        for one in accumulators:
            total.merge(one.to_json())
        return total

    def extract_output(self, accumulator: Tally) -> str:
        """The counts as JSON."""
        return json.dumps(accumulator.to_json(), ensure_ascii=False)


class WriteShards(beam.PTransform):
    """Merges the pieces of each shard into a file of JSON lines, sorted by id.

    From `pieces` of CollectOutcomes to the entries of a manifest: kind, file, documents, bytes and
    fingerprint. Files have the same bytes whatever the order of the input and the workers.
    """

    def __init__(self, folder: str, store: BlobStore, rejects: str = "") -> None:
        """Writes `folder`/KIND/xx.NNNNN.jsonl.gz, and the kind "rejects" to another folder."""
        super().__init__()
        self._folders = folder, rejects or f"{folder}/rejects"
        self._store = store

    def expand(self, pieces: beam.PCollection) -> beam.PCollection:
        """From ((kind, shard), handle) to manifest entries."""
        merge = beam.ParDo(_Merge(*self._folders, self._store))
        return pieces | "pieces of a shard" >> beam.GroupByKey() | "merge" >> merge


class _Merge(beam.DoFn):
    def __init__(self, folder: str, rejects: str, store: BlobStore) -> None:
        self._folder, self._rejects, self._store = folder, rejects, store

    def process(self, element: tuple[Shard, Iterable[bytes]]) -> Iterator[dict[str, Any]]:
        (kind, name), handles = element[0], sorted(element[1])
        while len(handles) > MERGED_AT_ONCE:
            merged = pack_json_rows(self._merged(handles[:MERGED_AT_ONCE]))
            handles = [*handles[MERGED_AT_ONCE:], *self._store.write([merged])]
        folder = self._rejects if kind == "rejects" else FileSystems.join(self._folder, kind)
        path = FileSystems.join(folder, f"{name}.jsonl.gz")
        # A repeated bundle writes a file of its own, and the last one stays, whole.
        draft = FileSystems.join(folder, f"{name}.{uuid.uuid4().hex}.draft")
        counts = _Counting(
            FileSystems.create(draft, compression_type=CompressionTypes.UNCOMPRESSED)
        )
        number = 0
        # No time in the gzip header, so that equal documents give equal files.
        with counts, gzip.GzipFile("", "wb", 6, counts, mtime=0) as out:
            for row in _with_unique_ids(self._merged(handles)):
                line = json.dumps(row, ensure_ascii=False)
                out.write(line.encode("utf-8", "replace") + b"\n")
                number += 1
        replace_file(draft, path)
        yield {
            "kind": kind,
            "file": f"{kind}/{name}.jsonl.gz",
            "documents": number,
            "bytes": counts.size,
            "fingerprint": counts.digest.hexdigest(),
        }

    def _merged(self, handles: list[bytes]) -> Iterator[list]:
        return heapq.merge(*map(self._store.rows, handles), key=_order)


def _with_unique_ids(rows: Iterable[list]) -> Iterator[dict[str, Any]]:
    """Numbers the documents that share an id, which follow one another."""
    last, number = None, 0
    for _, row in rows:
        number = number + 1 if row["id"] == last else 0
        last = row["id"]
        yield {**row, "id": f"{last}#{number}"} if number else row


class _Counting:
    """A file that counts and digests what is written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.size = file, 0
        self.digest = hashlib.blake2b(digest_size=16)

    def write(self, data: bytes) -> int:
        self.size += len(data)
        self.digest.update(data)
        self._file.write(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()

    def __enter__(self) -> _Counting:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


class WriteCorpus(beam.PTransform):
    """Writes documents and pairs as a corpus: from documents to manifest entries."""

    def __init__(self, folder: str, shards: int = 1, store: BlobStore | None = None) -> None:
        """Writes `folder`/docs and `folder`/pairs, with `shards` files for each language."""
        super().__init__()
        self._folder, self._shards, self._store = folder, shards, store or BlobStore()

    def expand(self, documents: beam.PCollection) -> beam.PCollection:
        """From documents to manifest entries."""
        found = documents | CollectOutcomes(self._store, shards=self._shards)
        return found.pieces | WriteShards(self._folder, self._store)
