"""The stages that workers run on one part of the input, or on one chunk of documents.

Each stage writes its results atomically, its counts last: a restarted run skips stages whose counts
exist. Only tables of numbers are ever combined over chunks, never texts.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import heapq
import json
import pathlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from marco_jax.curation import boilerplate, storage
from marco_jax.curation.cascade import Perplexity, apply_rules, prepare
from marco_jax.curation.curation_config import bits_by_language, codes, field_names
from marco_jax.curation.decontamination import BenchmarkItems
from marco_jax.curation.documents import RawDocument, document_of, is_tsv, pair_of
from marco_jax.curation.duplicates import describe_text, hash64
from marco_jax.curation.inputs import Part, read
from marco_jax.curation.lexical import Lexicon
from marco_jax.curation.pair_rules import Similarity, bad_pair
from marco_jax.curation.personal import mask
from marco_jax.curation.tally import UNKNOWN, Tally
from marco_jax.files import new_file, write_json
from marco_jax.ngrams import normalized_words

# Size of a chunk's text, which bounds the memory for its numbers.
CHUNK_BYTES = 64 << 20
# Files that are merged at once.
MERGE_FILES = 128
# Documents per call of the perplexity model.
SCORE_BATCH = 64

# A document: hashes of its id, of all of it, of its folded text, and of its host; the number of
# its n-grams, and its length, by which the best of a group is chosen.
TABLE = np.dtype(
    [(name, np.uint64) for name in ("key", "record", "digest", "host")]
    + [("size", np.uint32), ("length", np.uint32)]
)
# A pair: hashes of its id, of all of it, and of its sides.
PAIRS = np.dtype([(name, np.uint64) for name in ("key", "record", "source", "target")])


@dataclasses.dataclass(frozen=True)
class Job:
    """The settings that all workers share; see `curate.curate`."""

    work: pathlib.Path
    settings: dict[str, Any]
    items: tuple[tuple[str, str], ...] = ()
    blocked: frozenset[str] = frozenset()
    with_rejects: bool = False
    sample: int = 0
    perplexity: Perplexity | None = None
    similarity: Similarity | None = None
    count_tokens: Callable[[str], int] | None = None

    def chunks(self, kind: str = "[dp]") -> list[str]:
        """Names of the chunks of documents ("d") or of pairs ("p"), in order."""
        found = (self.work / "read").glob(f"{kind}*.zst")
        return sorted(path.name.removesuffix(".zst") for path in found)

    def done(self, stage: str, name: str) -> bool:
        """Whether a stage has finished a part or chunk."""
        return self._counts(stage, name).exists()

    def finish(self, stage: str, name: str, tally: Tally) -> None:
        """Writes the counts, which also marks the work as done."""
        write_json(self._counts(stage, name), tally.to_json())

    def _counts(self, stage: str, name: str) -> pathlib.Path:
        return self.work / "counts" / f"{stage}.{name}.json"


class _Pieces:
    """Writes the decided documents of one worker by language and shard, sorted by id."""

    def __init__(self, job: Job, tally: Tally, name: str) -> None:
        self._job, self._tally, self._name = job, tally, name
        self._rows: dict[tuple[str, str], list[dict[str, Any]]] = collections.defaultdict(list)
        self._size = self._written = 0

    def add(self, document: RawDocument, extra: dict[str, Any] | None = None) -> None:
        """Counts a document whose outcome is decided, and keeps it for its file."""
        count = self._job.count_tokens
        self._tally.add(document, count(document.text) if count else 0)
        if document.stage and not self._job.with_rejects:
            return
        language = document.language or document.claimed or UNKNOWN
        # A claim may be any text: use it in a file name only if it looks like a code.
        language = language if language.replace("-", "").isalnum() else UNKNOWN
        number = zlib.crc32(document.id.encode("utf-8", "replace")) % self._job.settings["shards"]
        kind = "rejects" if document.stage else "pairs" if document.is_pair else "docs"
        row = {**document.to_row(), **(extra or {})}
        self._rows[kind, f"{language}.{number:05d}"].append(row)
        self._size += len(document.text)
        if self._size > CHUNK_BYTES:
            self.write()

    def write(self) -> None:
        """Writes a file for each language and shard."""
        for (kind, shard), rows in self._rows.items():
            name = f"{self._name}-{self._written}.zst"
            with storage.new_rows(self._job.work / "pieces" / kind / shard / name) as add:
                for row in sorted(rows, key=lambda row: row["id"]):
                    add(row)
        self._rows.clear()
        self._size, self._written = 0, self._written + 1


def read_part(part: Part, job: Job) -> None:
    """Reads, extracts and normalises documents; writes chunks and tables of their lines."""
    if job.done("read", f"{part.number:05d}"):
        return
    tally = Tally(job.sample)
    pieces = _Pieces(job, tally, f"read{part.number:05d}")
    kind = "p" if is_tsv(part.path) else "d"
    found = _prepared(part, job, tally, pieces)
    for number, chunk in enumerate(_chunked(found)):
        name = f"{kind}{part.number:05d}-{number:05d}"
        keys = [np.zeros((0, 2), np.uint64)]
        with storage.new_rows(job.work / "read" / f"{name}.zst") as add:
            for document in chunk:
                add(document.to_state())
                if kind == "d" and job.settings["boilerplate_documents"]:
                    keys.append(boilerplate.line_keys(document.text))
        storage.write_array(job.work / "lines" / f"{name}.npy", np.concatenate(keys))
    pieces.write()
    job.finish("read", f"{part.number:05d}", tally)


def collect_boilerplate(number: int, job: Job) -> None:
    """Writes the hashes of boilerplate lines, for one part of all hashes."""
    tables = [job.work / "lines" / f"{name}.npy" for name in job.chunks("d")]
    least = job.settings["boilerplate_documents"]
    found = boilerplate.shared_lines(tables, least, number) if least else np.zeros(0, np.uint64)
    storage.write_array(job.work / "shared" / f"{number}.npy", found)


def judge_chunk(name: str, job: Job) -> None:
    """Applies the rules to a chunk; writes documents that pass, and their numeric tables."""
    if job.done("judge", name):
        return
    tally = Tally(job.sample)
    pieces = _Pieces(job, tally, f"judge{name}")
    documents = (RawDocument(**row) for row in storage.rows(job.work / "read" / f"{name}.zst"))
    passed: Iterable[RawDocument] = map(_judged_pair if name[0] == "p" else _judge(job), documents)
    if job.perplexity and name[0] == "d":
        passed = _scored(passed, job)
    describes = _describe_pair if name[0] == "p" else _describe_document
    columns = _Columns(job, name)
    with storage.new_rows(job.work / "judged" / f"{name}.zst") as add:
        for document in passed:
            if document.stage:
                pieces.add(document)
            else:
                add(document.to_state())
                columns.add(document.id, describes(document))
    columns.write()
    pieces.write()
    job.finish("judge", name, tally)


def finish_chunk(name: str, job: Job) -> None:
    """Applies the verdicts on duplicates, masks personal data and rejects benchmark items."""
    if job.done("finish", name):
        return
    tally = Tally(job.sample)
    pieces = _Pieces(job, tally, f"finish{name}")
    documents = storage.rows(job.work / "judged" / f"{name}.zst")
    verdicts = storage.rows(job.work / "verdicts" / f"{name}.zst")
    benchmarks = _benchmarks(job.items)
    lexicons = functools.lru_cache(maxsize=None)(functools.partial(_lexicon, job))
    for row, (reason, size, number, weight) in zip(documents, verdicts, strict=True):
        document = RawDocument(**row)
        key = f"{document.id}#{number}" if number else document.id
        document = dataclasses.replace(document, id=key, cluster=size)
        if reason:
            stage = "pairs" if document.is_pair else "host" if reason == "cap" else "duplicates"
            document = document.rejected(stage, reason)
        elif document.is_pair:
            document = _similar(document, lexicons(document.language), job)
        else:
            document = _masked(document, job, benchmarks)
        pieces.add(document, {"weight": weight} if job.settings["rehydrate"] else None)
    pieces.write()
    job.finish("finish", name, tally)


def merge_shard(shard: tuple[str, str], job: Job, target: pathlib.Path) -> None:
    """Merges the pieces of one shard, sorted by id, into a file of JSON lines."""
    import gzip

    kind, name = shard
    folder = job.work / "pieces" / kind / name
    # Skip intermediate files of an earlier, killed merge.
    pieces = sorted(path for path in folder.glob("*.zst") if not path.name.startswith("merged"))
    number = 0
    while len(pieces) > MERGE_FILES:
        path = folder / f"merged{number}.zst"
        with storage.new_rows(path) as add:
            for row in _merged(pieces[:MERGE_FILES]):
                add(row)
        pieces, number = [*pieces[MERGE_FILES:], path], number + 1
    # No time in the gzip header, so that equal documents give equal files.
    with (
        new_file(target / f"{name}.jsonl.gz") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as out,
    ):
        for row in _merged(pieces):
            out.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")


class _Columns:
    """Collects the numbers of a chunk's documents and writes them as tables."""

    def __init__(self, job: Job, name: str) -> None:
        self._path, self._ids, self._rows = job.work / "columns", [], []
        self._name = name

    def add(self, key: str, row: tuple) -> None:
        self._ids.append(key)
        self._rows.append(row)

    def write(self) -> None:
        path, name = self._path, self._name
        with storage.new_rows(path / f"{name}.ids.zst") as add:
            for key in self._ids:
                add(key)
        dtype = PAIRS if name[0] == "p" else TABLE
        table = np.array([row[0] for row in self._rows], dtype)
        storage.write_array(path / f"{name}.table.npy", table)
        if name[0] == "d" and self._rows:
            # [keys, documents]: `joins.link_column` reads one key of all documents.
            keys = np.stack([row[1] for row in self._rows], axis=1)
            storage.write_array(path / f"{name}.keys.npy", np.ascontiguousarray(keys))
            storage.write_array(
                path / f"{name}.signatures.npy", np.stack([row[2] for row in self._rows])
            )


def _describe_document(document: RawDocument) -> tuple:
    found = describe_text(document.text, document.language)
    record = hash64(f"{document.id}\0{document.text}\0{document.url}")
    host = hash64(document.host) if document.host else 0
    length = min(len(document.text), (1 << 32) - 1)
    row = (hash64(document.id), record, found.digest, host, found.size, length)
    return row, found.keys, found.signature


def _describe_pair(pair: RawDocument) -> tuple:
    sides = [" ".join(normalized_words(side)) for side in pair.text.split("\t")]
    keys = [hash64(f"{pair.language}\t{side}") for side in sides]
    return ((hash64(pair.id), hash64(f"{pair.id}\0{pair.text}"), *keys),)


def _prepared(part: Part, job: Job, tally: Tally, pieces: _Pieces) -> Iterator[RawDocument]:
    names = field_names(job.settings["fields"])
    for record in read(part):
        try:
            if record.fields is None:
                raise ValueError(record.fault)
            if is_tsv(part.path):
                yield pair_of(record.fields, part.path)
                continue
            document = prepare(document_of(record.fields, names), job.blocked)
        except ValueError as error:
            tally.faults[str(error)] += 1
            continue
        if document.stage:
            pieces.add(document)
        else:
            yield document


def _chunked(documents: Iterator[RawDocument]) -> Iterator[Iterator[RawDocument]]:
    """Yields groups of about CHUNK_BYTES; each must be consumed before the next."""

    def chunk(first: RawDocument) -> Iterator[RawDocument]:
        size = 0
        document: RawDocument | None = first
        while document is not None:
            size += len(document.text)
            yield document
            document = next(documents, None) if size < CHUNK_BYTES else None

    while (first := next(documents, None)) is not None:
        yield chunk(first)


def _judge(job: Job) -> Callable[[RawDocument], RawDocument]:
    paths = sorted((job.work / "shared").glob("*.npy"))
    shared = frozenset(storage.joined(paths).tolist()) if paths else frozenset()
    accepted, foreign = codes(job.settings["languages"]), job.settings["foreign_lines"]

    def judge(document: RawDocument) -> RawDocument:
        text = boilerplate.without_lines(document.text, shared)
        return apply_rules(dataclasses.replace(document, text=text), foreign, accepted)

    return judge


def _judged_pair(pair: RawDocument) -> RawDocument:
    source, target = pair.text.split("\t")
    first, second = pair.language.split("-")
    reason = bad_pair(source, target, (first, second))
    return pair.rejected("pairs", reason) if reason else pair


def _scored(documents: Iterable[RawDocument], job: Job) -> Iterator[RawDocument]:
    """Adds the model's bits per byte to documents; rejects those above the bound."""
    most = bits_by_language(job.settings["most_bits_per_byte"])
    held: list[RawDocument] = []

    def flush() -> Iterator[RawDocument]:
        held.sort(key=lambda document: document.language)
        for start in range(0, len(held), SCORE_BATCH):
            part = held[start : start + SCORE_BATCH]
            bits = job.perplexity([d.text for d in part], [d.language for d in part])
            for document, value in zip(part, bits, strict=True):
                document.scores["bits a byte"] = round(float(value), 4)
                bound = most.get(document.language, most.get("", float("inf")))
                yield document.rejected("perplexity", "high") if value > bound else document
        held.clear()

    for document in documents:
        if document.stage:
            yield document
        else:
            held.append(document)
            if len(held) >= 16 * SCORE_BATCH:
                yield from flush()
    yield from flush()


def _masked(document: RawDocument, job: Job, benchmarks: BenchmarkItems) -> RawDocument:
    if job.settings["mask_personal_data"]:
        text, count = mask(document.text)
        document = dataclasses.replace(document, text=text, masked=count)
    if benchmarks.match(document.text):
        return document.rejected("benchmarks", "holds an item")
    return document


def _similar(pair: RawDocument, lexicon: Lexicon | None, job: Job) -> RawDocument:
    measure = job.similarity or (lexicon.similarity if lexicon else None)
    if measure is None:
        return pair
    value = round(float(measure(*pair.text.split("\t"))), 4)
    pair = dataclasses.replace(pair, scores={"similarity": value})
    low = value < job.settings["pair_similarity"]
    return pair.rejected("pairs", "similarity") if low else pair


def _lexicon(job: Job, language: str) -> Lexicon | None:
    return Lexicon.load(job.work / "lexicons" / f"{language}.json")


@functools.lru_cache(maxsize=1)
def _benchmarks(items: tuple[tuple[str, str], ...]) -> BenchmarkItems:
    return BenchmarkItems(items)


def _merged(pieces: list[pathlib.Path]) -> Iterator[dict[str, Any]]:
    return heapq.merge(*map(storage.rows, pieces), key=lambda row: row["id"])
