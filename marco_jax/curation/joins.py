"""The stages that need all documents at once: duplicates, shared ids, host caps and lexicons.

Documents pass from chunk to chunk as rows of numeric tables: a row's index is its chunk's offset
plus its position in the chunk. `link_column` finds pairs of duplicates for one key of these tables,
and can run for all keys in parallel. `resolve_duplicates` joins the pairs into groups and writes
one verdict per row, in the order of the chunks, which `stages.finish_chunk` applies.
"""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable, Iterator

import numpy as np

from marco_jax.curation import storage
from marco_jax.curation.documents import pair_of
from marco_jax.curation.duplicates import BANDS, clusters, comparison, hash64, links
from marco_jax.curation.inputs import matching_files, parts_of, read
from marco_jax.curation.lexical import Lexicon
from marco_jax.curation.stages import TABLE, Job
from marco_jax.languages import names_in

# Columns of keys: the bands, the start and the end. Column COLUMNS is the digest of the whole text.
COLUMNS = BANDS + 2
# Maximum number of sentence pairs that a lexicon is trained on, per source of pairs.
LEXICON_PAIRS = 20_000
# How often FineWeb2 (arXiv 2506.20920) repeats a document, by the size of its duplicate group.
WEIGHTS = ((1, 1), (2, 2), (4, 3), (99, 5), (999, 8))


def weight_of(size: int) -> int:
    """How often to repeat the document that is kept of `size` duplicates."""
    return next((weight for most, weight in WEIGHTS if size <= most), 1)


def link_column(column: int, job: Job) -> None:
    """Writes the pairs of duplicates among documents that share the key of one column."""
    path = job.work / "links" / f"{column}.npy"
    if path.exists():
        return
    table, names = _table(job)
    pairs = [np.zeros((0, 2), np.int64)]
    if len(table):
        order = _order(table)
        if column == COLUMNS:
            # Equal digests need no comparison of signatures.
            keys, compare = table["digest"], lambda one, two: np.ones(one.size, bool)
        else:
            columns = (job.work / "columns" / f"{name}.keys.npy" for name in names)
            keys = np.concatenate([np.load(path, mmap_mode="r")[column] for path in columns])
            compare = _compare(job, table, names)
        pairs += list(links(keys, order, compare))
    storage.write_array(path, np.concatenate(pairs))


def resolve_duplicates(job: Job) -> None:
    """Writes a verdict for each document: why it is rejected, or its number of duplicates.

    Groups are the connected components of the pairs that `link_column` found. The longest text of
    a group is kept, whatever the order of the input; then each host keeps at most `host_cap`
    documents. Documents that share an id are numbered, so that `finish_chunk` can make ids unique.
    """
    table, names = _table(job)
    order = _order(table)
    pairs = storage.joined(job.work / "links" / f"{n}.npy" for n in range(COLUMNS + 1))
    best, sizes = clusters(pairs, order)
    kept = best == np.arange(best.size)
    numbers = _numbers(table["key"], order)
    capped = kept & ~_within_cap(table, kept, job.settings["host_cap"])
    ids = _ids(job, names, set(best[~kept].tolist()))
    exact = table["digest"] == table["digest"][best] if best.size else kept
    row = 0
    for name in job.chunks("d"):
        stop = row + _count(job, name)
        with storage.new_rows(job.work / "verdicts" / f"{name}.zst") as add:
            for at in range(row, stop):
                reason = "cap" if capped[at] else ""
                if not kept[at]:
                    reason = f"{'exact' if exact[at] else 'near'} copy of {ids[int(best[at])]}"
                size = int(sizes[at])
                add((reason, size, int(numbers[at]), weight_of(size)))
        row = stop


def resolve_pair_duplicates(job: Job) -> None:
    """Writes verdicts for sentence pairs: of pairs with an equal side, the first is kept."""
    names = job.chunks("p")
    tables = [np.load(job.work / "columns" / f"{name}.table.npy") for name in names]
    if not tables:
        return
    table = np.concatenate(tables)
    order = table["record"].view(np.int64)
    kept = np.ones(len(table), bool)
    for side in ("source", "target"):
        remaining = np.flatnonzero(kept)
        kept[remaining] = _numbers(table[side][remaining], order[remaining]) == 0
    numbers, row = _numbers(table["key"], order), 0
    for name, part in zip(names, tables, strict=True):
        with storage.new_rows(job.work / "verdicts" / f"{name}.zst") as add:
            for at in range(row, row + len(part)):
                add(("" if kept[at] else "duplicate", 1, int(numbers[at]), 1))
        row += len(part)


def train_lexicon(languages: str, job: Job) -> None:
    """Trains the lexicon of a language pair on sentence pairs that passed the rules; writes it."""
    path = job.work / "lexicons" / f"{languages}.json"
    if path.exists():
        return

    def texts() -> Iterator[tuple[int, str]]:
        for name in job.chunks("p"):
            for row in storage.rows(job.work / "judged" / f"{name}.zst"):
                if row["language"] == languages:
                    yield hash64(row["text"]), row["text"]

    # The pairs with the smallest hashes are a random sample that ignores the order of the input.
    drawn = heapq.nsmallest(LEXICON_PAIRS, texts())
    given = _given_pairs(job.settings["lexicon_pairs"], languages)
    drawn += heapq.nsmallest(LEXICON_PAIRS, ((hash64(text), text) for text in given))
    pairs = [tuple(text.split("\t")) for _, text in dict.fromkeys(drawn)]
    lexicon = Lexicon.train(pairs, tuple(languages.split("-")))
    if lexicon:
        lexicon.save(path)


def _given_pairs(patterns: str, languages: str) -> Iterator[str]:
    """Yields the pairs of the user's files in two languages; skips faulty lines."""
    names = names_in(patterns)
    for part in parts_of(matching_files(names)):
        for record in read(part):
            if record.fields is None:
                continue
            with contextlib.suppress(ValueError):
                pair = pair_of(record.fields, part.path)
                if pair.language == languages:
                    yield pair.text


def pair_languages(job: Job) -> list[str]:
    """The language pairs ("xx-yy") of all sentence pairs."""
    found = set()
    for name in job.chunks("p"):
        rows = storage.rows(job.work / "judged" / f"{name}.zst")
        found |= {row["language"] for row in rows}
    return sorted(found)


def _table(job: Job) -> tuple[np.ndarray, list[str]]:
    """The table of all documents that passed the rules, and the names of chunks that hold any."""
    names, tables = [], [np.zeros(0, TABLE)]
    for name in job.chunks("d"):
        table = np.load(job.work / "columns" / f"{name}.table.npy")
        tables.append(table)
        if len(table):
            names.append(name)
    return np.concatenate(tables), names


def _count(job: Job, name: str) -> int:
    return len(np.load(job.work / "columns" / f"{name}.table.npy", mmap_mode="r"))


def _order(table: np.ndarray) -> np.ndarray:
    """int64 [documents]: rank by length, longest first; ties by content, not by input order."""
    order = np.empty(len(table), np.int64)
    order[np.lexsort((table["record"], -table["length"].astype(np.int64)))] = np.arange(len(table))
    return order


def _numbers(keys: np.ndarray, order: np.ndarray) -> np.ndarray:
    """int64 [documents]: how many documents with the same key come earlier in `order`."""
    ranked = np.lexsort((order, keys))
    values = keys[ranked]
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]]) if values.size else ranked
    sizes = np.diff(np.r_[starts, values.size])
    numbers = np.empty(keys.size, np.int64)
    numbers[ranked] = np.arange(keys.size) - np.repeat(starts, sizes)
    return numbers


def _within_cap(table: np.ndarray, kept: np.ndarray, cap: int) -> np.ndarray:
    """Which documents are among the first `cap` of their host, in the order of their hashes."""
    within = np.ones(len(table), bool)
    if cap:
        counted = np.flatnonzero(kept & (table["host"] > 0))
        draws = table["record"][counted].view(np.int64)
        within[counted] = _numbers(table["host"][counted], draws) < cap
    return within


def _ids(job: Job, names: list[str], wanted: set[int]) -> dict[int, str]:
    ids, row = {}, 0
    for name in names:
        for key in storage.rows(job.work / "columns" / f"{name}.ids.zst"):
            if row in wanted:
                ids[row] = key
            row += 1
    return ids


def _compare(
    job: Job, table: np.ndarray, names: list[str]
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    paths = [job.work / "columns" / f"{name}.signatures.npy" for name in names]
    counts = [_count(job, name) for name in names]
    near, inside = job.settings["near_duplicate"], job.settings["containment"]
    return comparison(_Signatures(paths, counts), table["size"], near, inside)


class _Signatures:
    """Signatures of all documents, memory-mapped; indexing reads the requested rows."""

    def __init__(self, paths: list, counts: list[int]) -> None:
        self._parts = [np.load(path, mmap_mode="r") for path in paths]
        self._starts = np.r_[0, np.cumsum(counts)]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty((rows.size, self._parts[0].shape[1]), np.uint16)
        parts = np.searchsorted(self._starts, rows, side="right") - 1
        for part in np.unique(parts).tolist():
            here = parts == part
            found[here] = self._parts[part][rows[here] - self._starts[part]]
        return found
