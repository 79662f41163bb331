"""What needs the numbers of all documents at once: copies, shared ids, caps a host, lexicons."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable, Iterator

import numpy as np

from marco_jax.curation import storage
from marco_jax.curation.documents import pair_of
from marco_jax.curation.duplicates import BANDS, clusters, comparison, links, number_of
from marco_jax.curation.inputs import expand, parts_of, read
from marco_jax.curation.lexical import Lexicon
from marco_jax.curation.stages import TABLE, Job
from marco_jax.languages import names_in

# Columns of keys: the bands, the beginning and the end; one more number stands for equal texts.
COLUMNS = BANDS + 2
# Pairs of sentences that a lexicon is learnt from.
LEXICON_PAIRS = 20_000
# How often FineWeb2 (arXiv 2506.20920) reads a document, by the size of its group of copies.
WEIGHTS = ((1, 1), (2, 2), (4, 3), (99, 5), (999, 8))


def weight_of(size: int) -> int:
    """How often a document of a group of so many copies is worth reading."""
    return next((weight for most, weight in WEIGHTS if size <= most), 1)


def link_column(column: int, job: Job) -> None:
    """Leaves the pairs of copies among documents that share one key."""
    path = job.work / "links" / f"{column}.npy"
    if path.exists():
        return
    table, names = _table(job)
    pairs = [np.zeros((0, 2), np.int64)]
    if len(table):
        order = _order(table)
        if column == COLUMNS:
            keys, compare = table["digest"], lambda one, two: np.ones(one.size, bool)
        else:
            columns = (job.work / "columns" / f"{name}.keys.npy" for name in names)
            keys = np.concatenate([np.load(path, mmap_mode="r")[column] for path in columns])
            compare = _compare(job, table, names)
        pairs += list(links(keys, order, compare))
    storage.write_array(path, np.concatenate(pairs))


def settle(job: Job) -> None:
    """Leaves for each document what becomes of it: why it goes, or how many copies it stands for.

    The best of a group of copies is its longest text, whatever the order of the input.
    """
    table, names = _table(job)
    order = _order(table)
    pairs = storage.joined(job.work / "links" / f"{n}.npy" for n in range(COLUMNS + 1))
    best, sizes = clusters(pairs, order)
    kept = best == np.arange(best.size)
    numbers = _numbers(table["key"], order)
    cut = kept & ~_within_cap(table, kept, job.settings["host_cap"])
    ids = _ids(job, names, set(best[~kept].tolist()))
    exact = table["digest"] == table["digest"][best] if best.size else kept
    row = 0
    for name in job.chunks("d"):
        stop = row + _count(job, name)
        with storage.new_rows(job.work / "verdicts" / f"{name}.zst") as add:
            for at in range(row, stop):
                reason = "cap" if cut[at] else ""
                if not kept[at]:
                    reason = f"{'exact' if exact[at] else 'near'} copy of {ids[int(best[at])]}"
                size = int(sizes[at])
                add((reason, size, int(numbers[at]), weight_of(size)))
        row = stop


def settle_pairs(job: Job) -> None:
    """The same for pairs of sentences: one for a text of either side."""
    names = job.chunks("p")
    tables = [np.load(job.work / "columns" / f"{name}.table.npy") for name in names]
    if not tables:
        return
    table = np.concatenate(tables)
    order = table["record"].view(np.int64)
    kept = np.ones(len(table), bool)
    for side in ("source", "target"):
        alive = np.flatnonzero(kept)
        kept[alive] = _numbers(table[side][alive], order[alive]) == 0
    numbers, row = _numbers(table["key"], order), 0
    for name, part in zip(names, tables, strict=True):
        with storage.new_rows(job.work / "verdicts" / f"{name}.zst") as add:
            for at in range(row, row + len(part)):
                add(("" if kept[at] else "duplicate", 1, int(numbers[at]), 1))
        row += len(part)


def learn_lexicon(languages: str, job: Job) -> None:
    """Leaves the lexicon of two languages, learnt from pairs that the rules have passed."""
    path = job.work / "lexicons" / f"{languages}.json"
    if path.exists():
        return

    def texts() -> Iterator[tuple[int, str]]:
        for name in job.chunks("p"):
            for row in storage.rows(job.work / "judged" / f"{name}.zst"):
                if row["language"] == languages:
                    yield number_of(row["text"]), row["text"]

    # The least hashes are the same pairs in any order.
    drawn = heapq.nsmallest(LEXICON_PAIRS, texts())
    given = _given_pairs(job.settings["lexicon_pairs"], languages)
    drawn += heapq.nsmallest(LEXICON_PAIRS, ((number_of(text), text) for text in given))
    pairs = [tuple(text.split("\t")) for _, text in dict.fromkeys(drawn)]
    lexicon = Lexicon.learnt(pairs, tuple(languages.split("-")))
    if lexicon:
        lexicon.save(path)


def _given_pairs(patterns: str, languages: str) -> Iterator[str]:
    """Pairs of the user's files that are in two languages; other lines are passed over."""
    names = names_in(patterns)
    for part in parts_of(expand(names)):
        for record, _ in read(part):
            with contextlib.suppress(ValueError):
                if (
                    record is not None
                    and (pair := pair_of(record, part.path)).language == languages
                ):
                    yield pair.text


def pair_languages(job: Job) -> list[str]:
    """The languages of all pairs, as "xx-yy"."""
    found = set()
    for name in job.chunks("p"):
        rows = storage.rows(job.work / "judged" / f"{name}.zst")
        found |= {row["language"] for row in rows}
    return sorted(found)


def _table(job: Job) -> tuple[np.ndarray, list[str]]:
    """Numbers of all documents that passed the rules, and the chunks that hold any."""
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
    """int64 [documents]: places from the best, which the texts alone decide."""
    order = np.empty(len(table), np.int64)
    order[np.lexsort((table["record"], -table["length"].astype(np.int64)))] = np.arange(len(table))
    return order


def _numbers(keys: np.ndarray, order: np.ndarray) -> np.ndarray:
    """int64 [documents]: how many that share the key come before in an order."""
    ranked = np.lexsort((order, keys))
    values = keys[ranked]
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]]) if values.size else ranked
    sizes = np.diff(np.r_[starts, values.size])
    numbers = np.empty(keys.size, np.int64)
    numbers[ranked] = np.arange(keys.size) - np.repeat(starts, sizes)
    return numbers


def _within_cap(table: np.ndarray, kept: np.ndarray, cap: int) -> np.ndarray:
    """Which documents are among the first of their host, in the order of their hashes."""
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
    """Signatures of all documents, left on disk: those asked for are read."""

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
